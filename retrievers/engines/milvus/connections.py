"""Connections to Milvus, and what its errors mean here.

The client of Milvus makes calls again by itself until their time is over, where the server cannot be reached or asks to slow
down. All calls made here may be made again: rows are written by their keys, and what is created has a name of its own.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import grpc
from pymilvus import CollectionSchema, MilvusClient, MilvusException

from rarebit.errors import (
    AccessError,
    ClosedError,
    EngineError,
    EngineLimitError,
    EngineUnreachableError,
    InputError,
    LockedError,
    StorageFullError,
)

PORT: Final = 19530
TOKEN: Final = "MILVUS_TOKEN"  # noqa: S105 -- the name of a variable
"""Of the environment: ``user:password`` or an API key, where the address holds neither."""

LONGEST_TO_CONNECT: Final = 10.0
"""Seconds."""

SLOW: Final = 60.0
"""Seconds that making and loading a collection may take, where ``timeout`` is less."""

WANTED: Final = "wanted one such as milvus://host:19530/database, or milvus:///folder/file.db for Milvus Lite"

_FILE: Final = re.compile(r"(?=.{1,36}\Z)[A-Za-z0-9._-]+\.db")
_NOT_FOUND: Final = (4, 100)
_CONNECT_FAILED: Final = 2
_REFUSED: Final = (1400, 1401)
_INVALID: Final = (1100, 1101)
"""A question that is wrong or too large, and nothing else."""

_REFUSING: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_ECHO: Final = "cannot parse expression"
"""What is behind it is the question, which can hold any word."""

_REFUSALS: Final = ("permission deny", "permissiondenied", "privilege", "auth check failure", "unauthenticated")
_FULL: Final = ("quota exceeded", "disk is full", "no space left", "memory quota")
_TOO_LARGE: Final = (
    "larger than max",
    "maxoutputsize limit",
    "max message size",
    "exceeds the maximum",
    "exceeds limit",
    "too large",
)
_BROKEN: Final = ("retry timeout", "retry run out", "fail connecting", "unavailable", "deadline exceeded")
_CODES: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


OLDEST_WITH_PARTITIONS: Final = (2, 4)
"""Milvus 2.3 replaces rows into other partitions than it looks for them in."""


class GoneError(EngineError):
    """The collection of Milvus that was asked is not there."""


class TooLargeError(EngineError):
    """A question or an answer is larger than the server or the client lets through."""


class Address:
    """What stands in an address.

    Args:
        url: ``milvus://user:password@host:port/database``, or with an API key in place of user and password; ``milvuss://``
            for TLS; ``milvus:///folder/file.db`` for a file of Milvus Lite.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, url: str) -> None:
        """Read it."""
        try:
            parts = urlsplit(url)
            port = parts.port or PORT
        except ValueError:
            raise InputError(f"got an address that cannot be read, {WANTED}") from None
        self.token = _token_in(parts)
        given = dict(parse_qsl(parts.query))
        self.secure = parts.scheme == "milvuss" or given.pop("secure", "").lower() in {"1", "true", "yes"}
        self.file = parts.path if parts.netloc in {"", "."} else None
        if given or parts.fragment or not (parts.hostname or self.file):
            raise InputError(f"got an address with parts that are unknown, {WANTED}")
        if self.file is not None:
            self.file = str(Path(self.file.lstrip("/") if parts.netloc else self.file).absolute())
            if not _FILE.fullmatch(Path(self.file).name):
                raise InputError(
                    f"got the file {self.file!r} in an address of Milvus, and Milvus Lite wants a name of at most 36 letters, "
                    "digits, dots, hyphens and underlines that ends in .db: rename it"
                )
            self.shown = f"milvus://{self.file}"
            return
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        self.host, self.database = f"{host}:{port}", parts.path.strip("/")
        self.shown = f"milvus{'s' if self.secure else ''}://{self.host}" + (f"/{self.database}" if self.database else "")


def _token_in(parts: SplitResult) -> str:
    """Give ``user:password`` or an API key: from the address, or from the environment."""
    if parts.username is None:
        return os.environ.get(TOKEN, "")
    user = unquote(parts.username)
    return user if parts.password is None else f"{user}:{unquote(parts.password)}"


class Connections:
    """A client of Milvus, made when it is needed; safe to use from several threads, and in a forked child.

    Args:
        url: as :class:`Address` reads it.
        timeout: seconds to wait for a call.
        read_only: refuse to write.

    Raises:
        InputError: the address cannot be read.
    """

    def __init__(self, url: str, timeout: float, *, read_only: bool = False) -> None:
        """Read the address; nothing is connected yet."""
        self._address = Address(url)
        self.timeout, self.read_only = timeout, read_only
        self.where = self._address.shown
        self._begin()

    def _begin(self) -> None:
        self._client: MilvusClient | None = None
        self._closed, self._owner = False, os.getpid()
        self._lock = threading.Lock()

    @property
    def is_file(self) -> bool:
        """Whether this is Milvus Lite."""
        return self._address.file is not None

    @property
    def file(self) -> Path | None:
        """The file of Milvus Lite; None for a server."""
        return None if self._address.file is None else Path(self._address.file)

    def call(self, method: str, *given: Any, slow: bool = False, **named: Any) -> Any:
        """Call a method of Milvus' client.

        Args:
            method: its name.
            given: its arguments.
            slow: whether it may take longer than others.
            named: its arguments by name.

        Raises:
            ClosedError, EngineUnreachableError, AccessError, StorageFullError, EngineError: what went wrong.
            GoneError, TooLargeError: the same, where the caller knows how to go on.
        """
        timeout = max(self.timeout, SLOW) if slow else self.timeout
        with translated(self.where):
            return getattr(self._connected(), method)(*given, timeout=timeout, **named)

    def create(self, name: str, schema: CollectionSchema, bits: str | None = None, **named: Any) -> None:
        """Create a collection of Milvus; one that is there with the same schema stays.

        Args:
            name: of it.
            schema: of its fields.
            bits: the field of bits, all of which are compared in searches; None leaves it without an index, and not loaded.
            named: what else Milvus shall know.
        """
        self.call("create_collection", name, schema=schema, slow=True, num_shards=1, **named)
        if bits is not None:
            index = MilvusClient.prepare_index_params()
            index.add_index(bits, index_type="BIN_FLAT", metric_type="HAMMING")
            self.call("create_index", name, index, slow=True, sync=False)  # there is nothing in it to wait for
            self.call("load_collection", name, slow=True)

    def check_partitions(self) -> None:
        """Check that this Milvus can spread rows over partitions.

        Raises:
            EngineLimitError: it cannot.
        """
        if not self.is_file:
            version = str(self.call("get_server_version")).removeprefix("v").split(".")
            if tuple(int(part) for part in version[:2] if part.isdecimal()) >= OLDEST_WITH_PARTITIONS:
                return
        raise EngineLimitError(
            f"got partitions for Milvus at {self.where}, which keeps tenants apart by filters alone: leave them out, or use a "
            "server of Milvus 2.4 or later"
        )

    def _connected(self) -> MilvusClient:
        if self._closed:
            raise ClosedError("the collection was closed, wanted an open one: connect again")
        if self._owner != os.getpid():  # in a forked child the parent's connection is not ours, nor is its lock
            self._begin()
        with self._lock:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> MilvusClient:
        patience = max(1.0, min(self.timeout, LONGEST_TO_CONNECT))
        if self._address.file is not None:
            load_lite()
            return MilvusClient(self._address.file, timeout=patience, dedicated=True)
        url = f"{'https' if self._address.secure else 'http'}://{self._address.host}"
        named = {"token": self._address.token, "db_name": self._address.database}
        return MilvusClient(url, timeout=patience, dedicated=True, **named)

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._owner == os.getpid():
            with self._lock:
                client, self._client = self._client, None
            if client is not None:
                client.close()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle where, without the credentials: they are found again in the environment."""
        return {"url": self.where, "timeout": self.timeout, "read_only": self.read_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew."""
        self.__init__(**state)  # type: ignore[misc]


def load_lite() -> None:
    """Import Milvus Lite, and say clearly why if that does not work.

    Raises:
        EngineError: it is not there, or lacks what it needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for its own version through an interface that is on its way out
            import milvus_lite.server_manager  # noqa: F401
    except ImportError as error:
        raise EngineError(
            f"a file of Milvus needs Milvus Lite, which cannot be imported ({error}): pip install 'milvus-lite<3' "
            "'setuptools<81'"
        ) from error


_calling = threading.local()


def _is_others(record: logging.LogRecord) -> bool:
    """Whether a message is not about a call made here, whose errors are told in Rarebit's words."""
    del record
    return not getattr(_calling, "now", False)


logging.getLogger("pymilvus.decorators").addFilter(_is_others)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Say in Rarebit's errors what Milvus' say."""
    before, _calling.now = getattr(_calling, "now", False), True
    try:
        yield
    except MilvusException as error:
        _raise(where, error, error.code, str(error.message))
    except grpc.RpcError as error:
        details = getattr(error, "details", lambda: None)()
        _raise(where, error, _status(error), str(details or type(error).__name__))
    finally:
        _calling.now = before


def _status(error: BaseException | None) -> Any:
    """Give the code of a broken call; None for any other error."""
    return error.code() if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call) else None


def _raise(where: str, error: Exception, code: Any, message: str) -> None:
    said = (message.strip().splitlines() or [type(error).__name__])[0][:300]
    status = _status(error) or _status(error.__cause__)
    words = message.lower().partition(_ECHO)[0]
    if code in _NOT_FOUND:
        raise GoneError(f"Milvus at {where} lacks a part of the collection ({said}): somebody dropped it") from None
    if code in _INVALID and status is None:
        if _says(words, _TOO_LARGE):
            raise TooLargeError(f"Milvus at {where} lets nothing of this size through ({said}): ask for less") from None
        raise EngineError(f"Milvus at {where} could not do it ({said})") from error
    if code in _REFUSED or status in _REFUSING or (status not in _CODES and _says(words, _REFUSALS)):
        raise AccessError(f"Milvus at {where} refuses ({said}): check the token, and what its role may do") from None
    if "open local milvus failed" in words:
        raise LockedError(
            f"Milvus Lite cannot open {where}: another process has it open, or its folder is not there; Milvus Lite serves one "
            "process at a time"
        ) from None
    if status == grpc.StatusCode.RESOURCE_EXHAUSTED or (status not in _CODES and _says(words, _TOO_LARGE)):
        raise TooLargeError(f"Milvus at {where} lets nothing of this size through ({said}): ask for less") from None
    if status == grpc.StatusCode.UNIMPLEMENTED:
        raise EngineLimitError(f"Milvus at {where} has no such thing ({said}): a later version may") from None
    if _says(words, _FULL):
        raise StorageFullError(f"the server has no room left ({said}): make room there, and write again") from None
    if code == _CONNECT_FAILED or status in _CODES or _says(words, _BROKEN):
        raise EngineUnreachableError(f"there is no connection to Milvus at {where} ({said}): is it running there?") from None
    raise EngineError(f"Milvus at {where} could not do it ({said})") from error


def _says(message: str, words: tuple[str, ...]) -> bool:
    return any(word in message for word in words)
