"""How well relevances tell relevant passages from others, over all pairs of a query and a passage at once.

Pairs without a label do not count. Where relevances tie, all of a tie are kept or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from rarebit.errors import InputError
from rarebit.retrievers.relevance.labels import LabelledScores, Relevances

Column: TypeAlias = Float64[npt.NDArray[np.float64], "cuts"]


@dataclass(frozen=True)
class PrecisionRecall:
    """The curve: for each relevance that occurs, from the highest down, what a threshold there keeps."""

    thresholds: Column
    precision: Column
    recall: Column
    kept: Column
    """How many pairs."""
    pairs: int

    @property
    def area(self) -> float:
        """The area below the curve, as average precision: each step's precision, weighted by the recall that it adds."""
        return float(np.diff(self.recall, prepend=0.0) @ self.precision)

    def at_recall(self, recall: float) -> tuple[float, float, float]:
        """Give threshold, precision and share removed where so much recall is first reached."""
        place = min(int(np.searchsorted(self.recall, recall - 1e-12)), len(self.recall) - 1)
        return float(self.thresholds[place]), float(self.precision[place]), float(1 - self.kept[place] / self.pairs)


def precision_recall(relevances: Relevances, labelled: LabelledScores) -> PrecisionRecall:
    """Draw the curve.

    Raises:
        InputError: no pair is labelled relevant.
    """
    flat, relevant = relevances[labelled.known].astype(np.float64), labelled.relevant[labelled.known]
    if not relevant.any():
        raise InputError("got labels that call nothing relevant, wanted one relevant passage at least among those found")
    order = np.argsort(-flat, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(flat[order])), len(flat) - 1)
    found = np.cumsum(relevant[order])[ends].astype(np.float64)
    kept = (ends + 1).astype(np.float64)
    return PrecisionRecall(flat[order][ends], found / kept, found / found[-1], kept, len(flat))


def mean_lost_shares(relevances: Relevances, labelled: LabelledScores, thresholds: Column) -> Column:
    """Give the mean over queries with a relevant passage of the share of them that each threshold drops."""
    rows = np.nonzero(labelled.relevant)[0]
    flat = relevances[labelled.relevant].astype(np.float64)
    each = 1 / labelled.relevant.sum(axis=1)[rows] / len(np.unique(rows))
    order = np.argsort(flat, kind="stable")
    lost = np.append(0.0, np.cumsum(each[order]))
    means: Column = lost[np.searchsorted(flat[order], thresholds, side="left")]
    return means


def share_emptied(relevances: Relevances, labelled: LabelledScores, threshold: float) -> float:
    """Give the share of queries of whose labelled passages none is kept."""
    asked = labelled.known.any(axis=1)
    left = np.any(labelled.known & (relevances >= threshold), axis=1)
    return float(1 - left[asked].mean()) if asked.any() else 0.0
