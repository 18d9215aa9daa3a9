"""Collections of every kind, each of its own, for tests that run over several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rarebit import Collection


def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Any:
    """Make a collection of a kind."""
    if kind == "postgresql":
        from support.postgres import connected

        return connected(request.getfixturevalue("postgres"))
    if kind == "milvus":
        from support.milvus import connected as connected_to_milvus

        return connected_to_milvus(request.getfixturevalue("milvus"))
    return Collection.open(None if kind == "memory" else folder / "c.rarebit")
