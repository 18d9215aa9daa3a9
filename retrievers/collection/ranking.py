"""Orders made of others: diversity, and the fusion of two rankings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from rarebit.arrays import Scores, Vectors

Key = TypeVar("Key", bound=Hashable)

RRF_CONSTANT = 60
"""The k of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""


def maximal_marginal_relevance(scores: Scores, vectors: Vectors, k: int, lambda_mult: float) -> list[int]:
    """Choose k of n candidates that are near the query and unlike each other (Carbonell and Goldstein, SIGIR 1998).

    The nearest comes first; each next one maximises ``lambda * score - (1 - lambda) * (largest cosine to one chosen)``.

    Args:
        scores: (n,) similarity of each candidate to the query.
        vectors: (n, dim) the candidates.
        k: how many to choose.
        lambda_mult: 1 is relevance alone, 0 diversity alone.

    Returns:
        Positions among the candidates, in the order in which they were chosen.
    """
    if not len(scores) or k <= 0:
        return []
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(norms == 0, 1, norms)
    chosen = [int(np.argmax(scores))]
    nearest = directions @ directions[chosen[0]]
    while len(chosen) < min(k, len(scores)):
        merit = lambda_mult * scores - (1 - lambda_mult) * nearest
        merit[chosen] = -np.inf
        chosen.append(int(np.argmax(merit)))
        nearest = np.maximum(nearest, directions @ directions[chosen[-1]])
    return chosen


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Key]]) -> dict[Key, float]:
    """Score each item by the sum of 1 / (60 + rank) over the rankings that hold it."""
    fused: defaultdict[Key, float] = defaultdict(float)
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            fused[key] += 1 / (RRF_CONSTANT + rank)
    return dict(fused)


def weighted_fusion(dense: Mapping[Key, float], lexical: Mapping[Key, float], alpha: float) -> dict[Key, float]:
    """Score each item by ``alpha * dense + (1 - alpha) * lexical``, each side scaled to [0, 1] over its candidates.

    Cosines are scaled from their least to their largest, since their zero means little; BM25 from zero, since a row with one
    of the words is better than a row with none.
    """
    dense = _scaled(dense, low=min(dense.values(), default=0.0))
    lexical = _scaled(lexical, low=0.0)
    return {key: alpha * dense.get(key, 0.0) + (1 - alpha) * lexical.get(key, 0.0) for key in {**dense, **lexical}}


def _scaled(scores: Mapping[Key, float], low: float) -> dict[Key, float]:
    high = max(scores.values(), default=low)
    return {key: (score - low) / (high - low) if high > low else 1.0 for key, score in scores.items()}
