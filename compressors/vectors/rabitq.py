"""RaBitQ: one bit a dimension with an unbiased estimate of the inner product (Gao and Long, SIGMOD 2024), through faiss."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from rarebit.arrays import Codes, Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec

QUERY_BITS = 8
"""Bits to which faiss rounds each dimension of the query, so that it can count bits instead of multiplying."""

FACTOR_BYTES = 8
"""Two float32 numbers beside the signs: the length of the centred vector, and what makes the estimate unbiased."""


class RaBitQ(SearchableCodec):
    """The signs of the centred, randomly rotated vector, and two float32 factors that make the estimate unbiased.

    ``dim / 8 + 8`` bytes a vector. The rotation spreads every vector's length evenly over the dimensions, on which the
    estimate's guarantee rests; the centre is the mean of the training vectors.

    Args:
        seed: of the random rotation.
    """

    name = "rabitq"
    training_minimum = 1024

    def __init__(self, seed: int = 0) -> None:
        """Create an unfitted codec."""
        super().__init__()
        self.seed = seed
        self._rotation: Vectors = np.empty((0, 0), dtype=np.float32)
        self._index: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"seed": self.seed}

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return (self.dim + 7) // 8 + FACTOR_BYTES

    def prepare_queries(self, queries: Queries) -> Queries:
        """Rotate (q, dim) queries as the vectors were."""
        return queries @ self._rotation

    def search_index(self, codes: Codes) -> Any:
        """Build a faiss ``IndexRaBitQ`` over the codes."""
        index = self._centred_index(faiss.vector_to_array(self._index.center))
        index.add_sa_codes(codes)
        return index

    def _fit(self, vectors: Vectors, queries: Queries | None) -> None:
        del queries
        noise = np.random.default_rng(self.seed).standard_normal((self.dim, self.dim))
        self._rotation = np.linalg.qr(noise)[0].astype(np.float32)
        self._index = self._centred_index((vectors @ self._rotation).mean(axis=0, dtype=np.float64))

    def _encode(self, vectors: Vectors) -> Codes:
        codes: Codes = self._index.sa_encode(np.ascontiguousarray(vectors @ self._rotation))
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        rotated: Vectors = self._index.sa_decode(codes)
        return rotated @ self._rotation.T

    def _arrays(self) -> Arrays:
        return {"rotation": self._rotation, "center": faiss.vector_to_array(self._index.center)}

    def _restore(self, arrays: Arrays) -> None:
        self._rotation = arrays["rotation"]
        self._index = self._centred_index(arrays["center"])

    def _centred_index(self, center: Any) -> Any:
        index = faiss.IndexRaBitQ(self.dim, faiss.METRIC_INNER_PRODUCT)
        index.qb = QUERY_BITS
        faiss.copy_array_to_vector(np.ascontiguousarray(center, dtype=np.float32), index.center)
        index.is_trained = True
        return index
