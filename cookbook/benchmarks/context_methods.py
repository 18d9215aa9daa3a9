"""Ways to give passages to a language model: as text, cut, chosen sentence by sentence, as tokens, or mixed.

A context is a list of pieces: texts, and passages by their places, which are read as tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from rarebit.arrays import Vector, Vectors
from rarebit.compressors.context.budget import ContextBudget
from rarebit.compressors.context.fidelity import cut_to
from rarebit.compressors.context.prompts import SEPARATOR, token_ids

Piece: TypeAlias = str | int
Context: TypeAlias = list[Piece]
Embed: TypeAlias = Callable[[list[str]], Vectors]

LEAST_CUT: Final = 8
"""Tokens of text that are worth more than a passage's token."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


@dataclass
class Shelf:
    """Passages of a collection, and what it takes to give them.

    Args:
        texts: of passages, by their places.
        tokenizer: of the language model.
        embed: for sentences.
        tokens_a_vector: input embeddings that a passage becomes.
    """

    texts: Sequence[str] | Mapping[int, str]
    tokenizer: Any
    embed: Embed
    tokens_a_vector: int = 1
    _sentences: dict[int, tuple[list[str], Vectors]] = field(default_factory=dict)
    _lengths: dict[str, int] = field(default_factory=dict)

    @property
    def between(self) -> int:
        """Tokens between two pieces."""
        return self.length(SEPARATOR)

    def length(self, text: str) -> int:
        """Count the tokens of a text."""
        if text not in self._lengths:
            self._lengths[text] = len(token_ids(self.tokenizer, text))
        return self._lengths[text]

    def whole(self, found: Sequence[int]) -> Context:
        """Give passages as texts."""
        return [self.texts[place] for place in found]

    def truncated(self, found: Sequence[int], budget: int) -> Context:
        """Give passages as texts until the budget is spent; the last is cut."""
        context: Context = []
        for place in found:
            text = cut_to(self.tokenizer, self.texts[place], budget - self.between)
            if not text.strip():
                break
            context.append(text)
            budget -= self.length(text) + self.between
        return context

    def mixed(self, found: Sequence[int], budget: int, text_top: int | None = None) -> Context:
        """Give passages as a :class:`ContextBudget` has them: the first as text, as far as it goes, the others as tokens."""
        as_text = [self.length(self.texts[place]) + self.between for place in found]
        as_tokens = [self.tokens_a_vector + self.between] * len(found)
        allotted = ContextBudget(budget, text_top, least_cut=LEAST_CUT).allot(as_text, as_tokens)
        context: Context = []
        for place, own in zip(found, allotted, strict=True):
            if own.fidelity == "token":
                context.append(place)
            elif own.fidelity == "text":
                text = cut_to(self.tokenizer, self.texts[place], own.tokens - self.between)
                context.append(text if text.strip() else place)
        return context

    def sentences(self, found: Sequence[int], budget: int, question: Vector) -> Context:
        """Give the sentences that are nearest to the question, in the order in which they stand, within the budget."""
        parted = [(place, *self._parted(place)) for place in found]
        scored = [
            (float(vector @ question), rank, number, sentence)
            for rank, (_, sentences, vectors) in enumerate(parted)
            for number, (sentence, vector) in enumerate(zip(sentences, vectors, strict=True))
        ]
        chosen = []
        for _, rank, number, sentence in sorted(scored, key=lambda given: -given[0]):
            cost = self.length(sentence) + self.between
            if cost <= budget:
                chosen.append((rank, number, sentence))
                budget -= cost
            elif not chosen:
                chosen.append((rank, number, cut_to(self.tokenizer, sentence, budget - self.between)))
                break
        return [sentence for _, _, sentence in sorted(chosen)]

    def _parted(self, place: int) -> tuple[list[str], Vectors]:
        if place not in self._sentences:
            sentences = [part for part in _SENTENCE.split(self.texts[place]) if part.strip()] or [self.texts[place]]
            self._sentences[place] = sentences, self.embed(sentences)
        return self._sentences[place]


def others_of(passages: Sequence[Sequence[int]]) -> list[list[int]]:
    """Give each question as many passages of other questions, none of which is its own."""
    found = []
    for row, own in enumerate(passages):
        following = [place for later in (*passages[row + 1 :], *passages[:row]) for place in later if place not in own]
        found.append(list(dict.fromkeys(following))[: len(own)])
    return found
