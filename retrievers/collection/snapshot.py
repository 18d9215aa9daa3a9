"""Reading and searching one commit: candidates from the codes in memory, their order from the fine vectors on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from pyroaring import BitMap64

from rarebit.arrays import Queries, RowIds, Vector, Vectors
from rarebit.compressors.vectors import Codec
from rarebit.errors import DamagedFileError, MissingRowError
from rarebit.retrievers.collection import lexical, ranking, rows
from rarebit.retrievers.collection.code_index import NOWHERE, View
from rarebit.retrievers.collection.filters import Filter
from rarebit.retrievers.collection.matching import RememberedMatches
from rarebit.retrievers.collection.records import Hit, Row
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.storage import Connection

Ranking: TypeAlias = list[tuple[int, float]]
"""Row ids with their scores, best first."""

FEWEST_CANDIDATES = 300
CANDIDATES_PER_HIT = 10
"""Candidates re-ranked for k hits: 10 k, at least 300. On 50,000 MiniLM passages .999 of the true top 10 are among the first
300 of the 1-bit codes, .985 among the first 100."""

QUERIES_AT_ONCE = 64
"""Queries whose candidates are read from the fine tier together."""


@dataclass(frozen=True)
class Snapshot:
    """One commit: the connection inside its read transaction, and the codes in memory as of the same commit."""

    connection: Connection
    settings: Settings
    view: View
    remembered: RememberedMatches

    def matching(self, tree: Filter | None) -> BitMap64 | None:
        """Give the rows that match a filter; None for all."""
        if tree is None:
            return None
        return self.remembered.rows(self.connection, self.view.state.version, tree)

    def nearest(self, queries: Queries, k: int, tree: Filter | None, candidates: int | None) -> list[Ranking]:
        """Find the k rows with the highest cosine or inner product for each of (q, dim) queries."""
        allowed = self.matching(tree)
        allowed_ids = None if allowed is None else np.asarray(allowed.to_array(), dtype=np.uint64).astype(np.int64)
        fetched = k if self._fine_codec is None else max(k, candidates or max(FEWEST_CANDIDATES, CANDIDATES_PER_HIT * k))
        scores, row_ids = self.view.search(queries, fetched, allowed_ids)
        estimated = [
            [(row_id, score) for row_id, score in zip(*pair, strict=True) if row_id != NOWHERE]
            for pair in zip(row_ids.tolist(), scores.tolist(), strict=True)
        ]
        if self._fine_codec is None:
            return [self._in_range(found) for found in estimated]
        reranked: list[Ranking] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            reranked += self._reranked(queries[part], row_ids[part], k)
        return reranked

    def best_by_words(self, text: str, k: int, tree: Filter | None) -> Ranking:
        """Find the k rows with the highest BM25."""
        return lexical.ranked(self.connection, text, k, self.matching(tree))

    def diverse(self, query: Vector, k: int, fetch_k: int, lambda_mult: float, tree: Filter | None) -> Ranking:
        """Choose k of the ``fetch_k`` nearest by maximal marginal relevance."""
        found = self.nearest(query[np.newaxis], max(k, fetch_k), tree, None)[0]
        if not found:
            return []
        vectors = self.vectors([row_id for row_id, _ in found])
        chosen = ranking.maximal_marginal_relevance(
            np.array([score for _, score in found], np.float32), vectors, k, lambda_mult
        )
        return [found[position] for position in chosen]

    def hits(self, rankings: Sequence[Ranking], *, include_vectors: bool = False) -> list[list[Hit]]:
        """Read the rows of several rankings, each row once."""
        wanted = list(dict.fromkeys(row_id for found in rankings for row_id, _ in found))
        stored = rows.by_row_ids(self.connection, wanted)
        vectors: Mapping[int, Vector] = (
            dict(zip(wanted, self.vectors(wanted), strict=True)) if include_vectors and wanted else {}
        )
        return [[_hit(stored, row_id, score, vectors) for row_id, score in found] for found in rankings]

    def vectors(self, row_ids: Sequence[int]) -> Vectors:
        """Decode the best vectors that are kept of these rows: (n, dim), in the order given."""
        if self.view.codec is None:
            return np.empty((len(row_ids), 0), np.float32)
        table, codec = ("codes", self.view.codec) if self._fine_codec is None else ("fine", self._fine_codec)
        found, codes = rows.codes_of(self.connection, table, sorted(set(row_ids)), codec.code_size)
        if len(found) != len(set(row_ids)):
            raise DamagedFileError(f"{len(set(row_ids)) - len(found)} rows have no vector: restore the file from a backup")
        positions = np.searchsorted(found, row_ids)
        return codec.decode(codes)[positions]

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Decode the vectors of ids; raises MissingRowError if one is missing."""
        found = rows.by_ids(self.connection, ids)
        missing = [key for key in ids if key not in found]
        if missing:
            raise MissingRowError(
                f"{len(missing)} of {len(ids)} ids are not in the collection (first: {missing[0]!r}): ask get(ids) which are"
            )
        return self.vectors([found[key][0] for key in ids])

    @property
    def _fine_codec(self) -> Codec | None:
        """The codec of the fine tier, or None where the codes are as good or there is none."""
        if self.view.codec is None or self.view.codec.lossless:
            return None
        fine = self.settings.new_fine_codec()
        return None if fine is None else fine.with_dim(self.view.codec.dim)

    def _reranked(self, queries: Queries, candidates: Iterable[RowIds], k: int) -> list[Ranking]:
        wanted = np.unique(np.concatenate([*candidates, np.empty(0, np.int64)]))
        wanted = wanted[wanted != NOWHERE]
        vectors = self.vectors(wanted.tolist())
        reranked = []
        for query, row_ids in zip(queries, candidates, strict=True):
            own = row_ids[row_ids != NOWHERE]
            scores = vectors[np.searchsorted(wanted, own)] @ query
            order = np.lexsort((own, -scores))[:k]
            reranked.append(self._in_range(list(zip(own[order].tolist(), scores[order].tolist(), strict=True))))
        return reranked

    def _in_range(self, found: Ranking) -> Ranking:
        """Estimates and rounding may pass 1 by a little; a cosine does not."""
        if self.settings.metric != "cosine":
            return found
        return [(row_id, min(1.0, max(-1.0, score))) for row_id, score in found]


def _hit(stored: Mapping[int, Row], row_id: int, score: float, vectors: Mapping[int, Vector]) -> Hit:
    row = stored[row_id]
    return Hit(row.id, score, row.text, row.metadata, vectors.get(row_id))
