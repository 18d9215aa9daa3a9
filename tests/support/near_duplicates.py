"""Families of near-duplicates, and what alike means written a second time."""

from __future__ import annotations

import random
from functools import cache

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def passage(rng: random.Random, words: int = 80) -> str:
    return " ".join("".join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(words))


def edited(rng: random.Random, text: str, edits: int) -> str:
    letters = list(text)
    for _ in range(edits):
        place = rng.randrange(len(letters))
        letters[place : place + rng.randint(0, 1)] = rng.choice(["", *LETTERS])
    return "".join(letters)


def families(rng: random.Random, count: int, members: int, most_edits: int) -> list[str]:
    """Passages, each with edited copies, in no order."""
    made = []
    for _ in range(count):
        original = passage(rng)
        made += [original, *(edited(rng, original, rng.randint(0, most_edits)) for _ in range(members - 1))]
    rng.shuffle(made)
    return made


def plain_jaccard(a: str, b: str) -> float:
    """Of texts in lower-case ASCII with single spaces, at least 8 letters long."""
    left, right = plain_shingles(a), plain_shingles(b)
    return len(left & right) / len(left | right)


@cache
def plain_shingles(text: str) -> frozenset[str]:
    return frozenset(text[start : start + 8] for start in range(len(text) - 7))
