"""The reading half of the vector store: every search that LangChain knows, and hybrid and lexical search.

Each search by text embeds the text and goes on by vector; each asynchronous one awaits the embedding model's own method and
runs the collection's search in a thread. Those by vector that are missing here are inherited: LangChain runs the synchronous
one in a thread.
"""

# ruff: noqa: A002 -- `filter` is LangChain's word

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Names
from typing import Any, Literal, TypeAlias

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables.config import run_in_executor

from rarebit.arrays import Vector, VectorsLike
from rarebit.errors import InputError
from rarebit.integrations.langchain.bound_store import BoundStore
from rarebit.integrations.langchain.documents import document_of
from rarebit.integrations.langchain.filters import FilterLike, as_filter
from rarebit.retrievers.collection import Hit
from rarebit.retrievers.relevance import Asked, RelevanceModel, ScoreSource

MMR_FETCH_K = 20
"""Candidates of maximal marginal relevance, as in every LangChain store."""

HYBRID_FETCH_K = 50
"""Candidates that hybrid search takes from each side."""

Scored: TypeAlias = list[tuple[Document, float]]
Fusion: TypeAlias = Literal["rrf", "weighted"]

SEARCH_TYPES = ("similarity", "similarity_score_threshold", "mmr", "hybrid", "lexical")

NEEDLESS = ("fetch_k", "lambda_mult", "verbose")
"""Keywords that other stores' searches take, and that change nothing here: filters always run before the search."""


class SearchableStore(BoundStore):
    """The searches of :class:`~rarebit.integrations.langchain.RarebitVectorStore`."""

    _relevance: RelevanceModel | None
    _relevance_score_fn: Callable[[float], float] | None
    _score_key: str | None

    def search(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Search in the way that ``search_type`` names; keywords as in that search.

        Args:
            query: the text.
            search_type: ``"similarity"``, ``"similarity_score_threshold"``, ``"mmr"``, ``"hybrid"`` or ``"lexical"``.
            **kwargs: of that search.

        Raises:
            InputError: another search type, or a keyword that the search does not take.
        """
        _check_search_type(search_type)
        if search_type == "hybrid":
            return self.hybrid_search(query, **kwargs)
        if search_type == "lexical":
            return self.lexical_search(query, **kwargs)
        return super().search(query, search_type, **kwargs)

    async def asearch(self, query: str, search_type: str, **kwargs: Any) -> list[Document]:
        """Do as :meth:`search`."""
        _check_search_type(search_type)
        if search_type == "hybrid":
            return await self.ahybrid_search(query, **kwargs)
        if search_type == "lexical":
            return await self.alexical_search(query, **kwargs)
        return await super().asearch(query, search_type, **kwargs)

    def similarity_search(self, query: str, k: int = 4, filter: FilterLike | None = None, **kwargs: Any) -> list[Document]:
        """Find the k documents nearest to a text; arguments as in :meth:`similarity_search_with_score_by_vector`."""
        return documents_of(self.similarity_search_with_score(query, k, filter, **kwargs))

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: FilterLike | None = None, **kwargs: Any
    ) -> list[Document]:
        """Do as :meth:`similarity_search`."""
        return documents_of(await self.asimilarity_search_with_score(query, k, filter, **kwargs))

    def similarity_search_with_score(self, query: str, k: int = 4, filter: FilterLike | None = None, **kwargs: Any) -> Scored:
        """Find the k documents nearest to a text, with scores as in :meth:`similarity_search_with_score_by_vector`."""
        return self.similarity_search_with_score_by_vector(self.embed_query(query), k, filter, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: FilterLike | None = None, **kwargs: Any
    ) -> Scored:
        """Do as :meth:`similarity_search_with_score`."""
        embedding = await self.aembed_query(query)
        return await self.asimilarity_search_with_score_by_vector(embedding, k, filter, **kwargs)

    def similarity_search_by_vector(
        self, embedding: VectorsLike, k: int = 4, filter: FilterLike | None = None, **kwargs: Any
    ) -> list[Document]:
        """Find the k documents nearest to a vector; arguments as in :meth:`similarity_search_with_score_by_vector`."""
        return documents_of(self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs))

    def similarity_search_with_score_by_vector(
        self,
        embedding: VectorsLike,
        k: int = 4,
        filter: FilterLike | None = None,
        *,
        candidates: int | None = None,
        **kwargs: Any,
    ) -> Scored:
        """Find the k documents nearest to a vector, best first; k documents whenever k match the filter.

        Args:
            embedding: (dim,) numbers.
            k: how many documents.
            filter: which documents to search among.
            candidates: documents taken by their codes and ranked again by their finer vectors; more finds more.
            **kwargs: ``fetch_k`` and ``lambda_mult`` are accepted and change nothing; others are refused.

        Returns:
            Documents with their cosines in [-1, 1], or inner products; higher is nearer.

        Raises:
            InputError: and its kinds, for a vector, filter or keyword that cannot be used.
        """
        refuse_unknown(kwargs)
        return self._scored(self._rows.search(embedding, k, filter=as_filter(filter), candidates=candidates))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: VectorsLike, k: int = 4, filter: FilterLike | None = None, **kwargs: Any
    ) -> Scored:
        """Do as :meth:`similarity_search_with_score_by_vector`."""
        return await run_in_executor(None, self.similarity_search_with_score_by_vector, embedding, k, filter, **kwargs)

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = MMR_FETCH_K,
        lambda_mult: float = 0.5,
        filter: FilterLike | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Find documents near a text and unlike each other; as :meth:`max_marginal_relevance_search_by_vector`."""
        embedding = self.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(embedding, k, fetch_k, lambda_mult, filter, **kwargs)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = MMR_FETCH_K,
        lambda_mult: float = 0.5,
        filter: FilterLike | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Do as :meth:`max_marginal_relevance_search`."""
        embedding = await self.aembed_query(query)
        search = self.max_marginal_relevance_search_by_vector
        return await run_in_executor(None, search, embedding, k, fetch_k, lambda_mult, filter, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: VectorsLike,
        k: int = 4,
        fetch_k: int = MMR_FETCH_K,
        lambda_mult: float = 0.5,
        filter: FilterLike | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Choose k of the ``fetch_k`` documents nearest to a vector so that they are unlike each other.

        Args:
            embedding: (dim,) numbers.
            k: how many documents.
            fetch_k: how many to choose from.
            lambda_mult: 1 is relevance alone, 0 diversity alone.
            filter: which documents to search among.
            **kwargs: none; others are refused.

        Raises:
            InputError: and its kinds, for a vector, number, filter or keyword that cannot be used.
        """
        refuse_unknown(kwargs)
        hits = self._rows.search_mmr(embedding, k, fetch_k=fetch_k, lambda_mult=lambda_mult, filter=as_filter(filter))
        return documents_of(self._scored(hits))

    def hybrid_search(
        self,
        query: str,
        k: int = 4,
        filter: FilterLike | None = None,
        *,
        alpha: float | None = None,
        fusion: Fusion | None = None,
        fetch_k: int = HYBRID_FETCH_K,
    ) -> list[Document]:
        """Find documents by meaning and by words at once.

        Args:
            query: the text.
            k: how many documents.
            filter: which documents to search among.
            alpha: weight of the meaning in the weighted fusion, from 0 (words alone) to 1; 0.5 if left out.
            fusion: ``"rrf"``, reciprocal rank fusion, or ``"weighted"``; if left out, weighted where alpha is given.
            fetch_k: documents taken from each side.

        Raises:
            InputError: and its kinds, for a number, fusion or filter that cannot be used.
        """
        embedding = self.embed_query(query)
        return self._fused(embedding, query, k, filter=filter, alpha=alpha, fusion=fusion, fetch_k=fetch_k)

    async def ahybrid_search(
        self,
        query: str,
        k: int = 4,
        filter: FilterLike | None = None,
        *,
        alpha: float | None = None,
        fusion: Fusion | None = None,
        fetch_k: int = HYBRID_FETCH_K,
    ) -> list[Document]:
        """Do as :meth:`hybrid_search`."""
        embedding = await self.aembed_query(query)
        return await run_in_executor(
            None, self._fused, embedding, query, k, filter=filter, alpha=alpha, fusion=fusion, fetch_k=fetch_k
        )

    def lexical_search(self, query: str, k: int = 4, filter: FilterLike | None = None) -> list[Document]:
        """Find the k documents that match the words of a text best, by BM25; nothing is embedded."""
        return documents_of(self._scored(self._rows.search_lexical(query, k, filter=as_filter(filter))))

    async def alexical_search(self, query: str, k: int = 4, filter: FilterLike | None = None) -> list[Document]:
        """Do as :meth:`lexical_search`."""
        return await run_in_executor(None, self.lexical_search, query, k, filter)

    def _fused(
        self,
        embedding: VectorsLike,
        query: str,
        k: int,
        *,
        filter: FilterLike | None,
        alpha: float | None,
        fusion: Fusion | None,
        fetch_k: int,
    ) -> list[Document]:
        if fusion == "rrf" and alpha is not None:
            raise InputError(f"got alpha={alpha!r} with fusion='rrf', which has no weights: leave one of them out")
        hits = self._rows.search_hybrid(
            embedding,
            query,
            k,
            fusion=fusion or ("rrf" if alpha is None else "weighted"),
            alpha=0.5 if alpha is None else alpha,
            fetch_k=fetch_k,
            filter=as_filter(filter),
        )
        return documents_of(self._scored(hits))

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        """Let the model of relevance judge what is found, where there is one."""
        if self._relevance is None:
            return super()._similarity_search_with_relevance_scores(query, k, **kwargs)
        return self._judged(self._relevance, query, self.embed_query(query), k, **kwargs)

    async def _asimilarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> Scored:
        if self._relevance is None:
            return await super()._asimilarity_search_with_relevance_scores(query, k, **kwargs)
        embedding = await self.aembed_query(query)
        return await run_in_executor(None, self._judged, self._relevance, query, embedding, k, **kwargs)

    def _judged(self, model: RelevanceModel, query: str, embedding: Vector, k: int, **kwargs: Any) -> Scored:
        model.check_source(ScoreSource.of(self._collection))
        found = self.similarity_search_with_score_by_vector(embedding, k, **kwargs)
        scores = np.array([score for _, score in found], np.float32)
        verdict = model.judge(Asked.of(scores, embedding, query, [document.page_content for document, _ in found]))
        return [(document, float(own)) for (document, _), own in zip(found, verdict.relevances, strict=True)]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        return _positive_part if self._rows.settings.metric == "cosine" else _logistic

    def _scored(self, hits: Sequence[Hit]) -> Scored:
        return [(document_of(hit, self._score_key), hit.score) for hit in hits]


def checked_relevance(given: RelevanceModel | None, function: Callable[[float], float] | None) -> RelevanceModel | None:
    """Check what gives relevances: a model or a function, not both."""
    if given is not None and not isinstance(given, RelevanceModel):
        raise InputError(f"got relevance={given!r}, wanted a model of relevance, such as a CosineAdapter")
    if given is not None and function is not None:
        raise InputError("got relevance= together with relevance_score_fn=, wanted one or the other")
    return given


def documents_of(scored: Scored) -> list[Document]:
    """Leave the scores out."""
    return [document for document, _ in scored]


def refuse_unknown(given: Mapping[str, Any], needless: Names[str] = NEEDLESS) -> None:
    """Raise InputError for keywords that nobody reads: a misspelt ``filter`` must not find, or delete, everything."""
    unknown = [name for name in given if name not in needless]
    if unknown:
        hint = ": a threshold belongs to relevance scores (search_type='similarity_score_threshold')"
        raise InputError(
            f"got the unknown keywords {unknown}{hint if 'score_threshold' in unknown else ': check the spelling'}"
        )


def _check_search_type(given: str) -> None:
    if given not in SEARCH_TYPES:
        raise InputError(f"got search_type={given!r}, wanted one of {list(SEARCH_TYPES)}")


def _positive_part(cosine: float) -> float:
    """Keep the cosine as the relevance, as most stores do, so that thresholds carry over; what points away has none."""
    return min(1.0, max(0.0, cosine))


def _logistic(product: float) -> float:
    """Squeeze an inner product, which has no bounds, into [0, 1] without changing the order; 0 becomes 0.5."""
    return 0.5 * (1.0 + math.tanh(0.5 * product))
