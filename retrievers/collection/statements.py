"""What SQL statements with many values have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from rarebit.retrievers.collection.storage import Connection

T = TypeVar("T")


PARAMETERS = (8, 16, 32, 64, 128, 256, 512)
"""Numbers of parameters that an IN list is padded to, so that few different statements are compiled and cached."""


ROWS_AT_ONCE = 128
"""Rows that one statement inserts. SQLite lets go of the interpreter once for all of them; the thread that encodes the next
batch would otherwise take it row by row."""


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut an iterable into lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def select_in(connection: Connection, select: str, values: Sequence[Any], *before: int) -> list[Any]:
    """Run ``select ... IN (values)``, with every value a bound parameter, after those in the condition before it."""
    found: list[Any] = []
    for chunk in chunks(values, PARAMETERS[-1]):
        size = next(size for size in PARAMETERS if size >= len(chunk))
        padded = chunk + [chunk[-1]] * (size - len(chunk))
        found += connection.execute(f"{select} ({','.join('?' * size)})", (*before, *padded)).fetchall()
    return found


def insert_many(connection: Connection, insert: str, stored: Iterable[tuple[Any, ...]]) -> None:
    """Run ``insert VALUES (...)`` for rows that all have as many columns."""
    for chunk in chunks(stored, ROWS_AT_ONCE):
        one = f"({','.join('?' * len(chunk[0]))})"
        if len(chunk) == ROWS_AT_ONCE:
            connection.execute(f"{insert} VALUES {','.join([one] * len(chunk))}", list(chain.from_iterable(chunk)))
        else:  # row by row: few different statements are compiled and cached
            connection.executemany(f"{insert} VALUES {one}", chunk)
