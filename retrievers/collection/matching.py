"""A filter tree becomes the set of matching row ids, before any search."""

from __future__ import annotations

import sqlite3
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

from pyroaring import BitMap64

from rarebit.errors import FilterError
from rarebit.retrievers.collection import facts, rows
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
from rarebit.retrievers.collection.storage import Connection

MOST_FILTERS = 32
MOST_BYTES = 8 * 2**20
"""What is kept for the next search: at most so many filters, and so many bytes."""


class Matcher:
    """Evaluates filters inside one read transaction."""

    def __init__(self, connection: Connection) -> None:
        """Evaluate against what this transaction sees."""
        self._connection = connection

    def rows(self, tree: Filter) -> BitMap64:
        """Give the row ids that match; the caller must not change the set."""
        match tree:
            case And(children=children):
                return BitMap64.intersection(*self._parts(children)) if children else self._everything
            case Or(children=children):
                return BitMap64.union(*map(self.rows, children)) if children else BitMap64()
            case Not(child=child):
                return self._everything - self.rows(child)
            case Compare():
                return self._compared(tree)
            case Ids(ids=ids):
                return BitMap64(rows.row_ids_of(self._connection, ids))
            case Where():
                return self._tested_one_by_one(tree)

    def _parts(self, children: Sequence[Filter]) -> Iterator[BitMap64]:
        """Evaluate what must all hold; the bounds of one field together."""
        bounds: defaultdict[str, list[Compare]] = defaultdict(list)
        for child in children:
            if isinstance(child, Compare) and child.op in RANGES and "." not in child.field:
                bounds[child.field].append(child)
            else:
                yield self.rows(child)
        for of_one_field in bounds.values():
            yield facts.rows_within(self._connection, of_one_field)

    def _compared(self, compare: Compare) -> BitMap64:
        field, op = compare.field, compare.op
        value: Any = compare.value
        if op in NEGATED:
            return self._everything - self._compared(Compare(field, NEGATED[op], value))
        if op == "eq" and value is None:
            return self._everything - facts.rows_with_value(self._connection, field)
        if op == "is_empty" and value is True:
            return self._everything - facts.rows_filled(self._connection, field)
        if op == "in" and None in value:
            others = Compare(field, "in", [wanted for wanted in value if wanted is not None])
            return self._compared(Compare(field, "eq", None)) | self._compared(others)
        if op in ("is_empty", "exists") and value is False:
            return self._everything - self._compared(Compare(field, op))
        return facts.rows_where(self._connection, compare)

    def _tested_one_by_one(self, tree: Where) -> BitMap64:
        found: list[int] = []
        last = 0
        while stored := rows.after(self._connection, last, limit=1024):
            found.extend(row_id for row_id, row in stored if _holds(tree, row))
            last = stored[-1][0]
        return BitMap64(found)

    @cached_property
    def _everything(self) -> BitMap64:
        return BitMap64([row_id for (row_id,) in self._connection.execute("SELECT row_id FROM codes")])


def _holds(tree: Where, row: Row) -> bool:
    """Ask the function; what goes wrong in a database of its own is not ours."""
    try:
        return matches(tree, row)
    except sqlite3.Error as error:
        raise FilterError(
            f"the function used as a filter raised {error!r} for the id {row.id!r}: correct the function"
        ) from error


class RememberedMatches:
    """The rows of the last filters, for as long as nothing is written: most users ask with the same few filters again."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._version = 0
        self._found: OrderedDict[str, BitMap64] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._lock = Lock()

    def rows(self, connection: Connection, version: int, tree: Filter) -> BitMap64:
        """Give the rows that match as of this version, which is what the connection's transaction sees."""
        # A function's answer may change between calls, and a list of ids is rarely asked for twice.
        if holds_a(Where, tree) or holds_a(Ids, tree):
            return Matcher(connection).rows(tree)
        key = repr(tree)
        with self._lock:
            if version > self._version:
                self._found.clear()
                self._sizes.clear()
                self._version = version
            if version == self._version and key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = Matcher(connection).rows(tree)
        with self._lock:
            if version == self._version:
                self._found[key] = found
                self._sizes[key] = len(found.serialize()) + 2 * sys.getsizeof(key)
                while len(self._found) > MOST_FILTERS or sum(self._sizes.values()) > MOST_BYTES:
                    oldest, _ = self._found.popitem(last=False)
                    del self._sizes[oldest]
        return found

    @property
    def nbytes(self) -> int:
        """Bytes that the remembered sets take."""
        with self._lock:
            return sum(self._sizes.values())

    def after_fork(self) -> None:
        """Take a new lock: the old one may be held by a thread that this process does not have."""
        self._lock = Lock()
