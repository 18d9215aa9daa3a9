"""The figures of a benchmark: one row type, intervals, JSON and a plain table.

An interval is the bootstrap's: queries, or groups of them, are drawn with replacement 1000 times (seeded), the statistic is
taken of each draw, and ``low`` and ``high`` bound the middle 95 % of them. It says how far other queries would move the figure,
not how noisy the machine is. What is counted and not sampled has no interval.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

RESAMPLES = 1000
CONFIDENCE = 0.95

MEAN = "mean"
"""In the place of a collection: the mean over all."""

Sample: TypeAlias = Float64[npt.NDArray[np.float64], "n *values"]
"""One value a query, or some that the statistic makes one of."""
Statistic: TypeAlias = Callable[..., Any]
"""A function of an array that takes ``axis``, as numpy's do."""


@dataclass(frozen=True)
class Figure:
    """One number: of which benchmark, collection, method and setting, what it is, its interval, and of how many it is made."""

    benchmark: str
    collection: str
    method: str
    setting: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Subject:
    """What figures are about; makes them."""

    benchmark: str
    collection: str
    method: str = ""
    setting: str = ""

    def of(self, method: str, setting: str | None = None) -> Subject:
        """Give the same subject for another method or setting."""
        return replace(self, method=method, setting=self.setting if setting is None else setting)

    def counted(self, metric: str, value: float | np.number[Any], n: int) -> Figure:
        """Make the figure of a number that no sample stands behind."""
        return Figure(**asdict(self), metric=metric, value=float(value), low=None, high=None, n=n)

    def sampled(
        self, metric: str, sample: Sample, statistic: Statistic = np.mean, *, groups: Sequence[str] | None = None
    ) -> Figure:
        """Make the figure of a statistic over queries, with its interval; of grouped queries whole groups are drawn."""
        low, high = bootstrap(sample, statistic) if groups is None else grouped_bootstrap(sample, groups, statistic)
        return Figure(**asdict(self), metric=metric, value=float(statistic(sample, axis=0)), low=low, high=high, n=len(sample))


def p95(sample: npt.NDArray[np.float64], axis: int = 0) -> Any:
    """Give the 95th percentile."""
    return np.quantile(sample, 0.95, axis=axis)


def bootstrap(sample: Sample, statistic: Statistic = np.mean, *, seed: int = 0) -> tuple[float, float]:
    """Bound a statistic by the bootstrap.

    Args:
        sample: (n,) one value a query, at least one query; or (n, m) for a statistic of m values.
        statistic: of the values, taking ``axis``.
        seed: of the draws.

    Returns:
        The bounds of the middle 95 % of the statistics of 1000 draws of n with replacement.
    """
    draws = np.random.default_rng(seed).integers(len(sample), size=(RESAMPLES, len(sample)))
    return _middle(statistic(sample[draws], axis=1))


def grouped_bootstrap(
    sample: Sample, groups: Sequence[str], statistic: Statistic = np.mean, *, seed: int = 0
) -> tuple[float, float]:
    """Bound a statistic by drawing groups of queries, such as those about one article, which resemble each other.

    Args:
        sample: (n,) or (n, m), as for :func:`bootstrap`.
        groups: n names.
        statistic: of the values, taking ``axis``.
        seed: of the draws.
    """
    names = np.unique(groups, return_inverse=True)[1]
    members = [np.flatnonzero(names == number) for number in range(names.max() + 1)]
    draws = np.random.default_rng(seed).integers(len(members), size=(RESAMPLES, len(members)))
    return _middle([statistic(sample[np.concatenate([members[number] for number in drawn])], axis=0) for drawn in draws])


def _middle(statistics: Any) -> tuple[float, float]:
    low, high = np.quantile(statistics, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def write_json(figures: Iterable[Figure], path: Path) -> None:
    """Write figures as a JSON list, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(asdict(figure), ensure_ascii=False) for figure in figures)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def table(figures: Sequence[Figure], with_intervals: Container[str]) -> str:
    """Lay figures out: a line for each method and setting, a column for each metric, some with their intervals."""
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for figure in figures:
        cells.setdefault((figure.method, figure.setting), {})[figure.metric] = _cell(
            figure, interval=figure.metric in with_intervals
        )
    lines = [["method", "setting", *metrics]]
    lines += [[*names, *(found.get(metric, "") for metric in metrics)] for names, found in cells.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in [lines[0], ["-" * width for width in widths], *lines[1:]])


def means(figures: Iterable[Figure]) -> list[Figure]:
    """Average over collections what every one of them has, of those that have the metric at all."""
    of_metric: dict[str, set[str]] = {}
    found: dict[tuple[str, str, str, str], list[Figure]] = {}
    for figure in figures:
        of_metric.setdefault(figure.metric, set()).add(figure.collection)
        found.setdefault((figure.benchmark, figure.method, figure.setting, figure.metric), []).append(figure)
    return [
        replace(own[0], collection=MEAN, value=mean(figure.value for figure in own), low=None, high=None, n=len(own))
        for (_, _, _, metric), own in found.items()
        if len(own) == len(of_metric[metric])
    ]


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    names = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
    numbers = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
    return "  ".join([*names, *numbers])


def _cell(figure: Figure, *, interval: bool) -> str:
    if not interval or figure.low is None or figure.high is None:
        return _number(figure.value)
    return f"{_number(figure.value)} [{_number(figure.low)}, {_number(figure.high)}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
