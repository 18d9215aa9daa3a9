"""Passages as they are given to a model within a budget: some as text, some as references, which are read as tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rarebit.compressors.context.budget import ContextBudget, Fidelity
from rarebit.compressors.context.passages import Passages
from rarebit.compressors.context.prompts import SEPARATOR, encoded, token_ids

JOINERS: Final = (SEPARATOR, "\n\n")
"""What stands between passages: ours, and what both frameworks take unless they are told otherwise."""


@dataclass(frozen=True)
class Given:
    """A passage as it is given.

    Args:
        place: among the passages that were passed.
        text: the passage's own, whole or cut; or a reference.
        fidelity: which of these.
        tokens: how many it takes, with what stands between it and the next.
        text_tokens: how many it would take as text.
    """

    place: int
    text: str
    fidelity: Fidelity
    tokens: int
    text_tokens: int


def given_within(
    budget: ContextBudget,
    texts: Sequence[str],
    ids: Sequence[str | None],
    *,
    passages: Passages,
    tokenizer: Any,
    tokens_a_vector: int,
    relevances: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> list[Given]:
    """Give passages within a budget, in their order; those that are dropped are left out.

    One whose text is no longer than its tokens is text.

    Args:
        budget: for all passages together.
        texts: n passages.
        ids: of those in the store; None for others.
        passages: where references lead.
        tokenizer: of the language model.
        tokens_a_vector: input embeddings that a vector becomes.
        relevances: of each, from 0 to 1; without, the order given is that of certainty.
        labels: for people, and for models that cannot read references.

    Raises:
        InputError: a passage that would become a token is not in the store with this text, and cannot be embedded.
    """
    between = max(len(token_ids(tokenizer, joiner)) for joiner in JOINERS)
    as_text = [len(token_ids(tokenizer, text)) + between for text in texts]
    as_tokens = [passages.pieces(text) * tokens_a_vector + between for text in texts]
    allotted = budget.allot(as_text, as_tokens, relevances)
    shown = {
        place: cut_to(tokenizer, texts[place], own.tokens - between)
        for place, own in enumerate(allotted)
        if own.fidelity == "text"
    }
    # Less than a letter may be left of a text that was cut: then its token says more.
    tokens = [
        place
        for place, own in enumerate(allotted)
        if own.fidelity == "token" or (place in shown and own.tokens < as_text[place] and not shown[place].strip())
    ]
    own_labels = None if labels is None else [labels[place] for place in tokens]
    references = passages.refer([texts[place] for place in tokens], [ids[place] for place in tokens], own_labels)
    written = {place: Given(place, text, "text", allotted[place].tokens, as_text[place]) for place, text in shown.items()}
    for place, reference in zip(tokens, references, strict=True):
        written[place] = Given(place, reference, "token", as_tokens[place], as_text[place])
    return [written[place] for place in sorted(written)]


def cut_to(tokenizer: Any, text: str, tokens: int) -> str:
    """Cut a text to its first tokens; the last word stays whole or goes."""
    offsets = encoded(tokenizer, text, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) <= tokens:
        return text
    if tokens < 1:
        return ""
    kept = text[: min(offsets[tokens - 1][1], offsets[tokens][0])]  # a character of many tokens stays whole or goes
    whole = re.sub(r"\s*\S+\Z", "", kept) if not text[len(kept)].isspace() else kept
    return whole if whole.strip() else kept
