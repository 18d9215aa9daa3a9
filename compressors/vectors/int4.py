"""int4 with one scale a vector: half the bytes of int8, for a fine tier that has to be small."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Codes, Vectors
from rarebit.compressors.vectors.codec import Codec
from rarebit.compressors.vectors.fast_scan import pack_nibbles, unpack_nibbles

SCALE_BYTES = 4

HALVES, WHOLES = 7.5, 7.0
"""The largest level of the two grids: -7.5, -6.5 .. 7.5 without a zero, and -7, -6 .. 7 with one."""

CANDIDATES = ((HALVES, 0.6), (HALVES, 0.7), (HALVES, 0.8), (HALVES, 0.9), (HALVES, 1.0), (WHOLES, 0.8), (WHOLES, 1.0))
"""Grids to try, and what share of the largest component their largest level stands for."""

CHUNK = 1024
"""Vectors whose grids are sought at once: they stay in the processor's cache."""

Levels: TypeAlias = Float32[npt.NDArray[np.float32], "n dim"]


class Int4(Codec):
    """Rounds each vector to 15 or 16 levels, and keeps the scale that fits it best.

    Half a byte a dimension and 4 bytes for the float32 scale. Nothing is learned. For each vector a few grids are tried, and
    the one with the smallest squared error is kept: 16 levels around zero, or 15 with zero among them, which suits vectors
    with many zeros; the largest components may be clipped, so that the steps are smaller for all others. A negative scale marks
    the grid with zero.

    The squared error is about 1.2 % of the squared length of a 384-dimensional MiniLM vector (int8: 0.005 %), so the error of
    an inner product of unit vectors is about ``0.107 / sqrt(384)``: 0.0055 (int8: 0.0004).
    """

    name = "int4"

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return SCALE_BYTES + (self.dim + 1) // 2

    def _encode(self, vectors: Vectors) -> Codes:
        codes = np.empty((len(vectors), self.code_size), np.uint8)
        for start in range(0, len(vectors), CHUNK):
            codes[start : start + CHUNK] = _encoded(vectors[start : start + CHUNK])
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        scales = np.ascontiguousarray(codes[:, :SCALE_BYTES]).view("<f4")
        middles = np.where(scales < 0, np.float32(WHOLES), np.float32(HALVES))
        levels: Any = unpack_nibbles(np.ascontiguousarray(codes[:, SCALE_BYTES:]), self.dim) - middles
        vectors: Vectors = levels * np.abs(scales)
        return vectors


def _encoded(vectors: Vectors) -> Codes:
    """Try every grid on (n, dim) vectors, and encode each by its best."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    # Lengths 1 at most: the squares below neither overflow nor vanish.
    directions: Any = vectors / np.where(largest > 0, largest, np.float32(1))
    values = np.empty(vectors.shape, np.uint8)
    scales = np.zeros((len(vectors), 1), np.float32)
    best = np.full((len(vectors), 1), -1, np.float32)
    for top, share in CANDIDATES:
        levels = _rounded(directions * np.float32(top / share), top)
        products = np.einsum("nd,nd->n", directions, levels)[:, np.newaxis]
        squares = np.maximum(np.einsum("nd,nd->n", levels, levels)[:, np.newaxis], np.float32(1e-6))
        # With the scale p / s the error is |x|^2 - p^2 / s: the least error has the greatest p^2 / s.
        better = products * products / squares > best
        best = np.where(better, products * products / squares, best)
        fitted = products / squares * largest
        scales = np.where(better, -fitted if top == WHOLES else fitted, scales)
        np.copyto(values, (levels + np.float32(top)).astype(np.uint8), where=better)
    return np.concatenate([scales.astype("<f4").view(np.uint8), pack_nibbles(values)], axis=1)


def _rounded(scaled: Levels, top: float) -> Levels:
    """Give the nearest level of a grid to each number."""
    levels: Levels = np.rint(scaled) if top == WHOLES else np.floor(scaled) + np.float32(0.5)
    return np.clip(levels, -top, top)
