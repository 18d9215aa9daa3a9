"""A map of the queries for re-ranking with rough fine vectors (the second stage of BiDR, 2201.05409, on frozen embeddings).

The coarse codes find candidates, the fine vectors order them. Where the fine vectors are rough, their errors are not the same
in all directions, and a query that asks less in the directions where they are wrong orders them better. BiDR trains the dense
encoder for that on negatives from the candidates of the coarse stage; here the encoder is frozen, and what is trained is one
linear map of the queries, from the identity on, by ListNet against the exact scores of those same candidates.

The gradient is short enough to write down, so training needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.course import Course, best_looked_at
from rarebit.errors import CodecError, InputError, NotFittedError

FEWEST = 64
"""Queries that fitting wants at least."""

HELD_OUT = 500
"""Queries at most that are kept out of training; at most one in four."""

TEMPERATURE = 0.02
"""Of the softmax over candidates, relative to the product of the mean lengths of queries and fine vectors."""

RATE = 1e-4
"""Adam's steps, relative to the identity."""

BATCH = 32
"""Queries a step."""

FIRST = 10
"""Places of which recall is measured."""

Square: TypeAlias = Float32[npt.NDArray[np.float32], "dim dim"]
Rows: TypeAlias = Int64[npt.NDArray[np.int64], "q candidates"]
Exact: TypeAlias = Float32[npt.NDArray[np.float32], "q candidates"]


@dataclass(frozen=True)
class QueryMapReport:
    """Recall of the exact first ten among a query's candidates, on queries that training did not see."""

    identity: float
    """With the queries as they are."""
    mapped: float
    """With the map; never lower than ``identity``."""
    steps: int
    """After how many steps the map was best; 0 if it is the identity."""


class QueryMap:
    """Maps (q, dim) queries so that inner products with rough fine vectors rank as the exact ones do.

    It is worth its ``4 * dim * dim`` bytes only where the fine vectors are much rougher than int8; ``report`` says what it
    brings. It stays the identity where it brings nothing on the held-out queries.

    Args:
        steps: batches of 32 queries at most.
        seed: of the order of the queries.
    """

    def __init__(self, steps: int = 400, seed: int = 0) -> None:
        """Create an unfitted map."""
        if steps < 0:
            raise InputError(f"got steps={steps}, wanted 0 (the identity) or more")
        self.steps = steps
        self.seed = seed
        self.report: QueryMapReport | None = None
        self._matrix: Square | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""
        return {"steps": self.steps, "seed": self.seed}

    @property
    def dim(self) -> int:
        """Dimension of the queries; raises NotFittedError before ``fit``."""
        return len(self._fitted)

    def fit(self, queries: Queries, fine: Vectors, candidates: Rows, exact: Exact, *, progress: bool = False) -> QueryMap:
        """Learn the map, and return it.

        Args:
            queries: (q, dim), or documents' own vectors in their place, if they are left out of their own candidates.
            fine: (n, dim) documents as decoded from the fine tier.
            candidates: (q, candidates) which of them the coarse tier found for each query; 100 to 200 are enough.
            exact: (q, candidates) inner products of the queries with the float vectors of these documents.
            progress: whether to show a bar.

        Raises:
            CodecError: too few queries, or candidates, to learn from.
            InputError: candidates that are not rows of ``fine``.
        """
        _check(queries, fine, candidates)
        order = np.random.default_rng(self.seed).permutation(len(queries))
        held, rest = np.split(order, [min(HELD_OUT, len(order) // 4)])
        task = _Task(queries, fine, candidates, exact)
        identity = np.eye(queries.shape[1], dtype=np.float32)

        def recall(matrix: Square) -> float:
            return task.recall(held, matrix)

        course = _Course(task, rest, self.steps, self.seed)
        matrix, best_step = best_looked_at(identity, course, self.steps, recall, progress=progress)
        self._matrix, self.report = matrix, QueryMapReport(recall(identity), recall(matrix), best_step)
        return self

    def apply_queries(self, queries: Queries) -> Queries:
        """Map (q, dim) queries; their inner products with decoded fine vectors are the scores."""
        if queries.shape[1] != self.dim:
            raise InputError(f"got queries of dimension {queries.shape[1]}, wanted {self.dim}, which the map was fitted on")
        mapped: Queries = queries @ self._fitted
        return mapped

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give everything learned, by name."""
        return {"matrix": self._fitted}

    @classmethod
    def restore(cls, *, config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> QueryMap:
        """Rebuild a fitted map from its configuration and what :meth:`arrays` gave."""
        restored = cls(**config)
        restored._matrix = arrays["matrix"]
        return restored

    def __repr__(self) -> str:
        """Name the settings."""
        return f"QueryMap(steps={self.steps}, seed={self.seed})"

    @property
    def _fitted(self) -> Square:
        if self._matrix is None:
            raise NotFittedError(f"{self!r} was used before it was fitted: call fit(...) or restore a fitted map")
        return self._matrix


class _Task:
    """The queries and their candidates."""

    def __init__(self, queries: Queries, fine: Vectors, candidates: Rows, exact: Exact) -> None:
        self._queries, self._fine, self._candidates, self._exact = queries, fine, candidates, exact
        self.dim = queries.shape[1]
        lengths = np.linalg.norm(queries, axis=1).mean() * np.linalg.norm(fine, axis=1).mean()
        self._temperature = np.float32(TEMPERATURE * (lengths or 1))
        self._wanted = _first(exact)

    def recall(self, rows: npt.NDArray[np.int64], matrix: Square) -> float:
        """Give the share of the exact first ten that the map finds for some queries."""
        found = np.concatenate([_first(self._scores(rows[i : i + BATCH], matrix)) for i in range(0, len(rows), BATCH)])
        hits = (found[:, :, np.newaxis] == self._wanted[rows][:, np.newaxis, :]).sum()
        return float(hits) / found.size

    def gradient(self, rows: npt.NDArray[np.int64], matrix: Square) -> Square:
        """Give the gradient of ListNet: for each query, the query times what its candidates' shares are off by."""
        shares = _softmax(self._scores(rows, matrix) / self._temperature)
        wanted = _softmax(self._exact[rows] / self._temperature)
        off = np.einsum("qc,qcd->qd", shares - wanted, self._fine[self._candidates[rows]])
        gradient: Square = self._queries[rows].T @ off / (len(rows) * self._temperature)
        return gradient

    def _scores(self, rows: npt.NDArray[np.int64], matrix: Square) -> npt.NDArray[np.float32]:
        fine = self._fine[self._candidates[rows]]
        scores: npt.NDArray[np.float32] = np.matmul(fine, (self._queries[rows] @ matrix)[:, :, np.newaxis])[:, :, 0]
        return scores


class _Course(Course[Square]):
    """Adam (Kingma and Ba, ICLR 2015) from the identity on, with steps that shrink linearly."""

    def __init__(self, task: _Task, rows: npt.NDArray[np.int64], steps: int, seed: int) -> None:
        self._task, self._rows, self._steps, self._taken = task, rows, steps, 0
        self._rng = np.random.default_rng(seed)
        self._matrix = np.eye(task.dim, dtype=np.float32)
        self._mean, self._square = np.zeros_like(self._matrix), np.zeros_like(self._matrix)

    def step(self) -> None:
        """Take one batch of queries, and step against its gradient."""
        gradient = self._task.gradient(self._rng.choice(self._rows, min(BATCH, len(self._rows)), replace=False), self._matrix)
        self._taken += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient * gradient - self._square)
        mean, square = self._mean / (1 - 0.9**self._taken), self._square / (1 - 0.999**self._taken)
        rate = RATE * (1 - (self._taken - 1) / self._steps)
        self._matrix -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))

    def look(self) -> Square:
        """Give the map as it is now."""
        return self._matrix.copy()


def _softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _first(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Give the places of the ten highest of each row."""
    first: npt.NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :FIRST]
    return first


def _check(queries: Queries, fine: Vectors, candidates: Rows) -> None:
    if len(queries) < FEWEST or candidates.shape[1] <= FIRST:
        raise CodecError(
            f"got {len(queries)} queries with {candidates.shape[1]} candidates each, wanted at least {FEWEST} with more than "
            f"{FIRST}: without them, re-rank with the queries as they are"
        )
    if candidates.min() < 0 or candidates.max() >= len(fine):
        raise InputError(
            f"got candidates from {candidates.min()} to {candidates.max()}, wanted rows of the {len(fine)} fine vectors: give "
            "each query as many candidates as were found"
        )
