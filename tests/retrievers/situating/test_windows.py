"""Windows of long documents: every token in one, and represented where it has the most context."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rarebit.retrievers.situating.windows import ChunkMeans, TokenizedDocument, Window, windows


def context(window: Window, token: int, count: int) -> float:
    """Count the tokens between a token and the nearer border that is not an end of the document."""
    left = token - window.start if window.start else float("inf")
    right = window.stop - 1 - token if window.stop < count else float("inf")
    return min(left, right)


@given(st.integers(0, 150), st.integers(1, 30), st.data())
def test_every_token_is_represented_where_it_stands_farthest_from_a_border(count: int, room: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, room - 1))
    cut = windows(count, room, overlap)
    owners = [number for number, window in enumerate(cut) for _ in range(window.own_start, window.own_stop)]
    assert len(owners) == count
    for token, owner in enumerate(owners):
        assert cut[owner].own_start <= token < cut[owner].own_stop
        there = [(-context(window, token, count), number) for number, window in enumerate(cut) if token in span_of(window)]
        assert min(there)[1] == owner


@given(st.integers(1, 500), st.integers(1, 40), st.data())
def test_windows_are_full_overlap_enough_and_are_no_more_than_needed(count: int, room: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, room - 1))
    cut = windows(count, room, overlap)
    assert cut[0].start == 0
    assert cut[-1].stop == count
    assert {window.stop - window.start for window in cut} == {min(room, count)}
    for before, after in pairwise(cut):
        assert before.start < after.start
        assert before.stop - after.start >= overlap
    fewest = 1
    while room + (fewest - 1) * (room - overlap) < count:
        fewest += 1
    assert len(cut) == fewest


def span_of(window: Window) -> range:
    return range(window.start, window.stop)


def test_a_token_belongs_to_the_chunks_that_it_shares_a_character_with() -> None:
    """Of a tokenizer that has all there is: a token of spaces, spaces before a word, tokens without characters."""
    text = "ab    cd ef"
    tokens = {"ab": (0, 2), "spaces": (2, 6), "cd": (6, 8), "nowhere": (0, 0), "empty": (8, 8), " ef": (8, 11)}
    own = {
        (0, 11): {"ab", "spaces", "cd", " ef"},
        (1, 2): {"ab"},
        (0, 6): {"ab"},
        (7, 9): {"cd"},
        (7, 10): {"cd", " ef"},
        (8, 11): {" ef"},
        (3, 5): set(),
        (1, 1): set(),
        (8, 9): set(),
    }
    starts, stops = np.array(list(tokens.values()), np.int64).T
    means = ChunkMeans(text, TokenizedDocument({}, 0, 0, starts, stops), list(own), len(tokens))
    states = np.eye(len(tokens), dtype=np.float32)
    means.add(Window(0, 4, 0, 3), states[:3])
    means.add(Window(1, 6, 3, 6), states[3:])
    assert means.there.tolist() == [bool(names) for names in own.values()]
    wanted = [[(name in names) / len(names) for name in tokens] for names in own.values() if names]
    np.testing.assert_allclose(means.means(), wanted, atol=1e-7)
