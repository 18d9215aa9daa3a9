"""Where a collection stands: the one row that every commit changes, written with its checksum at the end of a transaction."""

from __future__ import annotations

from typing import NamedTuple

from rarebit import errors
from rarebit.retrievers.collection import checksums
from rarebit.retrievers.collection.storage import Connection


class State(NamedTuple):
    """The one row of the ``state`` table; ``tenant_rows`` are those of ``row_count`` that belong to tenants."""

    version: int
    generation: int
    row_count: int
    next_row_id: int
    removals_forgotten: int
    sharing: int
    tenant_count: int
    tenant_rows: int


def read_state(connection: Connection) -> State:
    """Read where the collection stands, as this transaction sees it before it writes."""
    *fields, checksum = _stored_state(connection)
    if checksums.of_parts(*fields) != checksum:
        raise errors.DamagedFileError("the collection's state row is not what was stored: restore the file from a backup")
    return State(*fields)


def changed_state(connection: Connection) -> State:
    """Read where the collection stands inside a transaction that has written to it: its checksum comes at the end."""
    return State(*_stored_state(connection)[:-1])


def save_state_checksum(connection: Connection) -> None:
    """End a transaction that has written to the state."""
    checksum = checksums.of_parts(*changed_state(connection))
    connection.execute("UPDATE state SET checksum = ?", (checksum,))


def _stored_state(connection: Connection) -> tuple[int, ...]:
    row: tuple[int, ...] | None = connection.execute(f"SELECT {', '.join(State._fields)}, checksum FROM state").fetchone()
    if row is None:
        raise errors.DamagedFileError("the collection's state row is missing: restore the file from a backup")
    return row
