"""RaBitQ: one bit a dimension with an unbiased estimate of the inner product (Gao and Long, SIGMOD 2024), through faiss."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rarebit.arrays import Codes, Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec
from rarebit.compressors.vectors.scanning import FaissScanner, Scanner

QUERY_BITS = 8
"""Bits to which faiss rounds each dimension of the query, so that it can count bits instead of multiplying."""

FACTOR_BYTES = 8
"""Two float32 numbers beside the signs: the length of the centred vector, and what makes the estimate unbiased."""


BLOCK = 64
"""Dimensions that are rotated together."""


class RaBitQ(SearchableCodec):
    """The signs of the centred, randomly rotated vector, and two float32 factors that make the estimate unbiased.

    ``dim / 8 + 8`` bytes a vector. The rotation spreads every vector's length evenly over the dimensions, on which the
    estimate's guarantee rests; the centre is the mean of the training vectors. Dimensions are rotated in random groups of at
    most 64, which mixes them well enough and keeps ``64 * dim`` numbers in memory instead of ``dim * dim``.

    Args:
        seed: of the random rotation.
    """

    name = "rabitq"
    training_minimum = 1024

    def __init__(self, seed: int = 0) -> None:
        """Create an unfitted codec."""
        super().__init__()
        self.seed = seed
        self._groups: list[npt.NDArray[np.int32]] = []
        self._rotations: list[npt.NDArray[np.float32]] = []
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
        return self._rotated(queries)

    def scanner(self, codes: Codes) -> Scanner:
        """Put the codes into a faiss ``IndexRaBitQ`` over the codes."""
        index = self._centred_index(faiss.vector_to_array(self._index.center))
        index.add_sa_codes(codes)
        return FaissScanner(index, self.code_size)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        del queries, progress
        rng = np.random.default_rng(self.seed)
        self._group(rng.permutation(self.dim))
        self._rotations = [_random_rotation(rng, len(group)) for group in self._groups]
        self._index = self._centred_index(self._rotated(vectors).mean(axis=0, dtype=np.float64))

    def _encode(self, vectors: Vectors) -> Codes:
        codes: Codes = self._index.sa_encode(self._rotated(vectors))
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        rotated: Vectors = self._index.sa_decode(codes)
        vectors = np.empty_like(rotated)
        for group, rotation in zip(self._groups, self._rotations, strict=True):
            vectors[:, group] = rotated[:, group] @ rotation.T
        return vectors

    def _arrays(self) -> Arrays:
        return {
            "order": np.concatenate(self._groups),
            "rotations": np.concatenate([rotation.ravel() for rotation in self._rotations]),
            "center": faiss.vector_to_array(self._index.center),
        }

    def _restore(self, arrays: Arrays) -> None:
        self._group(arrays["order"])
        ends = np.cumsum([len(group) ** 2 for group in self._groups])[:-1]
        parts = np.split(arrays["rotations"], ends)
        self._rotations = [part.reshape(len(group), -1) for part, group in zip(parts, self._groups, strict=True)]
        self._index = self._centred_index(arrays["center"])

    def _group(self, order: npt.NDArray[np.integer[Any]]) -> None:
        """Cut a random order of the dimensions into groups of nearly equal size."""
        self._groups = np.array_split(order.astype(np.int32), -(-self.dim // BLOCK))

    def _rotated(self, vectors: Vectors) -> Vectors:
        rotated = np.empty_like(vectors)
        for group, rotation in zip(self._groups, self._rotations, strict=True):
            rotated[:, group] = vectors[:, group] @ rotation
        return rotated

    def _centred_index(self, center: Any) -> Any:
        index = faiss.IndexRaBitQ(self.dim, faiss.METRIC_INNER_PRODUCT)
        index.qb = QUERY_BITS
        faiss.copy_array_to_vector(np.ascontiguousarray(center, dtype=np.float32), index.center)
        index.is_trained = True
        return index


def _random_rotation(rng: np.random.Generator, dim: int) -> npt.NDArray[np.float32]:
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
