"""Situated embeddings in LlamaIndex: a node's embedding says where the node stands in its document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SerializeAsAny
from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import InputError
from rarebit.integrations.llama_index.nodes import mark
from rarebit.integrations.situated_name import check_model, situated_name
from rarebit.retrievers.situating import Chunks, SituatingMethod, Way, method_of

NOTHING = np.empty((0, 0), np.float32)


class SituateNodes(TransformComponent):
    """Embeds nodes, and adds to each embedding what the other nodes of its document say.

    It stands after any splitter, in place of the embedding model:

    .. code-block:: python

        pipeline = IngestionPipeline(
            transformations=[SentenceSplitter(), SituateNodes(embed_model)],
            vector_store=RarebitVectorStore("docs.rarebit", metric="inner_product"),
        )

    Every node is embedded once, as without this class. Nodes belong together by their ``ref_doc_id``; one that has none stands
    alone. They are in the order of their ``start_char_idx`` if every node of the document has one of its own, else in the order
    given. A document's nodes have to come in one call. With ``num_workers`` the pipeline deals out what it is given, so give it
    ``documents=``, and split in it: it would cut a list of ``nodes=`` anywhere.

    Where embeddings have lengths that mean something, as a situating head's do, the store has to compare by inner product. Such
    nodes are marked in their metadata, unseen by models, so that Rarebit's store refuses what does not fit, and its collection
    knows what filled it.
    """

    embed_model: SerializeAsAny[BaseEmbedding] | None = Field(description="Embeds nodes and queries.")
    situated_by: str = Field(default="", description="What situates, so that a cache tells one from another.")
    show_progress: bool = Field(default=False, description="Show a progress bar while embedding.")

    _method: SituatingMethod = PrivateAttr()

    def __init__(
        self, embed_model: BaseEmbedding | None, by: Way | None = None, *, show_progress: bool = False, **kwargs: Any
    ) -> None:
        """Take a model and what situates.

        Args:
            embed_model: any embedding model; None where ``by`` is an encoder of its own.
            by: what situates; the situating head that comes with Rarebit if left out. Another
                :class:`~rarebit.retrievers.situating.SituatingHead`; what others do, to compare: ``Plain()``,
                ``TitleHeaders()``, ``NeighbourWindow()``; or an encoder that reads nodes in their context by itself:
                ``LateChunking``, ``TwoEncoders``, ``SitEmb``.
            show_progress: show a progress bar while embedding.
            **kwargs: fields of the base class.

        Raises:
            InputError: ``by`` is nothing that situates; a model and an encoder of its own, or neither; the component was saved
                with something else.
        """
        method, situated_by = _checked(embed_model, by, kwargs)
        fields = {"embed_model": embed_model, "situated_by": situated_by, "show_progress": show_progress}
        super().__init__(**fields, **kwargs)
        self._method = method

    @classmethod
    def class_name(cls) -> str:
        """Name the class in serialized components."""
        return "SituateNodes"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node."""
        del kwargs
        chunks, model = _chunks(nodes), self.embed_model
        texts = self._method.to_embed(chunks)
        plain = [] if model is None else model.get_text_embedding_batch(texts, show_progress=self.show_progress)
        return self._set(nodes, _situated(self._method, chunks, plain))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node, with the model's own asynchronous method."""
        del kwargs
        chunks, model = _chunks(nodes), self.embed_model
        texts = self._method.to_embed(chunks)
        plain = [] if model is None else await model.aget_text_embedding_batch(texts, show_progress=self.show_progress)
        return self._set(nodes, await asyncio.to_thread(_situated, self._method, chunks, plain))

    def _set(self, nodes: Sequence[BaseNode], vectors: Vectors) -> Sequence[BaseNode]:
        name = situated_name(self.embed_model, self._method)
        for node, embedding in zip(nodes, vectors.tolist(), strict=True):
            node.embedding = embedding
            if self._method.keeps_lengths:
                mark(node, name)
        return nodes


class SituatedEmbedding(BaseEmbedding):
    """The embedding model of an index whose nodes :class:`SituateNodes` embedded: it embeds the queries as its model does.

    A text by itself is taken as a document of one node.

    .. code-block:: python

        VectorStoreIndex.from_vector_store(store, embed_model=SituatedEmbedding(embed_model))
    """

    embed_model: SerializeAsAny[BaseEmbedding] | None = Field(description="Embeds texts and queries.")
    situated_by: str = Field(default="", description="What situated the nodes.")

    _method: SituatingMethod = PrivateAttr()

    def __init__(self, embed_model: BaseEmbedding | None, by: Way | None = None, **kwargs: Any) -> None:
        """Take a model and what situates.

        Args:
            embed_model: any embedding model; None where ``by`` is an encoder of its own.
            by: what situated the nodes, as in :class:`SituateNodes`.
            **kwargs: fields of the base class.

        Raises:
            InputError: as :class:`SituateNodes`.
        """
        method, situated_by = _checked(embed_model, by, kwargs)
        named: dict[str, Any] = {
            "situated_by": situated_by,
            "model_name": situated_name(embed_model, method) or "unknown",
        }
        if embed_model is not None:
            named["embed_batch_size"] = embed_model.embed_batch_size
        super().__init__(**{"embed_model": embed_model, **named, **kwargs})
        self._method = method

    @classmethod
    def class_name(cls) -> str:
        """Name the class in serialized components."""
        return "SituatedEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        if self.embed_model is None:
            return self._method.queries([query])[0].tolist()  # type: ignore[no-any-return]
        return self.embed_model._get_query_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        if self.embed_model is None:
            return await asyncio.to_thread(self._get_query_embedding, query)
        return await self.embed_model._aget_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        chunks = Chunks.alone(texts)
        to_embed = self._method.to_embed(chunks)
        plain = [] if self.embed_model is None else self.embed_model._get_text_embeddings(to_embed)
        return _situated(self._method, chunks, plain).tolist()  # type: ignore[no-any-return]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        chunks = Chunks.alone(texts)
        to_embed = self._method.to_embed(chunks)
        plain = [] if self.embed_model is None else await self.embed_model._aget_text_embeddings(to_embed)
        return (await asyncio.to_thread(_situated, self._method, chunks, plain)).tolist()  # type: ignore[no-any-return]


def _checked(model: BaseEmbedding | None, by: Way | None, kwargs: dict[str, Any]) -> tuple[SituatingMethod, str]:
    """Give what situates, and its fingerprint, which a component that was saved must have kept."""
    method = method_of(by)
    check_model(model, method)
    wanted = kwargs.pop("situated_by", method.fingerprint)
    if wanted != method.fingerprint:
        raise InputError(
            f"got what situates by {method.fingerprint!r}, wanted {wanted!r}, which the component was saved with: "
            "pass it as by="
        )
    return method, wanted


def _chunks(nodes: Sequence[BaseNode]) -> Chunks:
    """Say which nodes belong together."""
    return Chunks(
        [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes],
        [node.ref_doc_id or f"node {node.node_id}" for node in nodes],
        [getattr(node, "start_char_idx", None) for node in nodes],
        [node.metadata for node in nodes],
    )


def _situated(method: SituatingMethod, chunks: Chunks, plain: list[list[float]]) -> Vectors:
    return method.situated(chunks, as_vectors(plain) if plain else NOTHING)
