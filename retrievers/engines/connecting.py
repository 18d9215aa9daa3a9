"""Which engine an address means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.collection.arguments import as_count, as_seconds
from rarebit.retrievers.engines.collection import RemoteCollection

SCHEMES: Final = ("postgresql", "postgres")


def connect(
    url: str, name: str, asked: Mapping[str, Any], *, read_only: bool, create: bool, timeout: float, partitions: int
) -> RemoteCollection:
    """Connect to a collection; see :meth:`rarebit.Collection.connect`.

    Args:
        url: of the engine.
        name: of the collection.
        asked: settings; None for those left out.
        read_only: refuse to write.
        create: make the collection if it does not exist.
        timeout: seconds to wait.
        partitions: of the table of rows.
    """
    scheme = url.partition("://")[0] if isinstance(url, str) else type(url).__name__
    if scheme not in SCHEMES:
        raise InputError(f"got an address that begins with {scheme!r}, wanted one of {[f'{each}://' for each in SCHEMES]}")
    for module in ("psycopg", "psycopg_pool"):
        require(module, "postgres")
    from rarebit.retrievers.engines.postgres.connections import Connections
    from rarebit.retrievers.engines.postgres.engine import PostgresEngine

    engine = PostgresEngine(
        Connections(url, as_seconds("timeout", timeout)),
        name,
        asked,
        create=create and not read_only,
        partitions=as_count("partitions", partitions),
    )
    return RemoteCollection(engine, read_only=read_only)
