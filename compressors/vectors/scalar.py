"""Scalar quantisation, 8 or 4 bits a dimension, through faiss."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from rarebit.arrays import Codes, Queries, Vector, Vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec
from rarebit.compressors.vectors.scanning import Division, FaissScanner, Scanner
from rarebit.errors import InputError

# 4 bits: levels spread over the mean +- 2.5 standard deviations of each dimension keep more neighbours than the full range
# does. At 8 bits clipping the range hurts.
DEVIATIONS = 2.5
KINDS = {8: faiss.ScalarQuantizer.QT_8bit, 4: faiss.ScalarQuantizer.QT_4bit}


class Scalar(SearchableCodec):
    """Rounds each dimension to a uniform grid over the range seen in training.

    Args:
        bits: 8 or 4 bits a dimension.
    """

    name = "scalar"
    training_minimum = 1024

    def __init__(self, bits: int = 8) -> None:
        """Create an unfitted codec."""
        super().__init__()
        if bits not in KINDS:
            raise InputError(f"got bits={bits!r}, wanted one of {sorted(KINDS)} bits a dimension")
        self.bits = bits
        self._index: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"bits": self.bits}

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return (self.dim * self.bits + 7) // 8

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:  # noqa: ARG002
        """Put the codes into a faiss ``IndexScalarQuantizer`` over the codes."""
        index = self._trained_index(faiss.vector_to_array(self._index.sq.trained))
        index.add_sa_codes(codes)
        return FaissScanner(index, self.code_size)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        del queries, progress
        self._index = self._trained_index(np.concatenate(_ranges(vectors, self.bits)))

    def _encode(self, vectors: Vectors) -> Codes:
        codes: Codes = self._index.sa_encode(vectors)
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        vectors: Vectors = self._index.sa_decode(codes)
        return vectors

    def _arrays(self) -> Arrays:
        return {"ranges": faiss.vector_to_array(self._index.sq.trained)}

    def _restore(self, arrays: Arrays) -> None:
        self._index = self._trained_index(arrays["ranges"])

    def _new_index(self) -> Any:
        return faiss.IndexScalarQuantizer(self.dim, KINDS[self.bits], faiss.METRIC_INNER_PRODUCT)

    def _trained_index(self, ranges: Any) -> Any:
        index = self._new_index()
        faiss.copy_array_to_vector(np.ascontiguousarray(ranges, dtype=np.float32), index.sq.trained)
        index.is_trained = True
        return index


def _ranges(vectors: Vectors, bits: int) -> tuple[Vector, Vector]:
    """Give where the levels of each dimension begin, and how far they reach.

    Not by faiss, whose threads mix up dimensions now and then: the same vectors have to give the same codes.
    """
    if bits == 8:
        lowest = vectors.min(axis=0)
        return lowest, vectors.max(axis=0) - lowest
    mean, deviation = vectors.mean(axis=0, dtype=np.float64), vectors.std(axis=0, dtype=np.float64)
    return (mean - DEVIATIONS * deviation).astype(np.float32), (2 * DEVIATIONS * deviation).astype(np.float32)
