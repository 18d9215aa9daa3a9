"""Rows that match a filter: as Milvus finds them, and looked at here where its expression is not exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from typing import Any, Final

from rarebit.arrays import Codes
from rarebit.retrievers.collection.filters import And, Filter, Ids, matches
from rarebit.retrievers.engines.milvus.connections import TooLargeError
from rarebit.retrievers.engines.milvus.expressions import Condition
from rarebit.retrievers.engines.milvus.packed import PACKED, Found, row_of
from rarebit.retrievers.engines.milvus.rows import FETCHED, MOST, Numbered, Rows

FEWEST: Final = 64
"""Rows that are asked for together, at least."""

MORE: Final = 4
"""Times as many candidates are asked for, where too few of them match."""


def matching(
    rows: Rows, tenant: str | None, tree: Filter | None, fields: Sequence[str], *, after: int = 0, limit: int | None = None
) -> list[Found]:
    """Give fields of rows that match, in the order of insertion, behind a number.

    At most so many, and those beside that have the last one's number: what is asked for behind it would lack them.
    """
    condition = Condition(tenant, tree)
    if _most(tree) is None:
        return list(_cut(_in_order(rows, condition, fields, after, limit), limit))
    parts = [Condition(tenant, part) for part in _by_ids(tree)]
    if limit is None:
        found = [row for part in parts for row in _named(rows, part, fields) if row["row_id"] > after]
        return sorted(found, key=lambda row: (int(row["row_id"]), str(row["key"])))
    named = sorted(each for part in parts for some in rows.numbered(part.text, after) for each in some)
    return list(_cut(_of(rows, condition, named, fields, limit), limit))


def _cut(found: Iterator[Found], limit: int | None) -> Iterator[Found]:
    """End behind so many rows, but never between two of the same number."""
    if limit is None:
        yield from found
        return
    last = None
    for row in islice(found, limit):
        last = row["row_id"]
        yield row
    if last is not None:
        yield from takewhile(lambda row: row["row_id"] == last, found)


def numbered(rows: Rows, tenant: str | None, tree: Filter | None) -> list[Numbered]:
    """Give numbers and keys of all rows that match, in the order of insertion."""
    condition = Condition(tenant, tree)
    if condition.is_exact and _most(tree) is None:
        return [each for part in rows.numbered(condition.text) for each in part]
    return [Numbered(row["row_id"], row["key"]) for row in matching(rows, tenant, tree, ("key",))]


def count(rows: Rows, tenant: str | None, tree: Filter | None, most: int | None) -> int:
    """Count what matches; up to ``most``, where rows have to be looked at."""
    condition = Condition(tenant, tree)
    if _most(tree) is not None or condition.unsure is None:
        return len(matching(rows, tenant, tree, ("key",), limit=most))
    counted = rows.count(condition.text)
    if condition.is_exact or not counted:
        return counted
    unsure = [row_of(row) for part in rows.numbered(condition.unsure) for row in rows.fetched(part, [PACKED])]
    return counted - sum(not _holds(condition, row) for row in unsure)


def nearest(rows: Rows, condition: Condition, planes: Codes, wanted: int) -> Iterator[list[Found]]:
    """Give, for each query, the rows with the fewest other bits among those that match, or all that match.

    Where rows have to be looked at, more are asked for until enough of them match, and in the end all that may. Long rows that
    have not been looked at are cut.
    """
    if wanted > MOST:
        every = list(_in_order(rows, condition, [PACKED]))
        yield from (every for _ in planes)
        return
    found = rows.nearest(planes, condition.text, wanted)
    for place, own in enumerate(found):
        yield own if condition.is_exact else _enough(rows, condition, planes[place : place + 1], wanted, own)


def _enough(rows: Rows, condition: Condition, plane: Codes, wanted: int, found: list[Found]) -> list[Found]:
    asked = wanted
    while True:
        kept = [row for row in rows.completed(found) if _holds(condition, row_of(row))]
        if len(kept) >= wanted or len(found) < asked:
            return kept[:wanted]
        if asked >= MOST:
            return list(_in_order(rows, condition, [PACKED]))
        asked = min(MOST, MORE * asked)
        found = rows.nearest(plane, condition.text, asked)[0]


def _in_order(
    rows: Rows, condition: Condition, fields: Sequence[str], after: int = 0, limit: int | None = None
) -> Iterator[Found]:
    for part in rows.numbered(condition.text, after):
        yield from _of(rows, condition, part, fields, limit)


def _of(
    rows: Rows, condition: Condition, part: Sequence[Numbered], fields: Sequence[str], limit: int | None
) -> Iterator[Found]:
    """Give rows by their numbers, not many more than are wanted."""
    size = FETCHED if limit is None else min(FETCHED, max(FEWEST, limit)) + 1  # the next one's number is looked at
    yield from _looked_at(condition, rows.fetched(part, _needed(condition, fields), size))


def _named(rows: Rows, condition: Condition, fields: Sequence[str]) -> Iterator[Found]:
    """Give rows of which so few may match that they are asked for at once."""
    needed = _needed(condition, fields)
    with suppress(TooLargeError):
        found = rows.few(condition.text, [*needed, "key", "row_id"], FETCHED + 1)
        if len(found) <= FETCHED:
            return _looked_at(condition, iter(found))
    return _in_order(rows, condition, fields)  # they are too large, or beside those that are named there are odd ones


def _needed(condition: Condition, fields: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(fields if condition.is_exact else (*fields, PACKED)))


def _looked_at(condition: Condition, found: Iterator[Found]) -> Iterator[Found]:
    return found if condition.is_exact else (row for row in found if _holds(condition, row_of(row)))


def _holds(condition: Condition, row: Any) -> bool:
    return condition.tree is None or matches(condition.tree, row)


def _joined(tree: Filter | None) -> list[Filter]:
    """Give what all has to match: what is in an ``And``, and in those within it."""
    match tree:
        case None:
            return []
        case And(children=children):
            return [each for child in children for each in _joined(child)]
    return [tree]


def _fewest_ids(tree: Filter | None) -> Ids | None:
    """Give the filter by ids that names the fewest, among those that have to match."""
    return min((each for each in _joined(tree) if isinstance(each, Ids)), key=lambda each: len(each.ids), default=None)


def _most(tree: Filter | None) -> int | None:
    """Say how many rows of a tenant can match at most, where ids are named."""
    named = _fewest_ids(tree)
    return None if named is None else len(named.ids)


def _by_ids(tree: Filter | None) -> list[Filter | None]:
    """Split a filter that names many ids into some that name few each."""
    named = _fewest_ids(tree)
    if named is None or len(named.ids) <= FETCHED:
        return [tree]
    every = list(dict.fromkeys(named.ids))
    rest = [each for each in _joined(tree) if each is not named]
    parts = [Ids(tuple(every[start : start + FETCHED])) for start in range(0, len(every), FETCHED)]
    return [And(part, *rest) if rest else part for part in parts]
