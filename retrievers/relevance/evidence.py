"""What is known about a query beside its embedding: how its scores are spread, and how its best ones stand out.

Five numbers: the mean and the logarithm of the standard deviation of the query's scores over the collection
(:mod:`.background`), its best score, and how far the second and the fourth are below it. They do not depend on how many
passages were asked for, as long as there are four. A number that is not known is NaN, and later counts as the typical one.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from rarebit.arrays import ScoreMatrix
from rarebit.retrievers.relevance.background import Moments

NAMES: Final = ("mean_score", "log_spread", "best_score", "gap_to_second", "gap_to_fourth")
COUNT: Final = len(NAMES)
BELOW: Final = (1, 3)
"""Places that are compared with the best."""

Evidence: TypeAlias = Float64[npt.NDArray[np.float64], "q evidence"]


def evidence(scores: ScoreMatrix, moments: Moments, unit: float) -> Evidence:
    """Gather the evidence on queries.

    Args:
        scores: (q, k) in any order, NaN where there is none.
        moments: (q, 2), NaN where there is no background.
        unit: what scores are divided by.

    Returns:
        (q, 5), NaN where a number is not known.
    """
    best = _best(scores, 1 + max(BELOW)) / unit
    gaps = [best[:, 0] - best[:, place] for place in BELOW]
    return np.stack([moments[:, 0] / unit, np.log(moments[:, 1] / unit), best[:, 0], *gaps], axis=1)


def _best(scores: ScoreMatrix, count: int) -> Evidence:
    """Give the (q, count) best scores of each query, in order; NaN where there are fewer."""
    known = np.where(np.isnan(scores), -np.inf, scores.astype(np.float64))
    padded = np.pad(known, ((0, 0), (0, max(0, count - known.shape[1]))), constant_values=-np.inf)
    best = -np.sort(np.partition(-padded, count - 1, axis=1)[:, :count], axis=1)
    return np.where(np.isneginf(best), np.nan, best)
