"""The shortest path through a trellis of four-bit parts (Viterbi, 1967), for many vectors at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.compressors.vectors.grouped_code import Groups, InAxes, Tables, Values

STATES = 16
"""Values of a part, which is all that the next group has to know of the past."""

CHUNK = 512
"""Vectors that one thread encodes at once: side by side, so that each step works on long rows, and few enough for the cache."""

FLOOR = 0.01
"""Added to the costs, as a share of each vector's squared length, so that rounding never makes one negative: positive floats
are ordered as their bits are."""

Points: TypeAlias = Float32[npt.NDArray[np.float32], "axes 256"]

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
        # The square of a point stands behind its coordinates, for the one behind those of a vector: one product gives both.
        self._factors = [_with_squares(points[axes]) for axes in self._axes]

    def nearest(self, vectors: InAxes) -> Values:
        """Find the values of the parts of each vector, in threads; exact up to the last bits of float32."""
        chunks = [vectors[start : start + CHUNK] for start in range(0, max(len(vectors), 1), CHUNK)]
        if len(chunks) == 1:
            return self._nearest(vectors)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return np.concatenate(list(threads.map(self._nearest, chunks)))

    def _nearest(self, vectors: InAxes) -> Values:
        """Extend the best path to each of the 16 values group by group, and then follow the best of all back."""
        count, coordinates = len(vectors), np.ascontiguousarray(vectors.T)
        squares = coordinates * coordinates
        floor = np.maximum(FLOOR * squares.sum(axis=0), np.finfo(np.float32).tiny).astype(np.float32)
        costs = np.repeat(floor[np.newaxis], STATES, axis=0)
        ways = np.empty((len(self._axes), STATES, count), dtype=np.uint8)
        before = np.arange(STATES, dtype=np.int32)[:, np.newaxis, np.newaxis]
        reached = np.empty((STATES, STATES, count), dtype=np.float32)
        noted = reached.view(np.int32)
        for group, (axes, factors) in enumerate(zip(self._axes, self._factors, strict=True)):
            targets = np.concatenate([coordinates[axes], np.ones((1, count), np.float32)])
            costs += squares[axes].sum(axis=0)
            np.matmul(factors, targets, out=reached)
            reached += costs[:, np.newaxis]
            # One pass finds the least cost and where it came from: the last bits of each cost say it.
            noted &= ~LAST_BITS
            noted |= before
            least = noted.min(axis=0)
            ways[group] = least & LAST_BITS
            costs = (least & ~LAST_BITS).view(np.float32)
        return _followed_back(ways, costs.argmin(axis=0))


def _with_squares(points: Points) -> npt.NDArray[np.float32]:
    """Give what a vector with a 1 behind it is multiplied by: (16 values before, 16 own, axes + 1).

    Sixteen small products, since BLAS would share out one large product among threads, and these are threads already.
    """
    factors = np.concatenate([-2 * points, (points**2).sum(axis=0, keepdims=True)]).T
    return np.ascontiguousarray(factors).reshape(STATES, STATES, -1)


def _followed_back(ways: npt.NDArray[np.uint8], last: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Read the values off, from the last part to the first."""
    parts, _, count = ways.shape
    values = np.empty((count, parts), dtype=np.uint8)
    everyone, value = np.arange(count), last
    for group in range(parts - 1, -1, -1):
        values[:, group] = value
        value = ways[group, value, everyone]
    return values
