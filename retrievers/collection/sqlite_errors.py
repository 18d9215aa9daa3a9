"""SQLite's failures in our words: what happened, to which file, and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rarebit import errors

DAMAGES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
"""What our statements, which are constant, meet where tables or indexes are not as we made them: of a flipped bit in the schema
SQLite says as many different things as there are words."""

NO_TEXT = "Could not decode to UTF-8"
"""How the message begins of what Python's module has no code for."""


@contextmanager
def translated(name: str, lock_timeout: float) -> Iterator[None]:
    """Raise our errors instead of SQLite's; those that say something about our own code stay as they are."""
    try:
        yield
    except sqlite3.Error as error:
        ours = _translation(error, name, lock_timeout)
        if ours is None:
            raise
        raise ours from error


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the file."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _code(error: sqlite3.Error) -> int | None:
    extended: Any = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


def _translation(error: sqlite3.Error, name: str, lock_timeout: float) -> errors.CollectionError | None:
    code = _code(error)
    if is_busy(error):
        return errors.LockedError(
            f"another process has been writing to {name} for more than {lock_timeout} s: "
            "try again, or open with a longer lock_timeout"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return errors.ForeignFileError(
            f"{name} is no SQLite file and was left as it is, wanted a Rarebit collection: check the path"
        )
    if code in DAMAGES or str(error).startswith(NO_TEXT):
        return errors.DamagedFileError(f"{name} is damaged ({error}): restore it from a backup")
    if code == sqlite3.SQLITE_FULL:
        return errors.StorageFullError(
            f"no space left to write to {name}; this call changed nothing: free some space and try again"
        )
    if code == sqlite3.SQLITE_READONLY:
        return errors.ReadOnlyError(f"{name} cannot be written ({error}): check the permissions of the file and its folder")
    if code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return errors.StorageError(
            f"{name} cannot be read or written ({error}): check that it and its folder exist, and their permissions; "
            "if its last writer was killed, open it once without read_only=True"
        )
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return errors.ClosedError(f"{name} was closed: open it again")
    return None
