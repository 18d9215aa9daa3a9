"""Connections to PostgreSQL: a pool, what its errors mean here, and how often a call is tried again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from rarebit.errors import (
    AccessError,
    ClosedError,
    CollectionNotFoundError,
    EngineError,
    EngineUnreachableError,
    InputError,
    LockedError,
    RarebitError,
    StorageFullError,
)

Connection: TypeAlias = psycopg.Connection[Any]
Answer = TypeVar("Answer")

MOST_CONNECTIONS: Final = 8
TRIES: Final = 3
"""Of a call whose connection broke, or that the server took back because two writers waited for each other."""

LONGEST_TO_CONNECT: Final = 10
"""Seconds."""

SECRETS: Final = ("password", "passfile", "sslpassword", "sslkey", "oauth_client_secret")
"""Parts of a connection string that nobody is shown."""

_AGAIN: Final = (errors.DeadlockDetected, errors.SerializationFailure, errors.AdminShutdown, errors.CrashShutdown)
_REFUSALS: Final = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
"""Of a server that is there and lets nobody in: it says so in words alone."""

_DENIED: Final = (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InsufficientPrivilege)


class Connections:
    """Connections that are made when they are needed, and kept.

    Args:
        url: ``postgresql://user:password@host:port/database``, or a connection string of libpq.
        timeout: seconds to wait for the server, and for other writers.

    Raises:
        InputError: the address cannot be read.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Read the address; nothing is connected yet."""
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error:
            # The message of libpq repeats the address, password included.
            raise InputError(
                "got an address that PostgreSQL cannot read, wanted one such as postgresql://user@host:5432/database"
            ) from None
        self.timeout = timeout
        self.where = make_conninfo("", **{key: value for key, value in parts.items() if key not in SECRETS})
        self._url = url
        self._closed = self._reached = False
        self._pool, self._owner = self._new_pool(), os.getpid()

    def _new_pool(self) -> ConnectionPool[Connection]:
        wait = max(1, round(self.timeout))
        return ConnectionPool(
            self._url,
            kwargs={
                "autocommit": True,
                "connect_timeout": self._patience,
                "options": f"-c lock_timeout={wait * 1000} -c hnsw.iterative_scan=strict_order -c hnsw.max_scan_tuples=1000000",
                "application_name": "rarebit",
            },
            min_size=0,
            max_size=MOST_CONNECTIONS,
            timeout=self.timeout,
            reconnect_timeout=self.timeout,
            open=False,
        )

    def call(self, work: Callable[[Connection], Answer]) -> Answer:
        """Do something with a connection, again where that is safe and may help: what is given must be the same when repeated.

        Raises:
            ClosedError, EngineUnreachableError, AccessError, LockedError, StorageFullError, EngineError: what went wrong.
        """
        for left in reversed(range(TRIES)):
            try:
                with translated(self.where), self._connection() as connection:
                    return work(connection)
            except _BrokenError as error:
                if not left:
                    raise error.shown from error.__cause__
                if self._reached:
                    self._pool.check()  # what broke one connection has broken others
        raise AssertionError

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if self._closed:
            raise ClosedError("the collection was closed, wanted an open one: connect again")
        if self._owner != os.getpid():  # in a forked child the parent's connections are not ours
            self._pool, self._owner = self._new_pool(), os.getpid()
        if not self._reached:
            # A pool tries until its time is over, and does not say why: the first connection tells at once.
            psycopg.connect(self._url, connect_timeout=self._patience).close()
            self._reached = True
        self._pool.open()
        with self._pool.connection() as connection:
            yield connection

    @property
    def _patience(self) -> int:
        return min(max(1, round(self.timeout)), LONGEST_TO_CONNECT)

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._owner == os.getpid():
            self._pool.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __getstate__(self) -> dict[str, Any]:
        """Pickle where, without the credentials: libpq finds them again in PGPASSWORD or in its password file."""
        return {"url": self.where, "timeout": self.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew."""
        self.__init__(**state)  # type: ignore[misc]


class _BrokenError(Exception):
    """A call that may be made again; ``shown`` is the error if it does not help."""

    def __init__(self, shown: RarebitError) -> None:
        super().__init__(str(shown))
        self.shown = shown


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Say in Rarebit's errors what PostgreSQL's say."""
    try:
        yield
    except (PoolTimeout, PoolClosed) as error:
        raise EngineUnreachableError(
            f"got no connection to PostgreSQL at {where!r} in time ({_said(error)}): it has gone away, or all its connections "
            "are in use"
        ) from None
    except _AGAIN as error:
        raise _BrokenError(EngineError(_said(error))) from error
    except _DENIED as error:
        raise AccessError(f"PostgreSQL at {where!r} refuses ({_said(error)}): ask with a role that may") from error
    except errors.LockNotAvailable as error:
        raise LockedError(f"another writer was busy for too long ({_said(error)}): try again, or raise timeout") from error
    except errors.DiskFull as error:
        raise StorageFullError(f"the server's disk is full ({_said(error)}): make room there; nothing was changed") from error
    except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
        raise CollectionNotFoundError(f"the collection is not there any more ({_said(error)}): somebody dropped it") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        said = _said(error)
        if any(word in said for word in _REFUSALS):
            raise AccessError(f"PostgreSQL at {where!r} lets nobody in ({said}): check user and password") from None
        raise _BrokenError(
            EngineUnreachableError(f"there is no connection to PostgreSQL at {where!r} ({said}): is it running there?")
        ) from error
    except psycopg.Error as error:
        raise EngineError(f"PostgreSQL at {where!r} could not do it ({_said(error)})") from error


def _said(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
