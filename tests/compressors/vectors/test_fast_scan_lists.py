"""Fast scan over several inverted lists, of codes given list after list or mixed: it finds what one list of them finds."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.compressors.vectors.fast_scan import FastScan, pack_nibbles
from rarebit.compressors.vectors.scanning import NOWHERE, Division

QUERIES = 4
SIZES = {
    "one": [3001],
    "blocks": [64, 128, 640],
    "no blocks": [1, 63, 65, 200, 31, 999],
    "empty ones": [0, 130, 0, 0, 71, 700, 0],
    "all of one code": [1] * 90,
    "large ones": [2000, 3, 1777],
}


class Listed:
    """The same random codes in several lists and in one, and what they add up to for random tables."""

    def __init__(self, sizes: list[int], parts: int, factors: str, *, mixed: bool) -> None:
        rng = np.random.default_rng(parts)
        self.sizes, self.count = np.array(sizes), sum(sizes)
        self.values = rng.integers(16, size=(self.count, parts), dtype=np.uint8)
        self.tables = rng.standard_normal((QUERIES, 16 * parts + 1)).astype(np.float32)
        spread = {"none": None, "even": 0.05, "uneven": 1.0}[factors]
        self.exact = factors != "even"
        self.factors = None if spread is None else rng.lognormal(0, spread, self.count).astype(np.float32)
        self.of_list = np.repeat(np.arange(len(sizes)), sizes)
        if mixed:
            rng.shuffle(self.of_list)
        division = Division.of(self.of_list, len(sizes)) if mixed else Division(self.sizes)
        self.many = FastScan(pack_nibbles(self.values), parts, self.factors, division)
        self.one = FastScan(pack_nibbles(self.values), parts, self.factors)
        entries = self.tables[:, :-1].reshape(QUERIES, parts, 16)
        sums = np.stack([entry[np.arange(parts), self.values].sum(axis=1) for entry in entries])
        self.sums = sums * (1 if self.factors is None else self.factors) + self.tables[:, -1:]

    def best(self, k: int, marked: np.ndarray) -> np.ndarray:
        """Give the k highest sums of the marked codes of each query, filled up with minus infinity."""
        found = np.full((QUERIES, k), -np.inf)
        for row, (sums, mine) in enumerate(zip(self.sums, marked, strict=True)):
            highest = -np.sort(-sums[mine])[:k]
            found[row, : len(highest)] = highest
        return found


@pytest.fixture(
    params=[
        (name, *codes)
        for name in SIZES
        for codes in ((7, "none", False), (48, "even", False), (8, "uneven", False), (7, "even", True), (8, "uneven", True))
    ]
)
def listed(request: pytest.FixtureRequest) -> Listed:
    name, parts, factors, mixed = request.param
    return Listed(SIZES[name], parts, factors, mixed=mixed)


def test_values_and_counts(listed: Listed) -> None:
    every = np.arange(listed.count)
    assert np.array_equal(listed.many.values(every), listed.values)
    mixed = np.random.default_rng(0).permutation(every)
    assert np.array_equal(listed.many.values(mixed), listed.values[mixed])
    assert len(listed.many) == listed.count
    assert listed.many.list_count == len(listed.sizes)
    assert listed.many.nbytes >= listed.one.nbytes


@pytest.mark.parametrize("k", [1, 10, 100])
def test_all_lists_find_what_one_list_finds(listed: Listed, k: int) -> None:
    everything = np.ones((QUERIES, listed.count), np.bool_)
    for scanner in (listed.many, listed.one):
        scores, places = scanner.search(listed.tables, k)
        assert_best(listed, scores, listed.best(k, everything))
        assert_scored(listed, scores, places)


def test_candidates_of_all_lists_hold_the_best(listed: Listed) -> None:
    k = min(150, listed.count)
    _, places = listed.many.candidates(listed.tables, k)
    assert all(len(set(row)) == k for row in places.tolist())
    best = np.argmax(listed.sums, axis=1)
    assert all(place in row for place, row in zip(best, places.tolist(), strict=True))


def test_among_some_places(listed: Listed) -> None:
    places = np.sort(np.random.default_rng(1).permutation(listed.count)[:40])
    one, other = listed.many.among(listed.tables, 15, places), listed.one.among(listed.tables, 15, places)
    assert np.array_equal(one[1], other[1])
    assert np.array_equal(one[0], other[0])


@pytest.mark.parametrize("share", [0.0, 0.03, 0.6, 1.0])
def test_allowed_places_of_all_lists(listed: Listed, share: float) -> None:
    allowed = np.random.default_rng(2).random(listed.count) < share
    k = max(1, min(20, int(allowed.sum())))
    for find in (listed.many.search, listed.many.candidates):
        scores, places = find(listed.tables, k, allowed)
        assert allowed[places[places != NOWHERE]].all()
        assert_best(listed, scores, listed.best(k, np.tile(allowed, (QUERIES, 1))))
        assert_scored(listed, scores, places)


@pytest.mark.parametrize("share", [0.0, 0.003, 0.1, 1.0])
def test_lists_with_some(listed: Listed, share: float) -> None:
    places = np.flatnonzero(np.random.default_rng(4).random(listed.count) < share)
    assert listed.many.lists_with(places).tolist() == np.unique(listed.of_list[places]).tolist()
    assert listed.one.lists_with(places).tolist() == [0][: len(places)]


@pytest.mark.parametrize("share", [None, 0.05, 0.5])
def test_chosen_lists_of_each_query(listed: Listed, share: float | None) -> None:
    rng = np.random.default_rng(3)
    allowed = None if share is None else rng.random(listed.count) < share
    for wanted in {1, 2, len(listed.sizes)}:
        if wanted > len(listed.sizes):
            continue
        lists = np.stack([rng.permutation(len(listed.sizes))[:wanted] for _ in range(QUERIES)])
        marked = np.stack([np.isin(listed.of_list, mine) for mine in lists])
        marked &= True if allowed is None else allowed
        for k in (1, 12, listed.count):
            for find in (listed.many.search, listed.many.candidates):
                scores, places = find(listed.tables, k, allowed, lists)
                assert all(mine[row[row != NOWHERE]].all() for mine, row in zip(marked, places, strict=True))
                assert_best(listed, scores, listed.best(k, marked))
                assert_scored(listed, scores, places)


@pytest.mark.parametrize("sizes", [[40, 0, 100, 60], [200]])
def test_codes_of_the_lowest_sum_are_found_in_their_lists(sizes: list[int]) -> None:
    scanner = FastScan(pack_nibbles(np.zeros((200, 8), np.uint8)), 8, division=Division(np.array(sizes)))
    lists = np.array([[len(sizes) - 1], [0]])
    scores, places = scanner.search(np.zeros((2, 129), np.float32), 150, None, lists)
    for row, number in enumerate([len(sizes) - 1, 0]):
        start = sum(sizes[:number])
        wanted = list(range(start, start + sizes[number]))[:150]
        assert sorted(places[row][places[row] != NOWHERE].tolist()) == wanted
        assert np.isneginf(scores[row, len(wanted) :]).all()


def assert_best(listed: Listed, scores: np.ndarray, best: np.ndarray) -> None:
    """Look that these are the highest scores; where factors come after the kernel, it may miss a few beyond the first."""
    there = np.isfinite(best)
    assert np.array_equal(np.isfinite(scores), there)
    found, wanted = np.where(there, scores, 0), np.where(there, best, 0)
    close = np.isclose(found, wanted, atol=1e-4, rtol=1e-4)
    assert close[:, :10].all()
    assert close.all() if listed.exact else (wanted - found < 0.05 * np.ptp(listed.sums)).all()


def assert_scored(listed: Listed, scores: np.ndarray, places: np.ndarray) -> None:
    """Look that each place has its own sum and comes once, in order, and that nowhere has none."""
    nowhere = places == NOWHERE
    assert np.isneginf(scores[nowhere]).all()
    own = np.take_along_axis(listed.sums, np.where(nowhere, 0, places), axis=1)
    assert np.allclose(scores[~nowhere], own[~nowhere], atol=1e-4, rtol=1e-4)
    assert all(len(set(row[row != NOWHERE])) == (row != NOWHERE).sum() for row in places)
    assert (np.diff(np.where(nowhere, -1e9, scores), axis=1) <= 0).all()
