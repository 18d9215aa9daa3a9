"""Where a bridge's training begins: at embeddings that a frozen model can read.

The last layer is fitted, in closed form, so that a passage's embedding is the mean of its tokens' input embeddings, rare ones
counting more, as far as it differs from the mean of all, and at the length that such differences have. The mean of all itself
is left out: near to it is what tokens look like that were never learned, and a frozen model reads nonsense from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import torch
from jaxtyping import Float

from rarebit.compressors.context.bridge import ModalityBridge
from rarebit.compressors.context.prompts import TokenIds

PerWord: TypeAlias = Float[torch.Tensor, "vocabulary"]

RIDGE: Final = 1e-2
"""Of the fit, as a share of the mean square of the hidden layer."""


def warm_start(
    bridge: ModalityBridge,
    table: Float[torch.Tensor, "vocabulary width"],
    passages: Sequence[TokenIds],
    vectors: Float[torch.Tensor, "n dim"],
) -> None:
    """Fit the last layer of a new bridge to passages.

    Args:
        bridge: with random weights; changed.
        table: the language model's input embeddings.
        passages: n passages in its tokens.
        vectors: of the passages.
    """
    weights = _rarity(passages, len(table))
    mean = table.float().mean(0)
    usual = (table.float() - mean).norm(dim=-1).median()
    wanted = torch.stack([_means(table, ids, weights, bridge.config.tokens) for ids in passages]) - mean
    wanted = torch.nn.functional.normalize(wanted, dim=-1) * usual
    with torch.no_grad():
        hidden = bridge.hidden(vectors).double()
        hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], 1)
        ridge = (
            RIDGE * hidden.square().mean() * torch.eye(hidden.shape[1], dtype=hidden.dtype, device=hidden.device) * len(hidden)
        )
        fitted = torch.linalg.solve(hidden.T @ hidden + ridge, hidden.T @ wanted.flatten(1).to(hidden))
        bridge.last.weight.copy_(fitted[:-1].T)
        bridge.last.bias.copy_(fitted[-1])


def _rarity(passages: Sequence[TokenIds], vocabulary: int) -> PerWord:
    """Give inverse document frequencies of tokens."""
    counts = torch.zeros(vocabulary)
    for ids in passages:
        counts[list(set(ids))] += 1
    return torch.log((1 + len(passages)) / (1 + counts))


def _means(
    table: Float[torch.Tensor, "vocabulary width"], ids: TokenIds, weights: PerWord, parts: int
) -> Float[torch.Tensor, "parts width"]:
    """Give the weighted mean embedding of each part of a passage."""
    means = []
    for own in torch.tensor(ids or [0]).tensor_split(parts):
        seen = own if len(own) else torch.tensor(ids or [0])
        weight = weights[seen].clamp_min(1e-3).to(table.device)
        means.append((table[seen.to(table.device)].float() * weight[:, None]).sum(0) / weight.sum())
    return torch.stack(means)
