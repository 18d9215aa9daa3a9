"""Lexical search: FTS5's BM25 over the texts."""

from __future__ import annotations

import re
import unicodedata

from pyroaring import BitMap64

from rarebit.retrievers.collection.storage import Connection

OVERFETCH = 4
"""With a filter, rows asked of FTS5 at first, as a multiple of k, before the filter's rows are handed to it."""


def ranked(connection: Connection, text: str, k: int, allowed: BitMap64 | None, tokenizer: str) -> list[tuple[int, float]]:
    """Find the k best rows by BM25 among the allowed ones: (row id, score), higher is nearer.

    Rows match that hold at least one word of the text (one run of three characters, for the tokenizer ``trigram``); nothing
    in the text is taken for query syntax.
    """
    query = _any_trigram(text) if tokenizer == "trigram" else _any_word(text)
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
    return _any(_words(text))


def _any_trigram(text: str) -> str:
    """Do so with each run of three characters of each word; a language without spaces has one word a sentence."""
    return _any([word[start : start + 3] for word in _words(text) for start in range(len(word) - 2)])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", text))


def _any(terms: list[str]) -> str:
    return " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))
