"""Waiting for other processes that use the same file.

SQLite's own waiting looks every tenth of a second. A process that writes one batch after the other leaves the file free for a
thousandth of a second in between, so that one that waits may find it held for minutes. And SQLite waits for readers to let go
of the log while it keeps every writer out: where reads overlap, for as long as it may wait at all.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rarebit.retrievers.collection.sqlite_errors import is_busy

GAP = 0.001
"""Seconds between two looks."""

READERS_PATIENCE = 1.0
"""Seconds to wait for those who read from the log before it is cut off; what they keep is given back by a later write."""

LONGEST = 2**31 - 1
"""Milliseconds that SQLite can wait."""


def execute_when_free(connection: sqlite3.Connection, statement: str, timeout: float) -> None:
    """Execute a statement that fails at once, and changes nothing, while another process writes; then try it again.

    Raises:
        sqlite3.OperationalError: the file was not free for ``timeout`` seconds, or something else is wrong.
    """
    until = time.monotonic() + timeout
    with _impatient(connection, timeout):
        while True:
            try:
                connection.execute(statement)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > until:
                    raise
                time.sleep(GAP)
            else:
                return


def empty_log(connection: sqlite3.Connection, timeout: float) -> None:
    """Move the log into the file and cut it off, if those who read from it are done within a second; writers go on meanwhile.

    Args:
        connection: outside a transaction.
        timeout: seconds that the connection waits otherwise.
    """
    until = time.monotonic() + READERS_PATIENCE
    with _impatient(connection, timeout):
        while True:
            is_held, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not is_held or time.monotonic() > until:
                return
            time.sleep(GAP)


@contextmanager
def _impatient(connection: sqlite3.Connection, timeout: float) -> Iterator[None]:
    """Have a connection not wait by itself."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(min(1000 * timeout, LONGEST))}")
