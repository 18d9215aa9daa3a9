"""The one number that each vector keeps beside its code: the factor that fits the decoded vector to it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Codes, RowIds, Vectors

Factors: TypeAlias = Float32[npt.NDArray[np.float32], "n"]

UNEQUAL = 1.02
"""Longest vector / shortest from which a factor carries the vector's length too, and takes two bytes."""

MARGIN = 1.25
"""How far beyond the factors seen in training the grid reaches."""


def least_squares(vectors: Vectors, decoded: Vectors) -> Factors:
    """Give, for each of n vectors, the factor of its decoded vector that leaves the smallest squared error.

    A decoded vector is shorter than the vector it stands for, by another share for each: without the factor, the scores of
    those that happen to be decoded well come out too high.
    """
    products, squares = (vectors * decoded).sum(axis=1), (decoded * decoded).sum(axis=1)
    return np.where(squares > 0, products / np.where(squares > 0, squares, 1), 1).astype(np.float32)


class FactorGrid:
    """Rounds positive factors to a logarithmic grid: 255 steps of about 0.3 % in one byte, or 65,535 in two.

    Args:
        low: the smallest factor.
        high: the largest.
        size: bytes a factor.
    """

    def __init__(self, low: float, high: float, size: int) -> None:
        """Lay the grid out."""
        self.low, self.high, self.size = float(low), float(high), size
        self._dtype: Any = "<u1" if size == 1 else "<u2"
        self._steps = 256**size - 1

    @classmethod
    def fit(cls, factors: Factors, size: int) -> FactorGrid:
        """Cover the factors of a sample, and some more."""
        positive = factors[factors > 0]
        if not len(positive):
            return cls(1 / MARGIN, MARGIN, size)
        return cls(float(positive.min()) / MARGIN**size, float(positive.max()) * MARGIN**size, size)

    def encode(self, factors: Factors) -> Codes:
        """Give (n, size) bytes; what lies beyond the grid becomes its end, and what is not positive its lowest."""
        places = np.log(np.maximum(factors, self.low) / self.low) / np.log(self.high / self.low) * self._steps
        rounded = np.rint(np.minimum(places, self._steps)).astype(self._dtype)
        codes: Codes = np.ascontiguousarray(rounded[:, np.newaxis]).view(np.uint8)
        return codes

    def decode(self, codes: Codes) -> Factors:
        """Give the factors of (n, size) bytes."""
        places = np.ascontiguousarray(codes).view(self._dtype)[:, 0].astype(np.float32)
        factors: Factors = (self.low * np.exp(places * np.float32(np.log(self.high / self.low) / self._steps))).astype(
            np.float32
        )
        return factors


class PackedFactors:
    """The factors of many vectors, kept in their bytes, and decoded where they are asked for."""

    def __init__(self, grid: FactorGrid, codes: Codes) -> None:
        """Keep (n, size) bytes."""
        self._grid = grid
        self._codes = np.ascontiguousarray(codes)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._codes.nbytes

    def __getitem__(self, places: RowIds) -> Factors:
        """Give the factors at some places."""
        return self._grid.decode(self._codes[places])


def factor_bytes(vectors: Vectors) -> int:
    """Give the bytes that a factor needs: one where all vectors are equally long, two where it carries their length."""
    norms = np.linalg.norm(vectors, axis=1)
    norms = norms[norms > 0]
    return 1 if not len(norms) or norms.max() <= UNEQUAL * norms.min() else 2
