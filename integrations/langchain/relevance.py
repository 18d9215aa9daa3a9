"""The filter of relevance, and a retriever with one behind it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, PrivateAttr, model_validator

from rarebit.arrays import Scores, Vector
from rarebit.errors import InputError, MissingRowError
from rarebit.integrations.langchain.vector_store import RarebitVectorStore
from rarebit.integrations.recent_queries import RecentQueries
from rarebit.retrievers.relevance import Asked, RelevanceModel, ScoreSource, Verdict

NOTHING_RELEVANT = "nothing_relevant"
"""Metadata key of the document that says so."""


class CosineAdapterFilter(BaseDocumentCompressor):
    """Drops what is not relevant; order, ids and metadata are kept, documents that were passed are not changed.

    It stands behind a retriever: in a :class:`ContextualRetriever`, or in ``langchain_classic``'s
    ``ContextualCompressionRetriever`` and ``DocumentCompressorPipeline``. Passages are not embedded: their scores are those
    that documents carry under ``score_key``, or the store's own, by their ids; and the search has embedded the question. In a
    ``ContextualCompressionRetriever``, ``when_empty`` says nothing where the retriever itself found nothing.

    .. code-block:: python

        adapter = CosineAdapter.shipped().for_collection(store.collection)  # or store.collection.tenant(store.tenant)
        ContextualRetriever(
            base_retriever=store.as_retriever(search_kwargs={"k": 20}),
            base_compressor=CosineAdapterFilter(adapter=adapter, store=store),
        )
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    adapter: RelevanceModel
    """What judges: a :class:`~rarebit.retrievers.relevance.CosineAdapter`, or any other model of relevance."""

    store: RarebitVectorStore | None = None
    """Where documents are from: gives scores and the question's embedding."""

    embeddings: Embeddings | None = None
    """Without a store: embeds the question, with the model that filled the store the documents are from."""

    score_key: str | None = None
    """Metadata key under which documents carry the scores of a search by meaning, for documents of other stores and of stores
    without a fine tier; the scores of hybrid and lexical searches are none."""

    relevance_key: str | None = "relevance"
    """Metadata key under which each document gets its relevance; None for none."""

    when_empty: str | None = None
    """A text that is given as the one document, with ``nothing_relevant`` in its metadata, where nothing is relevant."""

    _recent: RecentQueries = PrivateAttr(default_factory=RecentQueries)

    @model_validator(mode="after")
    def _complete(self) -> CosineAdapterFilter:
        if self.store is None and self.score_key is None and self.adapter.reads_scores:
            raise InputError(
                "got neither store= nor score_key=, wanted one of them: scores come from the store by the documents' ids, or "
                "from their metadata (RarebitVectorStore(..., score_key='score') puts them there)"
            )
        if self.store is None and self.embeddings is None and self.adapter.reads_vector:
            raise InputError("got neither store= nor embeddings=, wanted one of them to embed the question")
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Keep what is relevant to a question.

        Raises:
            InputError: a document carries no score, or is not in the store.
            CalibrationError: the store's scores are not those that the model was calibrated on.
        """
        del callbacks
        return self._kept(documents, query, self._embedded(query) if documents and self._needs_vector else None)

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Do as :meth:`compress_documents`, with the embedding model's own asynchronous method."""
        del callbacks
        vector = await self._aembedded(query) if documents and self._needs_vector else None
        return await run_in_executor(None, self._kept, documents, query, vector)

    @property
    def _needs_vector(self) -> bool:
        return self.adapter.reads_vector or (self.adapter.reads_scores and self._asks_store)

    @property
    def _asks_store(self) -> bool:
        """Whether the store knows the scores: those of a search by meaning, whatever search found the documents."""
        if self.store is None:
            return False
        return self.score_key is None or not ScoreSource.of(self.store.collection).estimated_by

    def _embedded(self, query: str) -> Vector | None:
        if self.store is not None:
            return self.store.embed_query(query)
        return None if self.embeddings is None else self._recent.get(query, self.embeddings.embed_query)

    async def _aembedded(self, query: str) -> Vector | None:
        if self.store is not None:
            return await self.store.aembed_query(query)
        return None if self.embeddings is None else await self._recent.aget(query, self.embeddings.aembed_query)

    def _kept(self, documents: Sequence[Document], query: str, vector: Vector | None) -> list[Document]:
        documents, scores = self._scored(documents, vector)
        if not documents:
            return self._nothing(0.0)
        texts = [document.page_content for document in documents]
        verdict = self.adapter.judge(Asked.of(scores, vector, query, texts))
        if verdict.nothing_is_relevant:
            return self._nothing(verdict.best)
        return [self._marked(documents[place], verdict, place) for place in verdict.kept]

    def _scored(self, documents: Sequence[Document], vector: Vector | None) -> tuple[Sequence[Document], Scores]:
        """Give the scores of documents, and leave out those that were deleted since they were found."""
        if not documents or not self.adapter.reads_scores:
            return documents, np.zeros(len(documents), np.float32)
        if self.store is not None:
            self.adapter.check_source(ScoreSource.of(self.store.collection))
            if self._asks_store and vector is not None:
                return _looked_up(self.store, documents, vector)
        return documents, np.array([_carried(document, str(self.score_key)) for document in documents], np.float32)

    def _marked(self, document: Document, verdict: Verdict, place: int) -> Document:
        if self.relevance_key is None:
            return document
        relevance = float(verdict.relevances[place])
        return document.model_copy(update={"metadata": {**document.metadata, self.relevance_key: relevance}})

    def _nothing(self, best: float) -> list[Document]:
        if self.when_empty is None:
            return []
        return [Document(self.when_empty, metadata={NOTHING_RELEVANT: True, "best_relevance": best})]


class ContextualRetriever(BaseRetriever):
    """A retriever with a document compressor behind it, on langchain-core alone.

    What ``invoke`` is given goes on to the base retriever.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    base_retriever: BaseRetriever
    """What finds documents."""

    base_compressor: BaseDocumentCompressor
    """What stands behind it: a :class:`CosineAdapterFilter`, or any other compressor."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found = self.base_retriever.invoke(query, config={"callbacks": run_manager.get_child()}, **kwargs)
        if not found and not isinstance(self.base_compressor, CosineAdapterFilter):  # not every compressor takes []
            return []
        return list(self.base_compressor.compress_documents(found, query, callbacks=run_manager.get_child()))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found = await self.base_retriever.ainvoke(query, config={"callbacks": run_manager.get_child()}, **kwargs)
        if not found and not isinstance(self.base_compressor, CosineAdapterFilter):
            return []
        return list(await self.base_compressor.acompress_documents(found, query, callbacks=run_manager.get_child()))


def _carried(document: Document, key: str) -> float:
    score = document.metadata.get(key)
    if isinstance(score, bool) or not isinstance(score, Real):
        raise InputError(
            f"the document {document.id!r} carries {score!r} under {key!r}, wanted its score: open the store with "
            f"score_key={key!r}, or leave score_key= out and pass store="
        )
    return float(score)


def _looked_up(store: RarebitVectorStore, documents: Sequence[Document], vector: Vector) -> tuple[Sequence[Document], Scores]:
    if ScoreSource.of(store.collection).estimated_by:
        raise InputError(
            "got documents of a store without a fine tier, whose scores are estimated by its searches and known to nobody "
            "else: open the store with score_key='score', and pass score_key='score' here"
        )
    ids = [document.id for document in documents if document.id is not None]
    if len(ids) < len(documents):
        raise InputError("got documents without ids, wanted those that the store has found: pass score_key= for others")
    try:
        return documents, store.scores(vector, ids)
    except MissingRowError as error:
        there = {document.id for document in store.get_by_ids(ids)}
        left = [document for document in documents if document.id in there]
        if not left:
            raise InputError(f"got documents that are not in the store ({error}): pass the store that they are from") from error
        return _looked_up(store, left, vector)
