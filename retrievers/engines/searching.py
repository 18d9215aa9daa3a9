"""Searches in two stages: the engine finds candidates by bits and sends their finer codes, which are scored here."""

# ruff: noqa: A002 -- `filter` is the word of both frameworks

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import numpy as np

from rarebit.arrays import Queries, Scores, Vector, VectorsLike, as_vector
from rarebit.errors import EngineLimitError, InputError
from rarebit.retrievers.collection import ranking
from rarebit.retrievers.collection.arguments import as_count, as_ids, as_share, check_text
from rarebit.retrievers.collection.filters import Filter, as_filter
from rarebit.retrievers.collection.records import Hit, Row
from rarebit.retrievers.collection.searching import HYBRID_CANDIDATES, MMR_CANDIDATES
from rarebit.retrievers.engines.coding import Coding
from rarebit.retrievers.engines.engine import Candidate
from rarebit.retrievers.engines.handle import RemoteHandle, nearest
from rarebit.retrievers.engines.row_operations import RemoteRows
from rarebit.retrievers.engines.training import candidates_for

Found: TypeAlias = tuple[int, Row, float, Vector | None]
"""A row's number, the row, its score, and its vector where that is asked for."""

AT_ONCE: Final = 32
"""Queries whose candidates are in memory together."""


class RemoteSearches(RemoteRows, RemoteHandle):
    """The searching half of a remote collection and of its tenants."""

    def search(
        self,
        query: VectorsLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        candidates: int | None = None,
        include_vectors: bool = False,
        explain: Literal[False] = False,
    ) -> list[Hit]:
        """Find the k rows nearest to a query vector, best first; k rows whenever k match the filter.

        Args:
            query: (dim,) numbers.
            k: how many rows.
            filter: which rows to search among.
            candidates: rows that the engine finds by their bits, and that are scored here; more is slower and finds more.
            include_vectors: put each row's vector on its hit.
            explain: only embedded collections can say how a search was done.

        Returns:
            Hits whose score is the cosine in [-1, 1], or the inner product.

        Raises:
            EngineLimitError: with ``explain``.
        """
        if explain:
            raise EngineLimitError(f"got explain=True, which {self._engine.kind} cannot: ask it for the plan of the statement")
        return self.search_many(
            as_vector(query)[np.newaxis], k, filter=filter, candidates=candidates, include_vectors=include_vectors
        )[0]

    def search_many(
        self,
        queries: VectorsLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        candidates: int | None = None,
        include_vectors: bool = False,
    ) -> list[list[Hit]]:
        """Search for (q, dim) queries at once, as :meth:`search` does for one: one list of hits a query."""
        k = as_count("k", k)
        candidates = None if candidates is None else as_count("candidates", candidates, least=1)
        found = self._nearest(self._prepared(queries), k, as_filter(filter), candidates, with_vectors=include_vectors)
        return [[_hit(each, include_vectors=include_vectors) for each in own] for own in found]

    def scores(self, query: VectorsLike, ids: Sequence[str]) -> Scores:
        """Score rows that are known already: (n,) float32 in the order of ids, by their finest vectors.

        Raises:
            MissingRowError: an id is not in the collection.
        """
        wanted = as_ids(ids)
        prepared = self._prepared(as_vector(query)[np.newaxis])[0]
        found: Scores = self.vectors(wanted) @ prepared if wanted else np.empty(0, np.float32)
        return found

    def search_mmr(
        self,
        query: VectorsLike,
        k: int = 10,
        *,
        fetch_k: int = MMR_CANDIDATES,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        include_vectors: bool = False,
    ) -> list[Hit]:
        """Choose k of the ``fetch_k`` nearest rows so that they are unlike each other (maximal marginal relevance)."""
        k = as_count("k", k)
        fetch_k, lambda_mult = as_count("fetch_k", fetch_k), as_share("lambda_mult", lambda_mult)
        prepared = self._prepared(as_vector(query)[np.newaxis])
        found = self._nearest(prepared, max(k, fetch_k), as_filter(filter), None, with_vectors=True)[0]
        if not found:
            return []
        scores = np.array([each[2] for each in found], np.float32)
        vectors = np.stack([vector for *_, vector in found if vector is not None])
        chosen = ranking.maximal_marginal_relevance(scores, vectors, k, lambda_mult)
        return [_hit(found[place], include_vectors=include_vectors) for place in chosen]

    def search_lexical(self, text: str, k: int = 10, *, filter: Filter | None = None) -> list[Hit]:
        """Find the k rows whose texts match the words of a text best, by the engine's own measure, which is not BM25."""
        check_text(text)
        found = self._engine.best_by_words(self._tenant, text, as_count("k", k), self._resolved(as_filter(filter)))
        return [Hit(row.id, score, row.text, row.metadata) for _, row, score in found]

    def search_hybrid(
        self,
        query: VectorsLike,
        text: str,
        k: int = 10,
        *,
        fusion: Literal["rrf", "weighted"] = "rrf",
        alpha: float = 0.5,
        fetch_k: int = HYBRID_CANDIDATES,
        filter: Filter | None = None,
        include_vectors: bool = False,
    ) -> list[Hit]:
        """Fuse vector search and lexical search; arguments as in :meth:`rarebit.Collection.search_hybrid`."""
        k = as_count("k", k)
        fetch_k, alpha = as_count("fetch_k", fetch_k), as_share("alpha", alpha)
        check_text(text)
        if fusion not in ("rrf", "weighted"):
            raise InputError(f"got fusion={fusion!r}, wanted 'rrf' or 'weighted'")
        tree, depth = self._resolved(as_filter(filter)), max(k, fetch_k)
        prepared = self._prepared(as_vector(query)[np.newaxis])
        dense = self._nearest(prepared, depth, tree, None, with_vectors=include_vectors)[0]
        words = self._engine.best_by_words(self._tenant, text, depth, tree)
        known = {**{each[0]: each[1] for each in words}, **{each[0]: each[1] for each in dense}}
        if fusion == "rrf":
            fused = ranking.reciprocal_rank_fusion([[each[0] for each in side] for side in (dense, words)])
        else:
            fused = ranking.weighted_fusion({each[0]: each[2] for each in dense}, {each[0]: each[2] for each in words}, alpha)
        best = sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
        hits = [Hit(known[row_id].id, score, known[row_id].text, known[row_id].metadata) for row_id, score in best]
        if not include_vectors or not hits:
            return hits
        vectors = {row.id: vector for _, row, _, vector in dense if vector is not None}
        by_words = [hit.id for hit in hits if hit.id not in vectors]
        vectors |= self._with_codes(lambda coding: self._vectors_there(coding, by_words))
        return [replace(hit, vector=vectors.get(hit.id)) for hit in hits]

    def _vectors_there(self, coding: Coding, ids: Sequence[str]) -> dict[str, Vector]:
        """Give the vectors of those rows that have not been deleted since."""
        found = self._engine.codes_of(self._tenant, coding.kept.generation, ids) if ids else {}
        return dict(zip(found, coding.vectors(list(found.values())), strict=True)) if found else {}

    def _nearest(
        self, queries: Queries, k: int, tree: Filter | None, candidates: int | None, *, with_vectors: bool
    ) -> list[list[Found]]:
        """Find the k best of each query."""
        if not len(queries):
            return []
        tree = self._resolved(tree)

        def ask(coding: Coding) -> list[list[Found]]:
            if coding.kept.codec is None or not k:
                return [[] for _ in queries]
            if coding.kept.plane is None:
                choice = Choice(coding, queries, k)
                rows = self._engine.among_all(self._tenant, coding.kept.generation, len(queries), tree, choose=choice)
                return choice.found(rows, with_vectors=with_vectors)
            count = max(k, candidates or candidates_for(coding.kept, k, self._engine.size))
            scored: list[list[Found]] = []
            for start in range(0, len(queries), AT_ONCE):
                choice = Choice(coding, queries[start : start + AT_ONCE], k)
                planes = coding.kept.plane.encode(choice.queries)
                rows = self._engine.nearest(self._tenant, coding.kept.generation, planes, count, tree, choose=choice)
                scored += choice.found(rows, with_vectors=with_vectors)
            return scored

        return self._with_codes(ask)


class Choice:
    """Chooses the k rows of the highest scores for each of (q, dim) queries, and remembers the scores."""

    def __init__(self, coding: Coding, queries: Queries, k: int) -> None:
        """Nothing is chosen yet."""
        self._coding, self.queries, self._k = coding, queries, k
        self._chosen: list[list[tuple[Candidate, float]]] = []

    def __call__(self, found: list[list[Candidate]]) -> list[list[Candidate]]:
        """As :data:`Choose` says."""
        self._chosen = [self._best(query, own) for query, own in zip(self.queries, found, strict=True)]
        return [[candidate for candidate, _ in own] for own in self._chosen]

    def _best(self, query: Vector, found: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
        if not found:
            return []
        ordered = sorted(found, key=lambda each: each.row_id)  # of equal rows the first one that was added comes first
        scores = self._coding.scores(query, ordered)
        return [(ordered[place], self._in_range(float(scores[place]))) for place in nearest(scores, self._k)]

    def _in_range(self, score: float) -> float:
        return min(1.0, max(-1.0, score)) if self._coding.kept.settings.metric == "cosine" else score

    def found(self, rows: list[list[Row]], *, with_vectors: bool) -> list[list[Found]]:
        """Put the rows that were chosen beside their scores, and their vectors."""
        return [self._beside(own, chosen, with_vectors=with_vectors) for own, chosen in zip(rows, self._chosen, strict=True)]

    def _beside(self, rows: list[Row], chosen: list[tuple[Candidate, float]], *, with_vectors: bool) -> list[Found]:
        vectors: Sequence[Vector | None] = [None] * len(rows)
        if with_vectors and rows:
            vectors = list(self._coding.vectors([candidate for candidate, _ in chosen]))
        return [
            (candidate.row_id, row, score, vector)
            for (candidate, score), row, vector in zip(chosen, rows, vectors, strict=True)
        ]


def _hit(found: Found, *, include_vectors: bool) -> Hit:
    _, row, score, vector = found
    return Hit(row.id, score, row.text, row.metadata, vector if include_vectors else None)
