"""A random rotation: what is unevenly spread over the dimensions becomes even, and inner products stay."""

from __future__ import annotations

from typing import Any

import numpy as np

from rarebit.arrays import Vectors
from rarebit.compressors.vectors.codec import Arrays
from rarebit.compressors.vectors.transform import Transform


class Rotation(Transform):
    """Rotates vectors by a random orthogonal matrix, uniformly distributed over all of them.

    Nothing is learned from vectors but their dimension, for which the matrix is drawn. It is stored with the codec,
    ``4 * dim * dim`` bytes, since random numbers need not be the same in another version of numpy.

    Args:
        seed: of the random matrix.
    """

    name = "rotation"
    training_minimum = 1

    def __init__(self, seed: int = 0) -> None:
        """Create an unfitted transform."""
        super().__init__()
        self.seed = seed
        self._matrix = np.empty((0, 0), np.float32)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"seed": self.seed}

    def apply(self, vectors: Vectors) -> Vectors:
        """Rotate (n, dim) vectors."""
        rotated: Vectors = vectors @ self._matrix
        return rotated

    def invert(self, vectors: Vectors) -> Vectors:
        """Rotate (n, dim) vectors back."""
        rotated: Vectors = vectors @ self._matrix.T
        return rotated

    def arrays(self) -> Arrays:
        """Give the matrix, (dim, dim)."""
        return {"matrix": self._matrix}

    def _fit(self, vectors: Vectors, *, progress: bool) -> None:
        del vectors, progress
        normal = np.random.default_rng(self.seed).standard_normal((self.dim, self.dim))
        orthogonal, triangular = np.linalg.qr(normal)
        # QR alone prefers some matrices; with these signs every orthogonal matrix is equally likely (Mezzadri 2007).
        self._matrix = (orthogonal * np.sign(np.diag(triangular))).astype(np.float32)

    def _restore(self, arrays: Arrays) -> None:
        self._matrix = arrays["matrix"]
