"""Killed at any point of any kind of write, a process loses nothing that it was told was written."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import killing

from rarebit import Collection
from rarebit.retrievers.collection import index_cache

pytestmark = [
    pytest.mark.slow,
    pytest.mark.unchecked,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
]

KILLS = 16
"""Of each kind."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: a killed process leaves no less behind there, and syncs cost nothing."""
    memory = Path("/dev/shm")  # noqa: S108
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _codes_beside_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read after a kill is read from the same files as in the process that was killed."""
    monkeypatch.setattr(index_cache, "FEWEST_ROWS", killing.CACHED_FROM)


@pytest.fixture(scope="module")
def zygote() -> Iterator[killing.Zygote]:
    started = killing.Zygote()
    yield started
    started.close()


def states_of(kind: str, path: Path) -> list[str]:
    """Give what the collection holds before the steps and after each of them, with nothing in their way."""
    with killing.opened(path) as collection:
        states = [killing.content(collection)]
        for step in killing.STEPS[kind]:
            step(collection)
            states.append(killing.content(collection))
    return states


def assert_right(collection: Collection, rng: random.Random) -> None:
    """Each row is found by the vector that its text tells of, also among those of its filter."""
    assert collection.check() == []
    for owner in (collection, *map(collection.tenant, collection.tenants())):
        rows = list(owner)
        assert len(owner.search(killing.vectors_of(0, 1)[0], len(rows) + 1)) == len(rows)
        for row in rng.sample(rows, min(3, len(rows))):
            seed, place = map(int, row.text.split())
            hits = owner.search(killing.vectors_of(seed, place + 1)[place], 3)
            assert (row.id, row.text, row.metadata) in [(hit.id, hit.text, hit.metadata) for hit in hits]


@pytest.mark.parametrize("kind", killing.STEPS)
def test_a_killed_writer_loses_nothing_it_acknowledged(zygote: killing.Zygote, folder: Path, kind: str) -> None:
    prepared, rng = folder / "prepared.rarebit", random.Random(kind)
    killing.prepare(kind, prepared)

    def copied(name: str) -> Path:
        path = folder / f"{name}.rarebit"
        if prepared.exists():
            shutil.copy(prepared, path)
        return path

    states = states_of(kind, copied("reference"))
    _, duration = zygote.killed(kind, copied("timed"), None)
    in_flight = 0
    for kill in range(KILLS):
        path = copied(str(kill))
        finished, _ = zygote.killed(kind, path, rng.uniform(0, duration))
        in_flight += finished < len(states) - 1
        with killing.opened(path) as collection:
            found = killing.content(collection)
            assert found in states[finished : finished + 2], f"kill {kill} after {finished} steps: what is there is neither"
            assert_right(collection, rng)
            backup = killing.backup_of(collection)
            if backup.exists():
                with killing.opened(backup) as copy:
                    assert killing.content(copy) in states
                    assert copy.check() == []
            for step in killing.STEPS[kind][states.index(found) :] if kill % 4 == 0 else ():
                step(collection)
            assert kill % 4 or killing.content(collection) == states[-1], f"kill {kill}: what follows is not as without it"
    assert in_flight, "every kill came after the end"
