"""Collections that move between a file and an engine, and are the same in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds import opened

from rarebit import Collection, Compare
from rarebit.arrays import normalized
from rarebit.errors import EngineLimitError, SettingsError
from rarebit.retrievers.engines.moving import move

RNG = np.random.default_rng(0)
VECTORS = normalized(RNG.standard_normal((1800, 16)).astype(np.float32))


@pytest.fixture(params=["postgresql", "milvus"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with opened(request.param, tmp_path, request) as given:
        yield given


def fill(collection: Any, count: int) -> None:
    """Add rows of everybody, of every shape."""
    collection.add(
        VECTORS[:count],
        texts=[f"text {row} \0 é" for row in range(count)],
        metadatas=[{"row": row, "deep": {"list": [row, None, "\0"], "share": row / 7}} for row in range(count)],
        ids=[f"id {row}" for row in range(count)],
    )
    for name, first in (("acme", 10), ("other", 20)):
        collection.tenant(name).add(VECTORS[first : first + 40], texts=[name] * 40, ids=[f"id {row}" for row in range(40)])


def content(collection: Any) -> dict[str | None, list[tuple[Any, ...]]]:
    """Give every row of everybody with its vector, in order."""
    found: dict[str | None, list[tuple[Any, ...]]] = {}
    for name in (None, *collection.tenants()):
        own = collection if name is None else collection.tenant(name)
        rows = list(own.iterate())
        vectors = own.vectors([row.id for row in rows])
        found[name] = [(row.id, row.text, row.metadata, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)]
    return found


@pytest.mark.parametrize("count", [0, 1, 300, 1800])
def test_there_and_back(target: Any, tmp_path: Path, count: int) -> None:
    with Collection.open(tmp_path / "source", training_minimum=1000) as source, Collection.open(tmp_path / "back") as back:
        if count:
            fill(source, count)
        moved = move(source, target)
        assert moved.rows == moved.copied == (count + 80 if count else 0)
        assert content(target) == content(source)
        returned = move(target, back)
        assert returned.checksum == moved.checksum
        assert content(back) == content(source)
        assert back.check() == []
        assert back.stats().trained == source.stats().trained
        if count > 10:
            query = VECTORS[7]
            hits = [[hit.id for hit in each.search(query, 5, candidates=2000)] for each in (source, target, back)]
            assert hits[0] == hits[1] == hits[2]
            assert target.search(query, 3, filter=Compare("row", "gte", 5))[0].id == "id 7"


def test_again_copies_what_is_new_and_deletes_what_is_gone(target: Any) -> None:
    with Collection.open(training_minimum=1000) as source:
        fill(source, 1200)
        move(source, target)
        source.add(VECTORS[1500:1510], ids=[f"new {row}" for row in range(10)])
        source.add(VECTORS[:1], ids=["id 3"], texts=["changed"])
        source.delete(["id 5", "id 6"])
        source.tenant("acme").delete_all()
        before = content(target)
        with pytest.raises(SettingsError, match="overwrite=True"):
            move(source, target)
        assert content(target) == before
        again = move(source, target, overwrite=True)
        assert (again.copied, again.deleted) == (11, 42)
        assert {name: rows for name, rows in content(target).items() if rows} == {
            name: rows for name, rows in content(source).items() if rows
        }
        assert move(source, target).copied == 0


def test_order_is_kept_too(target: Any) -> None:
    with Collection.open() as source:
        source.add(VECTORS[:5], ids=list("abcde"))
        move(source, target)
        source.add(VECTORS[1:2], ids=["b"])  # the same row, at the end now
        assert move(source, target).copied == 4
        assert [row.id for row in target] == list("acdeb")


def test_rows_of_somebody_else_stay(target: Any) -> None:
    target.add(VECTORS[:3], ids=["x", "y", "z"])
    with Collection.open() as source:
        source.add(VECTORS[3:5], ids=["a", "x"])
        with pytest.raises(SettingsError, match="nothing was changed"):
            move(source, target)
    assert [row.id for row in target] == ["x", "y", "z"]


@pytest.mark.parametrize("number", [1e16, -0.0, 1e-300, 12345678901234567890, 0.1, -5])
def test_numbers_stay_as_they_are(target: Any, number: float) -> None:
    with Collection.open() as source:
        source.add(VECTORS[:1], ids=["a"], metadatas=[{"z": number, "a": [number]}])
        move(source, target)
        (row,) = target.get(["a"])
        assert repr(row.metadata["z"]) == repr(number)
        assert target.count(Compare("z", "eq", number)) == 1


def test_rows_of_another_collection_are_not_touched(target: Any) -> None:
    with Collection.open(training_minimum=1000) as source, Collection.open(training_minimum=1100) as other:
        fill(source, 1200)
        fill(other, 1300)
        move(source, target)
        before = content(target)
        with pytest.raises(SettingsError, match="other settings or codes"):
            move(other, target)
        assert content(target) == before


def test_what_engines_cannot(target: Any) -> None:
    with Collection.open() as source:
        source.add(VECTORS[:3], ids=["a", "b", "c"])
        source.share(["a"], tenants=["acme"])
        with pytest.raises(EngineLimitError, match="shares rows"):
            move(source, target)
    with Collection.open(near_duplicates=0.9) as source, pytest.raises(EngineLimitError, match="near-duplicates"):
        move(source, target)


MOVING = """
import sys
from rarebit import Collection
from rarebit.retrievers.engines import move_ends, moving
move_ends.AT_ONCE = 50
with Collection.open(sys.argv[1]) as source, Collection.connect(sys.argv[2], sys.argv[3]) as target:
    print("begun", flush=True)
    moving.move(source, target)
"""


@pytest.mark.parametrize("rows", [60, 500, 1200])
def test_killed_half_way_it_goes_on(postgres: str, tmp_path: Path, rows: int) -> None:
    from support.postgres import connected

    path = tmp_path / "source"
    with Collection.open(path, training_minimum=1000) as source:
        fill(source, 1800)
    with connected(postgres) as target:
        command = [sys.executable, "-c", MOVING, str(path), postgres, target._engine.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as moving:
            assert moving.stdout is not None
            moving.stdout.readline()
            while target.count() < rows and moving.poll() is None:
                pass
            moving.send_signal(signal.SIGKILL)
        assert rows <= target.count() < 1800
        with Collection.open(path) as source:
            moved = move(source, target)
            assert moved.copied < 1880
            assert content(target) == content(source)
