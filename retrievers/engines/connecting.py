"""Which engine an address means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.collection.arguments import as_count, as_seconds
from rarebit.retrievers.engines.collection import RemoteCollection
from rarebit.retrievers.engines.engine import RemoteEngine

POSTGRES: Final = ("postgresql", "postgres")
MILVUS: Final = ("milvus", "milvuss")
SCHEMES: Final = (*POSTGRES, *MILVUS)

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
    patience, partitions = as_seconds("timeout", timeout), as_count("partitions", partitions)
    make = _milvus if begins[1] in MILVUS else _postgres
    engine = make(url, patience, read_only, name, asked, create=create and not read_only, partitions=partitions)
    return RemoteCollection(engine, read_only=read_only)


def _postgres(url: str, patience: float, read_only: bool, name: str, asked: Mapping[str, Any], **given: Any) -> RemoteEngine:
    for module in ("psycopg", "psycopg_pool"):
        require(module, "postgres")
    from rarebit.retrievers.engines.postgres.connections import Connections
    from rarebit.retrievers.engines.postgres.engine import PostgresEngine

    return PostgresEngine(Connections(url, patience, read_only=read_only), name, asked, **given)


def _milvus(url: str, patience: float, read_only: bool, name: str, asked: Mapping[str, Any], **given: Any) -> RemoteEngine:
    require("pymilvus", "milvus")
    from rarebit.retrievers.engines.milvus.connections import Connections
    from rarebit.retrievers.engines.milvus.engine import MilvusEngine

    return MilvusEngine(Connections(url, patience, read_only=read_only), name, asked, **given)
