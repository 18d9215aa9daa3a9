"""Lexical search: FTS5's BM25 over the texts."""

from __future__ import annotations

import re

from pyroaring import BitMap64

from rarebit.retrievers.collection.storage import Connection

OVERFETCH = 4
"""With a filter, rows asked of FTS5 at first, as a multiple of k, before the filter's rows are handed to it."""


def ranked(connection: Connection, text: str, k: int, allowed: BitMap64 | None) -> list[tuple[int, float]]:
    """Find the k best rows by BM25 among the allowed ones: (row id, score), higher is nearer.

    Rows match that hold at least one word of the text; nothing in the text is taken for query syntax.
    """
    query = _any_word(text)
    if not query or k <= 0:
        return []
    if allowed is None:
        return _best(connection, query, k)
    found = [(row_id, score) for row_id, score in _best(connection, query, OVERFETCH * k) if row_id in allowed]
    if len(found) >= k:
        return found[:k]
    every = connection.execute(
        "SELECT rowid, -bm25(lexical) AS score FROM lexical WHERE lexical MATCH ? ORDER BY score DESC, rowid", (query,)
    )
    return [(row_id, score) for row_id, score in every if row_id in allowed][:k]


def _best(connection: Connection, query: str, k: int) -> list[tuple[int, float]]:
    sql = "SELECT rowid, -bm25(lexical) AS score FROM lexical WHERE lexical MATCH ? ORDER BY score DESC, rowid LIMIT ?"
    return connection.execute(sql, (query, k)).fetchall()


def _any_word(text: str) -> str:
    """Quote each word, so that FTS5 reads it as a word, and join them with OR."""
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(re.findall(r"\w+", text)))
