"""float32 as it is: the exact codec, and the state of every collection that has too little to train on."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from rarebit.arrays import Codes, Vectors
from rarebit.compressors.vectors.codec import SearchableCodec


class Exact(SearchableCodec):
    """Keeps each vector as float32: 4 bytes a dimension, no loss."""

    name = "float32"
    lossless = True

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return 4 * self.dim

    def search_index(self, codes: Codes) -> Any:
        """Build a faiss ``IndexFlatIP`` over the vectors."""
        index = faiss.IndexFlatIP(self.dim)
        index.add(self._decode(codes))
        return index

    def _encode(self, vectors: Vectors) -> Codes:
        return vectors.view(np.uint8)

    def _decode(self, codes: Codes) -> Vectors:
        return codes.view(np.float32)
