"""The row ids of a commit, as a bitmap that follows the commits."""

from __future__ import annotations

from threading import Lock

from pyroaring import BitMap64

from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import rows
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.storage import Connection


class LiveRows:
    """Holds the newest bitmap and brings it forward. A bitmap that was given out never changes."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._lock = Lock()
        self._known: tuple[State, BitMap64, int] | None = None

    def at(self, connection: Connection, state: State) -> BitMap64:
        """Give the rows of the commit that the connection's transaction sees; callers must not change the set."""
        with self._lock:
            known = self._known
        if known is not None and known[0].version == state.version:
            return known[1]
        removal = rows.latest_removal(connection)
        if known is None or not _can_follow(known[0], known[2], state):
            found = _read(connection, state)
        else:
            found = BitMap64(known[1])
            newer = rows.row_ids_between(connection, known[0].next_row_id, state.next_row_id)
            found |= newer
            found -= rows.removed_since(connection, known[2])
        if len(found) != state.row_count:
            raise DamagedFileError(f"the file holds {len(found)} rows, wanted {state.row_count}: restore it from a backup")
        with self._lock:
            if self._known is None or self._known[0].version < state.version:
                self._known = (state, found, removal)
        return found

    def drop(self) -> None:
        """Forget the bitmap, and take a new lock."""
        self._lock = Lock()
        self._known = None


def _can_follow(known: State, last_removal: int, state: State) -> bool:
    same_rows = known.generation == state.generation and known.version < state.version
    return same_rows and last_removal >= state.removals_forgotten


def _read(connection: Connection, state: State) -> BitMap64:
    """Read every row id, unless they are consecutive."""
    first, last = connection.execute("SELECT min(row_id), max(row_id) FROM codes").fetchone()
    if first is not None and last - first + 1 == state.row_count:
        return BitMap64(range(first, last + 1))
    return rows.row_ids_between(connection, 0, state.next_row_id)
