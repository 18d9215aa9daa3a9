"""Bitmaps from arrays and back: the same rows, whatever their number and wherever they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from rarebit.retrievers.collection.bitmaps import CHUNK, FEW, array_of, bitmap_of, bitmap_where

STARTS = (0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 2**32 - 70_000, 2**32, 2**33 + 1)


def drawn(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Give distinct ascending numbers below a width."""
    return np.sort(np.random.default_rng(seed).permutation(width)[:count]).astype(np.int64)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("count", "width"), [(1, 1), (FEW, 200_000), (FEW + 1, FEW + 1), (50_000, 70_000), (70_000, 10**6)])
def test_a_bitmap_holds_the_rows_it_was_made_of(start: int, count: int, width: int) -> None:
    row_ids = drawn(count, width) + start
    made = bitmap_of(row_ids)
    assert made == BitMap64(row_ids.tolist())
    assert array_of(made).tolist() == row_ids.tolist()
    assert (made | BitMap64([1])) - BitMap64([1]) == made - BitMap64([1]), "it can be worked with"


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("gaps", [False, True])
def test_marked_rows_are_those_in_the_bitmap(start: int, share: float, gaps: bool) -> None:
    row_ids = (drawn(150_000, 160_000) if gaps else np.arange(150_000)) + start
    holds = np.random.default_rng(1).random(len(row_ids)) < share
    assert bitmap_where(row_ids, holds) == BitMap64(row_ids[holds].tolist())


@given(st.lists(st.integers(0, 2**40), max_size=50, unique=True).map(sorted), st.data())
def test_any_rows_can_be_marked(row_ids: list[int], data: st.DataObject) -> None:
    holds = data.draw(st.lists(st.booleans(), min_size=len(row_ids), max_size=len(row_ids)))
    made = bitmap_where(np.array(row_ids, dtype=np.int64), np.array(holds, dtype=np.bool_))
    assert list(made) == [row_id for row_id, mark in zip(row_ids, holds, strict=True) if mark]


def test_sparse_rows_of_many_chunks() -> None:
    row_ids = np.arange(10_000, dtype=np.int64) * (CHUNK + 7)
    assert bitmap_of(row_ids) == BitMap64(row_ids.tolist())
