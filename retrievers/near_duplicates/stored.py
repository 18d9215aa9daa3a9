"""Near-duplicates among the rows of a collection's file: a table of bands, kept beside ``rows`` in the same transactions.

The table holds bands only, 32 bits each; texts are read from ``rows`` when candidates are confirmed. Nothing is kept in memory.
Each tenant has bands of its own, which nobody else looks at: no row of another tenant is named, or changes what is found.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from rarebit.errors import DamagedFileError
from rarebit.retrievers.near_duplicates.finding import confirmed
from rarebit.retrievers.near_duplicates.minhash import MinHasher

TABLE: Final = """
CREATE TABLE IF NOT EXISTS near_duplicates (
    tenant INTEGER NOT NULL, band INTEGER NOT NULL, row_id INTEGER NOT NULL, PRIMARY KEY (tenant, band, row_id)
) WITHOUT ROWID;
"""

ENTRY_BYTES: Final = 10
"""Bytes of an entry: four of the band, about two of the row id, and four that say so."""

READ_PER_BAND: Final = 64
"""Rows read that share one band, the oldest first: a collection that keeps thousands of the same text stays quick."""

CANDIDATES: Final = f"""
SELECT near_duplicates.band, near_duplicates.row_id FROM json_each(:bands) AS asked CROSS JOIN near_duplicates
WHERE near_duplicates.tenant = :tenant AND near_duplicates.band = asked.value AND near_duplicates.row_id IN (
    SELECT row_id FROM near_duplicates WHERE tenant = :tenant AND band = asked.value ORDER BY row_id LIMIT {READ_PER_BAND}
)
"""

PRESENT: Final = """
SELECT count(*) FROM json_each(?) AS asked CROSS JOIN near_duplicates AS stored
WHERE stored.tenant = json_extract(asked.value, '$[0]') AND stored.band = json_extract(asked.value, '$[1]')
AND stored.row_id = json_extract(asked.value, '$[2]')
"""

Bands: TypeAlias = Sequence[Sequence[int]]
"""The bands of n texts, as :meth:`NearDuplicateIndex.bands` gives them."""


StoredText: TypeAlias = tuple[int, int, Any]
"""Row id, tenant, text, as the file has them: damage may have made something else of the text."""


class NearDuplicateIndex:
    """Keeps and asks the table of bands, always inside the caller's transaction; it holds no state but the threshold.

    Args:
        threshold: Jaccard similarity from which texts are near-duplicates, above 0, at most 1. The bands in the table belong to
            it: a file has one threshold for good.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        """Choose the bands."""
        self.hasher = MinHasher(threshold)

    def bands(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the bands of n texts; none for a text without content."""
        return self.hasher.keys(texts)

    def intake(self, connection: sqlite3.Connection, tenant: int, replaced: Iterable[str]) -> Intake:
        """Begin a call in which a tenant adds rows; those under the ids ``replaced`` are on their way out."""
        return Intake(connection, self.hasher.threshold, tenant, replaced)

    def remove(self, connection: sqlite3.Connection, rows: Sequence[StoredText]) -> None:
        """Forget rows that are deleted.

        Should the texts not have the bands that were noted for them (other versions of Python normalise the newest letters of
        Unicode in other ways), the whole table is looked through.
        """
        entries = self.entries(rows)
        sql = "DELETE FROM near_duplicates WHERE tenant = ? AND band = ? AND row_id = ?"
        damaged = any(not isinstance(text, str) for _, _, text in rows)
        if damaged or (entries and connection.executemany(sql, entries).rowcount < len(entries)):
            row_ids = json.dumps([row_id for row_id, _, _ in rows])
            connection.execute("DELETE FROM near_duplicates WHERE row_id IN (SELECT value FROM json_each(?))", (row_ids,))

    def missing(self, connection: sqlite3.Connection, rows: Sequence[StoredText]) -> tuple[int, int]:
        """Count the entries that the table should have for rows, and those of them that it does not have."""
        entries = self.entries(rows)
        return len(entries), len(entries) - int(connection.execute(PRESENT, (json.dumps(entries),)).fetchone()[0])

    def entries(self, rows: Sequence[StoredText]) -> list[tuple[int, int, int]]:
        """Give what the table holds for rows: (tenant, band, row id), sorted; nothing for what damage has made no text."""
        every = self.bands([text if isinstance(text, str) else "" for _, _, text in rows])
        return sorted(
            {(tenant, band, row_id) for (row_id, tenant, _), bands in zip(rows, every, strict=True) for band in bands}
        )


def note(connection: sqlite3.Connection, tenant: int, row_ids: Sequence[int], every: Bands) -> None:
    """Note the bands of rows that were inserted; sorted, so that writing goes through the table in order."""
    pairs = sorted({(band, row_id) for row_id, bands in zip(row_ids, every, strict=True) for band in bands})
    connection.executemany(
        "INSERT OR IGNORE INTO near_duplicates VALUES (?, ?, ?)", ((tenant, band, row_id) for band, row_id in pairs)
    )


class Intake:
    """One call that adds rows, part by part: says which are to be written, and which row stands for each of the others."""

    def __init__(self, connection: sqlite3.Connection, threshold: float, tenant: int, replaced: Iterable[str]) -> None:
        """Note the ids that exist and are added again: their rows are on their way out, and stand for nothing."""
        self._connection = connection
        self._threshold = threshold
        self._tenant = tenant
        self._replaced = set(replaced)

    def stand_ins(self, ids: Sequence[str], texts: Sequence[str], every: Bands) -> list[str]:
        """Say for each row of a part which id stands for it; rows that stand for themselves are to be written.

        Ask for a part when the parts before it have been written. A row that replaces a stored one always stands for itself: an
        update is no duplicate, and its id stays known.

        Args:
            ids: n ids of this part, each once.
            texts: their n texts.
            every: the bands of the texts.

        Returns:
            n ids: the row's own; or that of a stored row, or of an earlier row of this part, which its text nearly duplicates.
        """
        part = _Part(self._connection, self._tenant, every, dict(zip(ids, texts, strict=True)), self._replaced)
        found = []
        for own, text, bands in zip(ids, texts, every, strict=True):
            original = None if own in self._replaced else confirmed(text, part.sharing(bands), part.text_of, self._threshold)
            found.append(own if original is None else part.id_of(original))
            if original is None:
                part.arrived(own, bands)
        self._replaced.difference_update(ids)
        return found


class _Part:
    """The candidates of one part: rows that are stored, by row id, and rows of the part that are to be written, by id."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        tenant: int,
        every: Bands,
        texts: Mapping[str, str],
        replaced: Container[str],
    ) -> None:
        self._connection, self._texts, self._replaced = connection, texts, replaced
        self._sharing: defaultdict[int, list[int | str]] = defaultdict(list)
        self._read: dict[int, tuple[str, str]] = {}
        asked = sorted({band for bands in every for band in bands})
        for band, row_id in connection.execute(CANDIDATES, {"bands": json.dumps(asked), "tenant": tenant}):
            self._sharing[band].append(row_id)

    def sharing(self, bands: Sequence[int]) -> Iterator[int | str]:
        return (candidate for band in bands for candidate in self._sharing.get(band, ()))

    def arrived(self, own: str, bands: Sequence[int]) -> None:
        for band in bands:
            self._sharing[band].append(own)

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
            if not all(isinstance(part, str) for part in found):
                raise DamagedFileError(f"id or text of row {row_id} of the file is no text: restore the file from a backup")
            self._read[row_id] = found
        return self._read[row_id]
