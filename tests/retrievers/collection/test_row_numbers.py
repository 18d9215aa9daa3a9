"""Row ids by place and bitmaps of them, against plain sets; also of row ids that 32 bits do not hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap64

from rarebit.retrievers.collection.bitmaps import CHUNK, FEW, array_of, bitmap_of
from rarebit.retrievers.collection.row_numbers import RowNumbers

BASES = st.sampled_from([1, 1000, 2**16 - 3, 2**31 - 5, 2**32 - 20, 2**32, 2**33 + 7, 2**52])
IDS = st.builds(
    lambda base, offsets: [base + offset for offset in offsets],
    BASES,
    st.lists(st.integers(0, 60), min_size=1, max_size=50, unique=True),
)


def array(row_ids: list[int]) -> np.ndarray:
    return np.array(row_ids, dtype=np.int64)


@given(row_ids=IDS, data=st.data())
def test_places_are_those_of_the_rows(row_ids: list[int], data: st.DataObject) -> None:
    ordered = data.draw(st.sampled_from([sorted(row_ids), row_ids]))
    numbers = RowNumbers.of(array(ordered))
    assert numbers.every().tolist() == ordered
    assert (numbers.first, numbers.last, numbers.count) == (min(row_ids), max(row_ids), len(row_ids))
    near = st.integers(max(0, min(row_ids) - 3), max(row_ids) + 3)
    wanted = sorted(data.draw(st.sets(st.one_of(st.sampled_from(row_ids), near, st.integers(0, 2**53)))))
    places = numbers.places_of(array(wanted))
    assert sorted(places.tolist()) == sorted(ordered.index(row_id) for row_id in wanted if row_id in set(ordered))
    assert sorted(numbers.at(places).tolist()) == [row_id for row_id in wanted if row_id in set(ordered)]


@pytest.mark.parametrize("base", [1, 2**32 - 2000, 2**40])
@pytest.mark.parametrize("spread", [1, 3, 50])
def test_places_of_many_rows(base: int, spread: int) -> None:
    rng = np.random.default_rng(spread)
    row_ids = base + rng.permutation(5000 * spread)[:5000]
    for of in (row_ids, np.sort(row_ids)):
        numbers = RowNumbers.of(of)
        for share in (0.001, 0.1, 1.0):
            wanted = np.flatnonzero(rng.random(5000 * spread + 10) < share) + base - 5
            wanted = wanted[wanted > 0]
            assert np.array_equal(np.sort(numbers.places_of(wanted)), np.flatnonzero(np.isin(of, wanted)))


def test_rows_take_as_few_bytes_as_they_can() -> None:
    assert RowNumbers.of(np.arange(7, 1007)).nbytes == 0
    assert RowNumbers.of(np.arange(7, 1007) * 2).nbytes == 4000
    assert RowNumbers.of(np.arange(7, 1007)[::-1].copy()).nbytes == 8000
    assert RowNumbers.of(np.arange(1000) * 2 + 2**32).nbytes == 8000


@given(row_ids=st.lists(st.builds(lambda base, offset: base + offset, BASES, st.integers(0, 10**6)), unique=True))
def test_bitmaps_of_few_rows(row_ids: list[int]) -> None:
    assert bitmap_of(array(sorted(row_ids))) == BitMap64(row_ids)
    assert array_of(BitMap64(row_ids)).tolist() == sorted(row_ids)


@settings(max_examples=50)
@given(
    parts=st.lists(
        st.tuples(
            st.integers(0, 2**20),
            st.one_of(st.sampled_from([1, FEW - 1, FEW, FEW + 1, CHUNK - 1, CHUNK, CHUNK + 1]), st.integers(1, 3 * CHUNK)),
            st.sampled_from([1, 2, 17]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_bitmaps_of_many_rows(parts: list[tuple[int, int, int]]) -> None:
    """Runs of rows with gaps between them, in containers of every kind, on both sides of 2^32 and of its multiples."""
    row_ids = np.unique(
        np.concatenate([2**32 - CHUNK + start * 4099 + step * np.arange(count) for start, count, step in parts])
    )
    found = bitmap_of(row_ids)
    assert len(found) == len(row_ids)
    assert np.array_equal(array_of(found), row_ids)
    assert found == BitMap64(row_ids.tolist())
    assert BitMap64.deserialize(found.serialize()) == found


def test_nothing() -> None:
    assert bitmap_of(array([])) == BitMap64()
    assert array_of(BitMap64()).tolist() == []
