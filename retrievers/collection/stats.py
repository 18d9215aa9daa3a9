"""Every byte that a collection takes, by what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.near_duplicates.stored import ENTRY_BYTES


@dataclass(frozen=True)
class Stats:
    """Sizes in bytes. ``memory`` is what the index keeps in the process, ``disk`` what the file holds.

    ``choice``: what the codec was chosen from and why, where it was chosen.
    ``memory``: codes, as they are laid out for search; row_ids (with marks of deletion); filters (columns of the fields asked
    for, rows of the last filters, vectors of the small tenants asked last); codec (learned arrays); database (the whole of it,
    for a collection in memory).
    SQLite's page cache, at most 2 MB a connection, comes on top. Pages of the file that were read show in the process's
    resident size, since they are mapped; they belong to the operating system's cache.
    ``disk``: codes, fine, text, metadata, ids are the content, near_duplicates the bands of the texts; file is the whole file
    with its indexes, lexical index and log; cache is the file beside it that opening reads codes from.
    """

    count: int
    dim: int | None
    metric: str
    codec: str
    fine: str
    trained: bool
    choice: Mapping[str, Any] | None
    memory: Mapping[str, int]
    disk: Mapping[str, int]

    @property
    def memory_per_vector(self) -> float:
        """Bytes a vector of everything that the index keeps in memory."""
        return sum(self.memory.values()) / self.count if self.count else 0.0

    @property
    def disk_per_vector(self) -> float:
        """Bytes a vector of both tiers in the file: codes and fine vectors, without texts and metadata."""
        return (self.disk["codes"] + self.disk["fine"]) / self.count if self.count else 0.0

    @property
    def float32_per_vector(self) -> int:
        """Bytes of a vector kept as float32, to compare with."""
        return 4 * (self.dim or 0)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            **asdict(self),
            "memory_per_vector": round(self.memory_per_vector, 2),
            "disk_per_vector": round(self.disk_per_vector, 2),
            "float32_per_vector": self.float32_per_vector,
        }


def content_bytes(connection: Connection) -> dict[str, int]:
    """Sum up the sizes of what the rows hold."""
    codes, fine, (text, metadata, ids) = (
        connection.execute("SELECT sum(length(code)) FROM codes").fetchone()[0],
        connection.execute("SELECT sum(length(code)) FROM fine").fetchone()[0],
        connection.execute(
            "SELECT sum(length(CAST(text AS BLOB))), sum(length(CAST(metadata AS BLOB))), sum(length(CAST(id AS BLOB))) "
            "FROM rows"
        ).fetchone(),
    )
    bands = ENTRY_BYTES * connection.execute("SELECT count(*) FROM near_duplicates").fetchone()[0]
    sizes = {"codes": codes, "fine": fine, "text": text, "metadata": metadata, "ids": ids, "near_duplicates": bands}
    return {name: size or 0 for name, size in sizes.items()}
