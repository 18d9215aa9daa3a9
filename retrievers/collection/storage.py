"""The one SQLite file: connections, transactions, and SQLite's failures in our words.

Readers and the writer never block each other (WAL). ``read()`` gives a connection inside one read transaction, so all that
is read in it belongs to one commit; ``write()`` gives the writing connection inside one transaction, which is durable when
the block ends and leaves no trace when it raises. A collection in memory has one connection, which its users share in turn.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from rarebit import errors
from rarebit.retrievers.collection.schema import APPLICATION_ID, FORMAT_VERSION, TABLES, lexical_table

Connection: TypeAlias = sqlite3.Connection

IDLE_READERS = 8
"""Reading connections kept open for the next reader; more are opened when more read at once."""


WAL_MARKS = slice(18, 20)
"""The bytes of a database's header that say WAL; SQLite asks to clear them before it takes a database into memory."""


class State(NamedTuple):
    """The one row of the ``state`` table."""

    version: int
    generation: int
    row_count: int
    next_row_id: int
    removals_forgotten: int


def read_state(connection: Connection) -> State:
    """Read where the collection stands, as this transaction sees it."""
    row = connection.execute("SELECT version, generation, row_count, next_row_id, removals_forgotten FROM state").fetchone()
    if row is None:
        raise errors.DamagedFileError("the collection's state row is missing: restore the file from a backup")
    return State(*row)


class Storage:
    """Opens, validates and closes the file, and hands out transactions."""

    def __init__(
        self, path: Path | None, *, read_only: bool, tokenizer: str, lock_timeout: float, must_exist: bool = False
    ) -> None:
        """Open the file, or create it with its tables when it is absent or empty."""
        self.path = path
        self.read_only = read_only
        self.lock_timeout = lock_timeout
        self._turn = threading.RLock()
        self._idle: list[Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        if must_exist and (path is None or not path.exists()):
            raise errors.CollectionNotFoundError(
                f"no file at {path}, wanted an existing collection: check the path; only a writable open creates one"
            )
        with self._translated():
            self._main = self._connect()
            try:
                self._validate_or_create(tokenizer)
            except BaseException:
                self._main.close()
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection whose transaction sees one commit, whatever is written meanwhile."""
        with self._translated():
            if self.path is None:
                with self._in_turn():
                    yield self._main
                return
            connection = self._borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._give_back(connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give the writing connection; commit at the end of the block, undo everything if it raises."""
        if self.read_only:
            raise errors.ReadOnlyError(f"{self} was opened read-only: open it without read_only=True to write")
        with self._translated(), self._in_turn():
            self._main.execute("BEGIN IMMEDIATE")
            try:
                yield self._main
                self._main.execute("COMMIT")
            except BaseException:
                # A failed COMMIT or a full disk may have rolled back already.
                if self._main.in_transaction:
                    with suppress(sqlite3.Error):
                        self._main.execute("ROLLBACK")
                raise

    def copy_to(self, target: Path) -> None:
        """Write one commit of the collection to another file, which must not exist."""
        with self._translated(), self.read_outside_transaction() as connection:
            connection.execute("VACUUM INTO ?", (str(target),))

    def serialize(self) -> bytes:
        """Give a collection in memory as the bytes of its file."""
        with self._translated(), self._in_turn():
            return self._main.serialize()

    def deserialize(self, content: bytes) -> None:
        """Replace a collection in memory by what :meth:`serialize` gave."""
        without_log = bytearray(content)
        without_log[WAL_MARKS] = b"\x01\x01"
        with self._translated(), self._in_turn():
            self._main.deserialize(bytes(without_log))

    def copy_from(self, source: Storage) -> None:
        """Replace a collection in memory by one commit of another."""
        with source.read() as connection, self._translated(), self._in_turn():
            connection.backup(self._main)

    def file_bytes(self) -> int:
        """Size of the database and its write-ahead log, or of the pages in memory."""
        if self.path is not None:
            names = (self.path, Path(f"{self.path}-wal"))
            return sum(name.stat().st_size for name in names if name.exists())
        with self.read() as connection:
            pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
            page_size: int = connection.execute("PRAGMA page_size").fetchone()[0]
            return pages * page_size

    def close(self) -> None:
        """Close every connection that nobody uses now; the others close when they come back."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            with self._idle_lock:
                idle, self._idle = self._idle, []
            if self._process == os.getpid():
                for connection in (*idle, self._main):
                    connection.close()

    def __str__(self) -> str:
        """Name the file in messages."""
        return f"the collection {self.path}" if self.path else "the collection in memory"

    @contextmanager
    def read_outside_transaction(self) -> Iterator[Connection]:
        """Give a connection for the few statements that SQLite refuses inside a transaction."""
        with self._in_turn():
            yield self._main

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=self.lock_timeout):
            raise errors.LockedError(
                f"another thread has been writing to {self} for more than {self.lock_timeout} s: "
                "write in smaller calls, or open with a longer lock_timeout"
            )
        try:
            self._check_usable()
            yield
        finally:
            self._turn.release()

    def _check_usable(self) -> None:
        if self._closed:
            raise errors.ClosedError(f"{self} was closed: open it again")
        if self._process != os.getpid():
            self._reopen_after_fork()

    def _reopen_after_fork(self) -> None:
        """SQLite connections must not cross a fork: leave the parent's alone and open our own."""
        if self.path is None:
            raise errors.ClosedError(
                "a collection in memory cannot be used after a fork: give it a path, or create it in the child"
            )
        self._process = os.getpid()
        self._idle_lock = threading.Lock()
        self._inherited = [*self._idle, self._main]  # referenced for good: closing them here would disturb the parent
        self._idle = []
        self._main = self._connect()

    def _borrow(self) -> Connection:
        self._check_usable()
        with self._idle_lock:
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._idle_lock:
            if not self._closed and len(self._idle) < IDLE_READERS:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> Connection:
        if self.path is None:
            return _configured(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        mode = "rwc"
        if self.read_only:
            mode = "ro" if self._can_share() else "ro&immutable=1"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return _configured(
            sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=self.lock_timeout)
        )

    def _can_share(self) -> bool:
        """Whether SQLite can follow a writer here: the log's index must exist or be creatable."""
        assert self.path is not None  # noqa: S101
        return Path(f"{self.path}-wal").exists() or os.access(self.path.parent, os.W_OK)

    def _validate_or_create(self, tokenizer: str) -> None:
        if _is_empty(self._main):
            if self.read_only:
                raise errors.ForeignFileError(f"{self.path} is empty, wanted a Rarebit collection: check the path")
            self._create(tokenizer)
        application, version = _header(self._main)
        if application != APPLICATION_ID:
            raise errors.ForeignFileError(
                f"{self.path} is an SQLite database but not a Rarebit collection, and was left as it is: choose another path"
            )
        if version != FORMAT_VERSION:
            raise errors.FormatVersionError(
                f"{self.path} has format {version}, this version of Rarebit reads format {FORMAT_VERSION}: upgrade rarebit"
            )
        if self.path is not None and not self.read_only:
            self._main.execute("PRAGMA journal_mode = WAL")  # a copy comes without; no-op where it is set

    def _create(self, tokenizer: str) -> None:
        # Two processes may create the same file at once: the second finds it made.
        self._main.execute("BEGIN IMMEDIATE")
        try:
            if _is_empty(self._main):
                for statement in (*TABLES.split(";\n"), lexical_table(tokenizer)):
                    self._main.execute(statement)
                self._main.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._main.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            self._main.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._main.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            translated = _translation(error, str(self), self.lock_timeout)
            if translated is None:
                raise
            raise translated from error


def _configured(connection: Connection) -> Connection:
    connection.execute("PRAGMA synchronous = FULL")  # an acknowledged write also survives a power cut
    connection.execute("PRAGMA trusted_schema = OFF")  # a file from elsewhere runs no functions of its own
    return connection


def _header(connection: Connection) -> tuple[int, int]:
    return (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )


def _is_empty(connection: Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return bool(tables == 0) and _header(connection) == (0, 0)


def _translation(error: sqlite3.Error, name: str, lock_timeout: float) -> errors.CollectionError | None:
    primary: Any = getattr(error, "sqlite_errorcode", None)
    code = None if primary is None else primary & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return errors.LockedError(
            f"another process has been writing to {name} for more than {lock_timeout} s: "
            "try again, or open with a longer lock_timeout"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return errors.ForeignFileError(
            f"{name} is no SQLite file and was left as it is, wanted a Rarebit collection: check the path"
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return errors.DamagedFileError(f"{name} is damaged ({error}): restore it from a backup")
    if code == sqlite3.SQLITE_FULL:
        return errors.StorageFullError(
            f"no space left to write to {name}; this call changed nothing: free some space and try again"
        )
    if code == sqlite3.SQLITE_READONLY:
        return errors.ReadOnlyError(f"{name} cannot be written ({error}): check the permissions of the file and its folder")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return errors.StorageError(
            f"{name} cannot be read or written ({error}): check that its folder exists and its permissions"
        )
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return errors.ClosedError(f"{name} was closed: open it again")
    return None
