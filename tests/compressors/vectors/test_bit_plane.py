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
    assert agreement(BitPlane.fit(VECTORS)) > 0.9


def test_more_directions_tell_more() -> None:
    plane = BitPlane.fit(VECTORS)
    fewer = BitPlane(np.zeros(40, np.float32), np.linalg.qr(RNG.standard_normal((40, 40)))[0].astype(np.float32))
    assert plane.bits == 120
    assert agreement(plane) > agreement(fewer) + 0.1


def test_vectors_are_centred_where_that_brings_neighbours_nearer() -> None:
    spread = normalized(RNG.standard_normal((2000, 40)).astype(np.float32))
    for vectors in (normalized(spread + 4 * spread[0]), normalized(spread + 0.4 * spread[0]), VECTORS):
        made = BitPlane.fit(vectors)
        both = [BitPlane(centre, made._turn) for centre in (np.zeros(40, np.float32), vectors.mean(axis=0))]
        places = [np.quantile(plane.places_of_neighbours(vectors), 0.99) for plane in (made, *both)]
        assert places[0] == min(places)
    assert np.linalg.norm(BitPlane.fit(normalized(spread + 4 * spread[0]))._centre) > 0.9


def test_places_of_neighbours() -> None:
    vectors = normalized(RNG.standard_normal((50, 8)).astype(np.float32))
    plane = BitPlane.fit(vectors)
    bits = np.unpackbits(plane.encode(vectors), axis=1).astype(int)
    wanted = []
    for row in range(50):
        others = [other for other in range(50) if other != row]
        near = sorted(others, key=lambda other: -float(vectors[row] @ vectors[other]))[:10]
        far = [int((bits[row] != bits[other]).sum()) for other in others]
        wanted.append(sorted(sum(each <= int((bits[row] != bits[one]).sum()) for each in far) for one in near))
    assert sorted(map(sorted, plane.places_of_neighbours(vectors).tolist())) == sorted(wanted)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_vectors(count: int) -> None:
    plane = BitPlane.fit(VECTORS[:count])
    assert plane.places_of_neighbours(VECTORS[:count]).shape == (count, count - 1)


def test_lengths_are_left_out() -> None:
    plane = BitPlane.fit(VECTORS)
    assert np.array_equal(plane.encode(VECTORS[:50]), plane.encode(3 * VECTORS[:50]))


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 33])
def test_bits_fill_bytes(dim: int) -> None:
    vectors = RNG.standard_normal((20, dim)).astype(np.float32)
    plane = BitPlane.fit(vectors)
    assert plane.bits % 8 == 0
    assert plane.bits >= 3 * dim
    assert plane.encode(vectors).shape == (20, plane.bits // 8)


def test_saved_and_taken_back() -> None:
    plane = BitPlane.fit(VECTORS)
    assert np.array_equal(BitPlane.restore(plane.learned()).encode(VECTORS), plane.encode(VECTORS))


def test_the_same_sample_gives_the_same_bits() -> None:
    assert np.array_equal(BitPlane.fit(VECTORS).encode(VECTORS), BitPlane.fit(VECTORS).encode(VECTORS))


def test_nothing_to_learn_from() -> None:
    with pytest.raises(CodecError, match="at least one"):
        BitPlane.fit(np.empty((0, 4), np.float32))
