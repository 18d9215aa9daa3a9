"""The fast-scan kernel for additive four-bit codes, against sums in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.compressors.vectors.factors import FactorGrid, PackedFactors
from rarebit.compressors.vectors.fast_scan import FastScan, pack_nibbles, unpack_nibbles
from rarebit.compressors.vectors.scanning import NOWHERE

COUNT = 3001  # no multiple of a block


class Codes:
    """Random values and factors, and what they add up to for random tables."""

    def __init__(self, parts: int, *, with_factors: bool) -> None:
        rng = np.random.default_rng(parts)
        self.values = rng.integers(16, size=(COUNT, parts), dtype=np.uint8)
        self.tables = rng.standard_normal((5, 16 * parts + 1)).astype(np.float32)
        self.factors = rng.uniform(0.9, 1.1, COUNT).astype(np.float32) if with_factors else None
        self.scanner = FastScan(pack_nibbles(self.values), parts, self.factors)
        entries = self.tables[:, :-1].reshape(5, parts, 16)
        sums = np.stack([entry[np.arange(parts), self.values].sum(axis=1) for entry in entries])
        self.sums = sums * (1 if self.factors is None else self.factors) + self.tables[:, -1:]


@pytest.fixture(params=[(1, False), (2, True), (7, True), (8, False), (94, True), (95, False)])
def codes(request: pytest.FixtureRequest) -> Codes:
    parts, with_factors = request.param
    return Codes(parts, with_factors=with_factors)


def test_values_come_out_of_the_blocks_as_they_went_in(codes: Codes) -> None:
    places = np.array([0, 1, 31, 32, 63, 64, 65, COUNT - 1])
    assert np.array_equal(codes.scanner.values(places), codes.values[places])
    assert len(codes.scanner) == COUNT


def test_what_is_found_is_what_plain_sums_find(codes: Codes) -> None:
    scores, places = codes.scanner.search(codes.tables, 10)
    assert np.allclose(scores, -np.sort(-codes.sums, axis=1)[:, :10], atol=1e-4)
    assert np.allclose(scores, np.take_along_axis(codes.sums, places, axis=1), atol=1e-4)


def test_candidates_hold_the_best_with_scores_that_are_nearly_right(codes: Codes) -> None:
    scores, places = codes.scanner.candidates(codes.tables, 100)
    assert places.shape == scores.shape == (5, 100)
    assert all(len(set(row)) == 100 for row in places.tolist())
    # The kernel's tables are rounded to 8 bits of the widest part's range.
    parts = codes.values.shape[1]
    spread = np.ptp(codes.tables[:, :-1].reshape(5, parts, 16), axis=2).max(axis=1)
    tolerance = 1.1 * parts * spread[:, np.newaxis] / 255
    assert (np.abs(scores - np.take_along_axis(codes.sums, places, axis=1)) <= tolerance + 1e-4).all()
    best = -np.sort(-codes.sums, axis=1)[:, :10]
    found = -np.sort(-np.take_along_axis(codes.sums, places, axis=1), axis=1)[:, :10]
    assert (found >= best - 2 * tolerance).all()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_candidates_among_some_or_among_few_are_those_of_a_search(codes: Codes) -> None:
    allowed = np.random.default_rng(1).random(COUNT) < 0.1
    for k, mask in ((20, allowed), (COUNT + 5, None)):
        one, other = codes.scanner.candidates(codes.tables, k, mask), codes.scanner.search(codes.tables, k, mask)
        assert np.array_equal(one[1], other[1])
        assert np.array_equal(one[0], other[0])
    assert (codes.scanner.candidates(codes.tables, COUNT + 5)[1][:, -5:] == NOWHERE).all()


@pytest.mark.parametrize("parts", [1, 8, 95])
def test_codes_of_the_lowest_sum_are_found_too(parts: int) -> None:
    scanner = FastScan(pack_nibbles(np.zeros((200, parts), np.uint8)), parts)
    for tables in (np.zeros((2, 16 * parts + 1), np.float32), np.tile(np.arange(16, dtype=np.float32), (2, parts))):
        prepared = np.pad(tables, ((0, 0), (0, 16 * parts + 1 - tables.shape[1])))
        for find in (scanner.search, scanner.candidates):
            scores, places = find(prepared, 150)
            assert all(len(set(row)) == 150 and min(row) >= 0 for row in places.tolist())
            assert np.allclose(scores, 0, atol=1e-5)


def test_among_some_the_codes_of_the_lowest_sum_are_found_too() -> None:
    scanner = FastScan(pack_nibbles(np.zeros((5000, 4), np.uint8)), 4)
    allowed = np.arange(5000) % 2 == 1
    places = scanner.search(np.zeros((1, 65), np.float32), 2000, allowed)[1][0]
    assert len(set(places.tolist())) == 2000
    assert (places % 2 == 1).all()


def test_factors_that_carry_lengths_decide() -> None:
    rng = np.random.default_rng(0)
    values, tables = rng.integers(16, size=(COUNT, 8), dtype=np.uint8), rng.standard_normal((3, 129)).astype(np.float32)
    factors = rng.lognormal(0, 1, COUNT).astype(np.float32)
    sums = (
        np.stack([table[:-1].reshape(8, 16)[np.arange(8), values].sum(axis=1) for table in tables]) * factors + tables[:, -1:]
    )
    scanner = FastScan(pack_nibbles(values), 8, factors)
    for find in (scanner.search, scanner.candidates):
        assert np.allclose(find(tables, 10)[0], -np.sort(-sums, axis=1)[:, :10], rtol=1e-4)


def test_packed_factors_multiply_like_the_floats_they_decode_to() -> None:
    plain = Codes(8, with_factors=True)
    assert plain.factors is not None
    grid = FactorGrid.fit(plain.factors, 1)
    packed = FastScan(pack_nibbles(plain.values), 8, PackedFactors(grid, grid.encode(plain.factors)))
    decoded = FastScan(pack_nibbles(plain.values), 8, grid.decode(grid.encode(plain.factors)))
    for one, other in zip(packed.candidates(plain.tables, 50), decoded.candidates(plain.tables, 50), strict=True):
        assert np.array_equal(one, other)
    assert packed.nbytes < decoded.nbytes


def test_nibbles_are_packed_and_unpacked() -> None:
    values = np.random.default_rng(0).integers(16, size=(9, 5), dtype=np.uint8)
    assert pack_nibbles(values).shape == (9, 3)
    assert np.array_equal(unpack_nibbles(pack_nibbles(values), 5), values)
