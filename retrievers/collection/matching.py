"""A filter tree becomes the set of matching row ids, before any search."""

from __future__ import annotations

import sqlite3
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from pyroaring import BitMap64

from rarebit.errors import FilterError
from rarebit.retrievers.collection import rows, tenants
from rarebit.retrievers.collection.columns import Columns
from rarebit.retrievers.collection.filters import (
    NEGATED,
    RANGES,
    And,
    Compare,
    Filter,
    Ids,
    Not,
    Or,
    Where,
    holds_a,
    matches,
)
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.statements import chunks
from rarebit.retrievers.collection.storage import Connection

MOST_FILTERS = 64
MOST_BYTES = 8 * 2**20
"""What is kept for the next search: at most so many sets of rows, and so many bytes."""


@dataclass(frozen=True)
class Matcher:
    """Evaluates filters inside one read transaction, over the rows beyond ``after``.

    ``every`` are the rows of the commit, ``live`` those of them beyond ``after``; ``visible`` those of them that the caller may
    know of, and ``owners`` the tenants among whose ids its own are looked up.
    """

    connection: Connection
    state: State
    columns: Columns
    every: BitMap64
    live: BitMap64
    visible: BitMap64
    owners: tuple[int, ...] = (tenants.OWN,)
    after: int = 0

    def rows(self, tree: Filter) -> BitMap64:
        """Give the row ids that match; deleted ones may be among them. The caller must not change the set."""
        match tree:
            case And(children=children):
                return BitMap64.intersection(*self._parts(children)) if children else self.live
            case Or(children=children):
                return BitMap64.union(*map(self.rows, children)) if children else BitMap64()
            case Not(child=child):
                return self.live - self.rows(child)
            case Compare():
                return self._compared(tree)
            case Ids(ids=ids):
                return BitMap64([row_id for owner in self.owners for row_id in rows.row_ids_of(self.connection, owner, ids)])
            case Where():
                return self._tested_one_by_one(tree)

    def _parts(self, children: Sequence[Filter]) -> Iterator[BitMap64]:
        """Evaluate what must all hold; the bounds of one field together."""
        bounds: defaultdict[str, list[Compare]] = defaultdict(list)
        for child in children:
            # A row may have several values of a dotted path, and each bound may then hold for another one.
            if isinstance(child, Compare) and child.op in RANGES and "." not in child.field:
                bounds[child.field].append(child)
            else:
                yield self.rows(child)
        for of_one_field in bounds.values():
            yield self._present_where(*of_one_field)

    def _compared(self, compare: Compare) -> BitMap64:
        if compare.op in NEGATED:
            return self.live - self._compared(Compare(compare.field, NEGATED[compare.op], compare.value))
        found = self._present_where(compare)
        if not compare.holds([]):
            return found
        return found | (self.live - self._present_where(Compare(compare.field, "exists")))

    def _present_where(self, *compares: Compare) -> BitMap64:
        return self.columns.where(self.connection, self.state, compares, self.after, self.every)

    def _tested_one_by_one(self, tree: Where) -> BitMap64:
        """Ask the function about the rows that the caller may know of, and no others."""
        found: list[int] = []
        for chunk in chunks(self.visible, 1024):
            stored = rows.by_row_ids(self.connection, chunk)
            found.extend(row_id for row_id in chunk if _holds(tree, rows.decoded(stored[row_id])))
        return BitMap64(found)


def _holds(tree: Where, row: Row) -> bool:
    """Ask the function; what goes wrong in a database of its own is not ours."""
    try:
        return matches(tree, row)
    except sqlite3.Error as error:
        raise FilterError(
            f"the function used as a filter raised {error!r} for the id {row.id!r}: correct the function"
        ) from error


@dataclass(frozen=True)
class Remembered:
    """A set of rows, complete up to a row id, as of a commit; rows that were deleted since may be in it."""

    found: BitMap64
    version: int
    last_row_id: int
    size: int


class RememberedMatches:
    """The rows of the last filters, kept up to date: most users ask with the same few filters again.

    A write adds what it brings to each set when the set is asked for next, and nothing is found anew. What a write deletes is
    left to the caller, who takes the living of any set.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: OrderedDict[str, Remembered] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str, version: int) -> Remembered | None:
        """Give what is remembered as of this version or an earlier one; sets of later commits lack what they deleted."""
        with self._lock:
            known = self._known.get(key)
            if known is None or known.version > version:
                return None
            self._known.move_to_end(key)
            return known

    def put(self, key: str, found: BitMap64, state: State) -> None:
        """Remember a set as of a commit, and forget those that were not asked for longest."""
        size = len(found.serialize()) + 2 * sys.getsizeof(key)
        with self._lock:
            known = self._known.get(key)
            if known is None or known.version < state.version:
                self._known[key] = Remembered(found, state.version, state.next_row_id - 1, size)
                self._known.move_to_end(key)
            while self._known and (len(self._known) > MOST_FILTERS or sum(k.size for k in self._known.values()) > MOST_BYTES):
                self._known.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes that the remembered sets take."""
        with self._lock:
            return sum(known.size for known in self._known.values())

    def drop(self) -> None:
        """Forget everything, and take a new lock: the old one may be held by a thread that a forked child does not have."""
        self._lock = Lock()
        self._known = OrderedDict()


def can_be_remembered(tree: Filter) -> bool:
    """Whether the same filter finds the same rows again: a function's answer may change, and ids are rarely asked for twice."""
    return not (holds_a(Where, tree) or holds_a(Ids, tree))
