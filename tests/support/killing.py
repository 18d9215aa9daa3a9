"""What is done to a collection while its process is killed, and a process that forks the ones that do it.

Run as ``python killing.py``: it imports everything once, and forks a child for each line ``KIND PATH FIRST`` on its input. The
child says its process id, then "ready", the number of each step that has returned, and "done"; then it waits to be killed. Once
it is dead, its parent says "dead".
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rarebit import Collection, Compare
from rarebit.retrievers.collection import index_cache, inverted_lists, training

Step = Callable[[Collection], object]

DIM = 16
MINIMUM = 150
GROWN = 8 * MINIMUM
CACHED_FROM = 100
"""Rows from which there is an index beside the file."""

AT_ONCE = 64
"""Rows encoded in one transaction, so that a recompression has many."""

LONGEST_LIFE = 60


def vectors_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def put(collection: Any, seed: int, ids: list[str]) -> None:
    """Add rows whose texts tell which vectors they have."""
    texts, metadatas = [f"{seed} {row}" for row in range(len(ids))], [{"n": row % 5} for row in range(len(ids))]
    collection.add(vectors_of(seed, len(ids)), texts=texts, metadatas=metadatas, ids=ids, batch_size=16)


def names(first: int, count: int) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def backup_of(collection: Collection) -> Path:
    assert collection.path is not None
    return collection.path.with_suffix(".backup")


def adding(seed: int, first: int, count: int, tenant: str | None = None) -> Step:
    return lambda collection: put(collection if tenant is None else collection.tenant(tenant), seed, names(first, count))


def learning_lists(collection: Collection) -> None:
    """Add rows that bring so many that inverted lists are learned."""
    usual, inverted_lists.LISTS_FROM = inverted_lists.LISTS_FROM, 1
    try:
        put(collection, 400, names(2000, 20))
    finally:
        inverted_lists.LISTS_FROM = usual


def backing_up(collection: Collection) -> None:
    collection.backup(backup_of(collection), overwrite=True)


STEPS: dict[str, list[Step]] = {
    "new rows": [adding(100 + step, 1000 + 40 * step, 40) for step in range(6)],
    "replaced rows": [adding(100 + step, 13 * step, 40) for step in range(6)],
    "deletion by ids": [lambda c, step=step: c.delete(names(25 * step, 20)) for step in range(8)],  # type: ignore[misc]
    "deletion by filter": [lambda c, n=n: c.delete(filter=Compare("n", "eq", n)) for n in range(4)],  # type: ignore[misc]
    "deletion of all": [step for turn in range(3) for step in (lambda c: c.delete_all(), adding(200 + turn, 0, 60))],
    "training": [adding(100, 1000, 20), lambda c: c.delete_all(), adding(101, 0, MINIMUM + 10)],
    "training again": [adding(100, 5000, 20)],
    "inverted lists": [lambda c: c.search(vectors_of(0, 1)[0]), learning_lists, adding(100, 3000, 20)],
    "recompression": [lambda c: c.recompress(), lambda c: c.recompress(fine="residual4"), lambda c: c.recompress(codec="sq8")],
    "recompression of int8": [
        lambda c: c.recompress(),
        lambda c: c.recompress(codec="sq4"),
        lambda c: c.recompress(fine="int4"),
    ],
    "compaction": [lambda c: c.delete(names(0, 80)), lambda c: c.compact(), lambda c: c.delete_all(), lambda c: c.compact()],
    "backup": [backing_up, adding(100, 1000, 40), backing_up],
    "sharing": [
        lambda c: c.share(filter=Compare("n", "lt", 3)),
        lambda c: c.share(names(100, 20), tenants=["ann", "cid"]),
        lambda c: c.unshare(names(0, 30)),
        lambda c: c.tenant("ann").delete(names(35, 20)),
        adding(300, 40, 20, "bob"),
        lambda c: c.unshare(tenants=["ann"]),
    ],
    "tenants": [adding(300 + step, 10 * step, 20, "ann" if step % 2 else f"tenant {step}") for step in range(6)],
    "deletion of tenants": [lambda c: c.delete_tenant("ann"), adding(300, 0, 30, "ann"), lambda c: c.delete_tenant("bob")],
    "creation": [adding(100, 0, 40), adding(101, 40, 40)],
}


def prepare(kind: str, path: Path) -> None:
    """Make the file that a kind of steps begins with; none for the creation."""
    if kind == "creation":
        return
    count = {"training": MINIMUM - 10, "training again": GROWN - 10}.get(kind, 300)
    with opened(path, fine="int8" if kind.endswith("int8") else None) as collection:
        put(collection, 1, names(0, MINIMUM - 10))
        if count > MINIMUM:
            put(collection, 2, names(MINIMUM - 10, count - MINIMUM + 10))
        if kind in {"sharing", "deletion of tenants"}:
            put(collection.tenant("ann"), 3, names(0, 30))
            put(collection.tenant("bob"), 4, names(0, 30))
            collection.share(names(0, 10), tenants=["ann"])
    backup_of(collection).unlink(missing_ok=True)


def opened(path: Path, fine: str | None = None) -> Collection:
    return Collection.open(path, training_minimum=MINIMUM, fine=fine)


def content(collection: Collection) -> str:
    """Give a digest of what a collection and its tenants hold, and of how it is kept."""
    digest = hashlib.sha256()
    for owner in (collection, *map(collection.tenant, collection.tenants())):
        rows = [(row.id, row.text, row.metadata) for row in owner.iterate()]
        digest.update(f"{owner.count()} {sorted(rows, key=str) if owner is not collection else rows}".encode())
    stats = collection.stats()
    digest.update(f"{collection.tenants()} {stats.codec} {stats.fine} {stats.trained} {stats.disk['fine']}".encode())
    return digest.hexdigest()


class Zygote:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        places = os.pathsep.join(place for place in (str(Path(__file__).parents[1]), *sys.path) if place)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": places},
        )

    def killed(self, kind: str, path: Path, seconds: float | None) -> tuple[int, float]:
        """Kill a child so many seconds after it was ready, or at its end; gives the number of its finished steps, and how
        long it took until there.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind}\t{path}\n")
        child = int(self._line())
        assert self._line() == "ready", "the child failed"
        start = time.perf_counter()
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        finished = 0
        while (line := self._line()) != "dead":
            assert line != "failed", f"a step of {kind} failed"
            if line == "done":
                took = time.perf_counter() - start
                if seconds is None:
                    os.kill(child, signal.SIGKILL)
            else:
                finished += 1
        return finished, took if seconds is None else seconds

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LONGEST_LIFE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


def work(kind: str, path: str) -> None:
    """Be the child: do the steps, and wait for the end."""
    signal.alarm(LONGEST_LIFE)
    say(str(os.getpid()))
    try:
        # The creation itself is among what is interrupted.
        collection = None if kind == "creation" else opened(Path(path))
        say("ready")
        collection = collection or opened(Path(path))
        for number, step in enumerate(STEPS[kind]):
            step(collection)
            say(str(number))
        say("done")
    except BaseException as error:  # noqa: BLE001
        sys.stderr.write(f"{error!r}\n")
        say("failed")
        os._exit(1)
    signal.pause()


def main() -> None:
    training.BATCH_ROWS, index_cache.FEWEST_ROWS = AT_ONCE, CACHED_FROM
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child:
            work(kind, path)
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main()
