"""Where the variance of embeddings lies, and how many bits each direction deserves.

Embeddings of one model fill a long ellipsoid. In its principal axes the dimensions are uncorrelated, and reverse water-filling
(Shannon; Cover and Thomas, ch. 10) gives each axis the bits that its variance is worth: half of log2(variance / level), none
below the level. Errors of an inner product grow with the query's own variance along an axis, so an axis that queries use more
deserves more: distances are taken with the weight ``variance ** WEIGHT``, between plain squared error (0) and that of the inner
products of unrelated vectors (1), since the vectors that compete for the first places differ less along the long axes than all
vectors do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from rarebit.arrays import Vector, Vectors

WEIGHT = 0.5
"""Exponent of the variance in the weight of an axis. Measured on MiniLM vectors, recall is flat between 0.4 and 0.8."""

LEAST_RATE = 0.1
"""Bits below which an axis is left out."""

NEGLIGIBLE = 1e-7
"""Share of the largest variance below which an axis carries rounding errors only."""

Variances: TypeAlias = Float64[npt.NDArray[np.float64], "axes"]
Rates: TypeAlias = Float64[npt.NDArray[np.float64], "axes"]
"""Bits for each axis."""
Axes: TypeAlias = Float32[npt.NDArray[np.float32], "dim axes"]


@dataclass(frozen=True)
class Spectrum:
    """The principal axes of centred vectors, longest first."""

    mean: Vector
    axes: Axes
    variances: Variances

    @classmethod
    def of(cls, vectors: Vectors) -> Spectrum:
        """Measure (n, dim) vectors; axes without variance are left out, but one is always there."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean.astype(np.float32)
        covariance = (centred.T @ centred).astype(np.float64) / len(vectors)
        variances, axes = np.linalg.eigh(covariance)
        variances, axes = variances[::-1], axes[:, ::-1]
        real = max(1, int(np.count_nonzero(variances > NEGLIGIBLE * variances[0])))
        return cls(
            mean.astype(np.float32), np.ascontiguousarray(axes[:, :real], dtype=np.float32), np.maximum(variances[:real], 0)
        )

    @property
    def weights(self) -> Variances:
        """What an error along each axis weighs, 1 on the longest."""
        longest = self.variances[0]
        return (self.variances / longest) ** WEIGHT if longest > 0 else np.ones_like(self.variances)

    def rates(self, bits: float) -> Rates:
        """Share bits out among the axes that deserve some, by reverse water-filling: they fall from axis to axis."""
        worth = np.log2(np.maximum(self.variances * self.weights, np.finfo(float).tiny)) / 2
        taken = np.cumsum(worth)
        count = np.arange(1, len(worth) + 1)
        levels = (taken - bits) / count
        used = int(np.flatnonzero(worth >= levels)[-1]) + 1
        rates: Rates = np.maximum(worth[:used] - levels[used - 1], 0)
        return rates[: max(1, int(np.count_nonzero(rates >= LEAST_RATE)))]
