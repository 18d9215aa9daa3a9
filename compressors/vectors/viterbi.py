"""The shortest path through a trellis of four-bit parts (Viterbi, 1967), for many vectors at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.compressors.vectors.grouped_code import Groups, InAxes, Tables, Values

STATES = 16
"""Values of a part, which is all that the next group has to know of the past."""

CHUNK = 512
"""Vectors that one thread encodes at once: side by side, so that each step works on long rows, and few enough for the cache."""

THREADS_FROM = 4096
"""Vectors that are shared out among threads; fewer are encoded beside something else, such as the writing of others."""

Transitions: TypeAlias = Float32[npt.NDArray[np.float32], "16 16 2"]
"""From each value of the part before to each own value."""
Costs: TypeAlias = Float32[npt.NDArray[np.float32], "16 n"]
"""Of the best path to each value of a part; the squared length of the vector, which all paths share, is left out."""
History: TypeAlias = Float32[npt.NDArray[np.float32], "parts 16 n"]


class Trellis:
    """Finds the values of the parts that come nearest to a vector.

    An axis of group j is approximated by ``own[axis][value of part j] + carried[axis][value of part j - 1]``. The square of
    what is left has a product of the vector with each value alone, which is taken once for 16 values, and besides only what no
    vector changes; so one addition and one comparison decide each of the 256 transitions.

    Args:
        own: (axes, 16) what each value of a part stands for in its own group.
        carried: (axes, 16) what each value of the part before adds; zeros for the first group.
        groups: (axes,) the group of each axis, ascending.
        parts: how many groups there are; some may have no axes.
    """

    def __init__(self, own: Tables, carried: Tables, groups: Groups, parts: int) -> None:
        """Work out what no vector changes."""
        ends = np.searchsorted(groups, np.arange(parts), side="right").tolist()
        axes = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self._arriving = [_transitions(own[here], carried[here]) for here in axes]
        self._reached = [slice(here.start, after.stop) for here, after in pairwise([*axes, slice(len(own), len(own))])]
        """The axes that a part's value has a say in: those of its group and of the next."""
        self._leaving = [
            np.ascontiguousarray(-2 * np.concatenate([own[here], carried[here.stop : reached.stop]]).T)
            for here, reached in zip(axes, self._reached, strict=True)
        ]

    def nearest(self, vectors: InAxes) -> Values:
        """Find the values of the parts of each vector, of many in threads; exact up to the rounding of float32."""
        chunks = [vectors[start : start + CHUNK] for start in range(0, max(len(vectors), 1), CHUNK)]
        if len(vectors) < THREADS_FROM:
            return np.concatenate([self._nearest(chunk) for chunk in chunks])
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return np.concatenate(list(threads.map(self._nearest, chunks)))

    def _nearest(self, vectors: InAxes) -> Values:
        """Extend the best path to each of the 16 values group by group, and then follow the best of all back."""
        coordinates, count = np.ascontiguousarray(vectors.T), len(vectors)
        history = np.empty((len(self._arriving), STATES, count), np.float32)
        costs = np.zeros((STATES, count), np.float32)
        beside_ones = np.ones((STATES, 2, count), np.float32)
        ways = np.empty((STATES, STATES, count), np.float32)
        for group, (arriving, axes, leaving) in enumerate(zip(self._arriving, self._reached, self._leaving, strict=True)):
            history[group] = beside_ones[:, 0] = costs
            # A product with ones adds what is constant faster than a broadcast sum does.
            np.matmul(arriving, beside_ones, out=ways)
            np.minimum.reduce(ways, axis=0, out=costs)
            costs += leaving @ coordinates[axes]
        return self._followed_back(history, costs)

    def _followed_back(self, history: History, costs: Costs) -> Values:
        """Read the values off, from the last part to the first: of the 16 ways to a known value, the least again."""
        parts, _, count = history.shape
        values = np.empty((count, parts), np.uint8)
        value = costs.argmin(axis=0)
        for group in range(parts - 1, -1, -1):
            values[:, group] = value
            constant = self._arriving[group][:, :, 1].T
            value = (history[group].T + constant.take(value, axis=0, mode="clip")).argmin(axis=1)  # clip: no copy for checking
        return values


def _transitions(own: Tables, carried: Tables) -> Transitions:
    """Give a 1 for the cost so far, and the square of what both values together stand for."""
    squares = (carried[:, :, np.newaxis] + own[:, np.newaxis]) ** 2
    constant = squares.sum(axis=0)
    return np.stack([np.ones_like(constant), constant], axis=-1)
