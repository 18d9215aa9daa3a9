"""The SQL of codes and fine codes: written and read with their checksums, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Codes, FineCodes, RowIds
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import checksums
from rarebit.retrievers.collection.state import changed_state
from rarebit.retrievers.collection.statements import insert_many, select_in
from rarebit.retrievers.collection.storage import Connection

READ_AT_ONCE = 8192
"""Rows whose Python objects are there at one time while codes are read."""


class StoredCodes(NamedTuple):
    """Codes as the file has them: (n,) row ids, in order, tenants and inverted lists, and (n, code_size) codes."""

    row_ids: RowIds
    tenants: RowIds
    lists: RowIds
    codes: Codes

    def at(self, places: slice | npt.NDArray[np.intp]) -> StoredCodes:
        """Give those at some places."""
        return StoredCodes(self.row_ids[places], self.tenants[places], self.lists[places], self.codes[places])


class Encoded(NamedTuple):
    """What is stored of n vectors: codes, fine codes where they are to be written, the inverted lists where there are any."""

    codes: Codes
    fine: FineCodes | None
    lists: RowIds | None = None

    def at(self, places: Sequence[int]) -> Encoded:
        """Give what is stored of some of the vectors."""
        chosen = np.asarray(places, dtype=np.intp)
        fine = None if self.fine is None else self.fine[chosen]
        return Encoded(self.codes[chosen], fine, None if self.lists is None else self.lists[chosen])


def write_codes(connection: Connection, table: str, stored: StoredCodes) -> None:
    """Write codes into ``codes`` or a table like it; what is there is replaced."""
    *about, codes = stored
    blobs = map(bytes, checksums.with_checksums(codes, *about))
    columns = zip(*(column.tolist() for column in about), blobs, strict=True)
    insert_many(connection, f"INSERT OR REPLACE INTO {table}", columns)


def write_fine(connection: Connection, table: str, row_ids: RowIds, fine: FineCodes) -> None:
    """Write fine codes into ``fine`` or a table like it; what is there is replaced."""
    stored = map(bytes, checksums.with_checksums(fine, row_ids))
    insert_many(connection, f"INSERT OR REPLACE INTO {table}", zip(row_ids.tolist(), stored, strict=True))


def rewrite_codes(connection: Connection, table: str, row_ids: Sequence[int], codes: Codes) -> None:
    """Write other codes of rows that have some already, into ``codes`` or a table like it."""
    sql = "SELECT row_id, tenant, list FROM codes WHERE row_id IN"
    kept = np.array(sorted(select_in(connection, sql, row_ids)), dtype=np.int64).reshape(-1, 3)
    here = np.isin(np.asarray(row_ids), kept[:, 0])  # a row may have been deleted meanwhile
    numbers, tenants, lists = kept.T.copy()
    write_codes(connection, table, StoredCodes(numbers, tenants, lists, codes[here]))


def codes_of(connection: Connection, row_ids: Sequence[int], code_size: int) -> tuple[RowIds, Codes]:
    """Read the codes of rows, ordered by row id; rows without one are left out.

    Raises:
        DamagedFileError: a code is not what was stored.
    """
    found = sorted(select_in(connection, "SELECT row_id, tenant, list, code FROM codes WHERE row_id IN", row_ids))
    stored = _stored_codes(found, code_size)
    return stored.row_ids, stored.codes


def fine_of(connection: Connection, row_ids: Sequence[int], code_size: int) -> tuple[RowIds, FineCodes]:
    """Read the fine codes of rows as :func:`codes_of` does the codes."""
    found = sorted(select_in(connection, "SELECT row_id, code FROM fine WHERE row_id IN", row_ids))
    numbers = np.fromiter((row_id for row_id, _ in found), dtype=np.int64, count=len(found))
    return numbers, checksums.without_checksums(_matrix([code for _, code in found], code_size), "entries of fine", numbers)


def codes_between(connection: Connection, first: int, last: int, code_size: int, limit: int) -> StoredCodes:
    """Read at most ``limit`` codes of the row ids ``first`` to ``last``, both included, in their order."""
    sql = "SELECT row_id, tenant, list, code FROM codes WHERE row_id BETWEEN ? AND ? ORDER BY row_id LIMIT ?"
    cursor = connection.execute(sql, (first, last, limit))
    most = min(max(last + 1 - first, 0), limit, changed_state(connection).row_count)
    # Arrays of the whole size, so that what is read beside them is small, and its memory is used again for the next part.
    numbers, codes = np.empty((3, most), np.int64), np.empty((most, code_size), np.uint8)
    count = 0
    while found := cursor.fetchmany(READ_AT_ONCE):
        part = slice(count, count + len(found))
        if part.stop > most:
            raise DamagedFileError("the file holds more codes than its state says: restore it from a backup")
        numbers[0, part], numbers[1, part], numbers[2, part], codes[part] = _stored_codes(found, code_size)
        count = part.stop
    _check_ascending(numbers[0, :count])
    return StoredCodes(numbers[0, :count], numbers[1, :count], numbers[2, :count], codes[:count])


def _stored_codes(found: Sequence[tuple[int, int, int, bytes]], code_size: int) -> StoredCodes:
    try:
        about = np.array([stored[:3] for stored in found], dtype=np.int64).reshape(-1, 3).T.copy()
    except (ValueError, TypeError, OverflowError) as error:
        raise DamagedFileError(f"a code of the file has no numbers ({error}): restore the file from a backup") from error
    row_ids, tenants, lists = about
    codes = checksums.without_checksums(_matrix([stored[3] for stored in found], code_size), "entries of codes", *about)
    return StoredCodes(row_ids, tenants, lists, codes)


def _matrix(stored: Sequence[bytes], code_size: int) -> checksums.Stored:
    size = code_size + checksums.CHECKSUM_BYTES
    try:
        joined = b"".join(stored)
    except TypeError as error:
        raise DamagedFileError(f"a code in the file is none ({error}): restore the file from a backup") from error
    if len(joined) != len(stored) * size:
        raise DamagedFileError(
            f"{len(stored)} stored codes have {len(joined)} bytes, wanted {len(stored) * size}: restore the file from a backup"
        )
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(stored), size)


def _check_ascending(row_ids: RowIds) -> None:
    """A page of the file that is read twice in place of another has rows that are sound, but the wrong ones."""
    if (np.diff(row_ids) <= 0).any():
        raise DamagedFileError("the codes in the file are not in their order: restore the file from a backup")
