"""Variance-aware scalar codes: principal axes, bits by reverse water-filling, Lloyd-Max levels.

Nothing is trained beyond a covariance.

Each axis is rounded by itself to the levels that are best for a normal distribution of its variance (Max 1960, Lloyd 1982),
with 0 to 4 bits. Axes are packed into parts of exactly four bits, whose 16 points are the grid of their levels.
"""

from __future__ import annotations

import heapq
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from rarebit.compressors.vectors.fast_scan import NIBBLES
from rarebit.compressors.vectors.grouped_code import GroupedCode, Groups, InAxes, Values
from rarebit.compressors.vectors.spectrum import Spectrum

PART_BITS = 4

Bits: TypeAlias = Int64[npt.NDArray[np.int64], "axes"]
Levels: TypeAlias = Float64[npt.NDArray[np.float64], "levels"]


class VarianceCode(GroupedCode):
    """Principal axes rounded to Lloyd-Max levels, with the bits that the variance of each is worth, and one factor.

    Args:
        code_size: bytes a vector; by default one bit a dimension, and at least 4 bytes. One byte of it is the factor, two
            where the vectors' lengths differ.
        seed: of the sample.
    """

    name = "variance"

    def _grouping(self, spectrum: Spectrum, parts: int) -> tuple[npt.NDArray[np.intp], Groups]:
        bits = allocated(spectrum.variances * spectrum.weights, PART_BITS * parts)
        packed = packed_axes(bits)
        chosen = np.concatenate(packed).astype(np.intp)
        self._deviations, self._bits = np.sqrt(spectrum.variances[chosen]), bits[chosen]
        return chosen, np.repeat(np.arange(len(packed)), [len(axes) for axes in packed]).astype(np.int32)

    def _learn(self, in_axes: InAxes, rng: np.random.Generator, *, progress: bool) -> None:
        del in_axes, rng, progress
        self._own = np.zeros((len(self._bits), NIBBLES), dtype=np.float32)
        bits_before = np.cumsum(self._bits) - self._bits
        first_of_group = np.searchsorted(self._groups, self._groups)
        shifts = bits_before - bits_before[first_of_group]
        for axis, (bits, shift) in enumerate(zip(self._bits.tolist(), shifts.tolist(), strict=True)):
            self._own[axis] = self._deviations[axis] * lloyd_max(2**bits)[(np.arange(NIBBLES) >> shift) % 2**bits]

    def _nearest(self, in_axes: InAxes) -> Values:
        values = np.zeros((len(in_axes), self._parts), np.uint8)
        for group in np.unique(self._groups):
            axes = self._groups == group
            points = self._own[axes]
            values[:, group] = ((points * points).sum(axis=0) - 2 * in_axes[:, axes] @ points).argmin(axis=1)
        return values


@cache
def lloyd_max(count: int) -> Levels:
    """Give the levels that leave the smallest squared error of a standard normal variable."""
    grid = np.linspace(-6, 6, 20_001)
    density = np.exp(-grid * grid / 2)
    levels = np.interp((np.arange(count) + 0.5) / count, np.cumsum(density) / density.sum(), grid)
    for _ in range(500):
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, grid)
        levels = np.bincount(nearest, density * grid, count) / np.bincount(nearest, density, count)
    return levels


@cache
def rounding_error(bits: int) -> float:
    """Give the squared error that rounding a standard normal variable to the best levels leaves."""
    grid = np.linspace(-6, 6, 20_001)
    density = np.exp(-grid * grid / 2)
    levels = lloyd_max(2**bits)
    rounded = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, grid)]
    return float((density * (grid - rounded) ** 2).sum() / density.sum())


def allocated(worth: npt.NDArray[np.float64], total: int) -> Bits:
    """Share whole bits out, each to the axis where it removes the most weighted error, so that four-bit parts can be filled.

    Args:
        worth: (axes,) variance times weight, falling.
        total: bits, a multiple of four; what more than four bits for every axis would take is left over.

    Returns:
        0 to 4 bits for each axis, falling.
    """
    removed = [rounding_error(bits) - rounding_error(bits + 1) for bits in range(PART_BITS)]
    bits = np.zeros(len(worth), dtype=np.int64)
    gains = [(-float(value) * removed[0], axis) for axis, value in enumerate(worth)]
    heapq.heapify(gains)
    for _ in range(min(total, PART_BITS * len(worth))):
        _, axis = heapq.heappop(gains)
        bits[axis] += 1
        if bits[axis] < PART_BITS:
            heapq.heappush(gains, (-float(worth[axis]) * removed[bits[axis]], axis))
    while np.count_nonzero(bits == 3) > np.count_nonzero(bits == 1):
        threes, unused = np.flatnonzero(bits == 3), np.flatnonzero(bits == 0)
        bits[threes[-1]] -= 1
        bits[unused[0] if len(unused) else threes[0]] += 1
    return bits


def packed_axes(bits: Bits) -> list[list[int]]:
    """Put axes together into parts of four bits: 4, 3 + 1, 2 + 2, 2 + 1 + 1 or 1 + 1 + 1 + 1."""
    of = {size: np.flatnonzero(bits == size).tolist() for size in range(1, PART_BITS + 1)}
    parts = [[axis] for axis in of[4]]
    parts += [[axis, of[1].pop(0)] for axis in of[3]]
    rest = of[2] + of[1]
    while rest:
        part, room = [], PART_BITS
        while rest and bits[rest[0]] <= room:
            room -= int(bits[rest[0]])
            part.append(rest.pop(0))
        parts.append(part)
    return parts
