"""Collections of every kind, each of its own, for tests that run over several."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rarebit import Collection

SERVERS = {"postgresql": "postgres", "milvus": "milvus"}
"""Kinds of servers, and the fixture and the module of each."""


def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Any:
    """Make a collection of a kind."""
    if kind in SERVERS:
        address = request.getfixturevalue(SERVERS[kind])  # which skips the test where something is not installed
        return import_module(f"support.{SERVERS[kind]}").connected(address)
    return Collection.open(None if kind == "memory" else folder / "c.rarebit")
