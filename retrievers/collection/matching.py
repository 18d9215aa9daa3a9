"""A filter tree becomes the set of matching row ids, before any search."""

from __future__ import annotations

import sys
from collections import OrderedDict
from functools import cached_property
from threading import Lock
from typing import Any

from pyroaring import BitMap64

from rarebit.retrievers.collection import facts, rows
from rarebit.retrievers.collection.filters import NEGATED, And, Compare, Filter, Ids, Not, Or, Where, matches
from rarebit.retrievers.collection.storage import Connection

REMEMBERED = 32
"""Filters whose rows are kept for the next search."""


class Matcher:
    """Evaluates filters inside one read transaction."""

    def __init__(self, connection: Connection) -> None:
        """Evaluate against what this transaction sees."""
        self._connection = connection

    def rows(self, tree: Filter) -> BitMap64:
        """Give the row ids that match; the caller must not change the set."""
        match tree:
            case And(children=children):
                return BitMap64.intersection(*map(self.rows, children)) if children else self._everything
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
            found.extend(row_id for row_id, row in stored if matches(tree, row))
            last = stored[-1][0]
        return BitMap64(found)

    @cached_property
    def _everything(self) -> BitMap64:
        return BitMap64([row_id for (row_id,) in self._connection.execute("SELECT row_id FROM codes")])


class RememberedMatches:
    """The rows of the last filters, for as long as nothing is written: most users ask with the same few filters again."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._version = 0
        self._found: OrderedDict[str, BitMap64] = OrderedDict()
        self._lock = Lock()

    def rows(self, connection: Connection, version: int, tree: Filter) -> BitMap64:
        """Give the rows that match as of this version, which is what the connection's transaction sees."""
        if _has_function(tree):
            return Matcher(connection).rows(tree)
        key = repr(tree)
        with self._lock:
            if version > self._version:
                self._found.clear()
                self._version = version
            if version == self._version and key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = Matcher(connection).rows(tree)
        with self._lock:
            if version == self._version:
                self._found[key] = found
                while len(self._found) > REMEMBERED:
                    self._found.popitem(last=False)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes that the remembered sets take."""
        with self._lock:
            return sum(len(found.serialize()) + sys.getsizeof(key) for key, found in self._found.items())


def _has_function(tree: Filter) -> bool:
    """Whether the tree asks Python code, whose answer may change between calls."""
    match tree:
        case And(children=children) | Or(children=children):
            return any(map(_has_function, children))
        case Not(child=child):
            return _has_function(child)
    return isinstance(tree, Where)
