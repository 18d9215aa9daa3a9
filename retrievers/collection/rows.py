"""The SQL of rows: insert, replace, delete, read. Every function works inside the caller's transaction."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from pyroaring import BitMap64

from rarebit.errors import DamagedFileError, InputError, MetadataError
from rarebit.retrievers.collection import checksums
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.schema import COMMITS_KEPT, REMOVALS_KEPT
from rarebit.retrievers.collection.state import changed_state, save_state_checksum
from rarebit.retrievers.collection.statements import PARAMETERS, chunks, insert_many, select_in
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.stored_codes import Encoded, StoredCodes, write_codes, write_fine
from rarebit.retrievers.near_duplicates import NearDuplicateIndex
from rarebit.retrievers.near_duplicates.stored import Bands, note

StoredRow: TypeAlias = tuple[int, int, str, str, str, int]
"""Row id, tenant, id, metadata as JSON, text, checksum."""

StoredHead: TypeAlias = tuple[int, int, str, str, int]
"""Row id, tenant, id, metadata as JSON, checksum."""

SELECT_ROW = "SELECT row_id, tenant, id, metadata, text, checksum FROM rows"
SELECT_HEAD = "SELECT row_id, tenant, id, metadata, checksum FROM rows"

DEEPEST = 64
"""Levels of dictionaries and lists that metadata may have."""


SELECT_TENANT = "SELECT number, name, row_count, checksum FROM tenants"


class StoredTenant(NamedTuple):
    """A tenant: its number, its name, and how many rows are its own."""

    number: int
    name: str
    row_count: int


class NewRow(NamedTuple):
    """A row on its way in: its metadata already encoded."""

    id: str
    text: str
    encoded: str


def new_row(key: str, text: str, metadata: Mapping[str, Any] | None) -> NewRow:
    """Encode and check one row; raises InputError, and MetadataError for what JSON cannot hold without loss."""
    if not isinstance(text, str):
        raise InputError(f"got a text of type {type(text).__name__} for id {key!r}, wanted a string")
    text = str.__str__(text)  # of a kind of strings, what SQLite and a checksum take of it
    try:
        f"{key}{text}".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the id or text {key!r} is not valid Unicode ({error}): decode it with errors='replace'") from error
    return NewRow(key, text, "{}" if metadata is None else _encoded(key, metadata))


def insert(connection: Connection, tenant: int, new: Sequence[NewRow], encoded: Encoded, bands: Bands | None) -> None:
    """Insert rows of a tenant with their codes, and the bands of their texts where near-duplicates are looked for.

    Rows of the tenant that have one of the ids already must be deleted before.
    """
    first = changed_state(connection).next_row_id
    row_ids = np.arange(first, first + len(new), dtype=np.int64)
    numbered = zip(row_ids.tolist(), new, strict=True)
    stored = (
        (row_id, tenant, key, metadata, checksums.of_row(row_id, tenant, key, metadata, text), text)
        for row_id, (key, text, metadata) in numbered
    )
    insert_many(connection, "INSERT INTO rows", stored)
    lists = np.zeros_like(row_ids) if encoded.lists is None else encoded.lists
    write_codes(connection, "codes", StoredCodes(row_ids, np.full_like(row_ids, tenant), lists, encoded.codes))
    if encoded.fine is not None:
        write_fine(connection, "fine", row_ids, encoded.fine)
    if bands is not None:
        note(connection, tenant, row_ids.tolist(), bands)
    connection.execute("INSERT INTO lexical (rowid, text) SELECT row_id, text FROM rows WHERE row_id >= ?", (first,))
    connection.execute("UPDATE state SET next_row_id = ?", (first + len(new),))
    _count(connection, tenant, len(new))


def delete(connection: Connection, tenant: int, row_ids: Sequence[int], near: NearDuplicateIndex | None) -> int:
    """Delete rows of a tenant and everything derived from them; returns how many. The row ids are not used again."""
    for chunk in chunks(row_ids, PARAMETERS[-1]):
        texts = [(row_id, decoded(stored).text) for row_id, stored in by_row_ids(connection, chunk).items()]
        if near is not None:
            near.remove(connection, [(row_id, tenant, text) for row_id, text in texts])
        connection.executemany("INSERT INTO lexical (lexical, rowid, text) VALUES ('delete', ?, ?)", texts)
        for table in ("rows", "codes", "fine"):
            connection.executemany(f"DELETE FROM {table} WHERE row_id = ?", ((row_id,) for row_id in chunk))
        if connection.executemany("DELETE FROM shared WHERE row_id = ?", ((row_id,) for row_id in chunk)).rowcount:
            connection.execute("UPDATE state SET sharing = sharing + 1")
        connection.executemany("INSERT INTO removals (row_id) VALUES (?)", ((row_id,) for row_id in chunk))
    _count(connection, tenant, -len(row_ids))
    return len(row_ids)


def delete_all(connection: Connection) -> int:
    """Delete every row at once, of every tenant, and the codec that was trained on them."""
    count = changed_state(connection).row_count
    for table in ("rows", "codes", "fine", "shared", "near_duplicates", "removals", "codec", "lists"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("INSERT INTO lexical (lexical) VALUES ('delete-all')")
    for (tenant,) in connection.execute("SELECT number FROM tenants WHERE row_count <> 0").fetchall():
        save_tenant(connection, tenant_of(connection, tenant)._replace(row_count=0))
    sql = "UPDATE state SET row_count = 0, tenant_rows = 0, generation = generation + 1, sharing = sharing + 1"
    connection.execute(sql)
    return count


def finish(connection: Connection) -> None:
    """End a write: count and name the commit, and forget the deletions that no reader is expected to follow any more."""
    connection.execute("UPDATE state SET version = version + 1")
    state = changed_state(connection)
    connection.execute("INSERT INTO commits VALUES (?, ?)", (state.version, secrets.randbits(63)))
    connection.execute("DELETE FROM commits WHERE version <= ?", (state.version - COMMITS_KEPT,))
    newest = latest_removal(connection)
    if newest - state.removals_forgotten > 2 * REMOVALS_KEPT:
        forgotten = newest - REMOVALS_KEPT
        connection.execute("DELETE FROM removals WHERE number <= ?", (forgotten,))
        connection.execute("UPDATE state SET removals_forgotten = ?", (forgotten,))
    save_state_checksum(connection)


def latest_removal(connection: Connection) -> int:
    """Number of the newest deletion, 0 before the first."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'removals'").fetchone()
    return int(row[0]) if row else 0


def row_ids_of(connection: Connection, tenant: int, ids: Sequence[str]) -> list[int]:
    """Give the row ids of those of a tenant's own ids that exist, in no particular order.

    Raises:
        DamagedFileError: the index of ids leads to another row.
    """
    return list(stored_ids(connection, tenant, ids).values())


def stored_ids(connection: Connection, tenant: int, ids: Collection[str]) -> dict[str, int]:
    """Give those of a tenant's own ids that exist, with their row ids, as :func:`row_ids_of`."""
    heads = select_in(connection, f"{SELECT_HEAD} WHERE tenant = ? AND id IN", list(ids), tenant)
    return {head[2]: head[0] for head in heads if checked_metadata(head) is not None}


def replaced_by(connection: Connection, tenant: int, row_ids: Sequence[int]) -> list[int]:
    """Give those of the rows whose ids rows of a tenant have too."""
    sql = "SELECT ours.row_id FROM rows ours JOIN rows mine ON mine.tenant = ? AND mine.id = ours.id WHERE ours.row_id IN"
    return [row_id for (row_id,) in select_in(connection, sql, row_ids, tenant)]


def shared_of(connection: Connection, ids: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """Give what is said about sharing rows of the collection: id, tenant, row id, seen, checksum."""
    sql = "SELECT id, shared.tenant, row_id, seen, shared.checksum FROM rows JOIN shared USING (row_id)"
    return select_in(connection, f"{sql} WHERE rows.tenant = 0 AND id IN", ids)


def by_ids(connection: Connection, tenant: int, ids: Sequence[str]) -> dict[str, tuple[int, Row]]:
    """Read a tenant's own rows by their ids."""
    found = select_in(connection, f"{SELECT_ROW} WHERE tenant = ? AND id IN", ids, tenant)
    return {row.id: (row_id, row) for row_id, row in map(_row, found)}


def by_row_ids(connection: Connection, row_ids: Sequence[int]) -> dict[int, StoredRow]:
    """Read rows by their row ids; each is decoded where it is used, so that no two results share their metadata."""
    found = select_in(connection, f"{SELECT_ROW} WHERE row_id IN", row_ids)
    if len(found) < len(set(row_ids)):
        raise DamagedFileError(f"{len(set(row_ids)) - len(found)} rows are missing from the file: restore it from a backup")
    return {stored[0]: stored for stored in found}


def after(connection: Connection, row_id: int, limit: int) -> list[tuple[int, Row]]:
    """Read the rows that follow a row id, in the order of insertion."""
    found = connection.execute(f"{SELECT_ROW} WHERE row_id > ? ORDER BY row_id LIMIT ?", (row_id, limit))
    return list(map(_row, found))


def row_ids_between(connection: Connection, first: int, stop: int) -> BitMap64:
    """Give the row ids from ``first`` that are below ``stop``."""
    return bitmap(connection.execute("SELECT row_id FROM codes WHERE row_id >= ? AND row_id < ?", (first, stop)))


def removed_since(connection: Connection, number: int) -> BitMap64:
    """Give the row ids that were deleted after the deletion of this number."""
    return bitmap(connection.execute("SELECT row_id FROM removals WHERE number > ?", (number,)))


def bitmap(found: Iterable[tuple[int]]) -> BitMap64:
    """Give the row ids that a query finds.

    Raises:
        DamagedFileError: one of them is none.
    """
    try:
        return BitMap64([row_id for (row_id,) in found])
    except (TypeError, OverflowError) as error:
        raise DamagedFileError(f"a row of the file has no number ({error}): restore it from a backup") from error


def tenant_of(connection: Connection, number: int) -> StoredTenant:
    """Read what the file says about a tenant.

    Raises:
        DamagedFileError: it is not what was stored.
    """
    return checked_tenant(connection.execute(f"{SELECT_TENANT} WHERE number = ?", (number,)).fetchone())


def checked_tenant(stored: tuple[int, str, int, int] | None) -> StoredTenant:
    """Compare a tenant with its checksum."""
    if stored is None or checksums.of_parts(*stored[:-1]) != stored[-1]:
        raise DamagedFileError("what the file says about a tenant is not what was stored: restore it from a backup")
    return StoredTenant(*stored[:-1])


def save_tenant(connection: Connection, tenant: StoredTenant) -> None:
    """Write what there is to say about a tenant that has a number."""
    sql = "UPDATE tenants SET row_count = ?, checksum = ? WHERE number = ?"
    connection.execute(sql, (tenant.row_count, checksums.of_parts(*tenant), tenant.number))


def decoded(stored: StoredRow) -> Row:
    """Check and decode a stored row.

    Raises:
        DamagedFileError: it is not what was stored.
    """
    row_id, tenant, key, metadata, text, checksum = stored
    try:
        if checksums.of_row(row_id, tenant, key, metadata, text) != checksum:
            raise ValueError("its checksum differs")  # noqa: TRY301
        return Row(key, text, json.loads(metadata))
    except (ValueError, TypeError) as error:
        raise DamagedFileError(
            f"row {row_id} of the file (id {key!r}) is not what was stored ({error}): restore the file from a backup"
        ) from error


def _count(connection: Connection, tenant: int, change: int) -> None:
    """Keep count of the rows, and of those of each tenant."""
    if not tenant:
        connection.execute("UPDATE state SET row_count = row_count + ?", (change,))
        return
    counted = tenant_of(connection, tenant)
    save_tenant(connection, counted._replace(row_count=counted.row_count + change))
    connection.execute("UPDATE state SET row_count = row_count + ?, tenant_rows = tenant_rows + ?", (change, change))


def checked_metadata(head: StoredHead) -> str:
    """Give the metadata of a row as JSON, once it is known to be that of the row.

    Raises:
        DamagedFileError: it is not what was stored.
    """
    row_id, tenant, key, metadata, checksum = head
    if not isinstance(checksum, int) or not checksums.is_head(row_id, tenant, key, metadata, checksum):
        raise DamagedFileError(
            f"row {row_id} of the file (id {key!r}) is not what was stored (its checksum differs): restore it from a backup"
        )
    return metadata


def _row(stored: StoredRow) -> tuple[int, Row]:
    return stored[0], decoded(stored)


def _encoded(key: str, metadata: Mapping[str, Any]) -> str:
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError(f"it is a {type(metadata).__name__}")  # noqa: TRY301
        metadata = dict(metadata)
        _check_keys(metadata)
        encoded = _ENCODE(metadata)
        encoded.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(
            f"the metadata of id {key!r} cannot be kept as JSON ({error}): wanted a dictionary with string keys and "
            "strings, finite numbers, booleans, None, lists and dictionaries as values; convert dates and the like first"
        ) from error
    return encoded


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_PLAIN = (str, int, float, bool, type(None))


def _check_keys(value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int = 1) -> None:
    """JSON would turn other keys into strings without a word; what is nested very deeply cannot be read again."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is a {type(key).__name__}")
    for inner in value.values() if isinstance(value, dict) else value:
        if type(inner) not in _PLAIN and isinstance(inner, (dict, list, tuple)):
            _check_keys(inner, depth + 1)
