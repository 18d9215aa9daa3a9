"""Two processes that use one file for a while: four readers and the writer in one, four readers and the deleter in the other.

Rows are numbered in the order in which they are written, and deleted in that order too, so that what must be there is known
from two numbers: none below the last deletion that has returned, and every one from there to the last write. Rows called "base"
stay.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rarebit import Collection, Compare

Number: TypeAlias = "Synchronized[int]"
"""One number that both processes see."""

READERS = 4
DIM, GROUPS, BASE = 16, 5, 400
OWNERS = (None, "ann", "bob")
ALIVE = 1500
"""Numbered rows that there are at most, about."""

BATCH = 24
K = 10
SAMPLE_SECONDS = 0.1


class Numbers(NamedTuple):
    """What is known of the rows; each is written by one process."""

    released: Number
    """The writer replaces no row below this one any more."""
    deleted: Number
    """The deleter has deleted every row below this one."""


@dataclass
class Report:
    """What came of a process."""

    errors: list[str] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    """Of the numbered rows, as the writer knows them."""
    searches: int = 0
    writes: int = 0
    resident: list[float] = field(default_factory=list)
    """Anonymous memory, MB, once in a while."""

    @property
    def grown(self) -> float:
        """Give by how many MB the process is larger at its end than after its first third."""
        third = len(self.resident) // 3
        return statistics.median(self.resident[-third:]) - statistics.median(self.resident[third : 2 * third])


def vector_of(number: int, version: int) -> np.ndarray:
    return np.random.default_rng([number + BASE, version]).standard_normal(DIM).astype(np.float32)


def text_of(number: int, version: int) -> str:
    return f"{number} version {version} word{number + BASE}"


def owner_of(number: int) -> str | None:
    return OWNERS[number % len(OWNERS)]


def owned(collection: Collection, owner: str | None) -> Any:
    return collection if owner is None else collection.tenant(owner)


def write_base(collection: Collection) -> None:
    """Write the rows that stay, of the collection and of each tenant."""
    for place, owner in enumerate(OWNERS):
        numbers = range(-BASE + 1 + place, 0, len(OWNERS))
        owned(collection, owner).add(
            [vector_of(number, 0) for number in numbers],
            texts=[text_of(number, 0) for number in numbers],
            metadatas=[{"owner": owner, "group": number % GROUPS, "version": 0} for number in numbers],
            ids=[f"base {-number}" for number in numbers],
        )


def run(path: Path, *, writes: bool, seconds: float, numbers: Numbers, pipe: Any) -> None:
    """Be one of the two processes."""
    pipe.send(Process(path, numbers, seconds, random.Random(writes)).run(writes=writes))


class Process:
    def __init__(self, path: Path, numbers: Numbers, seconds: float, rng: random.Random) -> None:
        self.collection = Collection.open(path)
        self.numbers = numbers
        self.rng = rng
        self.report = Report()
        self.until = time.monotonic() + seconds
        self.next = 0

    def run(self, *, writes: bool) -> Report:
        works = [self.read] * READERS + [self.write if writes else self.delete]
        threads = [threading.Thread(target=self.repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.until:
            self.report.resident.append(resident())
            time.sleep(SAMPLE_SECONDS)
        for thread in threads:
            thread.join()
        self.collection.close()
        return self.report

    def repeat(self, work: Callable[[random.Random], None]) -> None:
        rng = random.Random(self.rng.random())
        try:
            while time.monotonic() < self.until and not self.report.errors:
                work(rng)
        except BaseException:  # noqa: BLE001
            self.report.errors.append(traceback.format_exc())

    def write(self, rng: random.Random) -> None:
        """Add the next rows or replace some of the last ones; now and then give everything another code, or compact."""
        versions, deleted = self.report.versions, self.numbers.deleted.value
        for number in [number for number in versions if number < deleted]:
            del versions[number]
        action = rng.random()
        if action < 0.03:
            self.collection.recompress(codec=rng.choice(["trellis", "sq8"]))
        elif action < 0.06:
            self.collection.compact()
        elif action < 0.5 and self.next > self.numbers.released.value:
            self.put(rng.sample(range(self.numbers.released.value, self.next), min(5, self.next - self.numbers.released.value)))
        elif len(versions) < ALIVE:
            first, self.next = self.next, self.next + BATCH
            self.put(list(range(first, self.next)))
            self.numbers.released.value = max(0, self.next - 10 * BATCH)
        self.report.writes += 1
        time.sleep(0.005)

    def put(self, rows: list[int]) -> None:
        for owner in OWNERS:
            own = [number for number in rows if owner_of(number) == owner]
            versions = [self.report.versions.get(number, -1) + 1 for number in own]
            if not own:
                continue
            owned(self.collection, owner).add(
                [vector_of(*pair) for pair in zip(own, versions, strict=True)],
                texts=[text_of(number, version) for number, version in zip(own, versions, strict=True)],
                metadatas=[
                    {"owner": owner, "group": number % GROUPS, "version": version}
                    for number, version in zip(own, versions, strict=True)
                ],
                ids=[str(number) for number in own],
            )
            self.report.versions.update(zip(own, versions, strict=True))

    def delete(self, rng: random.Random) -> None:
        """Delete the oldest rows that the writer is done with."""
        first = self.numbers.deleted.value
        stop = min(self.numbers.released.value, first + rng.randint(1, 2 * BATCH))
        for owner in OWNERS:
            own = [str(number) for number in range(first, stop) if owner_of(number) == owner]
            handle = owned(self.collection, owner)
            assert handle.delete(own) == len(own), "a row that was written is not there"
        self.numbers.deleted.value = stop
        self.report.writes += 1
        time.sleep(0.01)

    def read(self, rng: random.Random) -> None:
        deleted, owner, group = self.numbers.deleted.value, rng.choice(OWNERS), rng.randrange(GROUPS)
        handle, grouped = owned(self.collection, owner), rng.random() < 0.5
        place = rng.choice([number for number in range(-BASE + 1, 0) if owner_of(number + BASE - 1) == owner])
        only = Compare("group", "eq", place % GROUPS if grouped else group) if grouped else None
        hits = handle.search(vector_of(place, 0), K, filter=only)
        assert len(hits) == K, f"{len(hits)} hits, wanted {K}"
        assert len({hit.id for hit in hits}) == K
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert f"base {-place}" in [hit.id for hit in hits[:3]], "a row is not found by its own vector"
        words = handle.search_lexical(f"word{place + BASE}", 3)
        assert [hit.id for hit in words] == [f"base {-place}"], "a row is not found by its own word"
        for row in (*hits, *words, *handle.get([hit.id for hit in hits])):
            number = -int(row.id.split()[1]) if row.id.startswith("base") else int(row.id)
            assert number < 0 or number >= deleted, f"row {number} was deleted, and everything below {deleted}"
            assert row.text == text_of(number, row.metadata["version"])
            assert row.metadata["owner"] == owner
            assert row.metadata["group"] == number % GROUPS
        assert only is None or all(hit.metadata["group"] == place % GROUPS for hit in hits)
        self.report.searches += 1


def resident() -> float:
    """Give the MB of this process's own memory, without what is mapped from files."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024
