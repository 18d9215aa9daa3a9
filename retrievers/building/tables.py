"""Files of the work folder: Parquet, written whole or not at all, with a checksum of their content inside."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from rarebit.arrays import Codes, Vectors
from rarebit.errors import DamagedFileError, StorageError, StorageFullError

if TYPE_CHECKING:
    import pyarrow as pa

STAMP: Final = b"rarebit"
"""The entry of a file's own metadata that says of which build it is, and what its checksum is."""

UNFINISHED: Final = ".tmp"

Column: TypeAlias = Sequence[str] | Codes | Vectors
"""n texts, an (n, size) matrix of bytes, or an (n, dim) matrix of float32."""


@dataclass(frozen=True)
class Stamp:
    """Which part of which build a file is, and of which codec its codes are, if it has some."""

    build: str
    stage: str
    shard: int
    codec: str | None = None

    def __str__(self) -> str:
        """Name it for messages."""
        return f"{self.stage} of shard {self.shard}"


def write_table(path: Path, columns: Mapping[str, Column], stamp: Stamp) -> str:
    """Write columns of one length aside, and give the file its name when it is whole; returns the checksum.

    Raises:
        StorageFullError, StorageError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    checksum = checksum_of(columns)
    told = {**asdict(stamp), "checksum": checksum}
    table = pa.table({name: _as_arrow(column) for name, column in columns.items()})
    table = table.replace_schema_metadata({STAMP: json.dumps(told)})
    with written_whole(path) as file:
        parquet.write_table(table, file, compression="zstd")
    return checksum


def read_table(path: Path, stamp: Stamp, names: Sequence[str] | None = None) -> tuple[dict[str, Any], str]:
    """Read all columns and check them against the checksum; gives them, or the named ones, and the checksum.

    Raises:
        DamagedFileError: the file is not what was written, or is of another build.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, use_threads=False, memory_map=False)
        columns = {name: _from_arrow(table.column(name)) for name in table.column_names}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, stamp, str(error)) from error
    checksum = _told(table.schema.metadata, path, stamp)
    if checksum_of(columns) != checksum:
        raise damaged(path, stamp, "its content is not what its checksum says")
    return {name: columns[name] for name in (columns if names is None else names)}, checksum


def stamped(path: Path, stamp: Stamp) -> tuple[int, str]:
    """Give how many rows a file says it has, and its checksum, without reading its content.

    Raises:
        DamagedFileError: it says nothing of the kind, or is of another build.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            return file.metadata.num_rows, _told(file.schema_arrow.metadata, path, stamp)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, stamp, str(error)) from error


def is_of_another(path: Path, stamp: Stamp) -> bool:
    """Whether a file was written whole by a build, and by another one."""
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    try:
        told = json.loads((read_schema(path).metadata or {})[STAMP])
        return bool(told["build"] != stamp.build)
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return False


def _told(metadata: Mapping[bytes, bytes] | None, path: Path, stamp: Stamp) -> str:
    """Give the checksum that a file tells, if it is the one that was wanted."""
    try:
        told = json.loads((metadata or {})[STAMP])
        checksum, of = str(told["checksum"]), Stamp(*(told[each.name] for each in fields(Stamp)))
    except (KeyError, ValueError, TypeError) as error:
        raise damaged(path, stamp, f"it does not say what it is: {error}") from error
    if of != stamp and replace(of, codec=stamp.codec) == stamp:
        raise damaged(path, stamp, "its codes are of another codec than the build has now")
    if of != stamp:
        raise damaged(path, stamp, "it belongs to another build, or to another place in it")
    return checksum


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; errors as those of :func:`write_table`."""
    with written_whole(path) as file:
        file.write(content)


class written_whole:  # noqa: N801 -- used as a function is
    """A file to write to, which takes the place of the named one when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self._path = path
        self._aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")

    def __enter__(self) -> Any:
        """Open a file beside it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._aside.open("wb")
        except OSError as error:
            raise _unwritten(self._path, error) from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Put it into place once the disk has it, or take it away."""
        try:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if error is None:
                self._aside.replace(self._path)
                return
        except OSError as failed:
            error = failed
        self._aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritten(self._path, error) from error


def checksum_of(columns: Mapping[str, Column]) -> str:
    """Give 32 hexadecimal digits over the names and the values of columns, in their order."""
    told = blake2b(digest_size=16)
    for name, column in columns.items():
        if isinstance(column, np.ndarray):
            about, content = f"{name} {column.dtype} {column.shape}", np.ascontiguousarray(column).tobytes()
        else:
            parts = [text.encode() for text in column]
            about, content = f"{name} {[len(part) for part in parts]}", b"".join(parts)
        told.update(f"{len(about)} {about}".encode())
        told.update(content)
    return told.hexdigest()


def _as_arrow(column: Column) -> pa.Array:
    import pyarrow as pa

    if not isinstance(column, np.ndarray):
        return pa.array(column, pa.large_string())
    count, size = column.shape
    if column.dtype == np.float32:
        return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), size)
    buffer = pa.py_buffer(np.ascontiguousarray(column))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), count, [None, buffer])


def _from_arrow(column: pa.ChunkedArray) -> Any:
    import pyarrow as pa

    whole = pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if whole.null_count:
        raise ValueError("it has empty places")
    if pa.types.is_fixed_size_list(whole.type):
        return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), whole.type.list_size)
    if pa.types.is_fixed_size_binary(whole.type):
        return np.frombuffer(b"".join(whole.to_pylist()), np.uint8).reshape(len(whole), whole.type.byte_width)
    return whole.to_pylist()


def damaged(path: Path, stamp: Stamp, reason: str) -> DamagedFileError:
    """Say that a file of the build is not what it wrote, and what to do."""
    return DamagedFileError(
        f"{path} cannot be used as the {stamp} ({reason}), wanted the file that the build wrote: delete it and run the build "
        "again, which makes it anew"
    )


def _unwritten(path: Path, error: OSError) -> StorageError | StorageFullError:
    kind = StorageFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
    return kind(
        f"{path} cannot be written ({error.strerror or error}): free space or choose another work folder; run it again then"
    )
