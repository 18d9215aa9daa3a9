"""Many threads on one object, two processes on one file, and a fork."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.other_process import answer, vector_of, write_in_turn

from rarebit import Collection, Compare
from rarebit.errors import LockedError

THREADS = 16
SECONDS = 20.0


class Worker:
    """Adds, replaces and deletes rows of its own, and searches everybody's."""

    def __init__(self, collection: Collection, number: int, until: float) -> None:
        self.collection = collection
        self.number = number
        self.until = until
        self.rows: dict[str, str] = {}
        self.error: BaseException | None = None
        self.steps = 0

    def run(self) -> None:
        rng = random.Random(self.number)
        try:
            while time.monotonic() < self.until:
                self.step(rng)
                self.steps += 1
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def step(self, rng: random.Random) -> None:
        action = rng.choice(["add", "replace", "delete", "search", "search", "filter", "lexical", "get"])
        if action == "add" or not self.rows:
            self.write([f"{self.number}-{self.steps}-{row}" for row in range(rng.randint(1, 20))], rng)
        elif action == "replace":
            self.write(rng.sample(sorted(self.rows), min(5, len(self.rows))), rng)
        elif action == "delete":
            doomed = rng.sample(sorted(self.rows), min(3, len(self.rows)))
            assert self.collection.delete(doomed) == len(doomed)
            for key in doomed:
                del self.rows[key]
        elif action == "search":
            hits = self.collection.search(np.random.default_rng(self.steps).standard_normal(8), 10)
            assert len({hit.id for hit in hits}) == len(hits)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        elif action == "filter":
            hits = self.collection.search(np.ones(8), 1000, filter=Compare("owner", "eq", self.number))
            assert {hit.id for hit in hits} == set(self.rows) or len(self.rows) > 1000
        elif action == "lexical":
            assert all(f"owner{self.number}" in hit.text for hit in self.collection.search_lexical(f"owner{self.number}", 5))
        else:
            assert {row.id: row.text for row in self.collection.get(list(self.rows))} == self.rows

    def write(self, keys: list[str], rng: random.Random) -> None:
        texts = [f"owner{self.number} {rng.random()}" for _ in keys]
        vectors = [[rng.gauss(0, 1) for _ in range(8)] for _ in keys]
        self.collection.add(vectors, texts=texts, ids=keys, metadatas=[{"owner": self.number}] * len(keys))
        self.rows.update(zip(keys, texts, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("where", "seconds"), [("file", SECONDS), ("memory", SECONDS / 4)])
def test_sixteen_threads_add_search_and_delete(tmp_path: Path, where: str, seconds: float) -> None:
    collection = Collection.open(tmp_path / "c.rarebit" if where == "file" else None, training_minimum=500)
    until = time.monotonic() + seconds
    workers = [Worker(collection, number, until) for number in range(THREADS)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    assert all(worker.steps > 5 for worker in workers)
    wanted = {key: text for worker in workers for key, text in worker.rows.items()}
    assert {row.id: row.text for row in collection} == wanted
    assert len(collection.search(np.ones(8), len(wanted) + 10)) == len(wanted)


def test_two_processes_writing_in_turn_see_everything(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=write_in_turn, args=(path, theirs))
    child.start()
    try:
        wanted: set[str] = set()
        with Collection.open(path, training_minimum=20) as collection:
            for turn in range(30):
                collection.add([vector_of("parent", turn)], ids=[f"parent {turn}"])
                wanted.add(f"parent {turn}")
                ours.send(turn)
                assert ours.poll(60), "the other process does not answer"
                assert ours.recv() == (sorted(wanted), f"parent {turn}")
                wanted.add(f"child {turn}")
                if turn % 5 == 4:
                    wanted.remove(f"parent {turn - 2}")
                assert {row.id for row in collection} == wanted
                assert collection.search(vector_of("child", turn), 1)[0].id == f"child {turn}"
    finally:
        ours.send(None)
        child.join(30)


def test_a_thread_waits_its_turn_and_then_says_so() -> None:
    collection = Collection.open(lock_timeout=0.1)
    collection.add([[1.0]])
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with collection._engine.storage.write():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with pytest.raises(LockedError, match="another thread"):
        collection.add([[2.0]])
    done.set()
    thread.join()
    collection.add([[2.0]])
    assert collection.count() == 2


def test_a_reader_of_another_process_follows_filters_tenants_and_deletions(tmp_path: Path) -> None:
    path, rng = tmp_path / "c.rarebit", random.Random(5)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    groups: dict[str | None, dict[str, int]] = {None: {}, "ann": {}, "bob": {}}
    shared: dict[str, set[str]] = {"ann": set(), "bob": set()}
    with Collection.open(path, training_minimum=100) as collection:
        child = context.Process(target=answer, args=(path, theirs))
        child.start()
        try:
            for turn in range(24):
                owner = rng.choice([None, "ann", "bob"])
                handle, held = collection if owner is None else collection.tenant(owner), groups[owner]
                keys = [f"{owner} {rng.randrange(60)}" for _ in range(12)]
                given = {key: rng.randrange(3) for key in keys}
                handle.add(
                    [vector_of(key, turn) for key in given],
                    texts=[f"group{group}" for group in given.values()],
                    metadatas=[{"group": group} for group in given.values()],
                    ids=list(given),
                )
                held.update(given)
                doomed = rng.sample(sorted(held), len(held) // 3)
                handle.delete(doomed)
                for key in doomed:
                    del held[key]
                    for seen in shared.values() if owner is None else ():
                        seen.discard(key)
                told = rng.choice(["ann", "bob"])
                some = rng.sample(sorted(groups[None]), len(groups[None]) // 4)
                collection.share(some, tenants=[told])
                shared[told] |= set(some)
                if turn == 15:
                    collection.recompress(codec="sq8")
                if turn == 20:
                    collection.delete_tenant("ann")
                    groups["ann"], shared["ann"] = {}, set()
                group, name = rng.randrange(3), rng.choice(["ann", "bob"])
                ours.send((group, name))
                assert ours.poll(60), "the other process does not answer"
                own, seen = groups[None], groups[name] | {key: groups[None][key] for key in shared[name]}
                in_group = sorted(key for key, its in own.items() if its == group)
                assert {**ours.recv(), "tenants": None} == {
                    "rows": sorted(own),
                    "found": sorted(own),
                    "filtered": in_group,
                    "count": len(in_group),
                    "words": in_group,
                    "tenants": None,
                    "tenant": sorted(seen),
                    "tenant filtered": sorted(key for key, its in seen.items() if its == group),
                }
        finally:
            ours.send(None)
            child.join(30)


HOLDING = """
import sqlite3, sys
holder = sqlite3.connect(sys.argv[1], isolation_level=None)
holder.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
"""


BUSY = """
import sqlite3, sys, time
busy = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
print("begun", flush=True)
while True:
    busy.execute("BEGIN IMMEDIATE")
    time.sleep(0.4)
    busy.execute("COMMIT")
    time.sleep(0.004)
"""


def test_a_process_that_writes_nearly_all_the_time_leaves_others_their_turn(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path, lock_timeout=2) as collection:
        collection.add([[1.0, 2.0]], ids=["first"])
        with subprocess.Popen([sys.executable, "-c", BUSY, path], stdout=subprocess.PIPE) as busy:
            assert busy.stdout is not None
            assert busy.stdout.readline() == b"begun\n"
            try:
                for turn in range(4):
                    collection.add([[3.0, 4.0]], ids=[f"turn {turn}"])
                collection.compact()
            finally:
                busy.kill()
        assert len(collection) == 5


def test_compaction_keeps_no_writer_waiting_for_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path) as collection, Collection.open(path, lock_timeout=5) as other:
        collection.add(np.ones((500, 16)), texts=["some text"] * 500)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM state").fetchone()
            collection.add(np.ones((10, 16)), ids=[f"later {row}" for row in range(10)])
            compaction = threading.Thread(target=collection.compact)
            compaction.start()
            while compaction.is_alive():
                other.add([np.ones(16)], ids=["meanwhile"])
            compaction.join()
            assert Path(f"{path}-wal").stat().st_size, "the reader kept nothing: this test tests nothing"
        collection.delete_all()
        assert collection.compact()
        assert not Path(f"{path}-wal").stat().st_size
        assert collection.check() == []


def test_every_kind_of_write_waits_for_another_process_and_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path, lock_timeout=0.05) as collection:
        collection.add([[1.0, 2.0], [2.0, 1.0]], ids=["a", "b"])
        with subprocess.Popen([sys.executable, "-c", HOLDING, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            for write in (
                lambda: collection.add([[3.0, 4.0]]),
                lambda: collection.delete(["a"]),
                collection.delete_all,
                collection.compact,
                collection.recompress,
                collection.share,
                lambda: collection.delete_tenant("ann"),
                lambda: collection.tenant("ann").add([[1.0, 1.0]]),
            ):
                with pytest.raises(LockedError, match=r"another process .* more than 0.05 s: .*lock_timeout"):
                    write()
            assert [row.id for row in collection] == ["a", "b"]  # readers do not wait
            assert len(collection.search([1.0, 2.0])) == 2
            collection.backup(tmp_path / "backup.rarebit")
            holder.communicate(b"\n")
        assert collection.delete(["a"]) == 1
        assert collection.check() == []
