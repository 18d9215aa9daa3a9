"""How an answer is written, and what it took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from rarebit.errors import InputError

LONGEST_ANSWER: Final = 256
"""New tokens, unless it is said otherwise."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is written. What else a model's own ``generation_config`` says, such as a repetition penalty, holds too.

    Args:
        max_new_tokens: of the answer, at most.
        temperature: 0 for the likeliest token each time.
        top_p: with a temperature, the share of the probability from which tokens are drawn.
        stop: texts before which the answer ends.
        seed: of what is drawn; None draws anew each time.
    """

    max_new_tokens: int = LONGEST_ANSWER
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is out of range, or a stop text is empty.
        """
        count = self.max_new_tokens
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"got max_new_tokens={self.max_new_tokens!r}, wanted a whole number from 1 on")
        numbers = all(isinstance(number, int | float) for number in (self.temperature, self.top_p))
        if not numbers or not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise InputError(
                f"got temperature={self.temperature!r} and top_p={self.top_p!r}, wanted at least 0, and above 0 to 1"
            )
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"got stop={self.stop!r}, wanted a tuple of texts that are not empty")


GREEDY: Final = Sampling()


@dataclass(frozen=True)
class Generation:
    """An answer, and what it took."""

    text: str
    prompt_tokens: int
    """Input positions, those of passages included."""
    passage_tokens: int
    """Input positions of passages that were read as tokens."""
    new_tokens: int
    stopped: bool
    """Whether the answer came to its end; otherwise it was cut at ``max_new_tokens``."""
    first_token_seconds: float
    """From the call to the first new token, of the whole batch."""
    prefill_flops: int | None
    """Operations with which the prompt was read, by :func:`.costs.prefill_flops`; None where a server read it."""
