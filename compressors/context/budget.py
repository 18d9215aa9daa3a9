"""Mixed fidelity: which passages are given as text, which as tokens, and which not at all, within a budget of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from rarebit.errors import InputError

Fidelity: TypeAlias = Literal["text", "token", "dropped"]


@dataclass(frozen=True)
class Allotment:
    """What a passage is given as, and how many tokens it may take: fewer than it has as text if it is to be cut."""

    fidelity: Fidelity
    tokens: int


DROPPED: Final = Allotment("dropped", 0)


@dataclass(frozen=True)
class ContextBudget:
    """How many tokens the passages of a question may take, and how many of the surest may be text.

    Each passage gets its one token (or few) in turn, the surest first, until the budget is spent; the rest are dropped. What is
    left goes to the surest: each whose text fits in place of its token is given as text. A passage whose text is no longer than
    its tokens is always text, whatever ``text_top`` and ``text_relevance`` say: it costs no more and says everything.

    Args:
        max_tokens: for all passages together; None for no limit.
        text_top: how many of the surest may be text in place of fewer tokens; None for as many as fit.
        text_relevance: the relevance from which a passage may be so.
        least_cut: the first text that does not fit is cut to what is left, if that is at least so many tokens; None to give
            such a passage as a token.

    Raises:
        InputError: a number that is out of range.
    """

    max_tokens: int | None = None
    text_top: int | None = 1
    text_relevance: float = 0.0
    least_cut: int | None = 16

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("max_tokens", 0), ("text_top", 0), ("least_cut", 1)):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < least):
                raise InputError(f"got {name}={given!r}, wanted a whole number from {least} on, or None")
        if not 0 <= self.text_relevance <= 1:
            raise InputError(f"got text_relevance={self.text_relevance!r}, wanted a relevance from 0 to 1")

    def allot(
        self, as_text: Sequence[int], as_tokens: Sequence[int], relevances: Sequence[float] | None = None
    ) -> list[Allotment]:
        """Say what each passage is given as.

        Args:
            as_text: how many tokens each of n passages has as text.
            as_tokens: how many input embeddings it is otherwise.
            relevances: of each, from 0 to 1; None where they are unknown, and the order given is that of certainty.

        Returns:
            n allotments, in the order given; together they are within the budget.

        Raises:
            InputError: a relevance that is none.
        """
        if relevances is not None and not all(0 <= own <= 1 for own in relevances):
            raise InputError(f"got relevances {list(relevances)[:10]}, wanted numbers from 0 to 1")
        order = sorted(range(len(as_text)), key=lambda place: 0.0 if relevances is None else -relevances[place])
        left = math.inf if self.max_tokens is None else self.max_tokens
        allotted = [DROPPED] * len(as_text)
        for place in order:
            short = as_text[place] <= as_tokens[place]
            least = Allotment("text", as_text[place]) if short else Allotment("token", as_tokens[place])
            if least.tokens > left:
                break
            left -= least.tokens
            allotted[place] = least
        texts = math.inf if self.text_top is None else self.text_top
        was_cut = False
        for place in order:
            sure = relevances is None or relevances[place] >= self.text_relevance
            if not texts or not sure or allotted[place].fidelity != "token":
                continue
            room = left + as_tokens[place]
            given = as_text[place] if as_text[place] <= room else 0 if was_cut else self._cut_to(room)
            if given:
                was_cut = was_cut or given < as_text[place]
                allotted[place] = Allotment("text", given)
                left, texts = room - given, texts - 1
        return allotted

    def _cut_to(self, room: float) -> int:
        return int(room) if self.least_cut is not None and room >= self.least_cut else 0
