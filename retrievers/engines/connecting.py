"""Which engine an address means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.collection.arguments import as_count, as_seconds
from rarebit.retrievers.engines.collection import RemoteCollection

SCHEMES: Final = ("postgresql", "postgres")

_SCHEME: Final = re.compile(r"([a-z+]{1,20})://")


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
    begins = _SCHEME.match(url) if isinstance(url, str) else None
    if begins is None or begins[1] not in SCHEMES:
        shown = "another one" if begins is None else repr(begins[0])  # no more of it: a password may stand there
        raise InputError(f"got {shown} as an address, wanted one that begins with {[f'{each}://' for each in SCHEMES]}")
    for module in ("psycopg", "psycopg_pool"):
        require(module, "postgres")
    from rarebit.retrievers.engines.postgres.connections import Connections
    from rarebit.retrievers.engines.postgres.engine import PostgresEngine

    engine = PostgresEngine(
        Connections(url, as_seconds("timeout", timeout), read_only=read_only),
        name,
        asked,
        create=create and not read_only,
        partitions=as_count("partitions", partitions),
    )
    return RemoteCollection(engine, read_only=read_only)
