"""The fast-scan kernel for every code that is made of four-bit parts and scored by adding table entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt8

from rarebit.arrays import Codes, Mask, Prepared, RowIdMatrix, RowIds, ScoreMatrix, Scores, Vector
from rarebit.compressors.vectors.factors import PackedFactors
from rarebit.compressors.vectors.scanning import NOWHERE, Scanner

NIBBLES = 16
"""Values of four bits."""

BLOCK = 64
"""Codes that faiss's fast scan interleaves; 64 are scanned a tenth faster than its usual 32."""

EXTRA = 32
"""Codes found by the kernel beyond those wanted: its tables are rounded to 8 bits, and the factors are not in them."""

FEW = 1024
"""Allowed places up to which they are scored one by one, without a scan."""

EVEN = 0.25
"""Spread of the factors' logarithms above which they, and not the kernel's sums, say which codes are worth an exact score:
where a factor carries the length of its vector. Those of MiniLM vectors have a fifth of it or less."""

FARTHER = 4
"""How many times as many codes are scanned for when too few of those found are allowed."""

Factors: TypeAlias = Float[npt.NDArray[Any], "n"]
Values: TypeAlias = UInt8[npt.NDArray[np.uint8], "n parts"]


class FastScan(Scanner):
    """Codes of four-bit parts whose score is a sum of one table entry a part: product and additive quantisers of every kind.

    faiss's fast-scan kernel (Quicker ADC, André, Kermarrec and Le Scouarnec, PAMI 2021) sums the tables in SIMD registers,
    rounded to 8 bits; the best found are scored again with the exact tables, each multiplied by its own factor if there are
    factors: ``score = constant + factor * sum of entries``.

    The tables themselves are handed to faiss as the query, against sub-quantisers that are unit matrices. So every additive
    code is scanned by one and the same index, whatever its codebooks look like. Prepared queries are tables: (q, 16 m + 1), the
    entries of the first part, of the second, and so on, and last the constant.

    Args:
        codes: (n, (m + 1) // 2) two four-bit values a byte, as :func:`pack_nibbles` puts them.
        parts: m, how many four-bit values a code has.
        factors: of n vectors: an array, or bytes that decode to one where they are asked for; None for 1.
    """

    def __init__(self, codes: Codes, parts: int, factors: Factors | PackedFactors | None = None) -> None:
        """Pack the codes."""
        self._index = _packed(codes, parts)
        self._bytes = _bytes_of(self._index)
        self._layout = _layout(parts)
        self._factors = factors
        self._factors_decide = factors is not None and _spread(factors, len(self)) > EVEN

    @property
    def nbytes(self) -> int:
        """Bytes of the packed codes, of the factors, and of the unit matrices."""
        factors = 0 if self._factors is None else self._factors.nbytes
        return int(self._index.codes.size()) + factors + 4 * int(self._index.pq.centroids.size())

    def __len__(self) -> int:
        """Count the codes."""
        return int(self._index.ntotal)

    def search(self, prepared: Prepared, k: int, allowed: Mask | None = None) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Scan, or score the allowed places one by one where they are few."""
        scores = np.full((len(prepared), k), -np.inf, np.float32)
        places = np.full((len(prepared), k), NOWHERE, np.int64)
        for row, found in enumerate(self._candidates(prepared, k, allowed)):
            exact = self.scores(prepared[row], found)
            order = np.lexsort((found, -exact))[:k]
            scores[row, : len(order)], places[row, : len(order)] = exact[order], found[order]
        return scores, places

    def candidates(self, prepared: Prepared, k: int, allowed: Mask | None = None) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Keep the kernel's rounded sums, times the factors, for scores; among all places only."""
        if allowed is not None or len(self) <= k or self._factors_decide:
            return self.search(prepared, k, allowed)
        sums, places = self._scanned(prepared, k + (0 if self._factors is None else EXTRA))
        if self._factors is not None:
            sums *= self._factors[places.ravel()].reshape(places.shape)
            order = np.argsort(-sums, axis=1)[:, :k]
            sums, places = np.take_along_axis(sums, order, axis=1), np.take_along_axis(places, order, axis=1)
        return sums + prepared[:, -1:], places

    def scores(self, tables: Vector, places: RowIds) -> Scores:
        """Give the exact estimates of some places for one query's tables."""
        entries = np.add(self.values(places), self._layout.first_entries, dtype=np.intp)
        sums = tables.take(entries).sum(axis=1)
        if self._factors is not None:
            sums *= self._factors[places]
        estimates: Scores = sums + tables[-1]
        return estimates

    def values(self, places: RowIds) -> Values:
        """Unpack the four-bit values of the codes at some places: (n, m)."""
        blocks, rows = np.divmod(places, BLOCK)
        where = self._layout.offsets.take(rows, axis=0)
        where += (blocks * self._layout.block_bytes)[:, np.newaxis]
        values: Values = self._bytes.take(where)
        values >>= self._layout.shifts.take(rows, axis=0)
        values &= np.uint8(NIBBLES - 1)
        return values

    def _candidates(self, prepared: Prepared, k: int, allowed: Mask | None) -> Iterator[RowIds]:
        """Give, for each query, places that are worth an exact score: at least k of them, or all that are allowed."""
        available = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if available <= max(k, FEW if allowed is not None else 0):
            every = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            yield from (every for _ in prepared)
            return
        fetch = len(self) if self._factors_decide else (k + EXTRA) * len(self) // available
        for query, found in zip(prepared, self._scanned(prepared, fetch)[1], strict=True):
            yield self._enough(query, found, k, allowed)

    def _enough(self, query: Vector, found: RowIds, k: int, allowed: Mask | None) -> npt.NDArray[np.int64]:
        """Keep the allowed places, and scan again for more where they are too few: the best may all be forbidden."""
        kept = found if allowed is None else found[allowed[found]]
        while len(kept) < k and len(found) < len(self):
            found = self._scanned(query[np.newaxis], FARTHER * len(found))[1][0]
            kept = found if allowed is None else found[allowed[found]]
        return kept

    def _scanned(self, prepared: Prepared, fetch: int) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Give the kernel's sums, without the factors and the constant, and their places."""
        tables = np.ascontiguousarray(prepared[:, :-1])
        sums, places = self._index.search(tables, min(fetch, len(self)))
        for row in np.flatnonzero(places.min(axis=1, initial=0) < 0):
            # The kernel gives nothing where a rounded sum is the lowest that there can be.
            empty = places[row] < 0
            others = np.setdiff1d(np.arange(len(self)), places[row])
            places[row, empty] = others[: np.count_nonzero(empty)]
            sums[row, empty] = tables[row].reshape(-1, NIBBLES).min(axis=1).sum()
        return sums, places


@dataclass(frozen=True)
class Layout:
    """Where fast scan keeps the four-bit values of a block of codes."""

    parts: int
    block_bytes: int
    offsets: npt.NDArray[np.int64]
    """(64, m): the byte of each value within the block."""
    shifts: npt.NDArray[np.uint8]
    """(64, m): 0 for the low half of the byte, 4 for the high half."""

    @cached_property
    def first_entries(self) -> npt.NDArray[np.int64]:
        """Where the entries of each part begin in a query's tables."""
        return np.arange(self.parts) * NIBBLES


@lru_cache
def _layout(parts: int) -> Layout:
    """Find out where faiss keeps each value, by packing numbers that name their own place, four bits at a time."""
    count = BLOCK * parts
    names = np.arange(count)
    read = np.zeros(2 * len(_block(np.zeros(count, np.int64), parts)), np.int64)
    rounds = range(-(-count.bit_length() // 4))
    for turn in rounds:
        block = _block(names >> (4 * turn) & (NIBBLES - 1), parts)
        halves = np.stack([block & (NIBBLES - 1), block >> 4], axis=1).ravel().astype(np.int64)
        read |= halves << (4 * turn)
    # Padding reads 0, like the first name; the first place that reads a name is its own.
    places = np.full(count, -1)
    places[read[::-1]] = np.arange(len(read))[::-1]
    by_code = places.reshape(BLOCK, parts)
    return Layout(parts, len(read) // 2, by_code >> 1, ((by_code & 1) << 2).astype(np.uint8))


def _block(values: npt.NDArray[np.int64], parts: int) -> npt.NDArray[np.uint8]:
    """Pack one block of codes, and give its bytes."""
    codes = pack_nibbles(values.reshape(BLOCK, parts).astype(np.uint8))
    index = _packed(codes, parts)
    return _bytes_of(index).copy()


def _bytes_of(index: Any) -> npt.NDArray[np.uint8]:
    """View the packed codes of an index; they live as long as it does."""
    size = int(index.codes.size())
    view: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(index.codes.get(), size) if size else np.empty(0, np.uint8)
    return view


def pack_nibbles(values: Values) -> Codes:
    """Put (n, m) four-bit values into (n, (m + 1) // 2) bytes, the first of two in the low half."""
    if values.shape[1] % 2:
        values = np.pad(values, ((0, 0), (0, 1)))
    packed: Codes = values[:, 0::2] | (values[:, 1::2] << np.uint8(4))
    return packed


def unpack_nibbles(codes: Codes, parts: int) -> Values:
    """Take (n, m) four-bit values out of (n, (m + 1) // 2) bytes."""
    values = np.stack([codes & np.uint8(NIBBLES - 1), codes >> np.uint8(4)], axis=2)
    unpacked: Values = values.reshape(len(codes), 2 * codes.shape[1])[:, :parts]
    return unpacked


def _spread(factors: Factors | PackedFactors, count: int) -> float:
    """Give the standard deviation of the logarithms of the positive factors."""
    every = np.asarray(factors[np.arange(count)], dtype=np.float64)
    positive = every[every > 0]
    return float(np.log(positive).std()) if len(positive) else 0.0


def _packed(codes: Codes, parts: int) -> Any:
    """Build the fast-scan index over codes, with unit matrices for codebooks."""
    flat = faiss.IndexPQ(parts * NIBBLES, parts, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.tile(np.eye(NIBBLES, dtype=np.float32).ravel(), parts), flat.pq.centroids)
    flat.is_trained = True
    flat.add_sa_codes(np.ascontiguousarray(codes))
    library: Any = faiss
    return library.IndexPQFastScan(flat, BLOCK)
