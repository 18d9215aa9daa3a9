from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.subjects import SUBJECTS, Subject

from rarebit import Collection

KINDS = ("memory", "file", "postgresql", "milvus")


def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Any:
    """Make a collection of a kind."""
    if kind == "postgresql":
        from support.postgres import connected

        return connected(request.getfixturevalue("postgres"))
    if kind == "milvus":
        from support.milvus import connected as connected_to_milvus

        return connected_to_milvus(request.getfixturevalue("milvus"))
    return Collection.open(None if kind == "memory" else folder / "c.rarebit")


@pytest.fixture(params=KINDS)
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with opened(request.param, tmp_path, request) as given:
        yield given


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest, collection: Any) -> Subject:
    return SUBJECTS[request.param](collection)
