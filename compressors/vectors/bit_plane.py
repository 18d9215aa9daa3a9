"""Sign bits that keep neighbours together: what engines with Hamming distances find candidates by.

Vectors are turned into a space of more dimensions than they have, and cut to their signs: of two vectors, the share of bits in
which they differ is their angle's share of a half turn, on average (Charikar, STOC 2002), and nearer to it for directions that
are at right angles to each other (super-bit LSH: Ji et al., NIPS 2012). For .99 of the ten nearest of 200,000 passages,
embedded with MiniLM, it takes 150 candidates by three bits a dimension, 350 by two, and over 1,000 by one. Learned directions
(iterative quantisation) are worth something at one bit a dimension, and nothing from two on.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from jaxtyping import Float32, Int

from rarebit.arrays import Codes, Vector, Vectors, normalized
from rarebit.errors import CodecError

Turn: TypeAlias = Float32[npt.NDArray[np.float32], "dim bits"]
Places: TypeAlias = Int[npt.NDArray[np.int64], "asked near"]

BITS_PER_DIMENSION: Final = 3
SAMPLE: Final = 8192
"""Vectors that say whether to centre, at most."""

ASKED: Final = 200
"""Vectors of a sample whose neighbours are looked for."""

NEIGHBOURS: Final = 10
DECIDING: Final = 0.99
"""Share of the neighbours whose places are compared."""


class BitPlane:
    """Turns (n, dim) vectors into bits whose Hamming distances follow their angles.

    Lengths are left out: a long vector has the bits of a short one of its direction.

    Args:
        centre: what angles are seen from: nothing, or the mean direction of the vectors.
        turn: rows of a rotation of as many dimensions as there are bits; a multiple of 8.
    """

    def __init__(self, centre: Vector, turn: Turn) -> None:
        """Take what was learned."""
        self._centre, self._turn = centre, turn

    @classmethod
    def fit(cls, vectors: Vectors, *, seed: int = 0) -> BitPlane:
        """Draw directions, and learn from a sample what angles are seen from.

        Vectors that all lie in a narrow cone, as those of some models do, differ in few bits unless they are centred; those of
        others lose by it.

        Raises:
            CodecError: there are no vectors.
        """
        if not len(vectors):
            raise CodecError("got no vectors to learn bits from, wanted at least one")
        rng = np.random.default_rng(seed)
        dim = vectors.shape[1]
        bits = -(-dim * BITS_PER_DIMENSION // 8) * 8
        turn = np.ascontiguousarray(np.linalg.qr(rng.standard_normal((bits, bits)))[0].astype(np.float32)[:dim])
        nothing: Vector = np.zeros(dim, np.float32)
        mean: Vector = normalized(vectors).mean(axis=0)
        sample = normalized(vectors[np.sort(rng.permutation(len(vectors))[:SAMPLE])])
        planes = (cls(nothing, turn), cls(mean, turn))
        return min(planes, key=lambda plane: _farthest(plane.places_of_neighbours(sample)))

    @property
    def bits(self) -> int:
        """Bits of a vector."""
        return int(self._turn.shape[1])

    def encode(self, vectors: Vectors) -> Codes:
        """Give the bits of (n, dim) vectors, eight a byte, the first the highest: (n, bits / 8)."""
        return np.packbits((normalized(vectors) - self._centre) @ self._turn > 0, axis=1)

    def places_of_neighbours(self, vectors: Vectors) -> Places:
        """Say at which places, by their bits, the ten nearest of some vectors stand among all: (asked, ten or fewer), from 1.

        Of rows with as many other bits, each has the last place.

        Args:
            vectors: (n, dim); as many as fit into memory several times, with their bits as numbers.
        """
        asked = np.random.default_rng(0).permutation(len(vectors))[:ASKED]
        scores = vectors[asked] @ vectors.T
        scores[np.arange(len(asked)), asked] = -np.inf  # a vector is not its own neighbour
        count = min(NEIGHBOURS, len(vectors) - 1)
        near = np.argpartition(-scores, max(0, count - 1), axis=1)[:, :count]
        codes = np.unpackbits(self.encode(vectors), axis=1).astype(np.float32) * 2 - 1
        agreement = codes[asked] @ codes.T
        agreement[np.arange(len(asked)), asked] = -np.inf
        of_near = np.take_along_axis(agreement, near, axis=1)
        places: Places = np.zeros(near.shape, np.int64)
        for place, column in enumerate(of_near.T):
            places[:, place] = (agreement >= column[:, np.newaxis]).sum(axis=1)
        return places

    def learned(self) -> bytes:
        """Everything learned, as safetensors."""
        return safetensors.numpy.save({"centre": self._centre, "turn": self._turn})

    @classmethod
    def restore(cls, learned: bytes) -> BitPlane:
        """Take back what :meth:`learned` gave."""
        arrays = safetensors.numpy.load(learned)
        return cls(arrays["centre"], arrays["turn"])


def _farthest(places: Places) -> float:
    return float(np.quantile(places, DECIDING)) if places.size else 0.0
