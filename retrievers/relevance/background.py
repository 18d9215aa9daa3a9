"""How a query's scores are spread over a collection, told from the query alone.

A cosine of .5 says little for a query that is near everything, and much for one that is far from everything. Over a whole
collection the scores of a query q have the mean q·m and the variance qᵀCq, m and C being the mean and the covariance of the
vectors; C is kept as its largest directions, and what is left as if it were the same in all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from rarebit.arrays import Queries, Vector, VectorsLike, as_vectors
from rarebit.errors import InputError
from rarebit.retrievers.engines import AnyRows

DIRECTIONS: Final = 64
SAMPLE: Final = 4096
"""Passages from which a collection's background is taken."""

LEAST_SPREAD: Final = 1e-4

Moments: TypeAlias = Float64[npt.NDArray[np.float64], "q 2"]
"""For each query the mean of its scores over a collection, and their standard deviation."""


Variances: TypeAlias = Float32[npt.NDArray[np.float32], "rank"]


@dataclass(frozen=True)
class Background:
    """Mean and spread of a collection's vectors."""

    mean: Vector
    directions: Float32[npt.NDArray[np.float32], "rank dim"]
    """Of the largest variance, of length 1."""
    variances: Variances
    rest: float
    """The variance in each other direction."""

    @classmethod
    def of(cls, vectors: VectorsLike) -> Background:
        """Take the background of (n, dim) vectors, at least one."""
        given = as_vectors(vectors)
        if not len(given):
            raise InputError("got no vectors, wanted some of the passages that are searched")
        mean = given.mean(axis=0, dtype=np.float64)
        centred = given - mean
        variances, directions = np.linalg.eigh(centred.T @ centred / len(given))
        rank = min(DIRECTIONS, len(variances))
        rest = float(np.maximum(variances[:-rank], 0).mean()) if rank < len(variances) else 0.0
        kept = np.ascontiguousarray(directions[:, ::-1][:, :rank].T, dtype=np.float32)
        largest = np.maximum(variances[::-1][:rank], 0).astype(np.float32)
        return cls(mean.astype(np.float32), kept, largest, rest)

    @classmethod
    def of_collection(cls, rows: AnyRows, *, sample: int = SAMPLE, seed: int = 0) -> Background:
        """Take the background of a sample of a collection's passages.

        Raises:
            InputError: the collection is empty.
        """
        vectors = rows.sample_vectors(sample, seed=seed)
        if not len(vectors):
            raise InputError("got an empty collection, wanted one with passages: add them first")
        return cls.of(vectors)

    @property
    def length(self) -> float:
        """The typical length of a vector: the root of the mean square."""
        spread = float(self.variances.sum()) + self.rest * (self.dim - len(self.variances))
        return float(np.sqrt(spread + float(self.mean.astype(np.float64) @ self.mean)))

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return len(self.mean)

    def moments(self, queries: Queries) -> Moments:
        """Give for (q, dim) queries the mean and the standard deviation of their scores."""
        exact = queries.astype(np.float64)  # so that a query among many has the moments that it has alone
        along = (exact @ self.directions.T.astype(np.float64)) ** 2
        across = np.maximum((exact**2).sum(axis=1) - along.sum(axis=1), 0)
        spread = np.sqrt(along @ self.variances.astype(np.float64) + self.rest * across)
        return np.stack([exact @ self.mean.astype(np.float64), np.maximum(spread, LEAST_SPREAD)], axis=1)
