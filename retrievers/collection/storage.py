"""The one SQLite file: connections and transactions.

Readers and the writer never block each other (WAL). ``read()`` gives a connection inside one read transaction, so all that
is read in it belongs to one commit; ``write()`` gives the writing connection inside one transaction, which is durable when
the block ends and leaves no trace when it raises. A collection in memory has one connection, which its users share in turn.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from rarebit import errors
from rarebit.retrievers.collection import forks
from rarebit.retrievers.collection.asides import written_aside
from rarebit.retrievers.collection.in_place import FilesInPlace, identity
from rarebit.retrievers.collection.making import make_or_check
from rarebit.retrievers.collection.sqlite_errors import translated
from rarebit.retrievers.collection.waiting import GAP, empty_log, execute_when_free

Connection: TypeAlias = sqlite3.Connection

IDLE_READERS = 8
"""Reading connections kept open for the next reader; more are opened when more read at once."""

LOG_KEPT = 64 * 2**20
"""Bytes to which the write-ahead log shrinks again after a long transaction."""

WRITER_CACHE = 16 * 2**20
"""Bytes of pages that a writer keeps. Ids come in no order, so their index is written everywhere: with two megabytes, as usual,
pages go to the log again and again in one transaction, at 100,000 rows twice the bytes in all."""

MAPPED = 2**31 - 2**16
"""Bytes of the file that are read through the memory map of the operating system's cache, SQLite's own limit: no copy, and half
the time for the fine vectors of a search. Not for writing: a file that someone cuts off under a map kills the process."""

WAL_MARKS = slice(18, 20)
"""The bytes of a database's header that say WAL; SQLite asks to clear them before it takes a database into memory."""


class Storage:
    """Opens, validates and closes the file, and hands out transactions.

    Args:
        path: of the file; None is memory. It is resolved, so that changing the working folder changes nothing.
        read_only: refuse to write.
        tokenizer: of the lexical index, if the file is created now.
        lock_timeout: seconds to wait for another writer.
        must_exist: do not create the file.
    """

    def __init__(
        self, path: Path | None, *, read_only: bool, tokenizer: str, lock_timeout: float, must_exist: bool = False
    ) -> None:
        """Open the file, or create it with its tables when it is absent or empty."""
        self.path = None if path is None else path.resolve()
        self.read_only = read_only
        self.lock_timeout = lock_timeout
        self._closed = False
        self._turn = threading.RLock()
        self._turns_held = 0
        self._idle: list[Connection] = []
        self._idle_lock = threading.Lock()
        self._lent = 0
        self._main: Connection | None = None
        self._fork: forks.Fork | None = None
        self._follows_writers: bool | None = None
        self._files = FilesInPlace()
        if must_exist and (self.path is None or not self.path.exists()):
            raise errors.CollectionNotFoundError(
                f"no file at {path}, wanted an existing collection: check the path; only a writable open creates one"
            )
        forks.tell_of_forks(self)
        with self._translated(), self._turn:
            if self.read_only:
                self._follow_writers()
            self._main = self._connect(create=not must_exist)
            try:
                make_or_check(self._main, str(self.path), tokenizer, must_exist=must_exist)
                if self.path is not None and not self.read_only:
                    self._keep_a_log(self._main)
            except BaseException:
                self._main.close()
                self._main = None
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection whose transaction sees one commit, whatever is written meanwhile."""
        with self._translated():
            if self.path is None:
                with self._in_turn(wait=None) as connection:
                    yield connection
                return
            with self._borrowed() as connection:
                connection.execute("BEGIN")
                yield connection

    def check_writable(self) -> None:
        """Raise ReadOnlyError if nothing may be written."""
        if self.read_only:
            raise errors.ReadOnlyError(f"{self} was opened read-only: open it without read_only=True to write")

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give the writing connection; commit at the end of the block, undo everything if it raises."""
        self.check_writable()
        process = os.getpid()
        with self._translated(), self._in_turn(wait=self.lock_timeout) as connection:
            self._check_no_filter_is_running()
            connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE // 1024}")
            execute_when_free(connection, "BEGIN IMMEDIATE", self.lock_timeout)
            try:
                yield connection
                self._check_not_forked(process)
                connection.execute("COMMIT")
                self._check_files()
            except BaseException:
                # A failed COMMIT or a full disk may have rolled back already; a child has nothing to say about its parent's.
                if os.getpid() == process and connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise

    def compact(self) -> int:
        """Give the space of what was deleted back to the disk, in one transaction; returns the bytes that came free.

        Takes as long as writing the file anew, and needs its size again in free space meanwhile. What someone reads from for
        longer than a second stays, and comes free with a later write.
        """
        self.check_writable()
        before = self.file_bytes()
        with self._translated(), self._in_turn(wait=self.lock_timeout) as connection:
            self._check_no_filter_is_running()
            for statement in ("INSERT INTO lexical (lexical) VALUES ('optimize')", "VACUUM"):
                execute_when_free(connection, statement, self.lock_timeout)
            self._check_files()
            empty_log(connection, self.lock_timeout)
        return max(0, before - self.file_bytes())

    def copy_to(self, target: Path) -> None:
        """Write one commit of the collection to another path, whole or not at all, and sync it to the disk."""
        own = self._in_turn(wait=None) if self.path is None else self._borrowed()
        with self._translated(), own as connection, written_aside(target, mode_of=self.path) as aside:
            connection.execute("VACUUM INTO ?", (str(aside),))

    def copy_from(self, source: Storage) -> None:
        """Replace a collection in memory by one commit of another."""
        with source.read() as other, self._translated(), self._in_turn(wait=None) as connection:
            other.backup(connection)

    def serialize(self) -> bytes:
        """Give a collection in memory as the bytes of its file."""
        with self._translated(), self._in_turn(wait=None) as connection:
            return connection.serialize()

    def deserialize(self, content: bytes) -> None:
        """Replace a collection in memory by what :meth:`serialize` gave."""
        without_log = bytearray(content)
        without_log[WAL_MARKS] = b"\x01\x01"
        with self._translated(), self._in_turn(wait=None) as connection:
            connection.deserialize(bytes(without_log))

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
            self._closed = True
            with self._idle_lock:
                self._close_all()

    def before_fork(self, until: float) -> None:
        """Close every connection: SQLite in a child would take the locks of its parent for its own.

        Waits so long for those that other threads use; from now on nobody gets one until the fork is over.
        """
        if self.path is None:
            return
        fork = forks.Fork(has_turn=self._turn.acquire(timeout=max(0, until - time.monotonic())))
        with self._idle_lock:
            self._fork = fork
        while self._lent and time.monotonic() < until:
            time.sleep(GAP)
        with self._idle_lock:
            if fork.has_turn and not self._turns_held and not self._lent:
                self._close_all()
                self._files.forget(f"{self.path}-wal")  # the last to close removes the log
                self._follows_writers = None
                fork.is_clean = True

    def after_fork_in_parent(self) -> None:
        """Go on: connections are opened again when they are needed."""
        fork, self._fork = self._fork, None
        if fork is not None:
            fork.is_over.set()
            if fork.has_turn:
                self._turn.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: locks may be held by threads that the child does not have, and what is still open is the parent's."""
        forks.leave_to_parent(*self._idle, *([self._main] if self._main else []))
        if self.path is not None and not (self._fork and self._fork.is_clean):
            forks.mark_left_open(self._files.first(str(self.path)))
        self._turn = threading.RLock()
        self._turns_held = 0
        self._idle_lock = threading.Lock()
        self._idle = []
        self._lent = 0
        self._fork = None
        self._main = None

    def __str__(self) -> str:
        """Name the file in messages."""
        return f"the collection {self.path}" if self.path else "the collection in memory"

    @contextmanager
    def _in_turn(self, wait: float | None) -> Iterator[Connection]:
        """Give the main connection; readers of memory wait as long as it takes, writers as long as the user said."""
        if not self._turn.acquire(timeout=-1 if wait is None else wait):
            raise errors.LockedError(
                f"another thread has been using {self} for more than {wait} s: "
                "write in smaller calls, or open with a longer lock_timeout"
            )
        self._turns_held += 1
        try:
            yield self._main_connection()
        finally:
            self._turns_held -= 1
            self._turn.release()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        """Give a connection of one's own, outside a transaction."""
        self._wait_for_forks()
        home, connection = self._idle, None
        try:
            self._check_open()
            with self._idle_lock:
                home = self._idle
                connection = home.pop() if home else None
            if connection is None:
                connection = self._connect(create=False)
                connection.execute(f"PRAGMA mmap_size = {MAPPED}")
            yield connection
        finally:
            self._give_back(connection, home)

    def _wait_for_forks(self) -> None:
        """Count a reader in, when no fork is under way."""
        while True:
            with self._idle_lock:
                fork = self._fork
                if fork is None:
                    self._lent += 1
                    return
            fork.is_over.wait()

    def _give_back(self, connection: Connection | None, home: list[Connection]) -> None:
        """Count a reader out, and keep its connection unless all connections were closed meanwhile."""
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        finally:
            with self._idle_lock:
                self._lent -= 1
                if connection is not None:
                    if home is self._idle and not self._closed and len(home) < IDLE_READERS:
                        home.append(connection)
                    else:
                        connection.close()

    def _close_all(self) -> None:
        """Close what nobody uses; those that are used close when they come back. Call with the lock held."""
        idle, self._idle = self._idle, []
        for connection in (*idle, *([self._main] if self._main else [])):
            connection.close()
        self._main = None

    def _follow_writers(self) -> None:
        """Say for all connections whether they follow writers: an immutable one beside others would see an older commit."""
        follows = self._can_share()
        with self._idle_lock:
            if follows != self._follows_writers:
                self._close_all()
                self._follows_writers = follows

    def _check_no_filter_is_running(self) -> None:
        if self._turns_held > 1:
            raise errors.InputError(
                "a function used as a filter wrote to the collection that it filters, wanted one that only looks at the "
                "row it is given: collect what to write, and write it afterwards"
            )

    def _main_connection(self) -> Connection:
        self._check_open()
        if self._main is None:
            if self.path is None:
                raise errors.ClosedError(
                    "a collection in memory cannot be used after a fork: give it a path, or create it in the child"
                )
            self._main = self._connect(create=False)
        return self._main

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClosedError(f"{self} was closed: open it again")
        self._check_files()
        if self.read_only and not self._follows_writers:
            self._follow_writers()

    def _check_files(self) -> None:
        """Raise StorageError if the file or its log is another than at first."""
        if self.path is not None:
            self._files.check(str(self.path))
            if not self.read_only:
                self._files.check(f"{self.path}-wal")

    def _connect(self, *, create: bool) -> Connection:
        if self.path is None:
            return _configured(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        if forks.was_left_open(identity(str(self.path))):
            raise self._left_open()
        mode = "rwc" if create else "rw"
        if self.read_only:
            mode = "ro" if self._follows_writers else "ro&immutable=1"
        uri = f"{self.path.as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=self.lock_timeout)
        try:
            return _configured(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, UnicodeDecodeError):  # SQLite's message has a damaged name in it
                raise errors.DamagedFileError(
                    f"{self} is damaged (its tables have no names): restore it from a backup"
                ) from error
            raise

    def _can_share(self) -> bool:
        """Whether SQLite can follow a writer here: the log's index must exist or be creatable."""
        return Path(f"{self.path}-wal").exists() or os.access(Path(f"{self.path}").parent, os.W_OK)

    def _check_not_forked(self, process: int) -> None:
        """Raise StorageError in a child that goes on with what its parent began: both would commit it."""
        if os.getpid() != process:
            raise self._left_open()

    def _left_open(self) -> errors.StorageError:
        return errors.StorageError(
            f"this process was forked while its parent was using {self}, and SQLite cannot tell their locks on it apart: "
            "fork between calls, or start the process by spawn"
        )

    def _keep_a_log(self, connection: Connection) -> None:
        """Switch to WAL where it is not on: a new file, or a copy."""
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            execute_when_free(connection, "PRAGMA journal_mode = WAL", self.lock_timeout)

    def _translated(self) -> AbstractContextManager[None]:
        return translated(str(self), self.lock_timeout)


def _configured(connection: Connection) -> Connection:
    connection.execute("PRAGMA synchronous = FULL")  # an acknowledged write also survives a power cut
    connection.execute("PRAGMA trusted_schema = OFF")  # a file from elsewhere runs no functions of its own
    connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT}")
    return connection
