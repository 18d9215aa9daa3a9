"""The codes in principal axes: shortest paths against exhaustive search, allocation of bits, scores, and hard input."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarebit.compressors.vectors import SearchableCodec, TrellisCode, VarianceCode, codec_named, load_codec
from rarebit.compressors.vectors.factors import FactorGrid, factor_bytes, least_squares
from rarebit.compressors.vectors.spectrum import Spectrum
from rarebit.compressors.vectors.trellis import grouped_axes
from rarebit.compressors.vectors.variance import allocated, lloyd_max, packed_axes, rounding_error
from rarebit.compressors.vectors.viterbi import Trellis
from rarebit.errors import CodecError, InputError

DIM = 32
CODES = ["trellis", "variance"]


def falling(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Unit vectors whose variance falls from axis to axis, as embeddings' does, turned so that no axis is a dimension."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(np.random.default_rng(99).standard_normal((dim, dim)))[0]
    vectors = (rng.standard_normal((count, dim)) * np.exp(-np.arange(dim) / 8) + 0.1) @ turned
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return falling(3000)


@pytest.fixture(scope="module", params=[f"{code}{size}" for code in CODES for size in (4, 8, 16)])
def codec(request: pytest.FixtureRequest, vectors: np.ndarray) -> SearchableCodec:
    fitted = codec_named(request.param).fit(vectors)
    assert isinstance(fitted, SearchableCodec)
    return fitted


def relative_error(codec: SearchableCodec, vectors: np.ndarray) -> float:
    decoded = codec.decode(codec.encode(vectors))
    return float(((vectors - decoded) ** 2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum())


def test_a_code_has_the_size_asked_for(codec: SearchableCodec, vectors: np.ndarray) -> None:
    assert codec.encode(vectors[:5]).shape == (5, codec.code_size)
    assert codec.code_size == int(repr(codec).split("code_size=")[1].split(",")[0])


def test_scores_of_the_scanner_are_inner_products_with_decoded_vectors(codec: SearchableCodec, vectors: np.ndarray) -> None:
    queries, codes = falling(20, seed=1), codec.encode(vectors)
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    exact = queries @ codec.decode(codes).T
    assert np.allclose(scores, np.take_along_axis(exact, places, axis=1), atol=1e-5)
    missed = -np.sort(-exact, axis=1)[:, :10] - scores
    assert missed.min() > -1e-5
    assert missed.mean() < 2e-3, "the kernel knows neither the factors nor the last bits, so a little may be missed"


@pytest.mark.parametrize("share", [0.9, 0.5, 0.001])
def test_a_mask_gives_the_best_of_what_it_allows(codec: SearchableCodec, vectors: np.ndarray, share: float) -> None:
    queries, codes = falling(5, seed=1), codec.encode(vectors)
    mask = np.random.default_rng(0).random(len(vectors)) < share
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 10, mask)
    exact = np.where(mask, queries @ codec.decode(codes).T, -np.inf)
    wanted = -np.sort(-exact, axis=1)[:, :10]
    assert mask[places[places >= 0]].all()
    assert np.isneginf(scores).sum() == np.isneginf(wanted).sum()
    there = np.isfinite(wanted)
    assert np.abs(scores[there] - wanted[there]).mean() < 2e-3


def test_a_mask_of_the_farthest_still_gives_k(codec: SearchableCodec, vectors: np.ndarray) -> None:
    query, codes = falling(1, seed=1), codec.encode(vectors)
    exact = (query @ codec.decode(codes).T)[0]
    mask = exact < np.quantile(exact, 0.5)  # 1,500 rows, and none of them near: the scan has to go on
    scores, _ = codec.scanner(codes).search(codec.prepare_queries(query), 10, mask)
    assert np.abs(scores[0] + np.sort(-exact[mask])[:10]).mean() < 2e-3


def test_the_trellis_finds_the_shortest_path() -> None:
    rng = np.random.default_rng(0)
    own, carried = rng.standard_normal((2, 4, 16)).astype(np.float32)
    carried[0] = 0
    groups = np.array([0, 1, 1, 2], dtype=np.int32)
    vectors = rng.standard_normal((20, 4)).astype(np.float32)
    every = np.array(list(product(range(16), repeat=3)))
    before = np.concatenate([np.zeros((len(every), 1), int), every], axis=1)[:, groups]
    points = own[np.arange(4), every[:, groups]] + carried[np.arange(4), before]
    found = Trellis(own, carried, groups, 3).nearest(vectors)
    for vector, values in zip(vectors, found, strict=True):
        distances = ((vector - points) ** 2).sum(axis=1)
        chosen = distances[(every == values).all(axis=1)][0]
        assert chosen == pytest.approx(distances.min(), rel=1e-3)


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    own, carried = rng.standard_normal((2, 6, 16)).astype(np.float32)
    vectors = rng.standard_normal((1000, 6)).astype(np.float32)
    trellis = Trellis(own, carried, np.arange(6, dtype=np.int32), 6)
    one_by_one = np.concatenate([trellis.nearest(vectors[turn : turn + 100]) for turn in range(0, 1000, 100)])
    assert np.mean(trellis.nearest(vectors) != one_by_one) < 1e-3  # BLAS may round sums of another shape differently


def test_carrying_over_and_bits_by_variance_both_pay(vectors: np.ndarray) -> None:
    errors = {name: relative_error(codec_named(name).fit(vectors), vectors) for name in ("trellis8", "variance8", "pq8")}
    assert errors["trellis8"] < 0.95 * errors["variance8"]
    assert errors["variance8"] < 0.8 * errors["pq8"]


def test_more_bytes_lose_less(vectors: np.ndarray) -> None:
    for code in CODES:
        errors = [relative_error(codec_named(f"{code}{size}").fit(vectors), vectors) for size in (3, 5, 9, 15)]
        assert errors == sorted(errors, reverse=True)


def test_it_learns_from_other_vectors_of_the_same_kind(vectors: np.ndarray) -> None:
    codec = codec_named("trellis8").fit(vectors)
    assert relative_error(codec, falling(2000, seed=7)) < 1.1 * relative_error(codec, vectors)


def test_fitting_is_deterministic_and_follows_the_seed(vectors: np.ndarray) -> None:
    codes = [TrellisCode(8, seed=seed).fit(vectors).encode(vectors) for seed in (0, 0, 1)]
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


def test_saved_and_loaded_it_is_the_same(codec: SearchableCodec, vectors: np.ndarray, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    loaded = load_codec(tmp_path)
    assert isinstance(loaded, SearchableCodec)
    codes = codec.encode(vectors)
    assert np.array_equal(loaded.encode(vectors), codes)
    assert np.array_equal(loaded.decode(codes), codec.decode(codes))
    assert np.array_equal(loaded.prepare_queries(vectors[:3]), codec.prepare_queries(vectors[:3]))
    assert loaded.state_bytes == codec.state_bytes


def test_lengths_are_kept_where_they_differ(vectors: np.ndarray) -> None:
    scaled = vectors * np.geomspace(0.01, 100, len(vectors), dtype=np.float32)[:, np.newaxis]
    codec = TrellisCode(16).fit(scaled)
    decoded = codec.decode(codec.encode(scaled))
    assert factor_bytes(scaled) == 2
    assert codec.encode(scaled[:1]).shape == (1, 16)
    lengths = np.linalg.norm(decoded, axis=1) / np.linalg.norm(scaled, axis=1)
    assert np.median(np.abs(lengths - 1)) < 0.1


@pytest.mark.parametrize("code", CODES)
def test_hard_input_neither_fails_nor_gives_nan(code: str) -> None:
    constant = np.full((3000, 8), 0.25, dtype=np.float32)
    two_values = np.repeat(np.eye(8, dtype=np.float32)[:2], 1500, axis=0)
    zeros = np.zeros((2500, 8), dtype=np.float32)
    one = np.ones((1, 8), dtype=np.float32)
    for given_vectors in (constant, two_values, zeros, one, falling(3, 8)):
        codec = codec_named(f"{code}4").fit(given_vectors)
        assert isinstance(codec, SearchableCodec)
        decoded = codec.decode(codec.encode(given_vectors))
        assert np.isfinite(decoded).all()
        assert np.abs(decoded - given_vectors).max() < 0.2
        scores, _ = codec.scanner(codec.encode(given_vectors)).search(codec.prepare_queries(given_vectors[:1]), 3)
        assert np.isfinite(scores[:, : len(given_vectors)]).all()


def test_sizes_that_cannot_be_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="2 bytes or more"):
        TrellisCode(1)
    with pytest.raises(CodecError, match=r"wanted 2 to 33"):
        TrellisCode(100).fit(vectors)
    assert VarianceCode().fit(vectors).code_size == DIM // 8


def test_rates_fill_the_water_level() -> None:
    spectrum = Spectrum.of(falling(3000))
    rates = spectrum.rates(64)
    assert (np.diff(rates) <= 0).all()
    assert rates.sum() == pytest.approx(64, abs=1)
    worth = np.log2(spectrum.variances * spectrum.weights)[: len(rates)] / 2
    assert np.ptp(worth - rates) < 1e-6, "every axis that has bits is left with the same weighted error"


def test_groups_deserve_four_bits_each() -> None:
    rates = np.array([9.0, 3.0, 2.0, 1.0, 0.5, 0.5])
    groups = grouped_axes(rates, 4)
    assert groups.tolist() == [1, 3, 3, 3, 3, 3]
    assert (np.diff(grouped_axes(np.sort(np.random.default_rng(0).random(60))[::-1] * 4, 20)) >= 0).all()


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=40), st.integers(1, 40))
@settings(max_examples=100)
def test_allocated_bits_fill_parts_exactly(worth: list[float], parts: int) -> None:
    bits = allocated(np.sort(np.array(worth))[::-1], 4 * parts)
    assert bits.sum() == min(4 * parts, 4 * len(worth))
    assert bits.min() >= 0
    assert bits.max() <= 4
    packed = packed_axes(bits)
    assert len(packed) <= parts
    assert sorted(axis for part in packed for axis in part) == np.flatnonzero(bits).tolist()
    assert all(sum(int(bits[axis]) for axis in part) == 4 for part in packed)


def test_lloyd_max_levels_are_the_published_ones() -> None:
    assert lloyd_max(2) == pytest.approx([-0.7979, 0.7979], abs=1e-3)
    assert lloyd_max(4) == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=2e-3)
    assert [rounding_error(bits) for bits in range(1, 5)] == pytest.approx([0.3634, 0.1175, 0.03454, 0.009497], rel=0.01)


def test_factors_are_rounded_finely_and_stay_in_range() -> None:
    factors = np.random.default_rng(0).uniform(0.8, 1.4, 1000).astype(np.float32)
    for size, error in ((1, 0.003), (2, 0.0001)):
        grid = FactorGrid.fit(factors, size)
        assert np.abs(grid.decode(grid.encode(factors)) / factors - 1).max() < error
    outside = grid.decode(grid.encode(np.array([0.0, -3.0, 1e6], dtype=np.float32)))
    assert outside == pytest.approx([grid.low, grid.low, grid.high], rel=1e-4)


def test_the_least_squares_factor_is_the_best() -> None:
    rng = np.random.default_rng(0)
    vectors, decoded = rng.standard_normal((2, 50, 8)).astype(np.float32)
    best = least_squares(vectors, decoded)
    for other in (best * 1.01, best * 0.99):
        better = ((vectors - best[:, np.newaxis] * decoded) ** 2).sum(axis=1)
        assert (better <= ((vectors - other[:, np.newaxis] * decoded) ** 2).sum(axis=1)).all()
    assert least_squares(vectors, np.zeros_like(vectors)).tolist() == [1.0] * 50
