"""Connections to PostgreSQL: a pool, what its errors mean here, and how often a call is tried again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg import IsolationLevel, errors
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
    ReadOnlyError,
    StorageFullError,
)

Connection: TypeAlias = psycopg.Connection[Any]
Answer = TypeVar("Answer")

MOST_CONNECTIONS: Final = 8
TRIES: Final = 3
"""Of a call whose connection broke, or that the server took back because two writers waited for each other."""

LONGEST_TO_CONNECT: Final = 10
"""Seconds."""

SHOWN: Final = ("host", "hostaddr", "port", "dbname", "user", "service")
"""Parts of an address that messages show."""

SECRETS: Final = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
"""Parts of an address that are not pickled."""

SETTINGS: Final = {
    "search_path": "pg_catalog, pg_temp",  # what somebody else puts into public must not stand for the server's own
    "hnsw.iterative_scan": "strict_order",
    "hnsw.max_scan_tuples": "1000000",
    "hnsw.scan_mem_multiplier": "64",
}
"""Of every connection."""

_REFUSALS: Final = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
"""Of a server that is there and lets nobody in: it says so in words alone."""

_BREAKING: Final = ("08", "57P", "40")
"""How the codes of errors begin after which a call may be made again."""


class Connections:
    """Connections that are made when they are needed, and kept.

    Args:
        url: ``postgresql://user:password@host:port/database``, or a connection string of libpq.
        timeout: seconds to wait for the server to let one in, and for other writers.
        read_only: let the server itself refuse every write.

    Raises:
        InputError: the address cannot be read.
    """

    def __init__(self, url: str, timeout: float, *, read_only: bool = False) -> None:
        """Read the address; nothing is connected yet."""
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error:
            # The message of libpq repeats the address, password included.
            raise InputError(
                "got an address that PostgreSQL cannot read, wanted one such as postgresql://user@host:5432/database"
            ) from None
        self.timeout, self.read_only = timeout, read_only
        self.where = make_conninfo("", **{key: value for key, value in parts.items() if key in SHOWN})
        self._kept = make_conninfo("", **{key: value for key, value in parts.items() if key not in SECRETS})
        self._url = url
        self._closed = self._reached = False
        self._pool, self._owner = self._new_pool(), os.getpid()

    def _new_pool(self) -> ConnectionPool[Connection]:
        patience = self._patience
        alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 1000 * patience}
        return ConnectionPool(
            self._url,
            kwargs={"autocommit": True, "connect_timeout": patience, "application_name": "rarebit", **alive},
            configure=self._configure,
            min_size=0,
            max_size=MOST_CONNECTIONS,
            timeout=max(1.0, self.timeout),
            reconnect_timeout=max(1.0, self.timeout),
            open=False,
        )

    def _configure(self, connection: Connection) -> None:
        connection.isolation_level = IsolationLevel.READ_COMMITTED  # a writer that waited sees what it waited for
        wait = f"{max(1, round(1000 * self.timeout))}ms"
        wanted = {**SETTINGS, "lock_timeout": wait, "default_transaction_read_only": "on" if self.read_only else "off"}
        for name, value in wanted.items():
            connection.execute("SELECT pg_catalog.set_config(%s::text, %s::text, false)", (name, value))

    def call(self, work: Callable[[Connection], Answer], *, repeatable: bool = True) -> Answer:
        """Do something with a connection; again if the connection broke.

        Args:
            work: to do.
            repeatable: whether it gives the same when it was done before without anybody being told; otherwise it is only tried
                again before it has begun.

        Raises:
            ClosedError, EngineUnreachableError, AccessError, LockedError, StorageFullError, EngineError: what went wrong.
        """
        for left in reversed(range(TRIES)):
            begun = False
            try:
                with translated(self.where), self._connection() as connection:
                    if not repeatable:
                        connection.execute("SELECT 1")
                        begun = True
                    return work(connection)
            except BrokenError as error:
                if begun:
                    raise EngineUnreachableError(f"{error.shown}; whether it was done is unknown: look") from error.__cause__
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
        return min(max(2, round(self.timeout)), LONGEST_TO_CONNECT)

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        if self._owner == os.getpid():
            self._pool.close()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle where, without the credentials: libpq finds them again in PGPASSWORD or in its password file."""
        return {"url": self._kept, "timeout": self.timeout, "read_only": self.read_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew."""
        self.__init__(**state)  # type: ignore[misc]


class BrokenError(Exception):
    """A call that may be made again; ``shown`` is the error if it does not help."""

    def __init__(self, shown: RarebitError) -> None:
        """Keep what to show."""
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
    except (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InsufficientPrivilege) as error:
        raise AccessError(f"PostgreSQL at {where!r} refuses ({_said(error)}): ask with a role that may") from error
    except errors.LockNotAvailable as error:
        raise LockedError(f"another writer was busy for too long ({_said(error)}): try again, or raise timeout") from error
    except errors.ReadOnlySqlTransaction as error:
        raise ReadOnlyError(f"PostgreSQL at {where!r} is read only here ({_said(error)}): connect without read_only") from error
    except (errors.DiskFull, errors.ConfigurationLimitExceeded) as error:
        raise StorageFullError(f"the server has no room left ({_said(error)}): make room there; nothing was changed") from error
    except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
        raise CollectionNotFoundError(f"the collection is not there any more ({_said(error)}): somebody dropped it") from error
    except psycopg.Error as error:
        if not _is_broken(error):
            raise EngineError(f"PostgreSQL at {where!r} could not do it ({_said(error)})") from error
        said = _said(error)
        if error.sqlstate is None and any(word in said for word in _REFUSALS):
            raise AccessError(f"PostgreSQL at {where!r} lets nobody in ({said}): check user and password") from None
        raise BrokenError(
            EngineUnreachableError(f"there is no connection to PostgreSQL at {where!r} ({said}): is it running there?")
        ) from error


def _is_broken(error: psycopg.Error) -> bool:
    """Whether an error is the connection's, or the server's own business, and not that of what was asked."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith(_BREAKING)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def _said(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
