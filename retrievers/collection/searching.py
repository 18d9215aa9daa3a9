"""The searches of a collection: by vector, by words, by both."""

# ruff: noqa: A002 -- `filter` is the word of both frameworks

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np

from rarebit.arrays import Scores, VectorsLike, as_vector
from rarebit.errors import InputError
from rarebit.retrievers.collection import ranking
from rarebit.retrievers.collection.arguments import as_count, as_ids, as_share, check_text
from rarebit.retrievers.collection.explanation import Explanation, Steps
from rarebit.retrievers.collection.filters import Filter, as_filter
from rarebit.retrievers.collection.handle import Handle
from rarebit.retrievers.collection.records import Hit

MMR_CANDIDATES = 50
HYBRID_CANDIDATES = 50


class Searches(Handle):
    """The searching half of :class:`rarebit.Collection`."""

    @overload
    def search(
        self,
        query: VectorsLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        candidates: int | None = None,
        include_vectors: bool = False,
        explain: Literal[False] = False,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        query: VectorsLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        candidates: int | None = None,
        include_vectors: bool = False,
        explain: Literal[True],
    ) -> Explanation: ...

    def search(
        self,
        query: VectorsLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        candidates: int | None = None,
        include_vectors: bool = False,
        explain: bool = False,
    ) -> list[Hit] | Explanation:
        """Find the k rows nearest to a query vector, best first; k rows whenever k match the filter.

        Args:
            query: (dim,) numbers.
            k: how many rows.
            filter: which rows to search among.
            candidates: rows taken by their codes and re-ranked by their fine vectors; more is slower and finds more.
            include_vectors: put each row's vector on its hit.
            explain: say how the search was done.

        Returns:
            Hits whose score is the cosine in [-1, 1], or the inner product. With ``explain``, an
            :class:`~rarebit.retrievers.collection.explanation.Explanation`, which has the hits, the plan, the counts and the
            time of each step.
        """
        k = as_count("k", k)
        candidates = None if candidates is None else as_count("candidates", candidates, least=1)
        steps = Steps(wanted=explain)
        with self._engine.searchable(self._tenant, steps) as snapshot:
            prepared = self._engine.prepared(as_vector(query)[np.newaxis])
            found = snapshot.nearest(prepared, k, as_filter(filter), candidates)
            with steps.timed("read"):
                hits = snapshot.hits(found, include_vectors=include_vectors)[0]
        return steps.explained(hits) if explain else hits

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
        with self._engine.searchable(self._tenant) as snapshot:
            prepared = self._engine.prepared(queries)
            found = snapshot.nearest(prepared, k, as_filter(filter), candidates)
            return snapshot.hits(found, include_vectors=include_vectors)

    def scores(self, query: VectorsLike, ids: Sequence[str]) -> Scores:
        """Score rows that are known already: (n,) float32 in the order of ids, by their finest vectors.

        They are the scores that :meth:`search` gives the same rows, but for a collection without a fine tier, whose searches
        estimate scores from codes.

        Raises:
            MissingRowError: an id is not in the collection.
        """
        wanted = as_ids(ids)
        with self._engine.searchable(self._tenant) as snapshot:
            prepared = self._engine.prepared(as_vector(query)[np.newaxis])[0]
            vectors = snapshot.vectors_of(wanted)
            found: Scores = vectors @ prepared if wanted else np.empty(0, np.float32)
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
        """Choose k of the ``fetch_k`` nearest rows so that they are unlike each other (maximal marginal relevance).

        ``lambda_mult`` 1 is relevance alone, 0 diversity alone. Scores are those of :meth:`search`.
        """
        k = as_count("k", k)
        fetch_k, lambda_mult = as_count("fetch_k", fetch_k), as_share("lambda_mult", lambda_mult)
        with self._engine.searchable(self._tenant) as snapshot:
            prepared = self._engine.prepared(as_vector(query)[np.newaxis])[0]
            found = snapshot.diverse(prepared, k, fetch_k, lambda_mult, as_filter(filter))
            return snapshot.hits([found], include_vectors=include_vectors)[0]

    def search_lexical(self, text: str, k: int = 10, *, filter: Filter | None = None) -> list[Hit]:
        """Find the k rows whose texts match the words of a text best, by BM25; rows without any of them are not found."""
        check_text(text)
        k = as_count("k", k)
        with self._engine.snapshot(self._tenant) as snapshot:
            return snapshot.hits([snapshot.best_by_words(text, k, as_filter(filter))])[0]

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
        """Fuse vector search and lexical search.

        Args:
            query: (dim,) numbers.
            text: the words.
            k: how many rows.
            fusion: ``"rrf"``, reciprocal rank fusion, or ``"weighted"``, the weighted sum of both scores scaled to [0, 1].
            alpha: weight of the vectors in the weighted form; 1 is vectors alone, 0 words alone.
            fetch_k: rows taken from each side.
            filter: which rows to search among.
            include_vectors: put each row's vector on its hit.
        """
        k = as_count("k", k)
        fetch_k, alpha = as_count("fetch_k", fetch_k), as_share("alpha", alpha)
        check_text(text)
        if fusion not in ("rrf", "weighted"):
            raise InputError(f"got fusion={fusion!r}, wanted 'rrf' or 'weighted'")
        with self._engine.searchable(self._tenant) as snapshot:
            tree, depth = as_filter(filter), max(k, fetch_k)
            dense = snapshot.nearest(self._engine.prepared(as_vector(query)[np.newaxis]), depth, tree, None)[0]
            words = snapshot.best_by_words(text, depth, tree)
            if fusion == "rrf":
                fused = ranking.reciprocal_rank_fusion([[row_id for row_id, _ in side] for side in (dense, words)])
            else:
                fused = ranking.weighted_fusion(dict(dense), dict(words), alpha)
            best = sorted(fused.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
            return snapshot.hits([best], include_vectors=include_vectors)[0]
