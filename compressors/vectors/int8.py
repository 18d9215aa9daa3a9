"""int8 with one scale a vector: the fine tier's codec by default, for what the codes miss."""

from __future__ import annotations

import numpy as np

from rarebit.arrays import Codes, Vectors
from rarebit.compressors.vectors.codec import Codec

SCALE_BYTES = 4
LEVELS = 127


class Int8(Codec):
    """Rounds each vector to 255 levels between minus and plus its own largest component.

    One byte a dimension and 4 for the float32 scale. The error of an inner product with a unit query is about
    ``max|x| / 127 / sqrt(12)``: 0.0004 for 384-dimensional unit vectors. Nothing is learned, so vectors written years apart
    decode alike, and the norm is kept, which inner product needs.
    """

    name = "int8"

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return SCALE_BYTES + self.dim

    def _encode(self, vectors: Vectors) -> Codes:
        scales = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(LEVELS)
        scales[scales == 0] = 1
        levels = np.rint(vectors / scales).astype(np.int8)
        return np.concatenate([scales.astype("<f4").view(np.uint8), levels.view(np.uint8)], axis=1)

    def _decode(self, codes: Codes) -> Vectors:
        scales = np.ascontiguousarray(codes[:, :SCALE_BYTES]).view("<f4")
        levels = codes[:, SCALE_BYTES:].view(np.int8)
        vectors: Vectors = levels.astype(np.float32) * scales
        return vectors
