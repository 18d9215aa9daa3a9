"""Long documents in overlapping windows of tokens, and the means of their chunks' tokens, summed window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import typing as npt

from rarebit.retrievers.situating.spans import Span

Numbers: TypeAlias = Int64[npt.NDArray[np.int64], "_"]
Flags: TypeAlias = Bool[npt.NDArray[np.bool_], "_"]
Sums: TypeAlias = Float32[npt.NDArray[np.float32], "n hidden"]
States: TypeAlias = Float32[npt.NDArray[np.float32], "own hidden"]


@dataclass(frozen=True)
class Window:
    """Neighbouring tokens that a model reads at once, counted from the document's first."""

    start: int
    stop: int
    own_start: int
    """The first of those that are represented as this window sees them."""
    own_stop: int


def windows(count: int, room: int, overlap: int) -> list[Window]:
    """Cut ``count`` tokens into windows of ``room``, or one of fewer, with as much overlap or more, spread evenly.

    A token is represented as the window sees it in which it stands farthest from a border inside the document, the earlier one
    of two: there it has the most context. So every token is represented once.

    Args:
        count: tokens of the document.
        room: tokens of a window.
        overlap: tokens that neighbouring windows share at least; fewer than ``room``.
    """
    if count <= room:
        return [Window(0, count, 0, count)] if count else []
    steps = -(-(count - room) // (room - overlap))
    starts = [step * (count - room) // steps for step in range(steps + 1)]
    # Windows are of one length, so the nearest middle is the farthest border.
    borders = [0, *((before + room + after + 1) // 2 for before, after in pairwise(starts)), count]
    return [Window(start, start + room, *own) for start, own in zip(starts, pairwise(borders), strict=True)]


@dataclass(frozen=True)
class TokenizedDocument:
    """A document as a tokenizer gives it: what the model wants for each token, and the characters that the token stands for.

    The first ``head`` and the last ``tail`` tokens are the model's own and those of a prompt: each window gets them.
    """

    inputs: dict[str, Numbers]
    head: int
    tail: int
    starts: Numbers
    """Of the document's own tokens, as ``stops``."""
    stops: Numbers

    def __len__(self) -> int:
        """Count the document's own tokens."""
        return len(self.starts)

    def inputs_of(self, window: Window) -> dict[str, Numbers]:
        """Give what the model reads for a window."""
        return {
            name: np.concatenate(
                [
                    numbers[: self.head],
                    numbers[self.head + window.start : self.head + window.stop],
                    numbers[len(numbers) - self.tail :],
                ]
            )
            for name, numbers in self.inputs.items()
        }


class ChunkMeans:
    """The means of the tokens of chunks, for states that come window by window.

    A token belongs to each chunk that it shares a character with; whitespace around a chunk does not count, because many
    tokenizers make it part of the next word. A token without characters belongs to none.
    """

    def __init__(self, text: str, document: TokenizedDocument, spans: Sequence[Span], hidden: int) -> None:
        """Find the tokens of chunks.

        Args:
            text: of the document.
            document: its tokens.
            spans: n of them, in characters.
            hidden: numbers of a state.
        """
        stripped = np.array([_stripped(text, span) for span in spans], np.int64).reshape(-1, 2)
        # Tokens without characters may stand anywhere; all others are in order.
        self._first: Numbers = np.searchsorted(np.maximum.accumulate(document.stops), stripped[:, 0], side="right")
        self._last: Numbers = np.searchsorted(np.maximum.accumulate(document.starts), stripped[:, 1], side="left")
        self._last[stripped[:, 0] >= stripped[:, 1]] = 0
        self._counted: Flags = document.stops > document.starts
        before = np.append(0, np.cumsum(self._counted))
        self._counts: Numbers = np.where(self._last > self._first, before[self._last] - before[self._first], 0)
        self._sums: Sums = np.zeros((len(spans), hidden), np.float32)
        self.there: Flags = self._counts > 0
        """Which chunks have tokens."""

    def add(self, window: Window, states: States) -> None:
        """Add the states of the tokens that a window represents."""
        start, stop = window.own_start, window.own_stop
        counted = states * self._counted[start:stop, np.newaxis]
        for chunk in np.flatnonzero((self._first < stop) & (self._last > start)).tolist():
            first, last = max(int(self._first[chunk]), start), min(int(self._last[chunk]), stop)
            self._sums[chunk] += counted[first - start : last - start].sum(axis=0)

    def means(self) -> Sums:
        """Give the means of the chunks that have tokens; all states have to be added before."""
        return np.divide(self._sums[self.there], self._counts[self.there, np.newaxis], dtype=np.float32, casting="same_kind")


def _stripped(text: str, span: Span) -> Span:
    start, stop = span
    inside = text[start:stop]
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())
