"""Situated embeddings in LangChain: a chunk's vector says where the chunk stands in its document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import InputError
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.integrations.situated_name import situated_name
from rarebit.retrievers.situating import SituatingHead


class SituatedEmbeddings(Embeddings):
    """Any embedding model, with what a document's other chunks say added to each chunk's vector.

    The one line that changes:

    .. code-block:: python

        store = RarebitVectorStore(SituatedEmbeddings(embeddings), path="docs.rarebit")
        store.add_documents(RecursiveCharacterTextSplitter(add_start_index=True).split_documents(documents))

    A :class:`~rarebit.integrations.langchain.RarebitVectorStore` hands over the chunks' metadata, so that the chunks of a
    document are known by its ``source``. They are embedded once each, as without this class, and situated together: a document
    should come whole in one call, and :func:`~rarebit.integrations.langchain.index_documents` sees to that.

    Bare texts say nothing of their document, and nothing is guessed: :meth:`embed_documents` takes each as a document of one
    chunk. For another store, pass it the vectors of :meth:`embed_chunks`.

    The length of a situated vector means something. The store has to compare by inner product, as Rarebit's does then.

    Args:
        embeddings: the model; it embeds the queries as they are.
        head: what situates; :meth:`SituatingHead.shipped` if left out.
        document_key: metadata key that names the document of a chunk.
        order_key: metadata key of a number by which a document's chunks are put in order, if every one of them has it: by
            default what LangChain's splitters write with ``add_start_index=True``. Otherwise they are in the order given.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        head: SituatingHead | None = None,
        *,
        document_key: str = "source",
        order_key: str = "start_index",
    ) -> None:
        """Wrap a model; the class explains the arguments."""
        self.embeddings = embeddings
        self.document_key = document_key
        self.order_key = order_key
        self._head = head

    @property
    def model_name(self) -> str:
        """Name the model and the head, so that a collection knows what it was filled with; empty if the model has no name."""
        return situated_name(fingerprint_of(self.embeddings).name, self._head)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, as the model does."""
        return self.embeddings.embed_query(text)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query, as the model does."""
        return await self.embeddings.aembed_query(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, each as a document of one chunk."""
        return self._each_alone(self.embeddings.embed_documents(texts))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, each as a document of one chunk."""
        return self._each_alone(await self.embeddings.aembed_documents(texts))

    def embed_chunks(self, chunks: Sequence[Document]) -> list[list[float]]:
        """Embed chunks of documents, situated.

        Args:
            chunks: n of them; all chunks of a document, wherever they stand.

        Returns:
            n vectors, to be compared by inner product.

        Raises:
            InputError: a chunk's metadata does not name its document.
        """
        metadatas = [chunk.metadata for chunk in chunks]
        self.check(metadatas)
        plain = self.embeddings.embed_documents([chunk.page_content for chunk in chunks])
        return self.situate(plain, metadatas).tolist()  # type: ignore[no-any-return]

    async def aembed_chunks(self, chunks: Sequence[Document]) -> list[list[float]]:
        """Do as :meth:`embed_chunks`, with the model's own asynchronous method."""
        metadatas = [chunk.metadata for chunk in chunks]
        self.check(metadatas)
        plain = await self.embeddings.aembed_documents([chunk.page_content for chunk in chunks])
        return (await run_in_executor(None, self.situate, plain, metadatas)).tolist()  # type: ignore[no-any-return]

    def check(self, metadatas: Sequence[Mapping[str, Any]]) -> None:
        """Raise InputError unless every chunk's metadata names its document."""
        for place, metadata in enumerate(metadatas):
            name = metadata.get(self.document_key)
            if not isinstance(name, str | int):
                raise InputError(
                    f"chunk {place} has {name!r} under the metadata key {self.document_key!r}, wanted the name of its "
                    "document: pass document_key= for another key, or use embeddings that are not situated"
                )

    def situate(self, vectors: Vectors | list[list[float]], metadatas: Sequence[Mapping[str, Any]]) -> Vectors:
        """Situate the model's own vectors of chunks.

        Args:
            vectors: (n, dim).
            metadatas: n of them.

        Returns:
            (n, dim) float32, in the order given.
        """
        self.check(metadatas)
        plain = as_vectors(vectors)
        names = [metadata[self.document_key] for metadata in metadatas]
        unordered = {
            name
            for name, metadata in zip(names, metadatas, strict=True)
            if not isinstance(metadata.get(self.order_key), int | float)
        }
        order = [
            float(place) if name in unordered else float(metadata[self.order_key])
            for place, (name, metadata) in enumerate(zip(names, metadatas, strict=True))
        ]
        return self._head_for(plain).situate_grouped(plain, names, order)

    def _each_alone(self, vectors: list[list[float]]) -> list[list[float]]:
        plain = as_vectors(vectors)
        return self._head_for(plain).situate_grouped(plain, range(len(plain))).tolist()  # type: ignore[no-any-return]

    def _head_for(self, vectors: Vectors) -> SituatingHead:
        return SituatingHead.shipped(vectors.shape[1]) if self._head is None else self._head


def plain(embedding: Embeddings) -> Embeddings:
    """Give the model that embeds single texts."""
    return embedding.embeddings if isinstance(embedding, SituatedEmbeddings) else embedding


def situated(embedding: Embeddings, vectors: Vectors, metadatas: Sequence[Mapping[str, Any]]) -> Vectors:
    """Situate vectors that :func:`plain` gave, if the model is to."""
    if not isinstance(embedding, SituatedEmbeddings) or not len(vectors):
        return vectors
    return embedding.situate(vectors, metadatas)
