"""Finished shards go into a server as into a file, and what is found there is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")

from support.building import RECORDS, ROWS, SETTINGS, SHARD_ROWS, Hashed, as_lines, rows_in, vector_of
from support.postgres import connected

from rarebit import Collection, Compare
from rarebit.errors import SettingsError
from rarebit.retrievers.building import Recipe, build
from rarebit.retrievers.building.loading import FinishedShards
from rarebit.retrievers.engines.engine import OWN
from rarebit.retrievers.engines.moving import move


@pytest.fixture
def target(postgres: str) -> Iterator[Any]:
    with connected(postgres) as given:
        yield given


@pytest.fixture
def recipe(lines: Path) -> Recipe:
    return Recipe([lines], Hashed(), collection=SETTINGS, shard_rows=SHARD_ROWS)


def test_a_server_gets_what_a_file_gets(target: Any, recipe: Recipe, tmp_path: Path, built: Any) -> None:
    report = build(recipe, tmp_path / "work", target)
    assert report.checksum == built[0].checksum
    assert rows_in(target) == built[1]
    with Collection.open() as added:
        added.add(
            [vector_of(each["text"]) for each in RECORDS],
            texts=[each["text"] for each in RECORDS],
            metadatas=[{"number": each["number"], "deep": each["deep"]} for each in RECORDS],
            ids=[each["id"] for each in RECORDS],
        )
        for each in RECORDS[:10]:
            found = target.search(vector_of(each["text"]), 5, candidates=ROWS)
            wanted = added.search(vector_of(each["text"]), 5)  # exact: it has too few rows for codes
            assert found[0].id == wanted[0].id == each["id"]
            assert found[0].score == pytest.approx(wanted[0].score, abs=0.02)
    assert target.count(Compare("number", "gte", 200)) == 30


def test_the_bits_are_those_that_a_move_learns(target: Any, recipe: Recipe, tmp_path: Path, postgres: str) -> None:
    with Collection.open() as file, connected(postgres) as moved:
        build(recipe, tmp_path / "work", file)
        build(recipe, tmp_path / "work", target)
        move(file, moved)
        assert target._engine.kept().plane.learned() == moved._engine.kept().plane.learned()
        for each in RECORDS[:10]:
            vector = vector_of(each["text"])
            assert target.search(vector, 5) == moved.search(vector, 5)


def test_a_load_goes_on_behind_what_is_there(target: Any, recipe: Recipe, tmp_path: Path, built: Any) -> None:
    build(recipe, tmp_path / "work", target)
    target.delete([each["id"] for each in RECORDS[150:]])
    assert build(recipe, tmp_path / "work", target).copied == ROWS - 150
    assert rows_in(target) == built[1]


def test_rows_of_somebody_else_stay(target: Any, recipe: Recipe, tmp_path: Path) -> None:
    target.tenant("acme").add([[1.0, 0.0]], ids=["a"])
    with pytest.raises(SettingsError, match="has rows already"):
        build(recipe, tmp_path / "work", target)
    assert target.tenants() == ["acme"]
    assert not (tmp_path / "work").exists()


def test_few_rows_are_kept_as_they_are(target: Any, tmp_path: Path) -> None:
    given = as_lines(tmp_path / "p.jsonl", RECORDS[:7])
    report = build(Recipe([given], Hashed(), shard_rows=3), tmp_path / "work", target)
    assert (report.rows, report.trained) == (7, False)
    assert target.search(vector_of(RECORDS[3]["text"]), 1)[0].id == RECORDS[3]["id"]


def test_shards_as_the_source_of_a_move(recipe: Recipe, tmp_path: Path, built: Any) -> None:
    from rarebit.retrievers.building import InProcess, Shards

    shards = Shards(recipe, tmp_path / "work", InProcess()).make()
    source = FinishedShards(shards.folder, shards.sizes)
    assert source.tenants() == [OWN]
    assert [row.id for part in source.every(OWN) for row in part] == [each["id"] for each in RECORDS]
    assert [row.id for row in source.named(OWN, [RECORDS[100]["id"], "none", RECORDS[3]["id"]])] == [
        RECORDS[3]["id"],
        RECORDS[100]["id"],
    ]
    assert list(source.every("acme")) == []
    assert source.named("acme", ["a"]) == source.named(OWN, []) == []
