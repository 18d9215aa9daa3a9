"""Bits whose distances follow angles."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.arrays import normalized
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.errors import CodecError

RNG = np.random.default_rng(0)
# A few strong directions and a mean that is not zero, as embeddings have them.
VECTORS = normalized((RNG.standard_normal((3000, 12)) @ RNG.standard_normal((12, 40)) + 1.5).astype(np.float32))


def agreement(plane: BitPlane) -> float:
    """Give the share of each row's ten nearest ones that are among the fifty with the fewest other bits."""
    bits = np.unpackbits(plane.encode(VECTORS), axis=1).astype(np.float32) * 2 - 1
    near = np.argsort(-(VECTORS[:100] @ VECTORS.T), axis=1)[:, 1:11]
    like = np.argsort(-(bits[:100] @ bits.T), axis=1, kind="stable")[:, :51]
    return float(np.mean([len(set(one) & set(other)) / 10 for one, other in zip(near.tolist(), like.tolist(), strict=True)]))


def test_neighbours_have_nearly_the_same_bits() -> None:
    learned = BitPlane.fit(VECTORS)
    turn = np.linalg.qr(RNG.standard_normal((80, 80)))[0].astype(np.float32)[:40]
    plain = BitPlane(np.zeros(40, np.float32), np.ascontiguousarray(turn))
    assert learned.bits == 80
    assert agreement(learned) > agreement(plain) + 0.02


def test_lengths_are_left_out() -> None:
    plane = BitPlane.fit(VECTORS)
    assert np.array_equal(plane.encode(VECTORS[:50]), plane.encode(3 * VECTORS[:50]))


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 33])
def test_bits_fill_bytes(dim: int) -> None:
    vectors = RNG.standard_normal((20, dim)).astype(np.float32)
    plane = BitPlane.fit(vectors)
    assert plane.bits % 8 == 0
    assert plane.bits >= 2 * dim
    assert plane.encode(vectors).shape == (20, plane.bits // 8)


def test_saved_and_taken_back() -> None:
    plane = BitPlane.fit(VECTORS)
    assert np.array_equal(BitPlane.restore(plane.learned()).encode(VECTORS), plane.encode(VECTORS))


def test_the_same_sample_gives_the_same_bits() -> None:
    assert np.array_equal(BitPlane.fit(VECTORS).encode(VECTORS), BitPlane.fit(VECTORS).encode(VECTORS))


def test_nothing_to_learn_from() -> None:
    with pytest.raises(CodecError, match="at least one"):
        BitPlane.fit(np.empty((0, 4), np.float32))
