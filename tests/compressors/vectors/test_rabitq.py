"""RaBitQ with more than one bit, and one-bit codecs that were saved when there was only one."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from rarebit.compressors.vectors.rabitq import RaBitQ
from rarebit.errors import CodecError, InputError

DIM = 75
"""No multiple of 8, and more than the dimensions that are rotated together."""


def unit_vectors(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def estimates(codec: RaBitQ, queries: np.ndarray, codes: np.ndarray) -> np.ndarray:
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), len(codes))
    ordered = np.empty_like(scores)
    np.put_along_axis(ordered, places, scores, axis=1)
    return ordered


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_vectors(600)


@pytest.fixture(scope="module", params=[2, 3, 4, 7, 8, 9])
def codec(request: pytest.FixtureRequest, vectors: np.ndarray) -> RaBitQ:
    return RaBitQ(request.param).fit(vectors)


@pytest.mark.parametrize("bits", range(1, 10))
@pytest.mark.parametrize("dim", [5, 8, 75])
def test_code_size_is_what_faiss_takes(bits: int, dim: int) -> None:
    vectors = unit_vectors(40, dim)
    codec = RaBitQ(bits).fit(vectors)
    assert codec.encode(vectors).shape == (40, codec.code_size)
    assert codec.code_size == codec._index.code_size


def test_estimates_are_products_with_the_decoded_vectors_but_for_a_number_a_vector(codec: RaBitQ, vectors: np.ndarray) -> None:
    codes = codec.encode(vectors)
    queries = 3 * unit_vectors(12, seed=1)
    beyond = estimates(codec, queries, codes) - queries @ codec.decode(codes).T
    assert np.allclose(beyond, beyond[0], atol=1e-4)


def test_estimates_for_the_centre_are_exact(codec: RaBitQ, vectors: np.ndarray) -> None:
    centre = vectors.mean(axis=0, keepdims=True)
    assert np.allclose(estimates(codec, centre, codec.encode(vectors)), centre @ vectors.T, atol=1e-4)


def test_the_best_are_found(codec: RaBitQ, vectors: np.ndarray) -> None:
    codes = codec.encode(vectors)
    queries = unit_vectors(12, seed=1)
    scores, _ = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    assert np.allclose(scores, -np.sort(-estimates(codec, queries, codes), axis=1)[:, :10], atol=1e-6)


def test_each_bit_makes_the_error_about_half(vectors: np.ndarray) -> None:
    queries = unit_vectors(12, seed=1)

    def errors(bits: int) -> tuple[float, float]:
        codec = RaBitQ(bits).fit(vectors)
        codes = codec.encode(vectors)
        estimated = np.abs(estimates(codec, queries, codes) - queries @ vectors.T).mean()
        return float(estimated), float(np.linalg.norm(codec.decode(codes) - vectors, axis=1).mean())

    by_bits = np.array([errors(bits) for bits in range(1, 10)])
    ratios = by_bits[1:] / by_bits[:-1]
    assert (ratios < 0.7).all()
    assert (by_bits[-1] < [0.0005, 0.005]).all()


def test_estimates_are_unbiased(codec: RaBitQ, vectors: np.ndarray) -> None:
    queries = unit_vectors(50, seed=1)
    errors = estimates(codec, queries, codec.encode(vectors)) - queries @ vectors.T
    assert abs(errors.mean()) < 0.05 * errors.std()


def test_restored_it_is_the_same(codec: RaBitQ, vectors: np.ndarray) -> None:
    restored = RaBitQ.restore(dim=DIM, config=codec.config, learned=codec.learned())
    codes = codec.encode(vectors)
    assert restored.bits == codec.bits
    assert np.array_equal(restored.encode(vectors), codes)
    assert np.array_equal(restored.decode(codes), codec.decode(codes))
    assert np.array_equal(RaBitQ(codec.bits).fit(vectors).encode(vectors), codes)


def test_a_mask_limits_the_search(codec: RaBitQ, vectors: np.ndarray) -> None:
    mask = np.zeros(len(vectors), dtype=bool)
    mask[[3, 500, 599]] = True
    _, places = codec.scanner(codec.encode(vectors)).search(codec.prepare_queries(vectors[:1]), 5, mask)
    assert set(places[0]) == {3, 500, 599, -1}


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("odd", [np.zeros((300, DIM)), np.full((300, DIM), 0.3), np.repeat(unit_vectors(3), 100, axis=0)])
def test_constant_and_repeated_vectors(bits: int, odd: np.ndarray) -> None:
    codec = RaBitQ(bits).fit(odd)
    codes = codec.encode(odd)
    assert np.linalg.norm(codec.decode(codes) - odd, axis=1).max() <= (1 if bits == 1 else 0.6 / 2 ** (bits - 2))
    assert np.isfinite(estimates(codec, unit_vectors(2), codes)).all()


def test_components_exactly_at_the_centre_are_near_it() -> None:
    """Of a vector with one number, the rotation fills one group of dimensions; the other groups are exactly the centre's."""
    ones = np.zeros((2, 128), np.float32)
    ones[0, 0], ones[1, 0] = 1, -1
    codec = RaBitQ(6).fit(ones)
    assert np.allclose(codec.decode(codec.encode(ones)), ones, atol=0.05)


def test_one_bit_is_saved_and_restored_as_before_there_were_more(vectors: np.ndarray) -> None:
    codec = RaBitQ().fit(vectors)
    assert codec.bits == 1
    assert codec.config == {"seed": 0}
    assert codec.code_size == 10 + 8
    restored = RaBitQ.restore(dim=DIM, config={"seed": 0}, learned=codec.learned())
    assert np.array_equal(restored.encode(vectors), codec.encode(vectors))
    assert np.array_equal(restored.decode(codec.encode(vectors)), codec.decode(codec.encode(vectors)))


@pytest.mark.parametrize("bits", [0, 10])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match=f"bits={bits}, wanted 1 to 9"):
        RaBitQ(bits)


def test_an_old_faiss_is_named(monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray) -> None:
    known = faiss.IndexRaBitQ
    monkeypatch.setattr(faiss, "IndexRaBitQ", lambda dim, metric: known(dim, metric))  # noqa: PLW0108
    with pytest.raises(CodecError, match="upgrade faiss-cpu"):
        RaBitQ(2).fit(vectors)
    RaBitQ().fit(vectors)
