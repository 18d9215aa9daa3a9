"""float32 as it is: the exact codec, and the state of every collection that has too little to train on."""

from __future__ import annotations

import faiss
import numpy as np

from rarebit.arrays import Codes, Vectors
from rarebit.compressors.vectors.codec import SearchableCodec
from rarebit.compressors.vectors.scanning import Division, FaissScanner, Scanner


class Exact(SearchableCodec):
    """Keeps each vector as float32: 4 bytes a dimension, no loss."""

    name = "float32"
    lossless = True

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return 4 * self.dim

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:  # noqa: ARG002
        """Put the codes into a faiss ``IndexFlatIP`` over the vectors."""
        index = faiss.IndexFlatIP(self.dim)
        index.add(self._decode(codes))
        return FaissScanner(index, self.code_size)

    def _encode(self, vectors: Vectors) -> Codes:
        return vectors.view(np.uint8)

    def _decode(self, codes: Codes) -> Vectors:
        return codes.view(np.float32)
