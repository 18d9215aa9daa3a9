"""Precision-recall curves over the pairs of several parts of the questions, and how far other questions would move them.

A draw of the bootstrap takes questions with replacement, which gives each pair a weight; the pairs are sorted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from rarebit.cookbook.benchmarks.figures import CONFIDENCE, Figure, Subject
from rarebit.retrievers.relevance import LabelledScores
from rarebit.retrievers.relevance.labels import Relevances

DRAWS = 300
RECALL = 0.95

Weights: TypeAlias = Float64[npt.NDArray[np.float64], "q"]
Values: TypeAlias = Float64[npt.NDArray[np.float64], "draws 2"]
Sample: TypeAlias = Float64[npt.NDArray[np.float64], "_"]


@dataclass(frozen=True)
class Curve:
    """The pairs of one part, from the highest relevance down."""

    question: npt.NDArray[np.intp]
    relevant: npt.NDArray[np.float64]
    ends: npt.NDArray[np.intp]
    """Last places of ties."""
    questions: int

    @classmethod
    def of(cls, relevances: Relevances, labelled: LabelledScores) -> Curve:
        """Sort the labelled pairs."""
        rows = np.nonzero(labelled.known)[0]
        flat, relevant = relevances[labelled.known], labelled.relevant[labelled.known]
        order = np.argsort(-flat, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(flat[order])), len(flat) - 1)
        return cls(rows[order], relevant[order].astype(np.float64), ends, len(labelled))

    def measured(self, weights: Weights) -> tuple[float, float]:
        """Give the area below the curve, and the precision at a recall of 95 %, with weighted questions."""
        each = weights[self.question]
        found, kept = np.cumsum(each * self.relevant)[self.ends], np.cumsum(each)[self.ends]
        if not found[-1]:
            return np.nan, np.nan
        precision = found / np.maximum(kept, 1e-12)
        area = float(np.diff(found, prepend=0.0) @ precision / found[-1])
        return area, float(precision[np.searchsorted(found, RECALL * found[-1] - 1e-9)])


class Curves:
    """The curves of all parts; what is measured is the mean over them."""

    def __init__(self, parts: Sequence[tuple[Any, LabelledScores]]) -> None:
        """Sort the pairs of each part: (q, k) relevances, or scores, and what is known; q is another one in each."""
        self._curves = [Curve.of(*part) for part in parts]

    @cached_property
    def value(self) -> tuple[float, float]:
        """Area, and precision at a recall of 95 %."""
        area, precision = np.nanmean([own.measured(np.ones(own.questions)) for own in self._curves], axis=0).tolist()
        return area, precision

    @cached_property
    def drawn(self) -> Values:
        """The same of draws of questions; the n-th draws of two methods are of the same questions."""
        rng = np.random.default_rng(0)
        values = []
        for _ in range(DRAWS):
            draws = [rng.multinomial(own.questions, np.full(own.questions, 1 / own.questions)) for own in self._curves]
            each = [own.measured(drawn.astype(np.float64)) for own, drawn in zip(self._curves, draws, strict=True)]
            values.append(np.nanmean(each, axis=0))
        return np.array(values)

    def figures(self, subject: Subject, raw: Curves | None) -> Iterator[Figure]:
        """Give both figures, and how they differ from those of the raw score."""
        count = sum(own.questions for own in self._curves)
        for place, (name, difference) in enumerate((("pr_auc", "auc_vs_raw"), ("p_at_r95", "p_vs_raw"))):
            yield _figure(subject, name, self.value[place], self.drawn[:, place], count)
            if raw is not None:
                gain = self.value[place] - raw.value[place]
                yield _figure(subject, difference, gain, self.drawn[:, place] - raw.drawn[:, place], count)


def _figure(subject: Subject, metric: str, value: float, drawn: Sample, count: int) -> Figure:
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    own = subject.counted(metric, value, count)
    return Figure(**{**own.__dict__, "low": low, "high": high})


def area_under_roc(higher: Sample, lower: Sample) -> float:
    """Give the chance that one of the first is above one of the second, a tie counting half."""
    ordered = np.sort(lower)
    below = np.searchsorted(ordered, higher, side="left") + np.searchsorted(ordered, higher, side="right")
    return float(below.mean() / (2 * len(lower)))
