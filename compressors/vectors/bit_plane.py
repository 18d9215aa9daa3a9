"""Sign bits that keep neighbours together: what engines with Hamming distances find candidates by.

Vectors are centred, turned into a space of more dimensions than they have, and cut to their signs. The turn is learned so that
vectors lie near the corners that their signs name (iterative quantisation, ITQ: Gong and Lazebnik, CVPR 2011). With twice as
many bits as dimensions, a third of the candidates bring as many of the nearest as with one bit a dimension.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from jaxtyping import Float32

from rarebit.arrays import Codes, Vector, Vectors, normalized
from rarebit.errors import CodecError

Turn: TypeAlias = Float32[npt.NDArray[np.float32], "dim bits"]

BITS_PER_DIMENSION: Final = 2
SAMPLE: Final = 8192
"""Vectors that the turn is learned from, at most."""

ROUNDS: Final = 12
"""Of learning; more change little."""


class BitPlane:
    """Turns (n, dim) vectors into bits whose Hamming distances follow their angles.

    Lengths are left out: a long vector has the bits of a short one of its direction.

    Args:
        centre: mean direction of the vectors.
        turn: rows of a rotation of as many dimensions as there are bits; a multiple of 8.
    """

    def __init__(self, centre: Vector, turn: Turn) -> None:
        """Take what was learned."""
        self._centre, self._turn = centre, turn

    @classmethod
    def fit(cls, vectors: Vectors, *, seed: int = 0) -> BitPlane:
        """Learn the bits from a sample.

        Raises:
            CodecError: there are no vectors.
        """
        if not len(vectors):
            raise CodecError("got no vectors to learn bits from, wanted at least one")
        rng = np.random.default_rng(seed)
        dim = vectors.shape[1]
        bits = -(-dim * BITS_PER_DIMENSION // 8) * 8
        centre: Vector = normalized(vectors).mean(axis=0)
        drawn = np.sort(rng.permutation(len(vectors))[:SAMPLE])
        centred = normalized(vectors[drawn]) - centre
        turn = np.linalg.qr(rng.standard_normal((bits, bits)))[0].astype(np.float32)[:dim]
        for _ in range(ROUNDS):
            # Procrustes: the rotation that brings the vectors, with zeros in the further dimensions, nearest to their signs.
            signs = np.where(centred @ turn > 0, np.float32(1), np.float32(-1))
            left, _, right = np.linalg.svd(centred.T @ signs, full_matrices=False)
            turn = left @ right
        return cls(centre, np.ascontiguousarray(turn))

    @property
    def bits(self) -> int:
        """Bits of a vector."""
        return int(self._turn.shape[1])

    def encode(self, vectors: Vectors) -> Codes:
        """Give the bits of (n, dim) vectors, eight a byte, the first the highest: (n, bits / 8)."""
        return np.packbits((normalized(vectors) - self._centre) @ self._turn > 0, axis=1)

    def learned(self) -> bytes:
        """Everything learned, as safetensors."""
        return safetensors.numpy.save({"centre": self._centre, "turn": self._turn})

    @classmethod
    def restore(cls, learned: bytes) -> BitPlane:
        """Take back what :meth:`learned` gave."""
        arrays = safetensors.numpy.load(learned)
        return cls(arrays["centre"], arrays["turn"])
