"""Exercises made of lessons: what the student reads, with passages as tokens, and what its teacher reads, with them as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from rarebit.compressors.context.lessons import Lessons, Reading
from rarebit.compressors.context.prompts import (
    BACKGROUND,
    OPENING,
    SEPARATOR,
    WITHOUT_BACKGROUND,
    TokenIds,
    laid_out,
    token_ids,
)

PARAPHRASES: Final = (
    "Background: {context}\n\nSay what the background says.",
    "Background: {context}\n\nThe background means the same as:",
    "Background: {context}\n\nPut the background in other words.",
    "Background: {context}\n\nWrite the background out in full.",
)
LONGEST_PASSAGE: Final = 180
"""Tokens of a passage that are read as text, as published."""

Layout: TypeAlias = Literal["alone", "among", "others", "beside", "text"]
LAYOUTS: Final[dict[Layout, float]] = {"alone": 0.55, "among": 0.25, "others": 0.1, "beside": 0.05, "text": 0.05}
"""How often the passages of a question are given how: what answers as a token alone; as one among others' tokens; others'
tokens without it, of which nothing should come; as a token beside another's text; and as text beside others' tokens."""

WITH_TEXT: Final = ("beside", "text")
"""Layouts that are several times as long as the rest."""

OTHERS: Final = 4
"""Passages that do not answer, at most."""

CHARACTERS: Final = 4
"""Of a token, about."""

KEPT: Final = 4096
"""Passages whose tokens are remembered, the last that were asked for."""

_MARK: Final = re.compile("\0([0-9]+)\0")


@dataclass(frozen=True)
class Line:
    """What is read before an answer: token ids, and passages by their places in the lessons."""

    prompt: Sequence[TokenIds | int]
    answer: TokenIds


@dataclass(frozen=True)
class Lesson:
    """One exercise.

    Args:
        student: with passages as tokens.
        teacher: the same with what answers as text; None where there is nobody to learn from.
        told: whether the answer itself is learned; otherwise only what the teacher makes of it.
    """

    student: Line
    teacher: Line | None = None
    told: bool = True


class ExerciseBook:
    """Makes exercises of lessons.

    Args:
        tokenizer: of the language model.
        lessons: passages and questions.
    """

    def __init__(self, tokenizer: Any, lessons: Lessons) -> None:
        """Take lessons."""
        self.tokenizer, self.lessons = tokenizer, lessons
        self._tokens = lru_cache(KEPT)(self._tokenised)

    def paraphrase(self, place: int, longest: int, rng: np.random.Generator) -> Lesson:
        """Ask for the beginning of a passage, by its token alone."""
        asked = PARAPHRASES[rng.integers(len(PARAPHRASES))]
        answer = self.tokens_of(place)[:longest] or self._end
        return Lesson(Line(self.laid_out(asked.format(context=mark(place))), answer))

    def reading(self, number: int, longest: int, rng: np.random.Generator, layout: Layout) -> Lesson:
        """Ask a question about passages, some of which may not answer it."""
        reading = self.lessons.readings[number]
        right, others = reading.passages[0], self._others(reading, rng)
        layout = layout if others else "alone"
        opening = OPENING if rng.random() < 0.5 else ""
        answer = self.answer(reading.answer, opening, longest)
        as_text = self.shown(right)
        context = self._context(layout, right, others, rng)
        student = Line(self.asked(reading.question, context, opening), answer)
        teacher = Line(self.asked(reading.question, [] if layout == "others" else [as_text], opening), answer)
        return Lesson(student, teacher, told=layout != "others")

    def length_of(self, kind: str, place: int, longest: int) -> int:
        """Estimate how long an exercise is beside others of its kind, in characters."""
        if kind == "paraphrase":
            return min(len(self.lessons.texts[place]), longest * CHARACTERS)
        reading = self.lessons.readings[place]
        return len(reading.question) + min(len(reading.answer), longest * CHARACTERS)

    def asked(self, question: str, context: Sequence[str], opening: str = "") -> list[TokenIds | int]:
        """Lay out a question about passages, each a text or a mark; about none, without any background."""
        form = BACKGROUND if context else WITHOUT_BACKGROUND
        return self.laid_out(form.format(context=SEPARATOR.join(context), question=question.replace("\0", " ")), opening)

    def laid_out(self, content: str, opening: str = "") -> list[TokenIds | int]:
        """Lay out a user's message with marks in it."""
        return laid_out(self.tokenizer, content, _read, opening)

    def answer(self, text: str, opening: str, longest: int) -> TokenIds:
        """Tokenise an answer and its end, which is cut off with what is beyond the longest."""
        ids = token_ids(self.tokenizer, f" {text}" if opening else text)
        return (ids + self._end)[:longest]

    def tokens_of(self, place: int) -> TokenIds:
        """Tokenise a passage, up to the longest that is read as text."""
        return list(self._tokens(place))

    def shown(self, place: int) -> str:
        """Give a passage as text, cut where it is too long."""
        text: str = self.tokenizer.decode(self.tokens_of(place))
        return text.replace("\0", " ")

    @cached_property
    def _end(self) -> TokenIds:
        return [self.tokenizer.eos_token_id]

    def _tokenised(self, place: int) -> tuple[int, ...]:
        return tuple(token_ids(self.tokenizer, self.lessons.texts[place])[:LONGEST_PASSAGE])

    def _context(self, layout: Layout, right: int, others: Sequence[int], rng: np.random.Generator) -> list[str]:
        match layout:
            case "alone":
                return [mark(right)]
            case "among":
                return [mark(place) for place in rng.permutation([right, *others]).tolist()]
            case "others":
                return [mark(place) for place in others]
            case "beside":
                return [self.shown(others[0]), mark(right)]
            case "text":
                return [self.shown(right), *map(mark, others)]

    def _others(self, reading: Reading, rng: np.random.Generator) -> list[int]:
        """Draw passages that do not answer: those of the question, or any."""
        drawn = rng.integers(len(self.lessons.texts), size=OTHERS).tolist()
        given = [place for place in dict.fromkeys(reading.others or drawn) if place not in reading.passages]
        count = min(len(given), int(rng.integers(1, OTHERS + 1)))
        others: list[int] = rng.permutation(given)[:count].tolist() if given else []
        return others


def drawn_layout(rng: np.random.Generator, *, taught: bool) -> Layout:
    """Draw how passages are given; others' tokens alone only where a teacher shows that nothing comes of them."""
    shares: dict[Layout, float] = {layout: share for layout, share in LAYOUTS.items() if taught or layout != "others"}
    return list(shares)[rng.choice(len(shares), p=np.array(list(shares.values())) / sum(shares.values()))]


def mark(place: int) -> str:
    """Stand for a passage in a content."""
    return f"\0{place}\0"


def _read(content: str) -> list[str | int]:
    pieces = _MARK.split(content)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces) if place % 2 or piece]
