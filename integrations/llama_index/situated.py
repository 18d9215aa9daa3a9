"""Situated embeddings in LlamaIndex: a node's embedding says where the node stands in its document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SerializeAsAny
from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent

from rarebit.arrays import as_vectors
from rarebit.errors import InputError
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.integrations.situated_name import situated_name
from rarebit.retrievers.situating import SituatingHead


class SituateNodes(TransformComponent):
    """Embeds nodes, and adds to each embedding what the other nodes of its document say.

    It stands after any splitter, in place of the embedding model:

    .. code-block:: python

        pipeline = IngestionPipeline(
            transformations=[SentenceSplitter(), SituateNodes(embed_model)],
            vector_store=RarebitVectorStore("docs.rarebit", metric="inner_product"),
        )

    Every node is embedded once, as without this class. Nodes belong together by their ``ref_doc_id``; one that has none stands
    alone. They are in the order of their ``start_char_idx`` if every node of the document has one, else in the order given. A
    document's nodes have to come in one call: with ``num_workers``, the pipeline deals out documents, so they do.

    The length of an embedding means something: the store has to compare by inner product.
    """

    embed_model: SerializeAsAny[BaseEmbedding] = Field(description="Embeds nodes and queries.")
    head_fingerprint: str = Field(default="", description="Which head situates, so that a cache tells heads apart.")
    show_progress: bool = Field(default=False, description="Show a progress bar while embedding.")

    _head: SituatingHead | None = PrivateAttr()

    def __init__(
        self, embed_model: BaseEmbedding, head: SituatingHead | None = None, *, show_progress: bool = False, **kwargs: Any
    ) -> None:
        """Take a model and a head.

        Args:
            embed_model: any embedding model.
            head: what situates; :meth:`SituatingHead.shipped` if left out.
            show_progress: show a progress bar while embedding.
            **kwargs: fields of the base class.

        Raises:
            InputError: the component was saved with another head.
        """
        own = _head_for(head, 1).fingerprint
        wanted = kwargs.pop("head_fingerprint", own)
        if wanted != own:
            raise InputError(f"got the head {own}, wanted {wanted}, which the component was saved with: pass it as head=")
        fields = {"embed_model": embed_model, "head_fingerprint": own, "show_progress": show_progress}
        super().__init__(**fields, **kwargs)
        self._head = head

    @classmethod
    def class_name(cls) -> str:
        """Name the class in serialized components."""
        return "SituateNodes"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node."""
        del kwargs
        return self._situated(nodes, self.embed_model.get_text_embedding_batch(_texts(nodes), show_progress=self.show_progress))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node, with the model's own asynchronous method."""
        del kwargs
        model = self.embed_model
        return self._situated(nodes, await model.aget_text_embedding_batch(_texts(nodes), show_progress=self.show_progress))

    def _situated(self, nodes: Sequence[BaseNode], embeddings: list[list[float]]) -> Sequence[BaseNode]:
        if not nodes:
            return nodes
        vectors = as_vectors(embeddings)
        documents = [node.ref_doc_id or f"node {node.node_id}" for node in nodes]
        situated = _head_for(self._head, vectors.shape[1]).situate_grouped(vectors, documents, _order(nodes, documents))
        for node, embedding in zip(nodes, situated.tolist(), strict=True):
            node.embedding = embedding
        return nodes


class SituatedEmbedding(BaseEmbedding):
    """The embedding model of an index whose nodes :class:`SituateNodes` embedded: it embeds the queries as its model does.

    A text by itself is taken as a document of one node.

    .. code-block:: python

        VectorStoreIndex.from_vector_store(store, embed_model=SituatedEmbedding(embed_model))
    """

    embed_model: SerializeAsAny[BaseEmbedding] = Field(description="Embeds texts and queries.")

    _head: SituatingHead | None = PrivateAttr()

    def __init__(self, embed_model: BaseEmbedding, head: SituatingHead | None = None, **kwargs: Any) -> None:
        """Take a model and a head.

        Args:
            embed_model: any embedding model.
            head: the one that situated the nodes; :meth:`SituatingHead.shipped` if left out.
            **kwargs: fields of the base class.
        """
        known = situated_name(fingerprint_of(embed_model).name, head)
        named = {"model_name": known or "unknown", "embed_batch_size": embed_model.embed_batch_size}
        super().__init__(**{"embed_model": embed_model, **named, **kwargs})
        self._head = head

    @classmethod
    def class_name(cls) -> str:
        """Name the class in serialized components."""
        return "SituatedEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.embed_model._get_query_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.embed_model._aget_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._alone([self.embed_model._get_text_embedding(text)])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._alone(self.embed_model._get_text_embeddings(texts))

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return self._alone([await self.embed_model._aget_text_embedding(text)])[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._alone(await self.embed_model._aget_text_embeddings(texts))

    def _alone(self, embeddings: list[list[float]]) -> list[list[float]]:
        vectors = as_vectors(embeddings)
        head = _head_for(self._head, vectors.shape[1])
        return head.situate_grouped(vectors, range(len(vectors))).tolist()  # type: ignore[no-any-return]


def _head_for(head: SituatingHead | None, dim: int) -> SituatingHead:
    return SituatingHead.shipped(dim) if head is None else head


def _texts(nodes: Sequence[BaseNode]) -> list[str]:
    return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _order(nodes: Sequence[BaseNode], documents: Sequence[str]) -> list[float]:
    """Give the numbers by which the nodes of each document are put in order."""
    starts = [getattr(node, "start_char_idx", None) for node in nodes]
    unordered = {document for document, start in zip(documents, starts, strict=True) if start is None}
    return [
        float(place if start is None or document in unordered else start)
        for place, (document, start) in enumerate(zip(documents, starts, strict=True))
    ]
