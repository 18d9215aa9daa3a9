"""What a frozen language model makes of a prompt with passages in it: the logits of the tokens that should follow.

Training and measuring share this. Prompts of a batch that begin alike, as a chat template makes them, are read once up to where
they part; gradients flow to the passages' embeddings and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float, Int
from transformers import DynamicCache

from rarebit.compressors.context.prompts import TokenIds

Embedded: TypeAlias = Float[torch.Tensor, "length width"]
PerToken: TypeAlias = Float[torch.Tensor, "n"]
PerExercise: TypeAlias = Float[torch.Tensor, "exercises"]
Tokens: TypeAlias = Int[torch.Tensor, "n"]
Part: TypeAlias = TokenIds | Embedded
"""Token ids, or input embeddings that stand in their place."""

WORTH_SHARING: Final = 8
"""Tokens with which prompts have to begin alike for it to be worth the while to read them once."""


@dataclass(frozen=True)
class Exercise:
    """A prompt, and what should follow it.

    Args:
        prompt: token ids and input embeddings, in order.
        answer: token ids, at least one.
    """

    prompt: Sequence[Part]
    answer: TokenIds


@dataclass(frozen=True)
class Expected:
    """What a model expected in place of each answer's tokens.

    Args:
        logits: (n, vocabulary) of the n tokens of all answers, one answer after the other.
        tokens: (n,) that were to be expected.
        exercises: (n,) number of the exercise that each belongs to.
    """

    logits: Float[torch.Tensor, "n vocabulary"]
    tokens: Tokens
    exercises: Tokens

    @property
    def nll(self) -> PerToken:
        """Negative log-likelihood of each token, in nats."""
        return torch.nn.functional.cross_entropy(self.logits, self.tokens, reduction="none")

    def mean_nll(self) -> PerExercise:
        """Give the mean negative log-likelihood of each answer's tokens."""
        return self.mean_of(self.nll)

    def mean_of(self, values: PerToken) -> PerExercise:
        """Give the mean of a value of each answer's tokens."""
        count = torch.bincount(self.exercises)
        return torch.zeros_like(count, dtype=values.dtype).index_add(0, self.exercises, values) / count

    def divergence_from(self, teacher: Expected) -> PerToken:
        """Give KL(teacher || this) of each token's distribution; the answers are the same, prompts may be others."""
        own, others = self.logits.log_softmax(-1), teacher.logits.log_softmax(-1)
        return (others.exp() * (others - own)).sum(-1)


def expected(model: Any, exercises: Sequence[Exercise]) -> Expected:
    """Let a causal language model read exercises, as one batch.

    Args:
        model: of Hugging Face; its weights are best told to need no gradients.
        exercises: at least one.
    """
    shared = _shared(exercises)
    rows = [_row(model, exercise, shared) for exercise in exercises]
    device = rows[0].device
    longest = max(map(len, rows))
    inputs = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    mask = torch.ones(len(rows), shared + longest, dtype=torch.long, device=device)
    for place, row in enumerate(rows):
        mask[place, shared + len(row) :] = 0
    # The token before each answer token is where it is expected; the last token of a row expects nothing of ours.
    places = [range(len(row) - len(given.answer), len(row)) for row, given in zip(rows, exercises, strict=True)]
    first = min(own.start for own in places)
    output = model(
        inputs_embeds=inputs,
        attention_mask=mask,
        past_key_values=_read(model, exercises[0], shared, len(rows)),
        use_cache=shared > 0,
        logits_to_keep=torch.arange(first, longest, device=device),
    )
    numbers = torch.tensor([number for number, own in enumerate(places) for _ in own], device=device)
    at = torch.tensor([place - first for own in places for place in own], device=device)
    tokens = torch.tensor([token for exercise in exercises for token in exercise.answer], device=device)
    return Expected(output.logits[numbers, at].float(), tokens, numbers)


def _shared(exercises: Sequence[Exercise]) -> int:
    """Count the tokens with which all prompts begin; one at least is left to each."""
    beginnings = [exercise.prompt[0] if isinstance(exercise.prompt[0], list) else [] for exercise in exercises]
    most = min(len(own) - (len(exercise.prompt) == 1) for own, exercise in zip(beginnings, exercises, strict=True))
    count = 0
    while count < most and all(own[count] == beginnings[0][count] for own in beginnings):
        count += 1
    return count if count >= WORTH_SHARING else 0


def _row(model: Any, exercise: Exercise, shared: int) -> Embedded:
    """Embed an exercise beyond what is shared, without the answer's last token, which nothing follows."""
    table = model.get_input_embeddings()
    parts: list[Part] = [*exercise.prompt, exercise.answer[:-1]]
    if shared:
        parts[0] = parts[0][shared:]
    pieces = [
        table(torch.tensor(part, dtype=torch.long, device=table.weight.device)) if isinstance(part, list) else part
        for part in parts
        if len(part)
    ]
    return torch.cat([piece.to(table.weight.dtype) for piece in pieces])


def _read(model: Any, exercise: Exercise, shared: int, copies: int) -> DynamicCache | None:
    """Let the model read what is shared, once, and give what it keeps of it, as often as there are exercises."""
    if not shared:
        return None
    ids = torch.tensor([exercise.prompt[0][:shared]], device=model.get_input_embeddings().weight.device)
    with torch.no_grad():
        kept: DynamicCache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    kept.batch_repeat_interleave(copies)
    return kept
