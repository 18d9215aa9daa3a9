"""The vectors of the small tenants that are being asked, decoded: their next question needs neither scan nor re-ranking.

Most tenants are small, and one who asks asks again. To score a hundred decoded vectors takes less time than to look up what the
file keeps of them, so the second question of a tenant decodes them all, and those of the tenants asked last stay in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from pyroaring import BitMap64

from rarebit.arrays import RowIds, Vectors
from rarebit.retrievers.collection.bitmaps import array_of
from rarebit.retrievers.collection.state import State

MOST_ROWS: Final = 1024
"""Rows that a tenant may have; the scan of more takes less time than an exact score for each."""

MOST_BYTES: Final = 8 * 2**20
"""What is kept: at most so many bytes of vectors, those of the tenants asked last."""

MOST_ASKED: Final = 1024
"""Tenants of whom is remembered that they asked once."""


@dataclass(frozen=True)
class Decoded:
    """The row ids of a tenant, ascending, and their vectors (n, dim)."""

    row_ids: RowIds
    vectors: Vectors


@dataclass(frozen=True)
class _Entry:
    """Which rows were asked about, in which generation of codes, and their vectors once there was a second question."""

    visible: BitMap64
    generation: int
    decoded: Decoded | None = None

    @property
    def size(self) -> int:
        return 0 if self.decoded is None else self.decoded.row_ids.nbytes + self.decoded.vectors.nbytes


class TenantVectors:
    """Keeps decoded vectors by tenant; rows are never edited, so they are those of the same rows in the same generation."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._lock = Lock()
        self._known: OrderedDict[int, _Entry] = OrderedDict()
        self._size = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors that are kept."""
        return self._size

    def of(self, tenant: int, visible: BitMap64, state: State, read: Callable[[list[int]], Vectors]) -> Decoded | None:
        """Give the vectors of all rows that a tenant sees; None for the first question, and where they are too many.

        Args:
            tenant: its number.
            visible: its rows in the commit of ``state``.
            state: of the commit.
            read: decodes the vectors of rows.
        """
        if not 0 < len(visible) <= MOST_ROWS:
            return None
        with self._lock:
            known = self._known.get(tenant)
        if known is None or known.generation != state.generation or known.visible != visible:
            self._put(tenant, _Entry(visible, state.generation))
            return None
        if known.decoded is None:
            row_ids = array_of(visible)
            known = _Entry(visible, state.generation, Decoded(row_ids, read(row_ids.tolist())))
        self._put(tenant, known)
        return known.decoded

    def _put(self, tenant: int, entry: _Entry) -> None:
        with self._lock:
            before = self._known.pop(tenant, None)
            self._known[tenant] = entry
            self._size += entry.size - (0 if before is None else before.size)
            while len(self._known) > MOST_ASKED or self._size > MOST_BYTES:
                self._size -= self._known.popitem(last=False)[1].size

    def drop(self) -> None:
        """Forget everything, and take a new lock: the old one may be held by a thread that a forked child does not have."""
        self._lock = Lock()
        self._known = OrderedDict()
        self._size = 0
