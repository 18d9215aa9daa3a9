"""Rows and their codes, laid out for search: tenant after tenant, so that a search in one scans its codes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Lists, ListSizes, Mask, Prepared, RowIdMatrix, RowIds, ScoreMatrix
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.scanning import NOWHERE, Scanner
from rarebit.retrievers.collection.inverted_lists import SEGMENT_FROM
from rarebit.retrievers.collection.row_numbers import Places, RowNumbers
from rarebit.retrievers.collection.selection import Selection
from rarebit.retrievers.collection.stored_codes import StoredCodes

LIST_ROWS = 256
"""Rows from which a tenant has an inverted list of its own. Smaller ones that are neighbours share one; their codes are scored
one by one, which is as fast, and a list costs half a block."""


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
class Segment:
    """Rows and their codes. ``alive`` marks, by place, those that are not deleted; None while all live."""

    numbers: RowNumbers
    owners: Owners
    scanner: Scanner
    list_sizes: ListSizes | None = None
    alive: Mask | None = None

    @classmethod
    def build(cls, codec: SearchableCodec, stored: StoredCodes, list_count: int = 0) -> Segment:
        """Lay out the codes of at least one row: tenant after tenant; of one tenant, and enough rows, list after list."""
        order, sizes = None, None
        if (stored.tenants != stored.tenants[0]).any():
            order = np.argsort(stored.tenants, kind="stable")
        elif list_count and len(stored.lists) >= SEGMENT_FROM:
            order = np.argsort(stored.lists, kind="stable")
            sizes = np.bincount(stored.lists, minlength=list_count)
        if order is not None:
            stored = stored.at(order)
        owners = Owners.of(stored.tenants)
        by_owner = None if len(owners.tenants) == 1 else owners.sizes()
        scanner = codec.scanner(stored.codes, by_owner if sizes is None else sizes)
        return cls(RowNumbers.of(stored.row_ids), owners, scanner, sizes if scanner.list_count > 1 else None)

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
        self, prepared: Prepared, k: int, selection: Selection, nearest: Lists | None, *, rough: bool
    ) -> tuple[ScoreMatrix, RowIdMatrix] | None:
        """Find the k best of the living, selected rows by their codes; None when there are none.

        ``nearest`` are the lists to look at for each query where every row is selected.
        """
        if selection.row_ids is None and selection.owners is None:
            found = self._scanned(prepared, k, self.alive, self._enough(nearest, k), rough=rough)
        elif selection.row_ids is None:
            found = self._of_owner(prepared, k, selection, rough=rough)
        else:
            found = self._among(prepared, k, selection.row_ids, selection, rough=rough)
        if found is None:
            return None
        scores, places = found
        row_ids = self.numbers.at(places)
        row_ids[places < 0] = NOWHERE
        if self.numbers.order is None:
            return scores, row_ids  # row ids grow with the places, so ties are in their order
        order = np.lexsort((row_ids, -scores), axis=1)
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(row_ids, order, axis=1)

    def scanned(self, k: int, selection: Selection, nearest: Lists | None) -> int:
        """Count the codes that a search looks at."""
        if selection.row_ids is not None and len(selection.row_ids) <= self.scanner.few:
            return len(self.numbers.places_of(selection.row_ids))
        if selection.row_ids is None and selection.owners is None:
            lists = self._enough(nearest, k)
            return len(self) if lists is None or self.list_sizes is None else int(self.list_sizes[lists].sum() / len(lists))
        if selection.row_ids is None and selection.owners is not None:
            start, stop = self.owners.places_of(selection.owners[0])
            return stop - start
        lists = self._lists_with(self.numbers.mask_of(selection.row_ids), selection, 1)  # type: ignore[arg-type]
        sizes = self.owners.sizes() if self.list_sizes is None else self.list_sizes
        return len(self) if lists is None else int(sizes[lists].sum())

    def _of_owner(
        self, prepared: Prepared, k: int, selection: Selection, *, rough: bool
    ) -> tuple[ScoreMatrix, RowIdMatrix] | None:
        """Search among all rows of one tenant: in its list, or one by one."""
        assert selection.owners is not None  # noqa: S101
        start, stop = self.owners.places_of(selection.owners[0])
        if stop - start == len(self):
            return self._scanned(prepared, k, self.alive, None, rough=rough)
        if stop - start < LIST_ROWS or self.scanner.list_count == 1:
            return self._one_by_one(prepared, k, np.arange(start, stop))
        lists = np.tile(self.owners.lists_of(selection.owners), (len(prepared), 1))
        return self._scanned(prepared, k, self.alive, lists, rough=rough, available=stop - start)

    def _among(
        self, prepared: Prepared, k: int, row_ids: RowIds, selection: Selection, *, rough: bool
    ) -> tuple[ScoreMatrix, RowIdMatrix] | None:
        if len(row_ids) <= self.scanner.few:
            return self._one_by_one(prepared, k, self.numbers.places_of(row_ids))
        mask = self.numbers.mask_of(row_ids)
        mask = mask if self.alive is None else mask & self.alive
        return self._scanned(prepared, k, mask, self._lists_with(mask, selection, len(prepared)), rough=rough)

    def _one_by_one(self, prepared: Prepared, k: int, places: Places) -> tuple[ScoreMatrix, RowIdMatrix] | None:
        places = np.sort(places if self.alive is None else places[self.alive[places]])
        return self.scanner.among(prepared, min(k, len(places)), places) if len(places) else None

    def _scanned(
        self,
        prepared: Prepared,
        k: int,
        allowed: Mask | None,
        lists: Lists | None,
        *,
        rough: bool,
        available: int | None = None,
    ) -> tuple[ScoreMatrix, RowIdMatrix] | None:
        if available is None:
            available = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if not available or (lists is not None and not lists.shape[1]):
            return None
        scan = self.scanner.candidates if rough else self.scanner.search
        return scan(prepared, min(k, available), allowed, lists)

    def _enough(self, nearest: Lists | None, k: int) -> Lists | None:
        """Give the nearest lists if enough living rows are sure to be in them; None for all lists."""
        if nearest is None or self.list_sizes is None:
            return None
        least = int(self.list_sizes[nearest].sum(axis=1).min()) - (len(self) - self.count)
        return nearest if least >= k else None

    def _lists_with(self, mask: Mask, selection: Selection, queries: int) -> Lists | None:
        """Give the lists that hold marked rows; None for all."""
        if self.list_sizes is not None:
            marked = np.searchsorted(np.cumsum(self.list_sizes), np.flatnonzero(mask), side="right")
            with_some = np.flatnonzero(np.bincount(marked, minlength=len(self.list_sizes)))
        elif self.scanner.list_count > 1 and selection.owners is not None:
            with_some = self.owners.lists_of(selection.owners)
        else:
            return None
        return np.tile(with_some, (queries, 1))
