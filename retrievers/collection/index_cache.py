"""The codes of most rows in a file beside the database, so that opening does not read them row by row.

The file says of which commit it is, by number and name; it is used if the database knows that commit, and what came since is
read from there. Whatever else it is - damaged, cut off, of another database, of another version - it is passed over and written
anew: it holds nothing that the database does not.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rarebit.errors import StorageError
from rarebit.retrievers.collection.asides import written_aside
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.stored_codes import StoredCodes

FORMAT: Final = "rarebit-index-1"

FEWEST_ROWS: Final = 16_384
"""Rows from which reading them one by one takes noticeably longer."""


@dataclass(frozen=True)
class CachedCodes:
    """The codes of all rows of a commit up to ``last_row_id``."""

    stored: StoredCodes
    last_row_id: int
    last_removal: int


@dataclass(frozen=True)
class _Description:
    """What the file says about itself; everything but the checksum is under the checksum."""

    format: str
    version: int
    name: int
    generation: int
    last_row_id: int
    last_removal: int
    checksum: int = 0

    @classmethod
    def read(cls, metadata: dict[str, str]) -> _Description:
        return cls(metadata["format"], *(int(metadata[key]) for key in list(cls.__dataclass_fields__)[1:]))

    def with_checksum(self, arrays: dict[str, Any]) -> _Description:
        described = {**asdict(self), "checksum": 0}
        checksum = zlib.crc32(repr(sorted(described.items())).encode())
        for name in sorted(arrays):
            checksum = zlib.crc32(arrays[name].data, zlib.crc32(name.encode(), checksum))
        return _Description(**{**described, "checksum": checksum})


class IndexCache:
    """The file beside a database.

    Args:
        database: path of the database; None for one in memory, which has no such file.
        read_only: leave the file as it is.
    """

    def __init__(self, database: Path | None, *, read_only: bool) -> None:
        """Name the file."""
        self._database = database
        self.path = None if database is None else Path(f"{database}-index")
        self._read_only = read_only

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def load(self, connection: Connection, state: State, code_size: int) -> CachedCodes | None:
        """Give what the file holds, if it belongs to this database and can be followed to the commit of the transaction."""
        if self.path is None or state.row_count < FEWEST_ROWS or not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="np") as file:
                described = _Description.read(file.metadata() or {})
                if not _can_follow(described, connection, state):
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it has no other way
            if described.with_checksum(arrays) != described or arrays["codes"].shape[1:] != (code_size,):
                return None
            first, count = int(arrays["first"][0]), len(arrays["codes"])
            row_ids = arrays["row_ids"] if "row_ids" in arrays else np.arange(first, first + count)
            tenants, lists = (arrays[name] if name in arrays else np.zeros(count, np.int64) for name in ("tenants", "lists"))
            stored = StoredCodes(row_ids, tenants, lists, arrays["codes"])
            return CachedCodes(stored, described.last_row_id, described.last_removal)
        except (SafetensorError, OSError, KeyError, ValueError, IndexError, TypeError):
            return None

    def save(self, connection: Connection, state: State, cached: CachedCodes) -> None:
        """Write the file, whole or not at all; where that cannot be, the next to open the database reads it row by row."""
        stored = cached.stored
        if self._database is None or self.path is None or self._read_only or len(stored.codes) < FEWEST_ROWS:
            return
        arrays: dict[str, Any] = {"codes": stored.codes, "first": stored.row_ids[:1]}
        if stored.row_ids[-1] - stored.row_ids[0] + 1 != len(stored.row_ids):
            arrays["row_ids"] = stored.row_ids
        arrays |= {name: column for name, column in (("tenants", stored.tenants), ("lists", stored.lists)) if column.any()}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        name = _name_of(connection, state.version)
        described = _Description(FORMAT, state.version, name, state.generation, cached.last_row_id, cached.last_removal)
        metadata = {key: str(value) for key, value in asdict(described.with_checksum(arrays)).items()}
        # Who may read the database may read this.
        with suppress(StorageError, SafetensorError), written_aside(self.path, mode_of=self._database, synced=False) as aside:
            save_file(arrays, aside, metadata)


def _can_follow(described: _Description, connection: Connection, state: State) -> bool:
    """Whether the file's commit leads to this one by appending and removing."""
    same = (described.format, described.generation) == (FORMAT, state.generation)
    known = described.version <= state.version and described.name == _name_of(connection, described.version) != 0
    return same and known and described.last_removal >= state.removals_forgotten


def _name_of(connection: Connection, version: int) -> int:
    """Give the name of a commit; 0 where it is not known any more."""
    found = connection.execute("SELECT name FROM commits WHERE version = ?", (version,)).fetchone()
    return int(found[0]) if found else 0
