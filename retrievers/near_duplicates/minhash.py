"""MinHash signatures of texts, and the bands that find candidates among them.

Two signatures agree in each of their numbers with a probability that is the Jaccard similarity of the two sets of shingles
(Broder 1997). A signature is cut into bands of ``rows`` numbers; two texts are candidates if they agree in a whole band, which
pairs of similarity s do with probability ``1 - (1 - s^rows)^n_bands`` (Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", chapter 3).

The numbers come from "Fast similarity sketching" (Dahlgaard, Knudsen, Thorup 2017), which follows one permutation hashing (Li,
Owen, Zhang 2012) and its densification (Shrivastava 2017): each shingle is hashed once and falls into one bin; rounds with new
hash functions come only while a bin is empty. It is unbiased for short texts too, and a few numpy calls for many texts at once.
``datasketch`` takes more than ten times as long and needs scipy; ``rensa`` wants Python strings for shingles, and making them
takes longer than all that is done here, and promises no hash that may be kept in a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64, UInt64

from rarebit.errors import InputError
from rarebit.retrievers.near_duplicates.shingles import WIDTH, Shingles, distinct, encoded, windows

Signature: TypeAlias = UInt64[npt.NDArray[np.uint64], "p"]
Signatures: TypeAlias = UInt64[npt.NDArray[np.uint64], "n p"]
Bands: TypeAlias = Int64[npt.NDArray[np.int64], "n b"]

EMPTY = np.uint64(2**64 - 1)
"""What is in a signature where there is no shingle: all of it for a text without content, nothing of it otherwise."""

LEAST_AGREEMENT = 0.4
"""Probability that two texts at the threshold agree in one band: a lower one makes bands longer, so that fewer candidates are
false, and needs more of them. At 0.4 novels have no false candidates worth counting, and bands take half the space that 0.25
takes. The bands in files depend on it."""

LEAST_ROWS, MOST_ROWS = 2, 16
"""Numbers in a band: with one, unrelated texts would be candidates; more than 16 no longer tell more apart."""

PART_BYTES = 2**17
"""Bytes of text whose signatures are computed together: their arrays fit into the processor's cache."""

HASH_BITS = np.uint64(48)
HASH_MASK = np.uint64(2**48 - 1)
BIN_BITS = np.uint64(16)


class MinHasher:
    """Signatures and bands for one threshold. Deterministic: the same text has the same bands on every machine.

    Args:
        threshold: Jaccard similarity from which texts are near-duplicates, above 0, at most 1.
        recall: least probability with which a pair exactly at the threshold becomes a candidate; what is more alike, is found
            more surely (:meth:`detection_probability`).

    Attributes:
        rows: numbers in a band.
        n_bands: bands in a signature.
        permutations: numbers in a signature, ``rows * n_bands``.
    """

    def __init__(self, threshold: float = 0.8, *, recall: float = 0.99) -> None:
        """Choose the bands: as long as may be, and as many as the recall needs."""
        self.threshold = as_threshold(threshold)
        if not 0 < recall < 1:
            raise InputError(f"got recall={recall!r}, wanted a number between 0 and 1, such as 0.99")
        self.rows, self.n_bands = _banding(self.threshold, recall)
        self.permutations = self.rows * self.n_bands
        self._rounds = np.arange(2 * self.permutations, dtype=np.uint64)
        self._seeds = _mixed(self._rounds + np.uint64(1))
        self._weights = _mixed(~self._rounds[: self.permutations]).reshape(self.n_bands, self.rows) | np.uint64(1)

    def __repr__(self) -> str:
        """Name the threshold and the shape of the bands."""
        return f"MinHasher(threshold={self.threshold}, rows={self.rows}, n_bands={self.n_bands})"

    def detection_probability(self, similarity: float) -> float:
        """Give the probability with which texts of a Jaccard similarity become candidates: the S-curve of the bands."""
        return float(1 - (1 - similarity**self.rows) ** self.n_bands)

    def signatures(self, texts: Sequence[str]) -> Signatures:
        """Sign texts: (n, permutations) uint64; a text without content has :data:`EMPTY` everywhere."""
        encodings = [encoded(text) for text in texts]
        found = np.full((len(encodings), self.permutations), EMPTY, dtype=np.uint64)
        for part in _parts(encodings):
            found[part] = self._signed(encodings[part])
        return found

    def bands(self, signatures: Signatures) -> Bands:
        """Fold each band of signatures into a number: (n, n_bands) int64 of 32 bits with a sign, so small in SQLite.

        Equal bands give equal numbers, other bands other ones but for one in 4 billion; the place of the band is folded in.
        Those of a text without content say nothing: :meth:`keys` leaves them out.
        """
        cut = signatures.reshape(-1, self.n_bands, self.rows)
        folded = _mixed((cut * self._weights).sum(axis=2, dtype=np.uint64) + self._seeds[: self.n_bands])
        return (folded >> np.uint64(32)).astype(np.uint32).view(np.int32).astype(np.int64)

    def keys(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the bands of texts as lists, an empty one for a text without content."""
        signed = self.signatures(texts)
        return [
            band if has_content else []
            for band, has_content in zip(self.bands(signed).tolist(), signed[:, 0] != EMPTY, strict=True)
        ]

    def similarity(self, a: Signature, b: Signature) -> float:
        """Estimate the Jaccard similarity of two texts from their signatures.

        Unbiased, with a standard error of at most ``sqrt(s (1 - s) / permutations)``; 0 where one of them has no content.
        """
        return float(np.mean((a == b) & (a != EMPTY)))

    def _signed(self, encodings: Sequence[bytes]) -> Signatures:
        """Sign what fits into memory at once. One row more than texts takes what crosses from one text into the next."""
        table = np.full((len(encodings) + 1, self.permutations), EMPTY, dtype=np.uint64)
        self._lower(table, windows(b"".join(encodings)), _owners(encodings), slice(0, 1))
        signed = table[:-1]
        self._fill(signed, encodings)
        return signed

    def _fill(self, table: Signatures, encodings: Sequence[bytes]) -> None:
        """Go on until every bin of every text with content is filled; the second half of the rounds fills one bin each."""
        unfilled = [row for row in np.flatnonzero((table == EMPTY).any(axis=1)).tolist() if encodings[row]]
        sets = [distinct(windows(encodings[row])) for row in unfilled]
        owners = np.repeat(np.array(unfilled, dtype=np.intp), [len(found) for found in sets])
        values = np.concatenate([np.empty(0, dtype=np.uint64), *sets])
        first = 1
        while len(owners):
            last = min(2 * first, self.permutations) if first < self.permutations else 2 * self.permutations
            self._lower(table, values, owners, slice(first, last))
            still = (table == EMPTY).any(axis=1)[owners]
            owners, values, first = owners[still], values[still], last

    def _lower(self, table: Signatures, values: Shingles, owners: npt.NDArray[np.intp], rounds: slice) -> None:
        """Hash shingles in some rounds, and keep the least of each bin: the earliest round, then the lowest hash."""
        number = self._rounds[rounds, np.newaxis]
        hashes = _mixed(values + self._seeds[rounds, np.newaxis])
        if rounds.start < self.permutations:
            bins = ((hashes >> HASH_BITS) * np.uint64(self.permutations)) >> BIN_BITS
        else:
            bins = number - np.uint64(self.permutations)
        places = owners * self.permutations + bins.astype(np.intp)
        np.minimum.at(table.reshape(-1), places.reshape(-1), ((number << HASH_BITS) | (hashes & HASH_MASK)).reshape(-1))


def as_threshold(given: Any, name: str = "threshold") -> float:
    """Check a threshold, which messages call ``name``.

    Raises:
        InputError: not a number above 0 and at most 1.
    """
    try:
        threshold = float(given)
    except (TypeError, ValueError):
        threshold = math.nan
    if isinstance(given, bool) or not 0 < threshold <= 1:
        raise InputError(
            f"got {name}={given!r}, wanted the share of common shingles (a Jaccard similarity), above 0 and at most 1: "
            "0.8 finds texts with small edits, 1 those that are the same"
        )
    return threshold


def _banding(threshold: float, recall: float) -> tuple[int, int]:
    longest = MOST_ROWS if threshold == 1 else int(math.log(LEAST_AGREEMENT) / math.log(threshold))
    rows = min(max(longest, LEAST_ROWS), MOST_ROWS)
    missed = 1 - threshold**rows
    return rows, 1 if missed == 0 else math.ceil(math.log(1 - recall) / math.log(missed))


def _parts(encodings: Sequence[bytes]) -> Iterator[slice]:
    """Cut texts into runs of about as many bytes."""
    start = size = 0
    for place, encoding in enumerate(encodings):
        size += len(encoding)
        if size >= PART_BYTES:
            yield slice(start, place + 1)
            start, size = place + 1, 0
    if start < len(encodings):
        yield slice(start, len(encodings))


def _owners(encodings: Sequence[bytes]) -> npt.NDArray[np.intp]:
    """Say to which text each window of the joined texts belongs; those across a border, to a row after the last."""
    sizes = np.array([len(encoding) for encoding in encodings], dtype=np.intp)
    (present,) = np.nonzero(sizes)
    rows = np.stack((present, np.full_like(present, len(sizes))), axis=1)
    times = np.stack((sizes[present] - WIDTH + 1, np.full_like(present, WIDTH - 1)), axis=1)
    return np.repeat(rows.reshape(-1), times.reshape(-1))[: max(int(sizes.sum()) - WIDTH + 1, 0)]


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash 64-bit integers, the finaliser of SplitMix64 (Steele, Lea, Flood 2014); arithmetic wraps around on purpose."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
