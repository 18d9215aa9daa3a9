"""Fewer dimensions: the first ones, of models that were trained so (Matryoshka; Starbucks, arXiv 2410.13230)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.transform import Transform
from rarebit.errors import CodecError, InputError

Prefixes: TypeAlias = Float32[npt.NDArray[np.float32], "n out_dim"]
QueryPrefixes: TypeAlias = Float32[npt.NDArray[np.float32], "q out_dim"]


class Matryoshka(Transform):
    """Keeps the first ``out_dim`` numbers of each vector, made as long as the whole vector was.

    For unit vectors that is the usual renormalisation. Nothing is learned: whether the first dimensions carry the meaning is
    up to the model. A vector whose first ``out_dim`` numbers are zero becomes zero.

    Args:
        out_dim: dimensions to keep.
    """

    name = "matryoshka"
    scores_as_inverted = False  # renormalising is not undone

    def __init__(self, out_dim: int) -> None:
        """Create an unfitted transform."""
        super().__init__()
        if out_dim < 1:
            raise InputError(f"got out_dim={out_dim}, wanted at least 1 dimension to keep")
        self._out_dim = out_dim

    @property
    def out_dim(self) -> int:
        """Dimension of the vectors that come out."""
        return self._out_dim

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"out_dim": self._out_dim}

    def apply(self, vectors: Vectors) -> Prefixes:
        """Cut (n, dim) vectors to (n, out_dim), and scale each to its old length."""
        prefixes = vectors[:, : self._out_dim].astype(np.float64)
        kept = np.linalg.norm(prefixes, axis=1, keepdims=True)
        whole = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        factors = np.divide(whole, kept, out=np.zeros_like(whole), where=kept > 0)
        scaled: Prefixes = (prefixes * factors).astype(np.float32)
        return scaled

    def apply_queries(self, queries: Queries) -> QueryPrefixes:
        """Cut (q, dim) queries to (q, out_dim), and scale each to its old length."""
        return self.apply(queries)

    def invert(self, vectors: Prefixes) -> Vectors:
        """Put zeros for the (dim - out_dim) numbers that were cut off."""
        return np.pad(vectors, ((0, 0), (0, self.dim - self._out_dim)))

    def _fit(self, vectors: Vectors, *, progress: bool) -> None:
        del progress
        if self._out_dim > vectors.shape[1]:
            raise CodecError(f"got vectors of {self.dim} dimensions for {self!r}, wanted at least {self._out_dim}: keep fewer")
