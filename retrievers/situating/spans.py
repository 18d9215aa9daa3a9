"""Where the chunks of a document stand in it: splitters give texts, and late chunking needs places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Int64
from numpy import typing as npt

from rarebit.errors import InputError

Span: TypeAlias = tuple[int, int]
"""The first character, and the one after the last."""

Places: TypeAlias = Int64[npt.NDArray[np.int64], "letters"]

SHOWN: Final = 60
"""Characters of a chunk that an error quotes."""

FEWEST_SHARED: Final = 8
"""Characters that the end of one chunk and the beginning of the next have in common if they overlap; fewer may be chance."""

_WORD: Final = re.compile(r"\S+")


def locate(document: str, chunks: Sequence[str]) -> list[Span]:
    """Find each chunk in its document, in time linear in the document's length.

    Whitespace is not compared, since splitters strip, collapse and replace it; what surrounds a chunk is not part of its span.
    Of several places a chunk takes the earliest at which it begins no earlier than the chunk before and ends after it: chunks
    of a splitter may overlap, and none lies within another. Where the chunks cannot all be placed so, they may lie within one
    another, and only a chunk that says the same as the one before has to begin after it.

    Args:
        document: the text that was split.
        chunks: its chunks, in their order; the same text may occur several times.

    Returns:
        n spans of characters. That of a chunk without any text is empty, and stands where the chunk before ends.

    Raises:
        InputError: a chunk does not occur, or not after the one before.
    """
    letters = "".join(document.split())
    texts = ["".join(chunk.split()) for chunk in chunks]
    starts = _starts(letters, texts, nested=False)
    if len(starts) < len(texts):
        starts = _starts(letters, texts, nested=True)
    if len(starts) < len(texts):
        raise _missing(len(starts), chunks[len(starts)], occurs=texts[len(starts)] in letters)
    places = _places(document)
    ends = np.append(0, places + 1)
    return [
        (int(places[start]), int(ends[start + len(text)])) if text else (int(ends[start]), int(ends[start]))
        for start, text in zip(starts, texts, strict=True)
    ]


def joined(chunks: Sequence[str]) -> tuple[str, list[Span]]:
    """Put the chunks of a document together where the document itself is not at hand.

    Args:
        chunks: n texts in their order. What neighbours have in common, as a splitter's overlap, comes once.

    Returns:
        The text, in which chunks that share nothing are parted by a line break; and the n spans of the chunks in it.
    """
    parts: list[str] = []
    spans: list[Span] = []
    before, length = "", 0
    for chunk in chunks:
        shared = _shared(before, chunk)
        added = chunk[shared:] if shared or not length else f"\n{chunk}"
        parts.append(added)
        length += len(added)
        spans.append((length - len(chunk), length))
        before = chunk
    return "".join(parts), spans


def _shared(before: str, after: str) -> int:
    """Say how many characters the end of one text and the beginning of another have in common at most."""
    for size in range(min(len(before), len(after)), FEWEST_SHARED - 1, -1):
        if before.endswith(after[:size]):
            return size
    return 0


def _starts(letters: str, texts: Sequence[str], *, nested: bool) -> list[int]:
    """Place texts one after the other; give the places of those before the first that has none.

    The earliest place of one leaves the most to those that follow, so nothing has to be tried twice.
    """
    starts: list[int] = []
    before, start, stop = "", 0, 0
    for text in texts:
        if not text:
            starts.append(stop)
            continue
        earliest = start + (text == before) if nested else max(start, stop + 1 - len(text))
        found = letters.find(text, earliest)
        if found < 0:
            break
        starts.append(found)
        before, start, stop = text, found, found + len(text)
    return starts


def _places(document: str) -> Places:
    """Give the place in the document of each character that is not whitespace."""
    words = [word.span() for word in _WORD.finditer(document)]
    starts, stops = np.array(words, np.int64).reshape(-1, 2).T
    before = np.cumsum(stops - starts) - (stops - starts)
    places: Places = np.arange((stops - starts).sum(), dtype=np.int64) + np.repeat(starts - before, stops - starts)
    return places


def _missing(number: int, chunk: str, *, occurs: bool) -> InputError:
    beginning = " ".join(chunk.split())
    quoted = repr(beginning[:SHOWN]) + ("..." if len(beginning) > SHOWN else "")
    return InputError(
        f"chunk {number}, which begins {quoted}, "
        f"{'stands in the document only before the chunks given before it' if occurs else 'does not stand in the document'}, "
        "wanted chunks in their order, the same as in the document but for whitespace: pass the text that the splitter was "
        "given, and chunks without what was added to them (titles, headers); or pass spans of characters to embed_spans"
    )
