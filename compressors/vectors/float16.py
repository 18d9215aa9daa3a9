"""float16: half the bytes, for the fine tier of those who want more than int8, or as codes."""

from __future__ import annotations

import faiss
import numpy as np

from rarebit.arrays import Codes, Vectors
from rarebit.compressors.vectors.codec import SearchableCodec
from rarebit.compressors.vectors.scanning import Division, FaissScanner, Scanner
from rarebit.errors import VectorError

LARGEST = float(np.finfo(np.float16).max)


class Float16(SearchableCodec):
    """Rounds each number to IEEE half precision: 2 bytes a dimension, relative error at most 2^-11."""

    name = "float16"

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return 2 * self.dim

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:  # noqa: ARG002
        """Put the codes into a faiss scalar quantiser index over the halves."""
        index = faiss.IndexScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
        index.add_sa_codes(codes)
        return FaissScanner(index, self.code_size)

    def _encode(self, vectors: Vectors) -> Codes:
        largest = float(np.abs(vectors).max(initial=0))
        if largest > LARGEST:
            raise VectorError(
                f"got vectors with a component of size {largest:.3g}, wanted at most {LARGEST:.0f}, the largest float16: "
                "scale them down or store them as float32"
            )
        return vectors.astype("<f2").view(np.uint8)

    def _decode(self, codes: Codes) -> Vectors:
        return codes.view("<f2").astype(np.float32)
