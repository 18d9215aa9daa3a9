"""The shortest path through a trellis of four-bit parts (Viterbi, 1967), for many vectors at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from rarebit.compressors.vectors.grouped_code import Groups, InAxes, Tables, Values

STATES = 16
"""Values of a part, which is all that the next group has to know of the past."""

CHUNK = 256
"""Vectors that one thread encodes at once: the costs of their paths stay in the processor's cache."""

FLOOR = 0.01
"""Added to the costs, as a share of each vector's squared length, so that rounding never makes one negative: positive floats
are ordered as their bits are."""

LAST_BITS = np.int32(STATES - 1)
"""The last bits of a cost, in which the value before is noted while the least cost is sought."""


class Trellis:
    """Finds the values of the parts that come nearest to a vector.

    An axis of group j is approximated by ``own[axis][value of part j] + carried[axis][value of part j - 1]``.

    Args:
        own: (axes, 16) what each value of a part stands for in its own group.
        carried: (axes, 16) what each value of the part before adds; zeros for the first group.
        groups: (axes,) the group of each axis, ascending.
        parts: how many groups there are; some may have no axes.
    """

    def __init__(self, own: Tables, carried: Tables, groups: Groups, parts: int) -> None:
        """Lay out the 256 points that each group can be approximated by."""
        ends = np.searchsorted(groups, np.arange(parts), side="right").tolist()
        self._axes = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        points = (carried[:, :, np.newaxis] + own[:, np.newaxis]).reshape(len(own), STATES * STATES)
        self._slopes = -2 * points
        self._squares = [(points[axes] ** 2).sum(axis=0) for axes in self._axes]

    def nearest(self, vectors: InAxes) -> Values:
        """Find the values of the parts of each vector, in threads; exact up to the last bits of float32."""
        chunks = [vectors[start : start + CHUNK] for start in range(0, max(len(vectors), 1), CHUNK)]
        if len(chunks) == 1:
            return self._nearest(vectors)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return np.concatenate(list(threads.map(self._nearest, chunks)))

    def _nearest(self, vectors: InAxes) -> Values:
        """Extend the best path to each of the 16 values group by group, and then follow the best of all back."""
        floors = np.maximum(FLOOR * (vectors * vectors).sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        costs = np.repeat(floors.astype(np.float32), STATES, axis=1)
        ways = np.empty((len(self._axes), len(vectors), STATES), dtype=np.uint8)
        before = np.arange(STATES, dtype=np.int32)[:, np.newaxis]
        for group, axes in enumerate(self._axes):
            targets = vectors[:, axes]
            costs += (targets * targets).sum(axis=1, keepdims=True)
            reached = targets @ self._slopes[axes]
            reached += self._squares[group]
            by_value = reached.reshape(-1, STATES, STATES)
            by_value += costs[:, :, np.newaxis]
            # One pass finds the least cost and where it came from: the last bits of each cost say it.
            noted = by_value.view(np.int32)
            noted &= ~LAST_BITS
            noted |= before
            least = noted.min(axis=1)
            ways[group] = least & LAST_BITS
            costs = (least & ~LAST_BITS).view(np.float32)
        return _followed_back(ways, costs.argmin(axis=1))


def _followed_back(ways: npt.NDArray[np.uint8], last: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Read the values off, from the last part to the first."""
    parts, count, _ = ways.shape
    values = np.empty((count, parts), dtype=np.uint8)
    everyone, value = np.arange(count), last
    for group in range(parts - 1, -1, -1):
        values[:, group] = value
        value = ways[group, everyone, value]
    return values
