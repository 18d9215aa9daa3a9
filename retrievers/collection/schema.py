"""The tables of a collection's file, and what makes a file one of ours.

``state`` counts the commits: every reader compares its ``version`` with the one that its codes in memory stand at; ``commits``
names the last ones, so that a reader knows whether what it has kept belongs to this file.
``rows`` is what users gave; ``codes`` and ``fine`` are the two tiers of its vector; ``lists`` are the centroids of the
inverted lists that codes lie in, where there are enough of them; ``lexical`` is FTS5 over ``rows``.
``tenants`` numbers the tenants by name, 0 being the collection itself, and counts their rows; ``shared`` says who sees rows of
the collection besides. ``near_duplicates`` holds the bands of the texts, where a threshold is set. ``removals`` lets readers
follow deletions without reading every row id again.

What is read from a row, a code, a codec, a setting, a tenant, a share or the state is compared with its checksum
(:mod:`.checksums`), and how many rows are found with how many the state says there are.
"""

from __future__ import annotations

from typing import Final

from rarebit.retrievers.collection.checksums import of_parts
from rarebit.retrievers.near_duplicates import stored as near_duplicates

APPLICATION_ID: Final = 0x52524231  # "RRB1", in the header of the file
FORMAT_VERSION: Final = 4

REMOVALS_KEPT: Final = 10_000
"""Deletions that a reader can follow one by one; one that is further behind reads all codes again."""

COMMITS_KEPT: Final = 1000
"""Commits that are known by name; what was kept of an older one is read again."""

INITIAL_STATE: Final = (1, 1, 0, 1, 0, 0, 0, 0)

TABLES: Final = f"""
CREATE TABLE state (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    next_row_id INTEGER NOT NULL,
    removals_forgotten INTEGER NOT NULL,
    sharing INTEGER NOT NULL,
    tenant_count INTEGER NOT NULL,
    tenant_rows INTEGER NOT NULL,
    checksum INTEGER NOT NULL
);
INSERT INTO state VALUES (1, {", ".join(map(str, INITIAL_STATE))}, {of_parts(*INITIAL_STATE)});
CREATE TABLE commits (version INTEGER PRIMARY KEY, name INTEGER NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE codec (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), name TEXT NOT NULL, config TEXT NOT NULL, learned BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE TABLE tenants (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, row_count INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE rows (
    row_id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, id TEXT NOT NULL, metadata TEXT NOT NULL,
    checksum INTEGER NOT NULL, text TEXT NOT NULL,
    UNIQUE (tenant, id)
);
CREATE TABLE lists (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1), centroids BLOB NOT NULL, probes INTEGER NOT NULL,
    deeper_probes INTEGER NOT NULL, row_count INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE codes (row_id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, list INTEGER NOT NULL, code BLOB NOT NULL);
CREATE TABLE fine (row_id INTEGER PRIMARY KEY, code BLOB NOT NULL);
CREATE TABLE shared (
    tenant INTEGER NOT NULL, row_id INTEGER NOT NULL, seen INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (tenant, row_id)
) WITHOUT ROWID;
CREATE INDEX shared_by_row ON shared (row_id);
CREATE TABLE removals (number INTEGER PRIMARY KEY AUTOINCREMENT, row_id INTEGER NOT NULL);
{near_duplicates.TABLE.strip()}
"""

LEXICAL: Final = {
    "porter": "porter unicode61 remove_diacritics 2",
    "unicode61": "unicode61 remove_diacritics 2",
    "trigram": "trigram",
}
"""Tokenizer setting -> FTS5's tokenizer: English stemming, whole words of any language, or three-character runs (also for
Chinese, Japanese, Thai)."""


def lexical_table(tokenizer: str) -> str:
    """Give the statement that creates the FTS5 table; it keeps no copy of the text."""
    options = f"content='rows', content_rowid='row_id', tokenize='{LEXICAL[tokenizer]}'"
    return f"CREATE VIRTUAL TABLE lexical USING fts5(text, {options})"
