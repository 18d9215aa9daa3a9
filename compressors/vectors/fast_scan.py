"""The fast-scan kernel for every code that is made of four-bit parts and scored by adding table entries."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt8

from rarebit.arrays import Codes, Lists, Mask, Prepared, RowIdMatrix, RowIds, ScoreMatrix, Scores, Vector
from rarebit.compressors.vectors.factors import PackedFactors
from rarebit.compressors.vectors.scanning import FEW, NOWHERE, Division, Scanner

NIBBLES = 16
"""Values of four bits."""

BLOCK = 64
"""Codes that faiss's fast scan interleaves; 64 are scanned a tenth faster than its usual 32."""

EXTRA = 32
"""Codes found by the kernel beyond those wanted: its tables are rounded to 8 bits, and the factors are not in them."""

FEW_SHARE = 1 / 800
"""Share of all places up to which those allowed are scored one by one, without a scan, which takes some 800 times as long for
each: its values lie apart in memory."""

EVEN = 0.25
"""Spread of the factors' logarithms above which they, and not the kernel's sums, say which codes are worth an exact score:
where a factor carries the length of its vector. Those of MiniLM vectors have a fifth of it or less."""

PACKED_AT_ONCE = 1024 * BLOCK
"""Codes that are put into blocks at once, so that little is in memory twice."""

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

    The index is one of inverted lists, also where there is one list: those of faiss take a selector into the kernel, so a
    filter costs a bit test for each code that would have been found, whatever it selects.

    Args:
        codes: (n, (m + 1) // 2) two four-bit values a byte, as :func:`pack_nibbles` puts them.
        parts: m, how many four-bit values a code has.
        factors: of n vectors: an array, or bytes that decode to one where they are asked for; None for 1.
        division: which list each code lies in; one list of all if left out.
    """

    def __init__(
        self, codes: Codes, parts: int, factors: Factors | PackedFactors | None = None, division: Division | None = None
    ) -> None:
        """Pack the codes."""
        self._count = len(codes)
        self._lists = PackedLists(codes, parts, Division(np.array([len(codes)])) if division is None else division)
        self._factors = factors
        self._factors_decide = factors is not None and _spread(factors, len(self)) > EVEN

    @property
    def nbytes(self) -> int:
        """Bytes of the packed codes and their places, of the factors, and of the unit matrices."""
        return self._lists.nbytes + (0 if self._factors is None else self._factors.nbytes)

    @property
    def list_count(self) -> int:
        """How many lists there are."""
        return len(self._lists.sizes)

    def __len__(self) -> int:
        """Count the codes."""
        return self._count

    def search(
        self, prepared: Prepared, k: int, allowed: Mask | None = None, lists: Lists | None = None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Scan, or score the allowed places one by one where they are few."""
        scores = np.full((len(prepared), k), -np.inf, np.float32)
        places = np.full((len(prepared), k), NOWHERE, np.int64)
        for row, found in enumerate(self._candidates(prepared, k, allowed, lists)):
            best = self._best(prepared[row], found, k)
            scores[row, : len(best[0])], places[row, : len(best[0])] = best
        return scores, places

    def lists_with(self, places: RowIds) -> npt.NDArray[np.int64]:
        """Give the lists that hold some of these places."""
        return self._lists.with_some(places)

    @property
    def few(self) -> int:
        """Places that are scored one by one: 256, or a share of all."""
        return max(FEW, int(FEW_SHARE * len(self)))

    def among(self, prepared: Prepared, k: int, places: RowIds) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Score places one by one."""
        best = [self._best(tables, places, k) for tables in prepared]
        return np.stack([scores for scores, _ in best]), np.stack([found for _, found in best])

    def _best(self, tables: Vector, places: RowIds, k: int) -> tuple[Any, Any]:
        """Give the k highest scores among some places, and those places."""
        exact = self.scores(tables, places)
        order = np.lexsort((places, -exact))[:k]
        return exact[order], places[order]

    def candidates(
        self, prepared: Prepared, k: int, allowed: Mask | None = None, lists: Lists | None = None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Keep the kernel's rounded sums, times the factors, for scores; among all places only."""
        if allowed is not None or lists is not None or len(self) <= k or self._factors_decide:
            return self.search(prepared, k, allowed, lists)
        sums, places = self._scanned(prepared, k + (0 if self._factors is None else EXTRA), None, None)
        if self._factors is not None:
            sums *= self._factors[places.ravel()].reshape(places.shape)
            order = np.argsort(-sums, axis=1)[:, :k]
            sums, places = np.take_along_axis(sums, order, axis=1), np.take_along_axis(places, order, axis=1)
        return sums + prepared[:, -1:], places

    def scores(self, tables: Vector, places: RowIds) -> Scores:
        """Give the exact estimates of some places for one query's tables."""
        sums = summed(tables, self.values(places))
        if self._factors is not None:
            sums *= self._factors[places]
        estimates: Scores = sums + tables[-1]
        return estimates

    def values(self, places: RowIds) -> Values:
        """Unpack the four-bit values of the codes at some places: (n, m)."""
        return self._lists.values(places)

    def _candidates(self, prepared: Prepared, k: int, allowed: Mask | None, lists: Lists | None) -> Iterator[RowIds]:
        """Give, for each query, places that are worth an exact score: at least k of them, or all that are allowed."""
        if lists is None:
            available = len(self) if allowed is None else int(np.count_nonzero(allowed))
            if available <= max(k, 0 if allowed is None else self.few) or self._factors_decide:
                every = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
                yield from (every for _ in prepared)
                return
        fetch = len(self) if self._factors_decide else min(k + EXTRA, len(self))
        yield from (found[found >= 0] for found in self._scanned(prepared, fetch, allowed, lists)[1])

    def _scanned(
        self, prepared: Prepared, fetch: int, allowed: Mask | None, lists: Lists | None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Give the kernel's sums, without the factors and the constant, and their places; ``NOWHERE`` beyond the last."""
        tables = np.ascontiguousarray(prepared[:, :-1])
        sums, places = self._lists.search(tables, min(fetch, len(self)), allowed, lists)
        for row in np.flatnonzero(places.min(axis=1, initial=0) < 0):
            # The kernel gives nothing where a rounded sum is the lowest that there can be.
            empty = np.flatnonzero(places[row] < 0)
            others = np.setdiff1d(self._lists.places(allowed, None if lists is None else lists[row]), places[row])[: len(empty)]
            places[row, empty[: len(others)]] = others
            sums[row, empty] = tables[row].reshape(-1, NIBBLES).min(axis=1).sum()
        return sums, places


class PackedLists:
    """Codes in inverted lists of faiss, in the layout of its kernel, which finds their places: their numbers, as given.

    Args:
        codes: (n, (m + 1) // 2) packed nibbles.
        parts: m.
        division: which list each lies in.
    """

    def __init__(self, codes: Codes, parts: int, division: Division) -> None:
        """Interleave the codes of each list."""
        self.sizes = np.asarray(division.sizes, dtype=np.int64)
        self.layout = _layout(parts)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self._every = np.arange(len(self.sizes), dtype=np.int64)
        self._index = _empty(parts, len(self.sizes))
        order, self._slots = division.order, None if division.order is None else _inverse(division.order)
        addresses = [self._fill(number, codes, order) for number in range(len(self.sizes))]
        self._index.ntotal = len(codes)
        # The lists lie apart in memory. One view spans them all; only bytes that lie in a list are ever looked at.
        lowest, highest = min(addresses), max(addresses) + self.layout.block_bytes * (len(codes) // BLOCK + 1)
        self._offsets = np.array(addresses, dtype=np.int64) - lowest
        self._bytes = np.ctypeslib.as_array((ctypes.c_uint8 * (highest - lowest)).from_address(lowest))

    def _fill(self, number: int, codes: Codes, order: RowIds | None) -> int:
        """Pack one list; gives the address of its blocks."""
        lists, first, size = self._index.invlists, int(self._starts[number]), int(self.sizes[number])
        lists.resize(number, size)
        if not size:
            return int(lists.get_codes(number) or 0) or ctypes.addressof(_NOTHING)
        self._places_in(number)[:] = np.arange(first, first + size) if order is None else order[first : first + size]
        blocks = faiss.rev_swig_ptr(lists.get_codes(number), -(-size // BLOCK) * self.layout.block_bytes)
        for start in range(first, first + size, PACKED_AT_ONCE):
            chosen = slice(start, min(start + PACKED_AT_ONCE, first + size))
            packed = _packed(codes[chosen] if order is None else codes[order[chosen]], self.layout.parts)
            part, begin = _bytes_of(packed), (start - first) // BLOCK * self.layout.block_bytes
            blocks[begin : begin + len(part)] = part
        return int(blocks.ctypes.data)

    def _places_in(self, number: int) -> RowIds:
        """View the places of a list's codes, which faiss keeps."""
        places: RowIds = faiss.rev_swig_ptr(self._index.invlists.get_ids(number), int(self.sizes[number]))
        return places

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks, of the places that faiss keeps (8 a code) and of their inverse, and of the unit matrices."""
        blocks = int((-(-self.sizes // BLOCK)).sum()) * self.layout.block_bytes
        slots = 0 if self._slots is None else self._slots.nbytes
        return blocks + 8 * int(self._index.ntotal) + slots + 4 * int(self._index.pq.centroids.size())

    def search(self, tables: Prepared, k: int, allowed: Mask | None, lists: Lists | None) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Scan lists, for each query its own, in faiss: sums of the tables' entries, and places."""
        library: Any = faiss
        if lists is None:
            lists = np.broadcast_to(self._every, (len(tables), len(self._every)))
        lists = np.ascontiguousarray(lists)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        selector = None if bits is None else library.IDSelectorBitmap(bits)
        parameters = library.SearchParametersIVF(sel=selector, nprobe=lists.shape[1])
        sums, places = np.empty((len(tables), k), np.float32), np.empty((len(tables), k), np.int64)
        unused = np.zeros(lists.shape, np.float32)
        arrays = tuple(library.swig_ptr(array) for array in (lists, unused, sums, places))
        # The form of Python's own refuses parameters here.
        self._index.search_preassigned_c(len(tables), library.swig_ptr(tables), k, *arrays, False, parameters)
        return sums, places

    def values(self, places: RowIds) -> Values:
        """Unpack the four-bit values of the codes at some places: (n, m)."""
        places = self._slots_of(places)
        if len(self.sizes) == 1:
            blocks, rows = np.divmod(places, BLOCK)
            base = blocks * self.layout.block_bytes
        else:
            numbers = np.searchsorted(self._starts, places, side="right") - 1
            blocks, rows = np.divmod(places - self._starts[numbers], BLOCK)
            base = self._offsets[numbers] + blocks * self.layout.block_bytes
        where = self.layout.offsets.take(rows, axis=0)
        where += base[:, np.newaxis]
        values: Values = self._bytes.take(where)
        values >>= self.layout.shifts.take(rows, axis=0)
        values &= np.uint8(NIBBLES - 1)
        return values

    def places(self, allowed: Mask | None, lists: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
        """Name the allowed places of some lists."""
        numbers = np.flatnonzero(self.sizes) if lists is None else [number for number in np.unique(lists) if self.sizes[number]]
        every = np.sort(np.concatenate([np.empty(0, np.int64), *map(self._places_in, map(int, numbers))]))
        return every if allowed is None else every[allowed[every]]

    def with_some(self, places: RowIds) -> npt.NDArray[np.int64]:
        """Give the lists that hold some of these places."""
        filled, taken = np.flatnonzero(self.sizes), np.zeros(self._starts[-1], dtype=np.bool_)
        taken[places if self._slots is None else self._slots.take(places)] = True
        return filled[np.logical_or.reduceat(taken, self._starts[filled])]

    def _slots_of(self, places: RowIds) -> RowIds:
        """Say where codes lie, counted list after list."""
        if self._slots is None:
            return places
        slots: RowIds = self._slots.take(places).astype(np.int64)
        return slots


def _inverse(order: RowIds) -> npt.NDArray[np.uint32]:
    """Give the rank of each place in an order."""
    ranks = np.empty(len(order), dtype=np.uint32)
    ranks[order] = np.arange(len(order), dtype=np.uint32)
    return ranks


_NOTHING = ctypes.c_uint8()
"""An address for lists without codes."""


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


def summed(tables: Vector, values: Values) -> Scores:
    """Add up the entries that (n, m) four-bit values stand for in one query's tables: (n,)."""
    entries = np.add(values, _layout(values.shape[1]).first_entries, dtype=np.intp)
    sums: Scores = tables.take(entries).sum(axis=1)
    return sums


def _spread(factors: Factors | PackedFactors, count: int) -> float:
    """Give the standard deviation of the logarithms of the positive factors."""
    every = np.asarray(factors[np.arange(count)], dtype=np.float64)
    positive = every[every > 0]
    return float(np.log(positive).std()) if len(positive) else 0.0


def _packed(codes: Codes, parts: int) -> Any:
    """Build a fast-scan index over codes without lists: it is what puts codes into blocks."""
    flat = faiss.IndexPQ(parts * NIBBLES, parts, 4, faiss.METRIC_INNER_PRODUCT)
    flat.is_trained = True
    flat.add_sa_codes(np.ascontiguousarray(codes))
    library: Any = faiss
    return library.IndexPQFastScan(flat, BLOCK)


def _empty(parts: int, lists: int) -> Any:
    """Build a fast-scan index of empty lists, with unit matrices for codebooks."""
    library: Any = faiss
    dim = parts * NIBBLES
    index = library.IndexIVFPQFastScan(library.IndexFlatIP(dim), dim, lists, parts, 4, faiss.METRIC_INNER_PRODUCT, BLOCK)
    index.by_residual = False
    faiss.copy_array_to_vector(np.tile(np.eye(NIBBLES, dtype=np.float32).ravel(), parts), index.pq.centroids)
    index.is_trained = True
    return index
