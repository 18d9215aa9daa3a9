"""A PostgreSQL server of this machine's own, for as long as the tests run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import psycopg

from rarebit import Collection
from rarebit.arrays import normalized
from rarebit.retrievers.engines.postgres.schema import PREFIX

_NUMBERS = itertools.count()


def connected(url: str, **settings: Any) -> Any:
    """Make a collection of its own on a server that many tests use."""
    return Collection.connect(url, f"test {next(_NUMBERS)}", **settings)


DIM = 24
ROWS = 1500
VECTORS = normalized(np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32))
TEXTS = [f"passage number {row}" for row in range(ROWS)]
METADATAS: list[dict[str, Any]] = [{"row": row, "half": row % 2} for row in range(ROWS)]
IDS = [str(row) for row in range(ROWS)]


QUERIES = normalized(VECTORS[:40] + 0.3 * np.random.default_rng(1).standard_normal((40, DIM)).astype(np.float32))


def recall(collection: Any, rows: np.ndarray, **given: Any) -> float:
    """Give the share of the ten best of some rows that are found."""
    shares = []
    for query in QUERIES:
        best = rows[np.argsort(-(VECTORS[rows] @ query), kind="stable")[:10]]
        found = [int(hit.id) for hit in collection.search(query, 10, **given)]
        shares.append(len(set(found) & set(best.tolist())) / min(10, len(rows)))
    return float(np.mean(shares))


def admin(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


def schema_of(collection: Any) -> str:
    return PREFIX + collection._engine.name


def break_connections(url: str) -> None:
    """Let the server end every connection but this one."""
    with admin(url) as server:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rarebit'")
