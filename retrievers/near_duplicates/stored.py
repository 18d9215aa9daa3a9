"""Near-duplicates among the rows of a collection's file: a table of bands, kept beside ``rows`` in the same transactions.

The table holds bands only, 32 bits each; texts are read from ``rows`` when candidates are confirmed. Nothing is kept in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final

from rarebit.errors import DamagedFileError
from rarebit.retrievers.near_duplicates.finding import confirmed
from rarebit.retrievers.near_duplicates.minhash import MinHasher

TABLE: Final = """
CREATE TABLE IF NOT EXISTS near_duplicates (
    band INTEGER NOT NULL, row_id INTEGER NOT NULL, PRIMARY KEY (band, row_id)
) WITHOUT ROWID;
"""

STORED_IDS: Final = "SELECT id FROM rows WHERE id IN (SELECT value FROM json_each(?))"

READ_PER_BAND: Final = 64
"""Rows read that share one band, the oldest first: a collection that keeps thousands of the same text stays quick."""

CANDIDATES: Final = f"""
SELECT near_duplicates.band, near_duplicates.row_id FROM json_each(?) AS asked CROSS JOIN near_duplicates
WHERE near_duplicates.band = asked.value AND near_duplicates.row_id IN (
    SELECT row_id FROM near_duplicates WHERE band = asked.value ORDER BY row_id LIMIT {READ_PER_BAND}
)
"""


class NearDuplicateIndex:
    """Keeps and asks the table of bands, always inside the caller's transaction; it holds no state but the threshold.

    Args:
        threshold: Jaccard similarity from which texts are near-duplicates, above 0, at most 1. The bands in the table belong to
            it: a file has one threshold for good.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        """Choose the bands."""
        self.hasher = MinHasher(threshold)

    def entries(self, row_ids: Sequence[int], texts: Sequence[str]) -> list[tuple[int, int]]:
        """Give what the table holds for rows: (band, row id), sorted, so that writing goes through the table in order."""
        pairs = zip(row_ids, self.hasher.keys(texts), strict=True)
        return sorted({(key, row_id) for row_id, keys in pairs for key in keys})

    def add(self, connection: sqlite3.Connection, row_ids: Sequence[int], texts: Sequence[str]) -> None:
        """Note rows that were inserted."""
        connection.executemany("INSERT OR IGNORE INTO near_duplicates VALUES (?, ?)", self.entries(row_ids, texts))

    def remove(self, connection: sqlite3.Connection, row_ids: Sequence[int], texts: Sequence[str]) -> None:
        """Forget rows that are deleted; the texts are those that were stored."""
        connection.executemany("DELETE FROM near_duplicates WHERE band = ? AND row_id = ?", self.entries(row_ids, texts))

    def intake(self, connection: sqlite3.Connection, ids: Sequence[str]) -> Intake:
        """Begin a call that adds rows under these ids."""
        return Intake(connection, self.hasher, ids)


class Intake:
    """One call that adds rows, part by part: says which are to be written, and which row stands for each of the others."""

    def __init__(self, connection: sqlite3.Connection, hasher: MinHasher, ids: Sequence[str]) -> None:
        """Note which of the ids are stored: their rows are on their way out, and stand for nothing."""
        self._connection = connection
        self._hasher = hasher
        self._replaced = {key for (key,) in connection.execute(STORED_IDS, (json.dumps(list(ids)),))}

    def stand_ins(self, ids: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Say for each row of a part which id stands for it; rows that stand for themselves are to be written.

        Ask for a part when the parts before it have been written. A row that replaces a stored one always stands for itself: an
        update is no duplicate, and its id stays known.

        Args:
            ids: n ids of this part, each once.
            texts: their n texts.

        Returns:
            n ids: the row's own; or that of a stored row, or of an earlier row of this part, which its text nearly duplicates.
        """
        keys = self._hasher.keys(texts)
        part = _Part(self._connection, keys, dict(zip(ids, texts, strict=True)), self._replaced)
        found = []
        for own, text, row_keys in zip(ids, texts, keys, strict=True):
            original = (
                None if own in self._replaced else confirmed(text, part.sharing(row_keys), part.text_of, self._hasher.threshold)
            )
            found.append(own if original is None else part.id_of(original))
            if original is None:
                part.arrived(own, row_keys)
        self._replaced.difference_update(ids)
        return found


class _Part:
    """The candidates of one part: rows that are stored, by row id, and rows of the part that are to be written, by id."""

    def __init__(
        self, connection: sqlite3.Connection, keys: Iterable[Sequence[int]], texts: Mapping[str, str], replaced: Container[str]
    ) -> None:
        self._connection, self._texts, self._replaced = connection, texts, replaced
        self._sharing: defaultdict[int, list[int | str]] = defaultdict(list)
        self._read: dict[int, tuple[str, str]] = {}
        bands = sorted({key for row_keys in keys for key in row_keys})
        for band, row_id in connection.execute(CANDIDATES, (json.dumps(bands),)):
            self._sharing[band].append(row_id)

    def sharing(self, keys: Sequence[int]) -> Iterator[int | str]:
        return (candidate for key in keys for candidate in self._sharing.get(key, ()))

    def arrived(self, own: str, keys: Sequence[int]) -> None:
        for key in keys:
            self._sharing[key].append(own)

    def text_of(self, candidate: int | str) -> str | None:
        if isinstance(candidate, str):
            return self._texts[candidate]
        key, text = self._row(candidate)
        return None if key in self._replaced else text

    def id_of(self, candidate: int | str) -> str:
        return candidate if isinstance(candidate, str) else self._row(candidate)[0]

    def _row(self, row_id: int) -> tuple[str, str]:
        if row_id not in self._read:
            found = self._connection.execute("SELECT id, text FROM rows WHERE row_id = ?", (row_id,)).fetchone()
            if found is None:
                raise DamagedFileError(f"row {row_id} has bands but is missing from the file: restore it from a backup")
            self._read[row_id] = found
        return self._read[row_id]
