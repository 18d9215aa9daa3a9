"""The SQL of rows: insert, replace, delete, read. Every function works inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from rarebit.arrays import Codes, FineCodes, RowIds
from rarebit.errors import DamagedFileError, InputError, MetadataError
from rarebit.retrievers.collection import facts
from rarebit.retrievers.collection.records import Metadata, Row
from rarebit.retrievers.collection.schema import REMOVALS_KEPT
from rarebit.retrievers.collection.storage import Connection, read_state

T = TypeVar("T")

StoredRow: TypeAlias = tuple[int, str, str, str]
"""Row id, id, text, metadata as JSON."""

DEEPEST = 64
"""Levels of dictionaries and lists that metadata may have."""

PARAMETERS = (8, 16, 32, 64, 128, 256, 512)
"""Numbers of parameters that an IN list is padded to, so that few different statements are compiled and cached."""


class NewRow(NamedTuple):
    """A row on its way in: its metadata already encoded."""

    id: str
    text: str
    metadata: Metadata
    encoded: str


def new_row(key: str, text: str, metadata: Mapping[str, Any] | None) -> NewRow:
    """Encode and check one row; raises InputError, and MetadataError for what JSON cannot hold without loss."""
    if not isinstance(text, str):
        raise InputError(f"got a text of type {type(text).__name__} for id {key!r}, wanted a string")
    try:
        f"{key}{text}".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the id or text {key!r} is not valid Unicode ({error}): decode it with errors='replace'") from error
    encoded = _encoded(key, {} if metadata is None else metadata)
    return NewRow(key, text, json.loads(encoded), encoded)


def replace(connection: Connection, new: Sequence[NewRow], codes: Codes, fine: FineCodes | None) -> None:
    """Insert rows with their codes; rows that have one of the ids already are replaced and get a new row id."""
    delete(connection, row_ids_of(connection, [row.id for row in new]))
    first = read_state(connection).next_row_id
    row_ids = range(first, first + len(new))
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?)",
        ((row_id, row.id, row.text, row.encoded) for row_id, row in zip(row_ids, new, strict=True)),
    )
    insert_codes(connection, "codes", row_ids, codes)
    if fine is not None:
        insert_codes(connection, "fine", row_ids, fine)
    connection.executemany(
        "INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?)",
        ((*fact, row_id) for row_id, row in zip(row_ids, new, strict=True) for fact in facts.facts_of(row.metadata)),
    )
    connection.execute("INSERT INTO lexical (rowid, text) SELECT row_id, text FROM rows WHERE row_id >= ?", (first,))
    connection.execute("UPDATE state SET row_count = row_count + ?, next_row_id = ?", (len(new), row_ids.stop))


def insert_codes(connection: Connection, table: str, row_ids: Iterable[int], codes: Codes) -> None:
    """Write codes into ``codes`` or ``fine``."""
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", zip(row_ids, map(bytes, codes), strict=True))


def delete(connection: Connection, row_ids: Sequence[int]) -> int:
    """Delete rows and everything derived from them; the row ids are not used again. Returns how many were deleted."""
    for chunk in chunks(row_ids, PARAMETERS[-1]):
        stored = _select_in(connection, "SELECT row_id, text, metadata FROM rows WHERE row_id IN", chunk)
        connection.executemany(
            "INSERT INTO lexical (lexical, rowid, text) VALUES ('delete', ?, ?)", ((row_id, text) for row_id, text, _ in stored)
        )
        connection.executemany(
            "DELETE FROM facts WHERE field = ? AND kind = ? AND value = ? AND row_id = ?",
            ((*fact, row_id) for row_id, _, metadata in stored for fact in facts.facts_of(facts.decoded(metadata))),
        )
        for table in ("rows", "codes", "fine"):
            connection.executemany(f"DELETE FROM {table} WHERE row_id = ?", ((row_id,) for row_id in chunk))
        connection.executemany("INSERT INTO removals (row_id) VALUES (?)", ((row_id,) for row_id in chunk))
    connection.execute("UPDATE state SET row_count = row_count - ?", (len(row_ids),))
    return len(row_ids)


def delete_all(connection: Connection) -> int:
    """Delete every row at once, and the codec that was trained on them."""
    count = read_state(connection).row_count
    for table in ("rows", "codes", "fine", "facts", "removals", "codec"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("INSERT INTO lexical (lexical) VALUES ('delete-all')")
    connection.execute("UPDATE state SET row_count = 0, generation = generation + 1")
    return count


def finish(connection: Connection) -> None:
    """End a write: count the commit, and forget the deletions that no reader is expected to follow any more."""
    connection.execute("UPDATE state SET version = version + 1")
    newest = latest_removal(connection)
    if newest - read_state(connection).removals_forgotten > 2 * REMOVALS_KEPT:
        forgotten = newest - REMOVALS_KEPT
        connection.execute("DELETE FROM removals WHERE number <= ?", (forgotten,))
        connection.execute("UPDATE state SET removals_forgotten = ?", (forgotten,))


def latest_removal(connection: Connection) -> int:
    """Number of the newest deletion, 0 before the first."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'removals'").fetchone()
    return int(row[0]) if row else 0


def row_ids_of(connection: Connection, ids: Sequence[str]) -> list[int]:
    """Give the row ids of the ids that exist, in no particular order."""
    return [row_id for (row_id,) in _select_in(connection, "SELECT row_id FROM rows WHERE id IN", ids)]


def by_ids(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[int, Row]]:
    """Read rows by their ids."""
    found = _select_in(connection, "SELECT row_id, id, text, metadata FROM rows WHERE id IN", ids)
    return {row.id: (row_id, row) for row_id, row in map(_row, found)}


def by_row_ids(connection: Connection, row_ids: Sequence[int]) -> dict[int, StoredRow]:
    """Read rows by their row ids; each is decoded where it is used, so that no two results share their metadata."""
    found = _select_in(connection, "SELECT row_id, id, text, metadata FROM rows WHERE row_id IN", row_ids)
    if len(found) < len(set(row_ids)):
        raise DamagedFileError(f"{len(set(row_ids)) - len(found)} rows are missing from the file: restore it from a backup")
    return {stored[0]: stored for stored in found}


def after(connection: Connection, row_id: int, limit: int) -> list[tuple[int, Row]]:
    """Read the rows that follow a row id, in the order of insertion."""
    found = connection.execute(
        "SELECT row_id, id, text, metadata FROM rows WHERE row_id > ? ORDER BY row_id LIMIT ?", (row_id, limit)
    )
    return list(map(_row, found))


def codes_of(connection: Connection, table: str, row_ids: Sequence[int], code_size: int) -> tuple[RowIds, Codes]:
    """Read the codes of rows from ``codes`` or ``fine``, ordered by row id; rows without one are left out."""
    return _matrix(sorted(_select_in(connection, f"SELECT row_id, code FROM {table} WHERE row_id IN", row_ids)), code_size)


def codes_between(connection: Connection, first: int, last: int, code_size: int, limit: int) -> tuple[RowIds, Codes]:
    """Read at most ``limit`` codes of the row ids ``first`` to ``last``, both included, in their order."""
    found = connection.execute(
        "SELECT row_id, code FROM codes WHERE row_id BETWEEN ? AND ? ORDER BY row_id LIMIT ?", (first, last, limit)
    )
    return _matrix(found, code_size)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut an iterable into lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _select_in(connection: Connection, select: str, values: Sequence[Any]) -> list[Any]:
    """Run ``select ... IN (values)``, with every value a bound parameter."""
    found: list[Any] = []
    for chunk in chunks(values, PARAMETERS[-1]):
        size = next(size for size in PARAMETERS if size >= len(chunk))
        padded = chunk + [chunk[-1]] * (size - len(chunk))
        found += connection.execute(f"{select} ({','.join('?' * size)})", padded).fetchall()
    return found


def decoded(stored: StoredRow) -> Row:
    """Decode a stored row."""
    row_id, key, text, metadata = stored
    if not (isinstance(key, str) and isinstance(text, str)):
        raise DamagedFileError(f"row {row_id} holds something else than texts: restore the file from a backup")
    try:
        return Row(key, text, json.loads(metadata))
    except ValueError as error:
        raise DamagedFileError(
            f"the metadata of row {row_id} (id {key!r}) is no JSON ({error}): restore the file from a backup"
        ) from error


def _row(stored: StoredRow) -> tuple[int, Row]:
    return stored[0], decoded(stored)


def _matrix(found: Iterable[tuple[int, bytes]], code_size: int) -> tuple[RowIds, Codes]:
    pairs = list(found)
    try:
        joined = b"".join(code for _, code in pairs)
    except TypeError as error:
        raise DamagedFileError(f"a code in the file is none ({error}): restore the file from a backup") from error
    if len(joined) != len(pairs) * code_size:
        raise DamagedFileError(
            f"{len(pairs)} stored codes have {len(joined)} bytes, wanted {len(pairs) * code_size}: "
            "restore the file from a backup"
        )
    row_ids = np.fromiter((row_id for row_id, _ in pairs), dtype=np.int64, count=len(pairs))
    return row_ids, np.frombuffer(joined, dtype=np.uint8).reshape(len(pairs), code_size)


def _encoded(key: str, metadata: Mapping[str, Any]) -> str:
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError(f"it is a {type(metadata).__name__}")  # noqa: TRY301
        metadata = dict(metadata)
        _check_keys(metadata)
        encoded = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(
            f"the metadata of id {key!r} cannot be kept as JSON ({error}): wanted a dictionary with string keys and "
            "strings, finite numbers, booleans, None, lists and dictionaries as values; convert dates and the like first"
        ) from error
    return encoded


def _check_keys(value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int = 1) -> None:
    """JSON would turn other keys into strings without a word; what is nested very deeply cannot be read again."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is a {type(key).__name__}")
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list, tuple)):
            _check_keys(inner, depth + 1)
