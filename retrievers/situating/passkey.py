"""The passkey test: how many tokens an encoder really reads (LongEmbed, arXiv 2404.12096).

In documents of filler text one sentence differs: whose passkey it tells. Where an encoder reads to the end, a question for a
person's passkey finds that person's document; where it does not, all documents are the same to it.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from rarebit.arrays import Vectors, as_vectors, normalized
from rarebit.errors import InputError

FILLER: Final = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
NEEDLE: Final = "{name}'s passkey is {key}. Remember it. {key} is the passkey of {name}."
QUESTION: Final = "What is the passkey of {name}?"

FIRST_NAMES: Final = (
    *("Alice", "Anton", "Bella", "Boris", "Bruno", "Carl", "Clara", "Cyrus", "Daphne", "David", "Doris", "Elena", "Emil"),
    *("Fiona", "Frank", "Gloria", "Greta", "Henry", "Hugo", "Irene", "Isaac", "James", "Judith", "Karen", "Kevin", "Laura"),
    *("Louis", "Maria", "Marcus", "Nadia", "Nolan", "Olive", "Oscar", "Paula", "Peter", "Quinn", "Rachel", "Robert"),
    *("Rosa", "Simon", "Sophie", "Tessa", "Thomas", "Ulric", "Ursula", "Vera", "Victor", "Walter", "Wendy", "Yusuf", "Zoe"),
)
LAST_NAMES: Final = (
    *("Abbott", "Archer", "Becker", "Bishop", "Carver", "Castro", "Dalton", "Dawson", "Ellis", "Evans", "Fisher", "Fuller"),
    *("Garcia", "Graham", "Hansen", "Hughes", "Ibarra", "Irving", "Jensen", "Jordan", "Keller", "Kovacs", "Lopez"),
    *("Lindgren", "Morgan", "Murphy", "Novak", "Nelson", "Ortega", "Owens", "Parker", "Price", "Quimby", "Rivera", "Rossi"),
    *("Santos", "Schmidt", "Turner", "Tanaka", "Underwood", "Vargas", "Vaughn", "Walsh", "Webster", "Yamada", "Young"),
    *("Zimmer", "Zhang", "Osborne", "Pereira"),
)
"""One fewer than the first names, so that stepping through both gives every pair before one comes again."""

BATCH: Final = 16_384
"""Tokens of documents that are encoded at once."""


@runtime_checkable
class Encoder(Protocol):
    """What is tested: a SentenceTransformer, or anything that has a tokenizer of transformers and encodes texts."""

    @property
    def tokenizer(self) -> Any:
        """Called with a text and ``verbose=False``, it gives ``input_ids``."""

    def encode(self, texts: list[str], /) -> Any:
        """Encode texts: (n, dim) numbers."""


@dataclass(frozen=True)
class PasskeyReport:
    """The share of questions whose document came first, by the length of the documents in tokens."""

    accuracies: dict[int, float]
    trials: int
    """Questions, and documents that each had to be found among, at each length."""
    threshold: float
    """What counts as reading."""

    @property
    def usable_length(self) -> int:
        """The greatest length up to which the accuracy reaches the threshold at each length tested; 0 if at none."""
        usable = 0
        for length, accuracy in sorted(self.accuracies.items()):
            if accuracy < self.threshold:
                break
            usable = length
        return usable


def passkey_report(
    encoder: Encoder,
    lengths: Sequence[int] = (256, 512, 1024, 2048),
    *,
    trials: int = 50,
    threshold: float = 0.8,
    seed: int = 0,
) -> PasskeyReport:
    """Test how many tokens an encoder reads; the same seed asks the same.

    Each length has its own documents and questions. The sentences are hidden at depths evenly from the beginning to the end.
    Vectors are compared by cosine. ``encode_document`` and ``encode_query`` are used where the encoder has them.

    Args:
        encoder: see :class:`Encoder`.
        lengths: tokens of the documents, with those that the tokenizer adds and without prompts.
        trials: documents and questions of each length. By chance, one in as many is right; up to 50 share no name.
        threshold: accuracy from which on a length counts as read.
        seed: of names, passkeys and depths.

    Raises:
        InputError: lengths that are no whole numbers or too short for the sentence; fewer than two trials, or more than there
            are names.
    """
    most = len(FIRST_NAMES) * len(LAST_NAMES)
    if not 2 <= trials <= most:
        raise InputError(f"got trials={trials}, wanted 2 to {most}: each needs a name of its own")
    accuracies = {}
    for length in _whole(lengths):
        rng = np.random.default_rng([seed, length])
        people = list(_people(trials, rng))
        depths = rng.permutation(trials) / (trials - 1)
        documents = [
            _document(encoder.tokenizer, NEEDLE.format(name=name, key=key), depth, length)
            for (name, key), depth in zip(people, depths.tolist(), strict=True)
        ]
        found = _encoded(encoder, "encode_document", documents, max(1, BATCH // length))
        asked = _encoded(encoder, "encode_query", [QUESTION.format(name=name) for name, _ in people], trials)
        scores = asked @ found.T
        # Documents that are the same to the encoder tie: then none was found.
        np.fill_diagonal(others := scores.copy(), -np.inf)
        accuracies[length] = float((scores.diagonal() > others.max(axis=1)).mean())
    return PasskeyReport(accuracies, trials, threshold)


def _whole(lengths: Sequence[int]) -> list[int]:
    try:
        return sorted({operator.index(length) for length in lengths})
    except TypeError:
        raise InputError(f"got lengths={lengths!r}, wanted whole numbers of tokens") from None


def _people(count: int, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Draw names that differ from each other, and a passkey for each."""
    first, last = rng.permutation(FIRST_NAMES), rng.permutation(LAST_NAMES)
    for number, key in enumerate(rng.integers(10_000, 100_000, count).tolist()):
        yield f"{first[number % len(first)]} {last[number % len(last)]}", key


def _document(tokenizer: Any, needle: str, depth: float, length: int) -> str:
    """Hide a sentence in as much filler as ``length`` tokens hold; a depth of 0 is the beginning, 1 the end."""
    tokens = partial(_tokens, tokenizer, needle, depth)
    fitting = bisect_right(range(length), length, key=tokens) - 1
    if fitting < 0:
        raise InputError(
            f"got a length of {length} tokens, wanted {tokens(0)} at least: the sentence with the passkey has as many"
        )
    return _hidden(needle, depth, fitting)


def _tokens(tokenizer: Any, needle: str, depth: float, sentences: int) -> int:
    return len(tokenizer(_hidden(needle, depth, sentences), verbose=False)["input_ids"])


def _hidden(needle: str, depth: float, sentences: int) -> str:
    filler = [FILLER[number % len(FILLER)] for number in range(sentences)]
    place = round(depth * sentences)
    return " ".join([*filler[:place], needle, *filler[place:]])


def _encoded(encoder: Encoder, way: str, texts: list[str], at_once: int) -> Vectors:
    encode = getattr(encoder, way, encoder.encode)
    parts = [as_vectors(encode(texts[start : start + at_once])) for start in range(0, len(texts), at_once)]
    return normalized(np.concatenate(parts))
