"""Metadata, inverted: one fact a field and row, so that a comparison is a look into an index and not a walk over rows.

A fact is (field, kind, value). Numbers and short strings are stored as themselves, so SQLite compares them exactly as
Python does; lists are stored as JSON; what is long, and what SQLite cannot hold exactly, is read from the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pyroaring import BitMap64

from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection.filters import RANGES, Compare, is_finite_number, values_at
from rarebit.retrievers.collection.storage import Connection

Fact: TypeAlias = tuple[str, str, Any]

NULL, NUMBER, STRING, LIST, ELSEWHERE = "0", "n", "s", "l", "x"
"""The kinds. The value of ELSEWHERE stands in the row's metadata."""

LONGEST = 256
"""Characters of the longest string or list that is kept in a fact; longer ones are rarely compared as a whole."""

_SQL_RANGES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def facts_of(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[Fact]:
    """Give the facts of one row's metadata; those of inner dictionaries have dotted field names."""
    for key, value in metadata.items():
        field = prefix + key
        yield (field, *_stored(value))
        if isinstance(value, dict):
            yield from facts_of(value, f"{field}.")


def decoded(stored: str) -> Any:
    """Decode JSON that a file holds.

    Raises:
        DamagedFileError: it is none.
    """
    try:
        return json.loads(stored)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFileError(f"the metadata in the file is no JSON ({error}): restore it from a backup") from error


def rows_where(connection: Connection, compare: Compare) -> BitMap64:
    """Find the rows that have the field and whose value satisfies an operator that is not a negation.

    Callers handle ``ne``, ``nin``, ``is_empty`` and ``eq None`` as complements, since a row without the field has no fact.
    """
    if compare.op == "exists":
        return _rows_found(connection.execute("SELECT row_id FROM facts WHERE field = ?", (compare.field,)))
    found = BitMap64()
    scanned = [NUMBER, STRING, LIST, ELSEWHERE]
    if _in_sql(compare):
        scanned = [ELSEWHERE]
        for kind, condition, values in _conditions(compare):
            sql = f"SELECT row_id FROM facts WHERE field = ? AND kind = ? AND value {condition}"
            found |= _rows_found(connection.execute(sql, (compare.field, kind, *values)))
    for kind in scanned:
        found |= _scan(connection, compare, kind)
    return found


def rows_within(connection: Connection, bounds: Sequence[Compare]) -> BitMap64:
    """Find the rows whose value lies within all bounds (``gt``, ``gte``, ``lt``, ``lte``) on one field: one walk, not several.

    The field must not have a dot, so that each row has one value of it.
    """
    kinds = {_kind(bound.value) for bound in bounds}
    if len(kinds) > 1 or None in kinds:
        return BitMap64.intersection(*(rows_where(connection, bound) for bound in bounds))
    conditions = "".join(f" AND value {_SQL_RANGES[bound.op]} ?" for bound in bounds)
    sql = f"SELECT row_id FROM facts WHERE field = ? AND kind = ?{conditions}"
    within = _rows_found(connection.execute(sql, (bounds[0].field, *kinds, *(bound.value for bound in bounds))))
    return within | BitMap64.intersection(*(_scan(connection, bound, ELSEWHERE) for bound in bounds))


def rows_with_value(connection: Connection, field: str) -> BitMap64:
    """Find the rows that have the field with something else than null in it."""
    sql = "SELECT row_id FROM facts WHERE field = ? AND kind > ?"
    return _rows_found(connection.execute(sql, (field, NULL)))


def rows_filled(connection: Connection, field: str) -> BitMap64:
    """Find the rows that have the field with something else than null, "" or [] in it."""
    sql = (
        "SELECT row_id FROM facts WHERE field = ? AND kind > ? "
        "AND NOT (kind = ? AND value = '') AND NOT (kind = ? AND value = '[]')"
    )
    return _rows_found(connection.execute(sql, (field, NULL, STRING, LIST)))


def _stored(value: Any) -> tuple[str, Any]:
    if isinstance(value, str):  # first, since most are
        return (STRING, value) if len(value) <= LONGEST else (ELSEWHERE, "")
    if value is None:
        return NULL, ""
    if is_finite_number(value):
        return NUMBER, value
    if isinstance(value, list | tuple):
        encoded = json.dumps(value, ensure_ascii=False)
        return (LIST, encoded) if len(encoded) <= LONGEST else (ELSEWHERE, "")
    return ELSEWHERE, ""


def _in_sql(compare: Compare) -> bool:
    if compare.op == "in":
        return all(_kind(value) for value in compare.value)
    return compare.op in ("eq", *RANGES) and _kind(compare.value) is not None


def _kind(value: Any) -> str | None:
    if is_finite_number(value):
        return NUMBER
    return STRING if isinstance(value, str) else None


def _conditions(compare: Compare) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Give (kind, condition on the value, its parameters) for a comparison that SQLite can make."""
    values = compare.value if compare.op == "in" else [compare.value]
    condition = f"{_SQL_RANGES.get(compare.op, '=')} ?"
    for value in values:
        kind = _kind(value)
        if kind is not None:
            yield kind, condition, (value,)


def _scan(connection: Connection, compare: Compare, kind: str) -> BitMap64:
    """Ask the comparison itself, once for each distinct value; facts come ordered by value."""
    if kind == ELSEWHERE:
        return _scan_rows(connection, compare)
    found: list[int] = []
    last: Any = None
    holds = False
    for value, row_id in connection.execute(
        "SELECT value, row_id FROM facts WHERE field = ? AND kind = ?", (compare.field, kind)
    ):
        if last is None or value != last:
            holds = compare.holds([decoded(value) if kind == LIST else value])
            last = value
        if holds:
            found.append(row_id)
    return _bitmap(found)


def _scan_rows(connection: Connection, compare: Compare) -> BitMap64:
    sql = "SELECT row_id, metadata FROM rows WHERE row_id IN (SELECT row_id FROM facts WHERE field = ? AND kind = ?)"
    stored = connection.execute(sql, (compare.field, ELSEWHERE))
    return _bitmap(row_id for row_id, metadata in stored if compare.holds(list(values_at(decoded(metadata), compare.field))))


def _rows_found(cursor: Iterable[tuple[int]]) -> BitMap64:
    return _bitmap(row_id for (row_id,) in cursor)


def _bitmap(row_ids: Iterable[int]) -> BitMap64:
    every = list(row_ids)
    try:
        return BitMap64(every)
    except (OverflowError, TypeError) as error:
        raise DamagedFileError(
            f"the metadata's index names a row that cannot be ({error}): restore it from a backup"
        ) from error
