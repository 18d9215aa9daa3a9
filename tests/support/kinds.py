"""Collections of every kind, each of its own, for tests that run over several."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rarebit import Collection

SERVERS = {"postgresql": "postgres", "milvus": "milvus"}
"""Kinds of servers, and the fixture and the module of each."""


@dataclass(frozen=True)
class Server:
    """A server that runs for the tests."""

    kind: str
    address: str

    @classmethod
    def of(cls, kind: str, request: pytest.FixtureRequest) -> Server:
        """Start it, or use the one that runs; the test is skipped where something is not installed."""
        return cls(kind, request.getfixturevalue(SERVERS[kind]))

    def connected(self, **settings: Any) -> Any:
        """Make a collection of its own."""
        return import_module(f"support.{SERVERS[self.kind]}").connected(self.address, **settings)


def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Any:
    """Make a collection of a kind."""
    if kind in SERVERS:
        return Server.of(kind, request).connected()
    return Collection.open(None if kind == "memory" else folder / "c.rarebit")
