"""Milvus in a file, or the server that the environment names, for as long as the tests run."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarebit import Collection
from rarebit.retrievers.engines.milvus.connections import Connections, load_lite

SERVER = "RAREBIT_TEST_MILVUS"
"""Of the environment: the address of a server to test with, in place of a file."""

_RUN = secrets.token_hex(3)
_NUMBERS = itertools.count()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Give the address of Milvus."""
    if SERVER in os.environ:
        yield os.environ[SERVER]
        return
    load_lite()
    from milvus_lite.server_manager import server_manager_instance

    path = folder / "tests.db"
    yield f"milvus://{path}"
    server_manager_instance.release_server(str(path))


def connected(url: str, **settings: Any) -> Any:
    """Make a collection of its own."""
    return Collection.connect(url, f"test {_RUN} {next(_NUMBERS)}", **settings)


def dropped(collection: Any) -> None:
    """Drop what a collection consists of."""
    engine = collection._engine
    for name in engine._connections.call("list_collections"):
        if name.startswith(engine._names._stem + "__"):
            engine._connections.call("drop_collection", name)


def client_of(collection: Any) -> Any:
    """Give the client of pymilvus that a collection asks."""
    return collection._engine._connections._connected()


def asked_as_server(monkeypatch: Any) -> None:
    """Ask a file as a server is asked: also in it rows can be found by their keys."""
    monkeypatch.setattr(Connections, "is_file", False)


def rows_there(collection: Any) -> list[str]:
    """Name the collections of Milvus that hold rows of a collection, of this training and of others."""
    engine = collection._engine
    return [name for name in engine._connections.call("list_collections") if engine._names.is_rows(name)]
