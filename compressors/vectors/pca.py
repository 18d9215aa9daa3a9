"""Fewer dimensions: the principal directions of the vectors (as in PCA-RAG, arXiv 2504.08386)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays
from rarebit.compressors.vectors.transform import Transform
from rarebit.errors import CodecError, InputError

Projected: TypeAlias = Float32[npt.NDArray[np.float32], "n out_dim"]
ProjectedQueries: TypeAlias = Float32[npt.NDArray[np.float32], "q out_dim"]

FEWEST = 1024
"""Vectors that a good fit needs, if no more directions are wanted."""

CHUNK = 16_384
"""Vectors that are turned to float64 at once while the second moment is summed up."""


class PCA(Transform):
    """Projects vectors on the ``out_dim`` directions in which they are longest on average.

    Nothing is centred: centring would change inner products, and their order. The directions are the eigenvectors of the
    second moment ``x.T @ x / n``, so the mean is one of the things that they carry. Lengths are not made up for: what lies
    outside the directions is lost, and an inner product with it.

    Args:
        out_dim: dimensions to keep; as many as the vectors have only rotates them.
    """

    name = "pca"

    def __init__(self, out_dim: int) -> None:
        """Create an unfitted transform."""
        super().__init__()
        if out_dim < 1:
            raise InputError(f"got out_dim={out_dim}, wanted at least 1 dimension to keep")
        self._out_dim = out_dim
        self.training_minimum = max(FEWEST, out_dim)
        self._directions = np.empty((0, out_dim), np.float32)

    @property
    def out_dim(self) -> int:
        """Dimension of the vectors that come out."""
        return self._out_dim

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"out_dim": self._out_dim}

    def apply(self, vectors: Vectors) -> Projected:
        """Project (n, dim) vectors to (n, out_dim)."""
        projected: Projected = vectors @ self._directions
        return projected

    def apply_queries(self, queries: Queries) -> ProjectedQueries:
        """Project (q, dim) queries to (q, out_dim)."""
        return self.apply(queries)

    def invert(self, vectors: Projected) -> Vectors:
        """Give the (n, dim) vectors within the directions that project to these."""
        inverted: Vectors = vectors @ self._directions.T
        return inverted

    def arrays(self) -> Arrays:
        """Give the directions, (dim, out_dim)."""
        return {"directions": self._directions}

    def _fit(self, vectors: Vectors, *, progress: bool) -> None:
        del progress
        if self._out_dim > self.dim:
            raise CodecError(f"got vectors of {self.dim} dimensions for {self!r}, wanted at least {self._out_dim}: keep fewer")
        if len(vectors) < self._out_dim:
            raise CodecError(
                f"got {len(vectors)} vectors to fit {self!r} on, wanted at least {self._out_dim} (better "
                f"{self.training_minimum}): fewer do not show that many directions"
            )
        self._directions = _longest(_second_moment(vectors), self._out_dim)

    def _restore(self, arrays: Arrays) -> None:
        self._directions = arrays["directions"]


def _second_moment(vectors: Vectors) -> npt.NDArray[np.float64]:
    moment = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), CHUNK):
        chunk = vectors[start : start + CHUNK].astype(np.float64)
        moment += chunk.T @ chunk
    return moment / len(vectors)


def _longest(moment: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float32]:
    """Give the eigenvectors of the largest eigenvalues as columns, largest first, each with its largest component positive."""
    directions = np.linalg.eigh(moment)[1][:, : -count - 1 : -1]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[np.newaxis], axis=0)
    return np.ascontiguousarray(directions * np.sign(largest), dtype=np.float32)
