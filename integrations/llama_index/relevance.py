"""The postprocessor of relevance."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation.base import BaseEvent

from rarebit.arrays import Scores, Vector, as_vector
from rarebit.errors import InputError
from rarebit.integrations.llama_index.nodes import with_hidden
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.integrations.recent_queries import RecentQueries
from rarebit.retrievers.relevance import Asked, RelevanceModel, ScoreSource, Verdict

_DISPATCHER = get_dispatcher(__name__)


class RelevanceJudgedEvent(BaseEvent):
    """What a postprocessor found of the nodes of one query.

    Args:
        query_str: the query.
        kept: ids of the nodes that go on.
        dropped: ids of the others.
        best_relevance: the highest relevance; 0 if there was no node.
        nothing_is_relevant: whether no node goes on.
    """

    query_str: str
    kept: list[str]
    dropped: list[str]
    best_relevance: float
    nothing_is_relevant: bool

    @classmethod
    def class_name(cls) -> str:
        """Give the name that serialised events carry."""
        return "RelevanceJudgedEvent"


class CosineAdapterPostprocessor(BaseNodePostprocessor):
    """Drops nodes that are not relevant, by their scores and the query's embedding; order is kept, nodes are not changed.

    Nodes are not embedded: their scores are those of the retriever, which has to search by meaning: those of hybrid and lexical
    searches are none. The query was embedded by the retriever; where LlamaIndex does not hand its embedding on, as in chat
    engines and in asynchronous queries, ``embed_model`` embeds it, once. Where nothing is relevant the result is empty, and
    LlamaIndex's engines then answer "Empty Response" without asking a language model.

    .. code-block:: python

        adapter = CosineAdapter.shipped().for_collection(store.client)
        relevant = CosineAdapterPostprocessor(adapter=adapter, embed_model=embed_model)
        index.as_query_engine(similarity_top_k=20, node_postprocessors=[relevant])
    """

    adapter: Any = Field(exclude=True, description="What judges: a CosineAdapter, or any other model of relevance.")
    embed_model: BaseEmbedding | None = Field(
        default=None, exclude=True, description="Embeds queries that come without their embedding."
    )
    replace_score: bool = Field(default=False, description="Put the relevance in the place of the score.")
    relevance_key: str | None = Field(
        default="relevance",
        description="Metadata key under which a node gets its relevance; neither models nor embeddings see it; None for none.",
    )

    _recent: RecentQueries = PrivateAttr(default_factory=RecentQueries)

    @classmethod
    def class_name(cls) -> str:
        """Give the name that serialised components carry."""
        return "CosineAdapterPostprocessor"

    def model_post_init(self, context: Any, /) -> None:
        """Check what judges."""
        super().model_post_init(context)
        if not isinstance(self.adapter, RelevanceModel):
            raise InputError(f"got adapter={self.adapter!r}, wanted a model of relevance, such as a CosineAdapter")
        self.adapter.check_source(ScoreSource(fingerprint_of(self.embed_model)))

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        query = _checked(query_bundle)
        return self._kept(nodes, query, self._embedded(query) if nodes else None)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _checked(query_bundle)
        vector = await self._aembedded(query) if nodes else None
        return await asyncio.to_thread(self._kept, nodes, query, vector)

    def _embedded(self, query: QueryBundle) -> Vector | None:
        if query.embedding is not None or not self.adapter.reads_vector:
            return None if query.embedding is None else as_vector(query.embedding)
        model, texts = self._model(), query.embedding_strs
        return self._recent.get("\0".join(texts), lambda _: model.get_agg_embedding_from_queries(texts))

    async def _aembedded(self, query: QueryBundle) -> Vector | None:
        if query.embedding is not None or not self.adapter.reads_vector:
            return None if query.embedding is None else as_vector(query.embedding)
        model, texts = self._model(), query.embedding_strs
        return await self._recent.aget("\0".join(texts), lambda _: model.aget_agg_embedding_from_queries(texts))

    def _model(self) -> BaseEmbedding:
        if self.embed_model is None:
            raise InputError(
                "got a query without its embedding, as chat engines and asynchronous queries hand it on, wanted it or "
                "embed_model=: pass the model that filled the store"
            )
        return self.embed_model

    def _kept(self, nodes: list[NodeWithScore], query: QueryBundle, vector: Vector | None) -> list[NodeWithScore]:
        texts = [found.node.get_content(metadata_mode=MetadataMode.NONE) for found in nodes]
        verdict = self.adapter.judge(Asked.of(_scores(nodes), vector, query.query_str, texts))
        ids = [found.node.node_id for found in nodes]
        kept = set(verdict.kept)
        _DISPATCHER.event(
            RelevanceJudgedEvent(
                query_str=query.query_str,
                kept=[ids[place] for place in verdict.kept],
                dropped=[key for place, key in enumerate(ids) if place not in kept],
                best_relevance=verdict.best,
                nothing_is_relevant=verdict.nothing_is_relevant,
            )
        )
        return [self._marked(nodes[place], verdict, place) for place in verdict.kept]

    def _marked(self, found: NodeWithScore, verdict: Verdict, place: int) -> NodeWithScore:
        relevance, node = float(verdict.relevances[place]), found.node
        if self.relevance_key is not None:
            node = with_hidden(node, self.relevance_key, relevance)
        return NodeWithScore(node=node, score=relevance if self.replace_score else found.score)


def _checked(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise InputError("got nodes without the query that they were found for, wanted query_bundle= or query_str=")
    return query


def _scores(nodes: list[NodeWithScore]) -> Scores:
    without = [found.node.node_id for found in nodes if found.score is None]
    if without:
        raise InputError(
            f"{len(without)} nodes have no score (first: {without[0]!r}), wanted the retriever's: put the postprocessor before "
            "those that remove it"
        )
    return np.array([found.score for found in nodes], np.float32)
