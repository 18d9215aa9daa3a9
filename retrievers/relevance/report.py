"""What a model of relevance is worth on labelled queries: the curve, the calibration, and the price of each target."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from rarebit.errors import MissingExtraError
from rarebit.retrievers.relevance.labels import LabelledScores, Relevances
from rarebit.retrievers.relevance.metrics import PrecisionRecall, precision_recall, share_emptied

BINS: Final = 10
TARGETS: Final = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Recalls whose price is told."""

MOST_POINTS: Final = 200
"""Of the curve, in the data and in the plot."""


@dataclass(frozen=True)
class Reliability:
    """Pairs whose relevance is about the same: what it is on average, and how many of them are relevant."""

    relevance: float
    relevant: float
    pairs: int


@dataclass(frozen=True)
class Price:
    """What a threshold costs: recall that is reached, precision, share of pairs removed, share of queries left with nothing."""

    recall: float
    threshold: float
    precision: float
    share_removed: float
    queries_emptied: float


@dataclass(frozen=True)
class RelevanceReport:
    """What a model was measured to do; all of it over the labelled pairs of all queries."""

    queries: int
    pairs: int
    relevant: int
    pr_auc: float
    """Area below the precision-recall curve."""
    calibration_error: float
    """Mean distance of the relevance from the share that is relevant, over bins, weighted by their pairs."""
    chosen: Price
    """At the model's own threshold."""
    prices: list[Price]
    """At the thresholds that reach recalls of 50 to 100 %."""
    reliability: list[Reliability]
    curve: list[tuple[float, float]]
    """Recall and precision."""

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as JSON has it."""
        return asdict(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw curve and reliability to an svg, pdf or png file.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        if find_spec("matplotlib") is None:
            raise MissingExtraError("drawing needs the package 'matplotlib', which is not installed: pip install matplotlib")
        drawing = import_module("matplotlib.figure").Figure(figsize=(9, 4), layout="constrained")
        left, right = drawing.subplots(1, 2)
        left.plot(*zip(*self.curve, strict=True), color="#1d6fb8")
        left.plot(self.chosen.recall, self.chosen.precision, "o", color="#d1495b", label="threshold")
        left.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=f"area {self.pr_auc:.3f}")
        left.legend()
        right.plot([0, 1], [0, 1], "--", color="#a0a0a0")
        right.plot(
            [own.relevance for own in self.reliability], [own.relevant for own in self.reliability], "o-", color="#1d6fb8"
        )
        title = f"calibration error {self.calibration_error:.3f}"
        right.set(xlabel="relevance", ylabel="share that is relevant", xlim=(0, 1.02), ylim=(0, 1.02), title=title)
        drawing.savefig(path)

    def __str__(self) -> str:
        """Lay the prices out as a table."""
        lines = [
            f"{self.queries} queries, {self.pairs} pairs, {self.relevant} relevant",
            f"area below the precision-recall curve {self.pr_auc:.3f}, calibration error {self.calibration_error:.3f}",
            f"{'recall':>8}{'threshold':>11}{'precision':>11}{'removed':>9}{'emptied':>9}",
        ]
        for price, mark in (*((own, "") for own in self.prices), (self.chosen, "  (chosen)")):
            lines.append(
                f"{price.recall:8.3f}{price.threshold:11.4g}{price.precision:11.3f}{price.share_removed:9.3f}"
                f"{price.queries_emptied:9.3f}{mark}"
            )
        return "\n".join(lines)


def report_on(relevances: Relevances, labelled: LabelledScores, threshold: float) -> RelevanceReport:
    """Measure relevances on labelled queries; InputError if no passage is labelled relevant."""
    curve = precision_recall(relevances, labelled)
    reliability = _reliability(relevances, labelled)
    off = sum(abs(own.relevance - own.relevant) * own.pairs for own in reliability) / curve.pairs
    steps = np.unique(np.linspace(0, len(curve.recall) - 1, MOST_POINTS).astype(int))
    return RelevanceReport(
        queries=int(labelled.known.any(axis=1).sum()),
        pairs=curve.pairs,
        relevant=int(labelled.relevant.sum()),
        pr_auc=curve.area,
        calibration_error=float(off),
        chosen=_price(relevances, labelled, curve, threshold),
        prices=[_price(relevances, labelled, curve, curve.at_recall(recall)[0]) for recall in TARGETS],
        reliability=reliability,
        curve=[(float(curve.recall[step]), float(curve.precision[step])) for step in steps],
    )


def _price(relevances: Relevances, labelled: LabelledScores, curve: PrecisionRecall, threshold: float) -> Price:
    place = int(np.searchsorted(-curve.thresholds, -threshold, side="right")) - 1
    emptied = share_emptied(relevances, labelled, threshold)
    if place < 0:
        return Price(0.0, threshold, 1.0, 1.0, emptied)
    removed = float(1 - curve.kept[place] / curve.pairs)
    return Price(float(curve.recall[place]), threshold, float(curve.precision[place]), removed, emptied)


def _reliability(relevances: Relevances, labelled: LabelledScores) -> list[Reliability]:
    flat, labels = relevances[labelled.known], labelled.labels[labelled.known]
    bins = np.minimum((flat * BINS).astype(int), BINS - 1)
    return [
        Reliability(float(flat[bins == own].mean()), float(labels[bins == own].mean()), int((bins == own).sum()))
        for own in np.unique(bins)
    ]
