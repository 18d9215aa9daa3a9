from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

pytest.importorskip("pyarrow", reason="builds need the extra parquet")

from support.building import RECORDS, SETTINGS, SHARD_ROWS, Hashed, as_lines, rows_in

from rarebit import Collection
from rarebit.retrievers.building import BuildReport, Recipe, build

Building: TypeAlias = Callable[..., tuple[BuildReport, list[Any]]]


@pytest.fixture(scope="session")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All records in one file."""
    return as_lines(tmp_path_factory.mktemp("inputs") / "passages.jsonl", RECORDS)


@pytest.fixture(scope="session")
def built(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildReport, list[Any]]:
    """What every build of that file has to come to."""
    return build_lines(lines, tmp_path_factory.mktemp("work"))


@pytest.fixture
def building(lines: Path, tmp_path: Path) -> Building:
    """Build that file in a folder of the test's own."""

    def run(encoder: Any = None, runner: Any = None) -> tuple[BuildReport, list[Any]]:
        return build_lines(lines, tmp_path / "work", encoder, runner)

    return run


def build_lines(given: Path, work: Path, encoder: Any = None, runner: Any = None) -> tuple[BuildReport, list[Any]]:
    recipe = Recipe([given], encoder or Hashed(), collection=SETTINGS, shard_rows=SHARD_ROWS)
    with Collection.open() as target:
        return build(recipe, work, target, runner=runner), rows_in(target)
