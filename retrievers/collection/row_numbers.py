"""Which row lies at which place of a segment, and the other way round, in as few bytes as the rows allow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rarebit.arrays import RowIds

Places = npt.NDArray[np.int64]
Packed = npt.NDArray[np.unsignedinteger[Any]]

MANY = 0.02
"""Share of the rows from which looking up every row in a table is faster than searching for each of the wanted ones."""


@dataclass(frozen=True)
class RowNumbers:
    """The row ids of a segment by place: consecutive ones take no memory, ascending ones 4 bytes each, others 8.

    ``others`` are the row ids themselves where they are not consecutive; ``order`` sorts them where they do not ascend.
    """

    first: int
    count: int
    others: Packed | None = None
    order: Packed | None = None

    @classmethod
    def of(cls, row_ids: RowIds) -> RowNumbers:
        """Keep (n,) row ids, each once, in any order; n is at least 1."""
        low, high = int(row_ids.min()), int(row_ids.max())
        ascending = bool((np.diff(row_ids) > 0).all())
        if ascending and high - low + 1 == len(row_ids):
            return cls(low, len(row_ids))
        order = None if ascending else np.argsort(row_ids).astype(_smallest(len(row_ids)))
        return cls(low, len(row_ids), row_ids.astype(_smallest(high)), order)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in (self.others, self.order) if array is not None)

    @cached_property
    def last(self) -> int:
        """The largest row id."""
        return self.first + self.count - 1 if self.others is None else int(self.others.max())

    @property
    def _is_complete(self) -> bool:
        """Whether no row id between the first and the last is missing."""
        return self.last - self.first + 1 == self.count

    def at(self, places: Places) -> Places:
        """Give the row ids at some places."""
        if self.others is None:
            return places + self.first
        row_ids: Places = self.others[places].astype(np.int64)
        return row_ids

    def every(self) -> RowIds:
        """Give the row ids of all places."""
        return self.at(np.arange(self.count, dtype=np.int64))

    def places_of(self, row_ids: RowIds) -> Places:
        """Give the places of those of the row ids (ascending) that are here, in any order."""
        first, last = np.searchsorted(row_ids, [self.first, self.last + 1])
        wanted = row_ids[first:last]
        if self.others is None:
            return wanted - self.first
        if self.order is not None and self._is_complete:
            in_order: Places = self.order[wanted - self.first].astype(np.int64)
            return in_order
        if len(wanted) > MANY * self.count and self.last - self.first < 8 * self.count:
            table = np.zeros(self.last - self.first + 1, dtype=np.bool_)
            table[wanted - self.first] = True
            return np.flatnonzero(table[self.every() - self.first])
        wanted = wanted.astype(self.others.dtype)
        found = np.minimum(np.searchsorted(self.others, wanted, sorter=self.order), self.count - 1)
        places = (found if self.order is None else self.order[found]).astype(np.int64)
        here: Places = places[self.others[places] == wanted]
        return here


def _smallest(largest: int) -> type[np.unsignedinteger[Any]]:
    return np.uint32 if largest <= np.iinfo(np.uint32).max else np.uint64
