"""Rows for tests of collections on servers, and what is to be found among them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rarebit.arrays import normalized

DIM = 24
ROWS = 1500
VECTORS = normalized(np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32))
TEXTS = [f"passage number {row}" for row in range(ROWS)]
METADATAS: list[dict[str, Any]] = [{"row": row, "half": row % 2} for row in range(ROWS)]
IDS = [str(row) for row in range(ROWS)]

FOUND = 0.96
"""Share of the ten best that is found in any case: candidates are measured on samples drawn by chance, and graphs have layers
drawn by chance. In 25 trainings it was .985 on average, and .975 to .995."""

QUERIES = normalized(VECTORS[:40] + 0.3 * np.random.default_rng(1).standard_normal((40, DIM)).astype(np.float32))


def recall(collection: Any, rows: np.ndarray, **given: Any) -> float:
    """Give the share of the ten best of some rows that are found."""
    shares = []
    for query in QUERIES:
        best = rows[np.argsort(-(VECTORS[rows] @ query), kind="stable")[:10]]
        found = [int(hit.id) for hit in collection.search(query, 10, **given)]
        shares.append(len(set(found) & set(best.tolist())) / min(10, len(rows)))
    return float(np.mean(shares))
