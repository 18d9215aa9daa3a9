"""Whether live scores still look like those of the calibration.

Some statistics of each query (the evidence, and its highest relevance) are compared with those of the calibration's queries
by the two-sample Kolmogorov-Smirnov test; with several statistics, each has to be as much less likely (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

KEPT: Final = 1024
"""Values of each statistic that are remembered: quantiles where there were more."""

LEVEL: Final = 0.01
"""Chance of calling a difference one that is none, for all statistics together."""

Sample: TypeAlias = Float64[npt.NDArray[np.float64], "_"]


@dataclass(frozen=True)
class Shift:
    """How far one statistic has moved."""

    statistic: str
    distance: float
    """Of the two distributions, from 0 (the same) to 1."""
    chance: float
    """Of so large a distance if nothing has changed."""
    before: float
    now: float
    """Medians."""


@dataclass(frozen=True)
class Drift:
    """What a comparison with the calibration found."""

    shifts: list[Shift]
    queries: int

    @property
    def has_drifted(self) -> bool:
        """Whether a statistic has moved by more than chance: calibrate anew then."""
        return any(own.chance < LEVEL / len(self.shifts) for own in self.shifts)

    def __str__(self) -> str:
        """Say what has moved."""
        moved = sorted(self.shifts, key=lambda own: own.chance)
        lines = [f"{own.statistic}: median {own.before:.3f} -> {own.now:.3f}, chance {own.chance:.2g}" for own in moved]
        verdict = "drifted" if self.has_drifted else "no drift seen"
        return "\n".join([f"{verdict} in {self.queries} queries", *lines])


def remembered(statistics: Mapping[str, Sample]) -> dict[str, npt.NDArray[np.float32]]:
    """Keep what later values are compared with."""
    kept = {}
    for name, values in statistics.items():
        known = np.sort(values[~np.isnan(values)])
        if len(known) > KEPT:
            known = np.quantile(known, (np.arange(KEPT) + 0.5) / KEPT)
        if len(known):
            kept[name] = known.astype(np.float32)
    return kept


def drift_between(before: Mapping[str, npt.NDArray[np.float32]], now: Mapping[str, Sample]) -> Drift:
    """Compare live statistics with the remembered ones."""
    shifts, queries = [], max((len(values) for values in now.values()), default=0)
    for name, old in before.items():
        new = now[name][~np.isnan(now[name])]
        if len(new):
            distance = _distance(old.astype(np.float64), new)
            size = len(old) * len(new) / (len(old) + len(new))
            medians = float(np.median(old)), float(np.median(new))
            shifts.append(Shift(name, distance, _chance(distance, size), *medians))
    return Drift(shifts, queries)


def _distance(one: Sample, other: Sample) -> float:
    """Give the largest distance of two empirical distribution functions."""
    one, other = np.sort(one), np.sort(other)
    both = np.concatenate([one, other])
    below = [np.searchsorted(own, both, side="right") / len(own) for own in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _chance(distance: float, size: float) -> float:
    """Give Kolmogorov's asymptotic chance of so large a distance, with Stephens' correction for small samples."""
    reached = (math.sqrt(size) + 0.12 + 0.11 / math.sqrt(size)) * distance
    if reached < 0.3:
        return 1.0
    terms = [(-1) ** (place - 1) * math.exp(-2 * (place * reached) ** 2) for place in range(1, 101)]
    return min(1.0, max(0.0, 2 * math.fsum(terms)))
