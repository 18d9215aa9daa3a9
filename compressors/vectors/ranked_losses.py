"""Losses that teach codes to rank, as torch functions of the float scores (teacher) and the scores of the codes (student).

Only training imports this file: a fitted codec needs no torch.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as functional  # noqa: PLR0402 - the name says what it is
from jaxtyping import Float, Int64

Table: TypeAlias = Float[torch.Tensor, "q candidates"]

SINKHORN_ROUNDS = 30
"""Rounds of row and column scaling; RepCONC takes 100, after 30 the largest share moves no more."""

SHARPNESS = 0.003
"""Temperature of the constrained clustering, of distances scaled to [-1, 1], as in RepCONC."""

LEAST = 1e-300
"""Share of a centroid or a vector below which it is taken for this much, so that nothing is divided by zero."""

POSITIVES = 10
"""How many of the best by float score count as relevant in the pairwise loss."""

CUT = 200
"""Ranks that the pairwise loss looks at, as many as JPQ retrieves."""


def list_net(teacher: Table, student: Table, temperature: float) -> Float[torch.Tensor, ""]:
    """Cross-entropy between the two softmax distributions over candidates (ListNet, as Distill-VQ uses it, 2204.00185)."""
    wanted = functional.softmax(teacher / temperature, dim=1)
    return -(wanted * functional.log_softmax(student / temperature, dim=1)).sum(dim=1).mean()


def contrast(teacher: Table, student: Table, temperature: float) -> Float[torch.Tensor, ""]:
    """Cross-entropy with the best by float score as the one relevant candidate (RepCONC, 2110.05789, without labels)."""
    return functional.cross_entropy(student / temperature, teacher.argmax(dim=1))


def rank_pairs(teacher: Table, student: Table, temperature: float) -> Float[torch.Tensor, ""]:
    """Pairwise loss of the ranks that an exchange of two candidates would cost (JPQ, 2108.00644).

    The mean of ``log(1 + exp((s_j - s_i) / temperature))`` over relevant i and other j among the first :data:`CUT`, weighted
    by ``|1/rank_i - 1/rank_j|``. Ranks are those of the student now; that of an i beyond the cut counts as infinite.
    """
    count = min(POSITIVES, teacher.shape[1])
    best = teacher.topk(count, dim=1).indices
    ranks = student.detach().argsort(dim=1, descending=True).argsort(dim=1) + 1
    gains = torch.where(ranks <= CUT, 1 / ranks, 0.0)
    margins = (student.unsqueeze(1) - student.gather(1, best).unsqueeze(2)) / temperature
    weights = (gains.gather(1, best).unsqueeze(2) - gains.unsqueeze(1)).abs()
    others = (ranks <= CUT).to(teacher.dtype).scatter(1, best, 0.0).unsqueeze(1)
    weights = weights * others
    return (weights * functional.softplus(margins)).sum() / weights.sum().clamp_min(1e-12)


def evenly_assigned(distances: Float[torch.Tensor, "parts n centroids"]) -> Int64[torch.Tensor, "parts n"]:
    """Assign vectors to centroids so that every centroid gets about equally many (RepCONC, by Sinkhorn's algorithm).

    Args:
        distances: squared, of every vector to every centroid of each part.
    """
    largest, smallest = distances.amax(dim=(1, 2), keepdim=True), distances.amin(dim=(1, 2), keepdim=True)
    # In [-1, 1], so that float64 holds the exponentials, and the rounds are products instead of logarithms of sums.
    scaled = (2 * (distances - smallest) / (largest - smallest).clamp_min(1e-12) - 1).double()
    plan = torch.exp((scaled.amin(dim=2, keepdim=True) - scaled) / SHARPNESS)
    of_centroids = torch.ones(plan.shape[0], plan.shape[2], 1, dtype=plan.dtype, device=plan.device)
    for _ in range(SINKHORN_ROUNDS):
        of_vectors = 1 / (plan @ of_centroids).clamp_min(LEAST)
        of_centroids = 1 / (plan.transpose(1, 2) @ of_vectors).clamp_min(LEAST)
    return (plan * of_centroids.transpose(1, 2)).argmax(dim=2)
