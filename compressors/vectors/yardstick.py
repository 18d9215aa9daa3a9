"""What training to rank is measured by: held-out queries, and the share of their nearest documents that codes find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Queries, Vectors

DOCUMENTS = 20_000
"""Vectors that training ranks."""

QUERIES = 6_000
"""Queries at most that training ranks them for."""

HELD_OUT = 500
"""Queries at most that are kept out of training; at most one in four of those there are."""

FEWEST = 512
"""Vectors below which nothing is trained: a ranking among so few teaches nothing about others."""

FEWEST_QUERIES = 64
"""Given queries below which the documents' own vectors are used beside them."""

FIRST = 10
"""Places of which recall is measured."""

NOWHERE = -1
"""In the place of a document: none."""


class Yardstick:
    """Which documents queries should find, and how many of them they find in others."""

    def __init__(self, documents: Vectors, queries: Queries, own: npt.NDArray[np.int64]) -> None:
        """Search exactly; ``own`` is the document that each query is itself, or -1."""
        self._queries, self._own = queries, own
        self._wanted = self._first(documents)

    def recall(self, rebuilt: Vectors) -> float:
        """Give the share of the wanted that are found among the documents as decoded."""
        found = self._first(rebuilt)
        hits = (found[:, :, np.newaxis] == self._wanted[:, np.newaxis, :]).sum()
        return float(hits) / self._wanted.size

    def _first(self, documents: Vectors) -> npt.NDArray[np.int64]:
        scores = self._queries @ documents.T
        themselves = np.flatnonzero(self._own != NOWHERE)
        scores[themselves, self._own[themselves]] = -np.inf
        first: npt.NDArray[np.int64] = np.argpartition(-scores, FIRST, axis=1)[:, :FIRST]
        return first


def asked_of(
    documents: Vectors, queries: Queries | None, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Give queries in random order, with the documents that they themselves are, or -1."""
    own = rng.permutation(len(documents))[: HELD_OUT + QUERIES]
    if queries is None:
        return documents[own], own
    given = queries[rng.permutation(len(queries))[: HELD_OUT + QUERIES]]
    nowhere = np.full(len(given), NOWHERE)
    if len(given) >= FEWEST_QUERIES:
        return given, nowhere
    mixed = rng.permutation(len(given) + len(own))
    return np.concatenate([given, documents[own]])[mixed], np.concatenate([nowhere, own])[mixed]
