"""Near-duplicates among texts in memory: those that share a band, confirmed by the exact similarity of their shingles."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from rarebit.errors import InputError
from rarebit.retrievers.near_duplicates.minhash import MinHasher
from rarebit.retrievers.near_duplicates.shingles import jaccard, shingles

Candidate = TypeVar("Candidate", bound=Hashable)

RECALL = 1 - 1e-6
"""Recall at the threshold for texts in memory: bands cost little there, and what is given twice annoys."""

CONFIRMED = 32
"""Candidates that are compared with a text, those that share most bands with it first."""


def near_duplicate_of(texts: Sequence[str], threshold: float = 0.8) -> list[int | None]:
    """Say for each text which earlier one it nearly duplicates.

    Only texts that duplicate nothing themselves stand for others, so whoever drops the duplicates has one of each.

    Args:
        texts: n texts.
        threshold: least Jaccard similarity of the sets of shingles, above 0, at most 1.

    Returns:
        n positions of earlier texts, or None. A text without content duplicates nothing. Pairs below the threshold are never
        given; of pairs at the threshold one in a million is missed, of those above it fewer.

    Raises:
        InputError: a text instead of a list, or a threshold out of range.
    """
    if isinstance(texts, str):
        raise InputError(f"got the text {texts[:40]!r}, wanted a list of texts: put it into a list")
    hasher = MinHasher(threshold, recall=RECALL)
    originals: list[int | None] = []
    places: defaultdict[int, list[int]] = defaultdict(list)
    for position, keys in enumerate(hasher.keys(texts)):
        candidates = (place for key in keys for place in places.get(key, ()))
        original = confirmed(texts[position], candidates, texts.__getitem__, hasher.threshold)
        originals.append(original)
        if original is None:
            for key in keys:
                places[key].append(position)
    return originals


def unique(texts: Sequence[str], threshold: float = 0.8) -> dict[int, list[int]]:
    """Keep the first of each group of near-duplicates.

    Returns:
        The positions of the texts that stay, in their order, each with the positions of the later texts that it stands for.
        Arguments and errors as in :func:`near_duplicate_of`.
    """
    kept: dict[int, list[int]] = {}
    for position, original in enumerate(near_duplicate_of(texts, threshold)):
        if original is None:
            kept[position] = []
        else:
            kept[original].append(position)
    return kept


def confirmed(
    text: str, candidates: Iterable[Candidate], text_of: Callable[[Candidate], str | None], threshold: float
) -> Candidate | None:
    """Give the first candidate that is alike indeed, or None.

    Args:
        text: to find a near-duplicate of.
        candidates: one mention for each band that it shares with the text.
        text_of: gives a candidate's text, or None if it does not count.
        threshold: least Jaccard similarity.
    """
    wanted = None
    for candidate, _ in Counter(candidates).most_common(CONFIRMED):
        other = text_of(candidate)
        if other is None:
            continue
        wanted = shingles(text) if wanted is None else wanted
        if jaccard(wanted, shingles(other)) >= threshold:
            return candidate
    return None
