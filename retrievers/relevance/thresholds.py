"""One threshold for all queries, chosen for what it is to reach on labelled queries.

``recall``, ``precision`` and ``f_beta`` look at all pairs at once and take the labelled queries for what they are. The others
promise something about queries to come, which need only be drawn as the labelled ones were (exchangeable), and not from those
that the model was trained on:

- ``lost``: conformal risk control (Angelopoulos et al., arXiv 2208.02814). The expected share of a query's relevant passages
  that are dropped is at most alpha. With n queries that have a relevant passage, the highest threshold is taken at which
  (n R + 1) / (n + 1) <= alpha, R being their mean share. Fewer than 1 / alpha - 1 queries allow no threshold but 0.
- ``lost`` with ``confidence``: with that probability over the draw of the labelled queries, the mean share lost is at most
  alpha (risk-controlling sets, Bates et al., arXiv 2101.02703). R is bounded by the Hoeffding-Bentkus inequality for shares.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rarebit.errors import InputError
from rarebit.retrievers.collection.arguments import as_share
from rarebit.retrievers.relevance.labels import LabelledScores, Relevances
from rarebit.retrievers.relevance.metrics import Column, mean_lost_shares, precision_recall

DEFAULT_RECALL = 0.95
LARGEST_BETA = 1e6


@dataclass(frozen=True)
class Target:
    """What a threshold is chosen for; with nothing given, a recall of .95.

    Args:
        recall: the highest threshold that keeps this share of all relevant passages.
        precision: the lowest threshold from which on this share of what is kept is relevant; if there is none, the one with
            the highest precision.
        f_beta: the threshold with the highest F-measure, recall counting beta times as much as precision.
        lost: alpha, the expected share of a query's relevant passages that may be lost.
        confidence: with ``lost``: the probability with which the mean share lost is at most alpha.
    """

    recall: float | None = None
    precision: float | None = None
    f_beta: float | None = None
    lost: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        """Check that there is one target, and that it can be one."""
        given = [name for name in ("recall", "precision", "f_beta", "lost") if getattr(self, name) is not None]
        if len(given) > 1 or (self.confidence is not None and self.lost is None):
            raise InputError(f"got {asdict(self)}, wanted one of recall, precision, f_beta and lost, and confidence with lost")
        if not given:
            object.__setattr__(self, "recall", DEFAULT_RECALL)
        for name in ("recall", "precision", "lost", "confidence"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_share(name, getattr(self, name)))
        if self.f_beta is not None and not (isinstance(self.f_beta, int | float) and 0 < self.f_beta <= LARGEST_BETA):
            raise InputError(f"got f_beta={self.f_beta!r}, wanted a number above 0: 1 weighs recall and precision alike")

    def __str__(self) -> str:
        """Name it in a few words."""
        given = [(name.replace("_", "-"), value) for name, value in self.to_dict().items()]
        return ", ".join(f"{name} {value:g}" for name, value in given)

    def to_dict(self) -> dict[str, float]:
        """Give what was asked for, as JSON has it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def choose(relevances: Relevances, labelled: LabelledScores, target: Target) -> float:
    """Choose a threshold: passages with a relevance of at least as much are kept.

    Raises:
        InputError: no passage is labelled relevant.
    """
    curve = precision_recall(relevances, labelled)
    if target.recall is not None:
        return curve.at_recall(target.recall)[0]
    if target.precision is not None:
        reached = np.flatnonzero(curve.precision >= target.precision)
        return float(curve.thresholds[reached[-1] if len(reached) else int(np.argmax(curve.precision))])
    if target.f_beta is not None:
        weight = target.f_beta**2
        with np.errstate(invalid="ignore"):
            measure = (1 + weight) * curve.precision * curve.recall / (weight * curve.precision + curve.recall)
        return float(curve.thresholds[int(np.argmax(np.nan_to_num(measure)))])
    return _controlled(relevances, labelled, curve.thresholds[::-1], target)


def _controlled(relevances: Relevances, labelled: LabelledScores, thresholds: Column, target: Target) -> float:
    """Take the highest threshold up to which every one keeps the promise; 0, which loses nothing, if none does."""
    alpha, count = float(target.lost or 0), int(labelled.relevant.any(axis=1).sum())
    risks = mean_lost_shares(relevances, labelled, thresholds)  # they rise with the threshold

    def breaks(risk: float) -> bool:
        if target.confidence is None:
            return bool((count * risk + 1) / (count + 1) > alpha)
        return chance_of_less(float(risk), count, alpha) > 1 - target.confidence

    place = bisect_left(risks, True, key=breaks) - 1
    return float(thresholds[place]) if place >= 0 else 0.0


def chance_of_less(mean: float, count: int, risk: float) -> float:
    """Bound the chance that the mean of ``count`` shares is this small or smaller, if they are expected to be above ``risk``.

    Hoeffding's and Bentkus's bounds; the smaller of both.
    """
    if mean >= risk:
        return 1.0
    hoeffding = math.exp(-count * _relative_entropy(mean, risk))
    successes = math.ceil(count * mean - 1e-9)
    below = math.fsum(_binomial(successes_, count, risk) for successes_ in range(successes + 1))
    return min(hoeffding, math.e * below, 1.0)


def _relative_entropy(mean: float, risk: float) -> float:
    """Give the entropy of a coin of one chance relative to one of another."""
    if risk >= 1:
        return math.inf
    head = mean * math.log(mean / risk) if mean > 0 else 0.0
    return head + (1 - mean) * math.log((1 - mean) / (1 - risk))


def _binomial(successes: int, count: int, chance: float) -> float:
    if chance <= 0 or chance >= 1:
        return float(successes == (count if chance >= 1 else 0))
    logarithm = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(logarithm + successes * math.log(chance) + (count - successes) * math.log1p(-chance))


def as_target(given: Target | None, asked: dict[str, Any]) -> Target:
    """Make a target of keywords, or take the one that is given; InputError for both."""
    named = {name: value for name, value in asked.items() if value is not None}
    if given is not None and named:
        raise InputError(f"got a Target together with {sorted(named)}, wanted one or the other")
    return given or Target(**named)
