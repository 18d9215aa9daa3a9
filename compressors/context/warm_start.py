"""Where a bridge's training begins: at embeddings that a frozen model reads without having learned to.

The last layer is fitted, in closed form, so that a passage's embedding is the mean of the input embeddings of its most telling
tokens, as far as it differs from the mean of the tokens in use, and at the length that such differences have. Two things
matter. The centre is that of tokens in use: around the mean of the whole vocabulary lie tokens that were hardly ever learned,
and a model reads nonsense there; without any centre it reads nothing. And few tokens say more than all of them: in the mean of
a hundred embeddings a model does not find any one again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float

from rarebit.compressors.context.bridge import ModalityBridge
from rarebit.compressors.context.embeddings import Embedding, embeddings_of
from rarebit.compressors.context.prompts import TokenIds

PerToken: TypeAlias = Float[torch.Tensor, "vocabulary"]
Parts: TypeAlias = Float[torch.Tensor, "parts width"]

RIDGE: Final = 1e-2
"""Of the fit, as a share of the mean square of the hidden layer."""

LEAST: Final = 2
"""Passages that a token stands in, at least, to be in use."""

TELLING: Final = 8
"""Tokens of a passage, or of a part of it, that its embedding is made of, at most."""

LETTERS: Final = 3
"""Characters of a token that tells something, at least: shorter ones are mostly pieces of words, and marks."""

GENTLE: Final = 0.4
"""By so much the first layer's weights are smaller than usual: the activation is nearly linear then, as the fit wants it."""


def warm_start(
    bridge: ModalityBridge,
    table: Any,
    tokenizer: Any,
    passages: Sequence[TokenIds],
    vectors: Float[torch.Tensor, "n dim"],
) -> None:
    """Fit the last layer of a new bridge to passages.

    Args:
        bridge: with random weights; changed.
        table: the language model's input embeddings, a module that takes token ids.
        tokenizer: of the model.
        passages: n passages in its tokens.
        vectors: of the passages.
    """
    rarity = _rarity(passages, len(table.weight))
    used = embeddings_of(table, rarity.nonzero()[:, 0].tolist() or [0])
    for token in rarity.nonzero()[:, 0].tolist():
        if len(tokenizer.decode([token]).strip()) < LETTERS:
            rarity[token] = 0
    centre = used.mean(0)
    usual = (used - centre).norm(dim=-1).median()
    wanted = torch.stack([_told_by(table, ids, rarity, centre, bridge.config.tokens) for ids in passages])
    wanted = centre + torch.nn.functional.normalize(wanted, dim=-1) * usual
    with torch.no_grad():
        bridge.first.weight.mul_(GENTLE)
        bridge.first.bias.mul_(GENTLE)
        hidden = bridge.hidden(vectors).double()
        hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], 1)
        ridge = (
            RIDGE * hidden.square().mean() * torch.eye(hidden.shape[1], dtype=hidden.dtype, device=hidden.device) * len(hidden)
        )
        fitted = torch.linalg.solve(hidden.T @ hidden + ridge, hidden.T @ wanted.flatten(1).cpu().to(hidden))
        bridge.last.weight.copy_(fitted[:-1].T)
        bridge.last.bias.copy_(fitted[-1])


def _rarity(passages: Sequence[TokenIds], vocabulary: int) -> PerToken:
    """Give inverse document frequencies of tokens in use; of others, and of those in all passages, 0."""
    counts = torch.zeros(vocabulary)
    for ids in passages:
        counts[list(set(ids))] += 1
    return torch.where(counts >= LEAST, torch.log((1 + len(passages)) / (1 + counts)), 0.0)


def _told_by(table: Any, ids: TokenIds, rarity: PerToken, centre: Embedding, parts: int) -> Parts:
    """Give the weighted mean of each part's most telling tokens, as it differs from the centre; 0 where there is none."""
    told = []
    for own in torch.tensor(ids).tensor_split(parts):
        counts = Counter((own if len(own) else torch.tensor(ids)).tolist())
        weights = {token: count**0.5 * float(rarity[token]) for token, count in counts.items() if rarity[token] > 0}
        chosen = sorted(weights, key=lambda token: -weights[token])[:TELLING]
        if not chosen:
            told.append(torch.zeros_like(centre))
            continue
        weight = torch.tensor([weights[token] for token in chosen]).to(centre)
        told.append(((embeddings_of(table, chosen) - centre) * weight[:, None]).sum(0) / weight.sum())
    return torch.stack(told)
