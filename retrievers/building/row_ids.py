"""Which row has which id: on disk, so that a build needs no memory for the ids of the whole corpus."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from rarebit.errors import DamagedFileError, StorageError
from rarebit.retrievers.collection.statements import select_in

FILE: Final = "ids.sqlite"
CACHE_KIB: Final = 65_536


class RowIds:
    """Ids with the numbers of their rows, and digests of their contents."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Use :meth:`being_made` or :meth:`of`."""
        self._connection, self._path = connection, path

    @classmethod
    def being_made(cls, folder: Path) -> RowIds:
        """Begin anew, aside; :meth:`finish` gives the file its name.

        Nothing of it is worth keeping when the process is killed, so nothing is written more carefully than needed.
        """
        aside = _aside(folder)
        aside.unlink(missing_ok=True)
        connection = sqlite3.connect(aside, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, row INTEGER, digest BLOB) WITHOUT ROWID")
        connection.execute("BEGIN")
        return cls(connection, folder / FILE)

    @classmethod
    def of(cls, folder: Path) -> RowIds:
        """Open what a finished reading has left.

        Raises:
            DamagedFileError: it is gone, or cannot be read.
        """
        path = folder / FILE
        if not path.is_file():
            raise DamagedFileError(f"{path} is gone, wanted the build's own file: run the build again, which makes it anew")
        try:
            return cls(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None), path)
        except sqlite3.Error as error:
            raise _damaged(path, str(error)) from error

    def add(self, key: str, row: int, digest: bytes) -> bytes | None:
        """Note a new id; gives the digest of the row that has it already, or None."""
        added = self._connection.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (key, row, digest)).rowcount
        if added:
            return None
        (found,) = self._connection.execute("SELECT digest FROM ids WHERE id = ?", (key,)).fetchone()
        return bytes(found)

    def rows_of(self, keys: Sequence[str]) -> list[int]:
        """Give the rows of those of the ids that are there, in their order."""
        try:
            found: Iterable[tuple[int]] = select_in(self._connection, "SELECT row FROM ids WHERE id IN", keys)
            return sorted(row for (row,) in found)
        except sqlite3.Error as error:
            raise _damaged(self._path, str(error)) from error

    def check_count(self, wanted: int) -> None:
        """Count the ids.

        Raises:
            DamagedFileError: there are not so many.
        """
        try:
            (found,) = self._connection.execute("SELECT COUNT(*) FROM ids").fetchone()
        except sqlite3.Error as error:
            raise _damaged(self._path, str(error)) from error
        if found != wanted:
            raise _damaged(self._path, f"it has {found} rows instead of {wanted}")

    def finish(self) -> None:
        """Close what was made and give it its name, once the disk has it.

        Raises:
            StorageError: it could not be written.
        """
        self._connection.execute("COMMIT")
        self._connection.close()
        aside = _aside(self._path.parent)
        try:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            aside.replace(self._path)
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def __enter__(self) -> RowIds:
        """Use in a ``with`` block, which closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it.

        Raises:
            StorageError: it could not be written.
        """
        self._connection.close()
        if isinstance(error, sqlite3.Error):
            raise _unwritten(self._path, error) from error


def _aside(folder: Path) -> Path:
    return folder / f"{FILE}.tmp"


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} cannot be used ({reason}), wanted the file that the build wrote: delete this one file and run the build "
        "again, which makes it anew"
    )


def _unwritten(path: Path, error: Exception) -> StorageError:
    return StorageError(f"{path} cannot be written ({error}): free space or choose another work folder; run it again then")
