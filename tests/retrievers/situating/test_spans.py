"""Places of chunks in their document: right for what splitters make of it, and for every small text by trying everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rarebit.errors import InputError
from rarebit.passages import cut
from rarebit.retrievers.situating import locate

SPACES = ["".join(chr(point) for point in range(0x110000) if chr(point).isspace()), " ", "\n\n", " \t", "\u3000", "\u2028"]
WORDS = [
    "Pip",
    "the",
    "convict",
    "marsh",
    "e\u0301te\u0301",
    "été",
    "狐狸",
    "😀",
    "👩‍👩‍👧",
    "İ",
    "\u200b",
    "\u05e9\u05dc\u05d5\u05dd",
    ".",
]


def bare(text: str) -> str:
    return "".join(text.split())


def numbered(count: int) -> list[str]:
    """Make words of which none begins like another."""
    return [f"{number}{WORDS[number % len(WORDS)]};" for number in range(1000, 1000 + count)]


@st.composite
def splits(draw: st.DrawFn, words: list[str] | None = None) -> tuple[str, list[tuple[int, int]]]:
    """Draw a document and overlapping spans of it that are in order, none within another, with whole words in each."""
    drawn = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30)) if words is None else words
    spaces = st.sampled_from(SPACES)
    document, places = draw(spaces), []
    for word in drawn:
        places.append((len(document), len(document) + len(word)))
        document += word + draw(spaces)
    spans, first, last = [], 0, 0
    while last < len(drawn):
        first = draw(st.integers(first + bool(spans), min(last, len(drawn) - 1)))
        last = draw(st.integers(max(first, last) + 1, len(drawn)))
        spans.append((places[first][0], places[last - 1][1]))
    return document, spans


def as_splitters_do(draw: st.DataObject, text: str) -> str:
    """Leave whitespace, collapse it, replace it, or put some around."""
    space = draw.draw(st.sampled_from([None, " ", "\n", "", "  \u00a0"]))
    changed = text if space is None else space.join(text.split())
    around = draw.draw(st.sampled_from(["", " ", "\r\n"]))
    return around + changed + around


@given(splits(numbered(25)), st.data())
def test_spans_are_recovered_whatever_became_of_the_whitespace(
    drawn: tuple[str, list[tuple[int, int]]], data: st.DataObject
) -> None:
    document, spans = drawn
    assert locate(document, [as_splitters_do(data, document[start:stop]) for start, stop in spans]) == spans


@given(splits(), st.data())
def test_repeated_words_are_found_in_order_and_no_later_than_they_stand(
    drawn: tuple[str, list[tuple[int, int]]], data: st.DataObject
) -> None:
    document, spans = drawn
    chunks = [as_splitters_do(data, document[start:stop]) for start, stop in spans]
    found = locate(document, chunks)
    for chunk, (start, stop), (true_start, true_stop) in zip(chunks, found, spans, strict=True):
        assert bare(document[start:stop]) == bare(chunk)
        assert start <= true_start
        assert stop <= true_stop
        assert not document[start].isspace()
        assert not document[stop - 1].isspace()
    assert found == sorted(found)


def by_trying(document: str, chunks: list[str], *, nested: bool) -> list[tuple[int, int]] | None:
    """Give the first of all ways to place chunks in a document without whitespace that keeps the rule, start by start."""
    every = [
        [(start, start + len(chunk)) for start in range(len(document)) if document.startswith(chunk, start)] for chunk in chunks
    ]

    def kept(before: tuple[int, int], after: tuple[int, int], *, same: bool) -> bool:
        if nested:
            return after[0] >= before[0] + same
        return after[0] >= before[0] and after[1] > before[1]

    for way in product(*every):
        pairs = zip(way, way[1:], chunks, chunks[1:], strict=False)
        if all(kept(before, after, same=one == other) for before, after, one, other in pairs):
            return list(way)
    return None


@given(st.text("ab", min_size=1, max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4))
@example("abab", ["ab", "b", "ab"])
@example("abcb", ["abc", "b", "c"])
@example("aaa", ["a", "a", "a", "a"])
def test_it_finds_what_trying_everything_finds(document: str, chunks: list[str]) -> None:
    wanted = by_trying(document, chunks, nested=False) or by_trying(document, chunks, nested=True)
    if wanted is None:
        with pytest.raises(InputError, match="chunk"):
            locate(document, chunks)
    else:
        assert locate(document, chunks) == wanted


def test_a_short_chunk_is_not_taken_for_a_part_of_the_one_before() -> None:
    document = "Cats are cats. Dogs chase cats. Cats. More of them."
    assert locate(document, ["Cats are cats. Dogs chase cats.", "Cats.", "More of them."]) == [(0, 31), (32, 37), (38, 51)]


def test_chunks_within_the_one_before_are_found_if_there_is_no_other_way() -> None:
    assert locate("one two three", ["one two three", "two", "three"]) == [(0, 13), (4, 7), (8, 13)]


def test_the_same_text_is_found_once_for_each_time_it_is_given() -> None:
    assert locate("ha ha\nha", ["ha", "ha", "ha"]) == [(0, 2), (3, 5), (6, 8)]
    with pytest.raises(InputError, match="chunk 3, which begins 'ha', stands in the document only before"):
        locate("ha ha\nha", ["ha"] * 4)


def test_chunks_without_text_stand_where_the_one_before_ends() -> None:
    assert locate(" one two ", ["", "one", " \n", "", "two", ""]) == [(0, 0), (1, 4), (4, 4), (4, 4), (5, 8), (8, 8)]
    assert locate("", ["", " "]) == [(0, 0), (0, 0)]
    assert locate("\n", [""]) == [(0, 0)]
    assert locate("text", []) == []


def test_a_chunk_that_is_not_there_is_named() -> None:
    other = "It was a bright cold day in April, and the clocks were striking thirteen."
    with pytest.raises(
        InputError, match=r"chunk 1, which begins 'It was a bright.*'\.\.\., does not stand.*the splitter was"
    ) as caught:
        locate("My father's family name being Pirrip", ["My father's", other])
    assert "thirteen" not in str(caught.value)
    with pytest.raises(InputError, match="chunk 1, which begins 'My', stands in the document only before"):
        locate("My father's family", ["father's", "My"])


def test_what_our_own_splitter_cuts_is_found_where_it_says() -> None:
    text = "\n\n".join(f"{' '.join(numbered(40 + number))}.  Yes. Yes." for number in range(30))
    pieces = list(cut(text, 200))
    assert len(pieces) > 30
    assert locate(text, [piece for _, piece in pieces]) == [(start, start + len(piece)) for start, piece in pieces]


def test_ten_thousand_chunks_of_a_long_document_are_found() -> None:
    # Each search begins where the chunk before begins, so the time is that of reading the document about once.
    document = "the same line again and again, 狐狸 " * 150_000
    step, length = len(document) // 10_000, len(document) // 8_000
    spans = [(start, start + length) for start in range(0, len(document) - length, step)]
    found = locate(document, [document[start:stop] for start, stop in spans])
    assert len(found) == len(spans) > 9_900
    assert found == sorted(found)
