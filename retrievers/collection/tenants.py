"""Tenants: their numbers, their own rows, and the rows of the collection that they share.

Every row belongs to one tenant, 0 being the collection itself, and ids are each tenant's own. Rows of the collection can be
shared with some tenants or with every one; they are stored once. A tenant that replaces or deletes a shared row no longer sees
it, and nobody else notices. A row of the collection that is replaced stays shared with, and hidden from, those it was. No
tenant ever sees two rows of one id: its own goes before the collection's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pyroaring import BitMap64

from rarebit.errors import DamagedFileError, InputError
from rarebit.retrievers.collection import checksums, rows
from rarebit.retrievers.collection.state import State, changed_state, read_state
from rarebit.retrievers.collection.storage import Connection

OWN: Final = 0
"""The collection itself, as the owner of rows."""

EVERYONE: Final = 0
"""Every tenant, as the one with whom rows are shared."""

LONGEST_NAME = 1024


def checked_name(name: str) -> str:
    """Check the name of a tenant.

    Raises:
        InputError: it is no string, empty, very long, or no valid Unicode.
    """
    if not isinstance(name, str) or not name or len(name) > LONGEST_NAME:
        raise InputError(f"got {name!r:.100} as the name of a tenant, wanted a string of 1 to {LONGEST_NAME} characters")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the tenant's name {name!r} is not valid Unicode ({error})") from error
    return str.__str__(name)


def number_of(connection: Connection, name: str) -> int | None:
    """Look up a tenant's number; None for one that has never had a row of its own or shared one."""
    found = connection.execute(f"{rows.SELECT_TENANT} WHERE name = ?", (name,)).fetchone()
    return None if found is None else rows.checked_tenant(found).number


def number_for(connection: Connection, name: str) -> int:
    """Look up a tenant's number, or give it one."""
    number = number_of(connection, name)
    if number is None:
        sql = "INSERT INTO tenants (name, row_count, checksum) VALUES (?, 0, 0) RETURNING number"
        number = int(connection.execute(sql, (name,)).fetchone()[0])
        rows.save_tenant(connection, rows.StoredTenant(number, name, 0))
        connection.execute("UPDATE state SET tenant_count = tenant_count + 1")
    return number


def names(connection: Connection) -> list[str]:
    """Name every tenant that there is, in the order in which they came.

    Raises:
        DamagedFileError: there are fewer or more than the state says, or one is not what was stored.
    """
    found = list(map(rows.checked_tenant, connection.execute(f"{rows.SELECT_TENANT} ORDER BY number")))
    wanted = read_state(connection).tenant_count
    if len(found) != wanted:
        raise DamagedFileError(f"the file names {len(found)} tenants, wanted {wanted}: restore it from a backup")
    return [tenant.name for tenant in found]


def numbers(connection: Connection) -> list[int]:
    """Number every tenant that there is."""
    return [number for (number,) in connection.execute("SELECT number FROM tenants ORDER BY number")]


def own_rows(connection: Connection, tenant: int, after: int = 0) -> BitMap64:
    """Find the rows that belong to a tenant, those beyond a row id."""
    if after:
        found = connection.execute("SELECT row_id FROM codes WHERE row_id > ? AND tenant = ?", (after, tenant))
    else:
        found = connection.execute("SELECT row_id FROM rows WHERE tenant = ?", (tenant,))
    return rows.bitmap(found)


def own_count(connection: Connection, state: State, tenant: int) -> int:
    """Give how many rows belong to a tenant, as the file counts them."""
    return state.row_count - state.tenant_rows if tenant == OWN else rows.tenant_of(connection, tenant).row_count


def shared_rows(connection: Connection, tenant: int | None, with_everyone: BitMap64) -> BitMap64:
    """Find the rows of the collection that a tenant sees, given those that are shared with everyone."""
    if tenant is None:
        return with_everyone
    seen, hidden = _told(connection, tenant)
    return (with_everyone | seen) - hidden if seen or hidden else with_everyone


def shared_with_everyone(connection: Connection) -> BitMap64:
    """Find the rows that every tenant sees that has not hidden them."""
    return _told(connection, EVERYONE)[0]


def share(connection: Connection, row_ids: BitMap64, name: str, *, seen: bool) -> None:
    """Say that a tenant sees rows of the collection, or does not; those that its own rows replace it does not see.

    A new tenant gets a number only if that changes what it sees: a name that was mistyped makes none.
    """
    if number_of(connection, name) is None and not (row_ids if seen else row_ids & shared_with_everyone(connection)):
        return
    tenant = number_for(connection, name)
    replaced = BitMap64(_replaced_by(connection, tenant, row_ids)) if seen else BitMap64()
    _tell(connection, row_ids - replaced, tenant, seen=seen)
    _tell(connection, replaced, tenant, seen=False)


def _tell(connection: Connection, row_ids: Iterable[int], tenant: int, *, seen: bool) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO shared VALUES (?, ?, ?, ?)",
        ((tenant, row_id, int(seen), checksums.of_parts(tenant, row_id, int(seen))) for row_id in row_ids),
    )
    connection.execute("UPDATE state SET sharing = sharing + 1")


def share_with_everyone(connection: Connection, row_ids: BitMap64, *, seen: bool) -> None:
    """Share rows with every tenant, also with those from whom they were hidden; or take them back from every one."""
    connection.executemany("DELETE FROM shared WHERE row_id = ?", ((row_id,) for row_id in row_ids))
    _tell(connection, row_ids if seen else (), EVERYONE, seen=seen)
    if seen:
        for tenant, replaced in _replaced(connection, row_ids).items():
            _tell(connection, replaced, tenant, seen=False)


def forget(connection: Connection, tenant: int) -> None:
    """Remove a tenant's name, and what was shared with it; its number is not used again."""
    connection.execute("DELETE FROM shared WHERE tenant = ?", (tenant,))
    connection.execute("DELETE FROM tenants WHERE number = ?", (tenant,))
    connection.execute("UPDATE state SET tenant_count = tenant_count - 1")


def forget_others(connection: Connection, tenant: int | None) -> None:
    """Remove the names of all tenants but one, and what was shared with them."""
    for number in numbers(connection):
        if number != tenant:
            forget(connection, number)


def hide(connection: Connection, tenant: int, row_ids: Sequence[int]) -> int:
    """Hide rows of the collection from a tenant that replaces or deletes them; returns how many it saw before."""
    visible = shared_rows(connection, tenant, shared_with_everyone(connection)) & BitMap64(row_ids)
    if visible:
        _tell(connection, visible, tenant, seen=False)
    return len(visible)


def hide_ids(connection: Connection, tenant: int, ids: Sequence[str]) -> None:
    """Hide the rows of the collection that have one of the ids which a tenant gives to rows of its own."""
    if tenant != OWN and _is_any_shared(connection):
        of_collection = rows.row_ids_of(connection, OWN, ids)
        if of_collection:
            hide(connection, tenant, of_collection)


@contextmanager
def replacing(connection: Connection, tenant: int, ids: Sequence[str]) -> Iterator[None]:
    """Keep rows of the collection shared, and hidden, as they are, while a block replaces them by others of the same ids."""
    if tenant != OWN or not _is_any_shared(connection):
        yield
        return
    told = [(key, *_checked_share(*found)) for key, *found in rows.shared_of(connection, ids)]
    yield
    row_ids = rows.stored_ids(connection, OWN, {key for key, *_ in told})
    for key, who, _, seen in told:
        _tell(connection, [row_ids[key]], who, seen=bool(seen))


def _is_any_shared(connection: Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM shared)").fetchone()[0])


def _replaced_by(connection: Connection, tenant: int, row_ids: Iterable[int]) -> list[int]:
    """Give those rows of the collection whose ids a tenant has given to rows of its own."""
    return rows.replaced_by(connection, tenant, list(row_ids))


def _replaced(connection: Connection, row_ids: BitMap64) -> dict[int, list[int]]:
    """Give, by tenant, those rows of the collection whose ids the tenant has given to rows of its own."""
    state = changed_state(connection)
    found: dict[int, list[int]] = defaultdict(list)
    if len(row_ids) * state.tenant_count < state.row_count:
        for tenant in numbers(connection):
            found[tenant] = _replaced_by(connection, tenant, row_ids)
        return found
    sql = """
        SELECT mine.tenant, ours.row_id FROM rows mine JOIN rows ours ON ours.tenant = 0 AND ours.id = mine.id
        WHERE mine.tenant > 0
    """
    for tenant, row_id in connection.execute(sql):
        if row_id in row_ids:
            found[tenant].append(row_id)
    return found


def _told(connection: Connection, tenant: int) -> tuple[BitMap64, BitMap64]:
    """Give the rows that a tenant was said to see, and those it was said not to see."""
    told = (BitMap64(), BitMap64())
    for row_id, seen, checksum in connection.execute("SELECT row_id, seen, checksum FROM shared WHERE tenant = ?", (tenant,)):
        _checked_share(tenant, row_id, seen, checksum)
        told[0 if seen else 1].add(row_id)
    return told


def _checked_share(tenant: int, row_id: int, seen: int, checksum: int) -> tuple[int, int, int]:
    if checksums.of_parts(tenant, row_id, seen) != checksum:
        raise DamagedFileError(
            f"what the file says about sharing row {row_id} is not what was stored: restore it from a backup"
        )
    return tenant, row_id, seen
