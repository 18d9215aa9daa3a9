"""What can be wrong with a file, looked for: SQLite's own checks, and whether all tables say the same about every row."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from pyroaring import BitMap64
from tqdm.auto import tqdm

from rarebit.arrays import Mask, Vectors
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import inverted_lists, rows, tenants
from rarebit.retrievers.collection import settings as settings_
from rarebit.retrievers.collection.checksums import CHECKSUM_BYTES
from rarebit.retrievers.collection.engine import Engine
from rarebit.retrievers.collection.finest import stored_codec
from rarebit.retrievers.collection.snapshot import Snapshot
from rarebit.retrievers.collection.storage import Connection

BATCH_ROWS = 1024
LONGEST = 1.5
"""Length under cosine that no vector has, however rough its code."""


def problems(engine: Engine, *, progress: bool = False) -> list[str]:
    """Look through the newest commit, and name what is wrong, one sentence each."""
    found: list[str] = []
    try:
        with engine.snapshot() as snapshot:
            found.extend(_of_commit(snapshot, progress=progress))
        if not engine.storage.read_only:
            with engine.storage.write() as connection:
                found.extend(_of_lexical_index(connection))
    except DamagedFileError as error:
        found.append(str(error))
    return found


def _of_commit(snapshot: Snapshot, *, progress: bool) -> Iterator[str]:
    connection = snapshot.connection
    yield from (f"SQLite finds: {line}" for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok")
    snapshot = _read_afresh(snapshot)
    yield from _uncounted(snapshot)
    for table, size in _tiers(snapshot):
        yield from _unequal(connection, table, size)
    yield from _unlisted(snapshot)
    yield from _unlike_their_rows(snapshot, progress=progress)
    yield from _of_tenants(connection)
    yield from _of_sharing(connection)
    yield from _of_near_duplicates(snapshot)


def _read_afresh(snapshot: Snapshot) -> Snapshot:
    """Read settings and codec from the file: what this process has kept of them says nothing about it.

    Raises:
        DamagedFileError: they are not what was stored.
    """
    settings = settings_.load(snapshot.connection)
    if settings is None:
        raise DamagedFileError("the settings are missing from the file: restore it from a backup")
    return replace(snapshot, settings=settings, codec=stored_codec(snapshot.connection, settings))


def _unlisted(snapshot: Snapshot) -> Iterator[str]:
    """Compare the inverted lists with their checksum, and the numbers of lists beside the codes with how many there are."""
    try:
        lists = inverted_lists.load(snapshot.connection, snapshot.settings)
    except DamagedFileError as error:
        yield str(error)
        return
    count = 1 if lists is None else lists.count
    sql = "SELECT count(*) FROM codes WHERE list NOT BETWEEN 0 AND ?"
    strays = snapshot.connection.execute(sql, (count - 1,)).fetchone()[0]
    if strays:
        yield f"{strays} codes are kept in inverted lists that are not there, wanted numbers below {count}"


def _of_tenants(connection: Connection) -> Iterator[str]:
    """Compare what is said about each tenant with its checksum, and the count of its rows with the rows."""
    yield from _named(partial(tenants.names, connection))
    counted = connection.execute("SELECT tenant, count(*) FROM rows NOT INDEXED WHERE tenant <> 0 GROUP BY tenant")
    said = dict(connection.execute("SELECT number, row_count FROM tenants NOT INDEXED WHERE row_count <> 0"))
    if said != dict(counted):
        yield "the rows of the tenants are not as many as the file says"


def _of_lexical_index(connection: Connection) -> Iterator[str]:
    """Compare the lexical index with the texts; inside a write transaction, since FTS5 asks for one."""
    try:
        connection.execute("INSERT INTO lexical (lexical, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        yield f"the lexical index does not agree with the texts ({error})"


def _uncounted(snapshot: Snapshot) -> Iterator[str]:
    count, newest = snapshot.connection.execute("SELECT count(*), coalesce(max(row_id), 0) FROM rows").fetchone()
    if count != snapshot.state.row_count:
        yield f"there are {count} rows, wanted {snapshot.state.row_count}, as the state says"
    owned = snapshot.connection.execute("SELECT count(*) FROM rows WHERE tenant <> 0").fetchone()[0]
    if owned != snapshot.state.tenant_rows:
        yield f"there are {owned} rows of tenants, wanted {snapshot.state.tenant_rows}, as the state says"
    if newest >= snapshot.state.next_row_id:
        yield f"the newest row has number {newest}, wanted one below {snapshot.state.next_row_id}, which comes next"


def _tiers(snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    """Name the tables that hold a code for every row, and the bytes of each."""
    if snapshot.codec is not None:
        yield "codes", snapshot.codec.code_size + CHECKSUM_BYTES
        if snapshot.finest.tier is not None:
            yield "fine", snapshot.finest.tier.code_size + CHECKSUM_BYTES


def _unequal(connection: Connection, table: str, size: int) -> Iterator[str]:
    wrongs = {
        f"rows have nothing in {table}": f"rows WHERE row_id NOT IN (SELECT row_id FROM {table})",
        f"entries of {table} belong to no row": f"{table} WHERE row_id NOT IN (SELECT row_id FROM rows)",
        f"entries of {table} have not {size} bytes": f"{table} WHERE length(code) <> {size}",
    }
    for wrong, where in wrongs.items():
        count = connection.execute(f"SELECT count(*) FROM {where}").fetchone()[0]
        if count:
            yield f"{count} {wrong}"


def _unlike_their_rows(snapshot: Snapshot, *, progress: bool) -> Iterator[str]:
    """Read every row: compare it with its checksum, and with the tenant that its code is kept under; and its vector."""
    connection, last = snapshot.connection, 0
    with tqdm(total=snapshot.state.row_count, desc="checking", unit="row", disable=not progress) as bar:
        sql = f"{rows.SELECT_ROW} WHERE row_id > ? ORDER BY row_id LIMIT ?"
        while found := connection.execute(sql, (last, BATCH_ROWS)).fetchall():
            last = found[-1][0]
            for stored in found:
                yield from _named(partial(rows.decoded, stored))
            row_ids = [stored[0] for stored in found]
            yield from _odd_vectors(snapshot, row_ids)
            bar.update(len(found))
    sql = "SELECT count(*) FROM rows JOIN codes USING (row_id) WHERE rows.tenant <> codes.tenant"
    strangers = connection.execute(sql).fetchone()[0]
    if strangers:
        yield f"{strangers} codes are kept under another tenant than their rows"


def _of_sharing(connection: Connection) -> Iterator[str]:
    """Look at what is said about tenants and shared rows: it must be what was stored, about rows of the collection."""
    yield from _named(partial(tenants.names, connection))
    for (tenant,) in connection.execute("SELECT DISTINCT tenant FROM shared").fetchall():
        yield from _named(partial(tenants.shared_rows, connection, tenant, BitMap64()))
    sql = "SELECT count(*) FROM shared WHERE row_id NOT IN (SELECT row_id FROM rows WHERE tenant = 0)"
    lost = connection.execute(sql).fetchone()[0]
    if lost:
        yield f"{lost} entries of shared belong to no row of the collection"


def _of_near_duplicates(snapshot: Snapshot) -> Iterator[str]:
    """Compare the bands with the texts; there are none where no threshold is set."""
    connection, near, last, wanted, missing = snapshot.connection, snapshot.settings.near_duplicate_index, 0, 0, 0
    sql = "SELECT row_id, tenant, text FROM rows WHERE row_id > ? ORDER BY row_id LIMIT ?"
    while near is not None and (found := connection.execute(sql, (last, BATCH_ROWS)).fetchall()):
        last = found[-1][0]
        of_batch, absent = near.missing(connection, found)
        wanted, missing = wanted + of_batch, missing + absent
    stored = connection.execute("SELECT count(*) FROM near_duplicates").fetchone()[0]
    if missing:
        yield f"{missing} bands of texts are missing from near_duplicates"
    if stored != wanted - missing:
        yield f"{stored - wanted + missing} entries of near_duplicates belong to no text"


def _named(read: Callable[[], object]) -> Iterator[str]:
    """Name the damage that reading finds."""
    try:
        read()
    except DamagedFileError as error:
        yield str(error)


def _odd_vectors(snapshot: Snapshot, row_ids: Sequence[int]) -> Iterator[str]:
    try:
        vectors = snapshot.finest.of(row_ids)
    except DamagedFileError as error:
        yield str(error)
        return
    odd = int(np.count_nonzero(~_plausible(vectors, unit=snapshot.settings.metric == "cosine")))
    if odd:
        yield f"{odd} vectors of the rows {row_ids[0]} to {row_ids[-1]} are not what could have been stored"


def _plausible(vectors: Vectors, *, unit: bool) -> Mask:
    """Tell which vectors are finite, and no longer than they can be."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
    possible: Mask = np.isfinite(lengths) & (lengths <= (LONGEST if unit else np.inf))
    return possible
