"""Rows and their codes, laid out for search: tenant after tenant, so that a search in one scans its codes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Lists, ListSizes, Mask, Prepared, RowIdMatrix, RowIds, ScoreMatrix
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.scanning import NOWHERE, Division, Scanner
from rarebit.retrievers.collection.inverted_lists import SEGMENT_FROM, NearLists
from rarebit.retrievers.collection.row_numbers import Places, RowNumbers
from rarebit.retrievers.collection.selection import Selection
from rarebit.retrievers.collection.stored_codes import StoredCodes
from rarebit.retrievers.collection.tenants import OWN

LIST_ROWS = 256
"""Rows from which a tenant has an inverted list of its own. Smaller ones that are neighbours share one; their codes are scored
one by one, which is as fast, and a list costs half a block."""


MANY = 0.25
"""Share of the rows that a filter finds above which a sample says which lists hold many of them."""

SAMPLED = 17
"""One in so many rows is in a sample."""


@dataclass(frozen=True)
class Owners:
    """Which places belong to which tenant: ``starts[i]`` to ``starts[i + 1]`` to ``tenants[i]``, which ascend."""

    tenants: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sorted_tenants: RowIds) -> Owners:
        """Find where the tenants change."""
        tenants, starts = np.unique(sorted_tenants, return_index=True)
        return cls(tenants, np.append(starts, len(sorted_tenants)))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.tenants.nbytes + self.starts.nbytes

    def places_of(self, tenant: int) -> tuple[int, int]:
        """Give the first place of a tenant, and the one after its last."""
        place = int(np.searchsorted(self.tenants, tenant))
        if place == len(self.tenants) or self.tenants[place] != tenant:
            return 0, 0
        return int(self.starts[place]), int(self.starts[place + 1])

    @cached_property
    def list_starts(self) -> npt.NDArray[np.int64]:
        """Where the lists begin: at every large tenant, and at every first of small ones."""
        large = np.diff(self.starts) >= LIST_ROWS
        begins = large | np.concatenate([[True], large[:-1]])
        starts: npt.NDArray[np.int64] = self.starts[:-1][begins]
        return starts

    def sizes(self) -> ListSizes:
        """Give the sizes of the lists."""
        return np.diff(np.append(self.list_starts, self.starts[-1]))

    def lists_of(self, tenants: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Number the lists in which rows of some tenants lie."""
        ranges = [self.places_of(tenant) for tenant in tenants]
        starts = np.array([start for start, stop in ranges if start < stop], dtype=np.int64)
        return np.unique(np.searchsorted(self.list_starts, starts, side="right") - 1).astype(np.int64)


@dataclass(frozen=True)
class Look:
    """Where a search looks in a segment, and how many living, selected rows there are.

    Args:
        available: how many rows may be found.
        allowed: the places that may be found; None for all.
        lists: the lists to scan for each query; None for all.
        may_miss: whether fewer rows than may be found might lie in these lists.
        one_by_one: the only places to look at, without a scan.
    """

    available: int
    allowed: Mask | None = None
    lists: Lists | None = None
    may_miss: bool = False
    one_by_one: Places | None = None


@dataclass(frozen=True)
class Segment:
    """Rows and their codes. ``alive`` marks, by place, those that are not deleted; None while all live."""

    numbers: RowNumbers
    owners: Owners
    scanner: Scanner
    list_sizes: ListSizes | None = None
    alive: Mask | None = None

    @classmethod
    def build(cls, codec: SearchableCodec, stored: StoredCodes, list_count: int = 0) -> Segment:
        """Lay out the codes of at least one row: tenant after tenant; enough rows of the collection alone, list after list.

        The lists were tuned for the collection's rows: what is nearest of fewer, other ones lies further away.
        """
        if (stored.tenants != stored.tenants[0]).any():
            stored = stored.at(np.argsort(stored.tenants, kind="stable"))
        owners, division, list_sizes = Owners.of(stored.tenants), None, None
        if len(owners.tenants) > 1:
            division = Division(owners.sizes())
        elif list_count and len(stored.lists) >= SEGMENT_FROM and stored.tenants[0] == OWN:
            division = Division.of(stored.lists, list_count)
            list_sizes = division.sizes
        scanner = codec.scanner(stored.codes, division)
        return cls(RowNumbers.of(stored.row_ids), owners, scanner, list_sizes if scanner.list_count > 1 else None)

    def __len__(self) -> int:
        """Count the rows, deleted ones included."""
        return self.numbers.count

    @cached_property
    def count(self) -> int:
        """Rows that are not deleted."""
        return len(self) if self.alive is None else int(np.count_nonzero(self.alive))

    @property
    def nbytes(self) -> int:
        """Bytes beside the codes."""
        others = (array.nbytes for array in (self.alive, self.list_sizes) if array is not None)
        return self.numbers.nbytes + self.owners.nbytes + sum(others)

    def without(self, removed: RowIds) -> Segment:
        """Give the segment with some rows (ascending) marked as deleted; itself if it has none of them."""
        gone = self.numbers.places_of(removed)
        if not len(gone):
            return self
        alive = np.ones(len(self), dtype=np.bool_) if self.alive is None else self.alive.copy()
        alive[gone] = False
        return replace(self, alive=alive)

    def search(
        self, prepared: Prepared, k: int, selection: Selection, near: NearLists | None, *, rough: bool
    ) -> tuple[ScoreMatrix, RowIdMatrix] | None:
        """Find the k best of the living, selected rows by their codes; None when there are none.

        ``near`` are the inverted lists of the collection in the order in which each query should look at them.
        """
        look = self._look(k, selection, near, len(prepared))
        if not look.available:
            return None
        k = min(k, look.available)
        if look.one_by_one is not None:
            scores, places = self.scanner.among(prepared, k, look.one_by_one)
        else:
            scan = self.scanner.candidates if rough else self.scanner.search
            scores, places = scan(prepared, k, look.allowed, look.lists)
            if look.may_miss and (places[:, -1] < 0).any():
                scores, places = scan(prepared, k, look.allowed, None)
        row_ids = self.numbers.at(places)
        row_ids[places < 0] = NOWHERE
        if self.numbers.order is None:
            return scores, row_ids  # row ids grow with the places, so ties are in their order
        order = np.lexsort((row_ids, -scores), axis=1)
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(row_ids, order, axis=1)

    def scanned(self, k: int, selection: Selection, near: NearLists | None, queries: int) -> int:
        """Count the codes that a search looks at for a query, on average."""
        look = self._look(k, selection, near, queries)
        if look.one_by_one is not None:
            return len(look.one_by_one)
        if look.lists is None:
            return len(self) if look.available else 0
        sizes = self.owners.sizes() if self.list_sizes is None else self.list_sizes
        return int(sizes[look.lists].sum()) // queries

    def _look(self, k: int, selection: Selection, near: NearLists | None, queries: int) -> Look:
        """Choose where to look, by what is selected."""
        if selection.row_ids is None:
            owned = (0, len(self)) if selection.owners is None else self.owners.places_of(selection.owners[0])
            if owned == (0, len(self)):
                return Look(self.count, self.alive, self._nearest(k, near))
            return self._at_owner(*owned, selection, queries)
        places = self.numbers.places_of(selection.row_ids)
        if len(selection.row_ids) <= self.scanner.few:
            return self._at(places)
        places = self._living(places)
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[places] = True
        if self.list_sizes is None:
            return Look(len(places), mask, self._lists_of(selection, queries))
        if near is None:
            return Look(len(places), mask, np.tile(self.scanner.lists_with(places), (queries, 1)))
        lists = self._near_lists_with(places, near)
        return Look(len(places), mask, lists, may_miss=lists is not None)

    def _at_owner(self, start: int, stop: int, selection: Selection, queries: int) -> Look:
        """Look at all rows of one tenant: in its list, or one by one."""
        assert selection.owners is not None  # noqa: S101
        if stop - start < LIST_ROWS or self.scanner.list_count == 1:
            return self._at(np.arange(start, stop))
        available = stop - start if self.alive is None else int(np.count_nonzero(self.alive[start:stop]))
        return Look(available, self.alive, np.tile(self.owners.lists_of(selection.owners), (queries, 1)))

    def _at(self, places: Places) -> Look:
        places = np.sort(self._living(places))
        return Look(len(places), one_by_one=places)

    def _living(self, places: Places) -> Places:
        return places if self.alive is None else places[self.alive[places]]

    def _nearest(self, k: int, near: NearLists | None) -> Lists | None:
        """Give the nearest lists if enough living rows are sure to be in them; None for all lists."""
        if near is None or self.list_sizes is None:
            return None
        least = int(self.list_sizes[near.usual].sum(axis=1).min()) - (len(self) - self.count)
        return near.usual if least >= k else None

    def _near_lists_with(self, places: Places, near: NearLists) -> Lists | None:
        """Give the nearest lists that hold some of these places, or none beyond which many lie; None for all lists."""
        if not len(places):
            return None
        share = len(places) / len(self)
        most, many = near.among(share), share > MANY
        with_some = self.scanner.lists_with(places[::SAMPLED] if many else places)
        if len(with_some) <= most:
            return None if many else np.tile(with_some, (len(near.order), 1))
        holds = np.zeros(near.order.shape[1], dtype=np.bool_)
        holds[with_some] = True
        held = holds[near.order]
        if not many:
            return near.order[held].reshape(len(held), -1)[:, :most]
        return near.order[:, : int((held.cumsum(axis=1) <= most).sum(axis=1).max())]

    def _lists_of(self, selection: Selection, queries: int) -> Lists | None:
        """Give the lists of the tenants that are selected; None for all."""
        if self.scanner.list_count == 1 or selection.owners is None:
            return None
        return np.tile(self.owners.lists_of(selection.owners), (queries, 1))


def segments_of(codec: SearchableCodec, stored: StoredCodes, list_count: int) -> list[Segment]:
    """Lay out codes in one segment; in two if the collection's own come first and are so many that both stay apart."""
    others = np.flatnonzero(stored.tenants) if list_count else np.empty(0, np.int64)
    first = int(others[0]) if len(others) else 0
    apart = first >= SEGMENT_FROM and first > 2 * (len(stored.tenants) - first)
    parts = [slice(0, first), slice(first, None)] if apart else [slice(None)]
    return [Segment.build(codec, stored.at(part), list_count) for part in parts]
