"""Reading and searching one commit: candidates from the codes in memory, their order from the fine tier on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from pyroaring import BitMap64

from rarebit.arrays import Queries, RowIdMatrix, ScoreMatrix, Vector, Vectors
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.scanning import NOWHERE
from rarebit.errors import MissingRowError
from rarebit.retrievers.collection import lexical, ranking, rows
from rarebit.retrievers.collection.code_index import View
from rarebit.retrievers.collection.filters import Filter
from rarebit.retrievers.collection.finest import FinestVectors
from rarebit.retrievers.collection.matching import RememberedMatches
from rarebit.retrievers.collection.records import Hit
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.storage import Connection, State

Ranking: TypeAlias = list[tuple[int, float]]
"""Row ids with their scores, best first."""

FEWEST_CANDIDATES = 100
CANDIDATES_PER_HIT = 10
"""Candidates re-ranked for k hits unless another number was chosen by measuring: 10 k, at least 100. How much of the true top
10 is among them shows in the codec benchmark, as recall after re-ranking."""

QUERIES_AT_ONCE = 64
"""Queries whose candidates are found and re-ranked together: what the fine tier keeps of them all is in memory meanwhile."""


@dataclass(frozen=True)
class Snapshot:
    """One commit, read through a connection inside its read transaction."""

    connection: Connection
    settings: Settings
    state: State
    codec: SearchableCodec | None
    remembered: RememberedMatches

    def matching(self, tree: Filter | None) -> BitMap64 | None:
        """Give the rows that match a filter; None for all."""
        return None if tree is None else self.remembered.rows(self.connection, self.state.version, tree)

    def best_by_words(self, text: str, k: int, tree: Filter | None) -> Ranking:
        """Find the k rows with the highest BM25."""
        wanted = min(k, self.state.row_count)
        return lexical.ranked(self.connection, text, wanted, self.matching(tree), self.settings.tokenizer)

    def hits(self, rankings: Sequence[Ranking], *, include_vectors: bool = False) -> list[list[Hit]]:
        """Read the rows of several rankings, each row once; every hit has metadata of its own."""
        wanted = list(dict.fromkeys(row_id for found in rankings for row_id, _ in found))
        stored = rows.by_row_ids(self.connection, wanted)
        vectors = dict(zip(wanted, self.vectors(wanted), strict=True)) if include_vectors and wanted else {}
        return [[_hit(stored[row_id], score, vectors.get(row_id)) for row_id, score in found] for found in rankings]

    def vectors(self, row_ids: Sequence[int]) -> Vectors:
        """Decode the finest vectors that are kept of these rows: (n, dim), in the order given."""
        each_once = sorted(set(row_ids))
        return self.finest.of(each_once)[np.searchsorted(each_once, row_ids)]

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Decode the vectors of ids; raises MissingRowError if one is missing."""
        found = rows.by_ids(self.connection, ids)
        missing = [key for key in ids if key not in found]
        if missing:
            raise MissingRowError(
                f"{len(missing)} of {len(ids)} ids are not in the collection (first: {missing[0]!r}): ask get(ids) which are"
            )
        return self.vectors([found[key][0] for key in ids])

    @cached_property
    def finest(self) -> FinestVectors:
        """The vectors as the finest tier keeps them."""
        return FinestVectors(self.connection, self.settings, self.codec)


@dataclass(frozen=True)
class SearchableSnapshot(Snapshot):
    """A commit together with its codes in memory."""

    view: View

    def nearest(self, queries: Queries, k: int, tree: Filter | None, candidates: int | None) -> list[Ranking]:
        """Find the k rows with the highest cosine or inner product for each of (q, dim) queries."""
        allowed = self.matching(tree)
        allowed_ids = None if allowed is None else np.asarray(allowed.to_array(), dtype=np.uint64).astype(np.int64)
        tier = self.finest.tier
        adds = tier is not None and tier.adds_to_scores
        wanted = candidates or max(self.settings.candidates or FEWEST_CANDIDATES, CANDIDATES_PER_HIT * k)
        fetched = min(max(k, wanted) if tier and k else k, self.state.row_count)
        found: list[Ranking] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = queries[start : start + QUERIES_AT_ONCE]
            scores, row_ids = self.view.search(part, fetched, allowed_ids, rough=tier is not None and not adds)
            if tier is None:
                found += self._as_estimated(scores, row_ids)
            else:
                found += self._reranked(part, row_ids, k, scores if adds else None)
        return found

    def diverse(self, query: Vector, k: int, fetch_k: int, lambda_mult: float, tree: Filter | None) -> Ranking:
        """Choose k of the ``fetch_k`` nearest by maximal marginal relevance."""
        found = self.nearest(query[np.newaxis], max(k, fetch_k), tree, None)[0]
        if not found:
            return []
        scores = np.array([score for _, score in found], np.float32)
        vectors = self.vectors([row_id for row_id, _ in found])
        return [found[place] for place in ranking.maximal_marginal_relevance(scores, vectors, k, lambda_mult)]

    def _as_estimated(self, scores: ScoreMatrix, row_ids: RowIdMatrix) -> list[Ranking]:
        return [
            self._in_range([(row_id, score) for row_id, score in zip(*pair, strict=True) if row_id != NOWHERE])
            for pair in zip(row_ids.tolist(), scores.tolist(), strict=True)
        ]

    def _reranked(self, queries: Queries, candidates: RowIdMatrix, k: int, of_codes: ScoreMatrix | None) -> list[Ranking]:
        """Score the candidates of several queries by what the fine tier keeps of them, which is read once.

        ``of_codes`` are the scores of the codes where those of residuals are added to them.
        """
        order_of = [np.argsort(row_ids)[np.count_nonzero(row_ids == NOWHERE) :] for row_ids in candidates]
        own_of = [row_ids[order] for row_ids, order in zip(candidates, order_of, strict=True)]
        wanted = own_of[0] if len(own_of) == 1 else np.unique(np.concatenate(own_of))
        vectors = (self.finest.of if of_codes is None else self.finest.parts_of)(wanted.tolist())
        reranked = []
        for row, (query, by_id, own) in enumerate(zip(queries, order_of, own_of, strict=True)):
            shared = len(own) == len(wanted)
            scores = (vectors if shared else vectors[np.searchsorted(wanted, own)]) @ query
            if of_codes is not None:
                scores += of_codes[row, by_id]
            order = np.argsort(-scores, kind="stable")[:k]
            reranked.append(self._in_range(list(zip(own[order].tolist(), scores[order].tolist(), strict=True))))
        return reranked

    def _in_range(self, found: Ranking) -> Ranking:
        """Estimates and rounding may pass 1 by a little; a cosine does not."""
        if self.settings.metric != "cosine":
            return found
        return [(row_id, min(1.0, max(-1.0, score))) for row_id, score in found]


def _hit(stored: rows.StoredRow, score: float, vector: Vector | None) -> Hit:
    row = rows.decoded(stored)
    return Hit(row.id, score, row.text, row.metadata, vector)
