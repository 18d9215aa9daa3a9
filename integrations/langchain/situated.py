"""Situated embeddings in LangChain: a chunk's vector says where the chunk stands in its document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor

from rarebit.arrays import Vectors, VectorsLike, as_vectors
from rarebit.errors import InputError
from rarebit.integrations.situated_name import check_model, situated_name
from rarebit.retrievers.collection import EmbeddingFingerprint
from rarebit.retrievers.situating import Chunks, Way, method_of
from rarebit.retrievers.situating.grouping import places_by_document

NOTHING = np.empty((0, 0), np.float32)


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

    Where vectors have lengths that mean something, as a situating head's do, the store has to compare by inner product, as
    Rarebit's does then.

    Args:
        embeddings: the model; it embeds the queries as they are. None where ``by`` is an encoder of its own.
        by: what situates; the situating head that comes with Rarebit if left out. Another
            :class:`~rarebit.retrievers.situating.SituatingHead`; what others do, to compare: ``Plain()``, ``TitleHeaders()``,
            ``NeighbourWindow()``; or an encoder that reads the chunks in their context by itself: ``LateChunking``,
            ``TwoEncoders``, ``SitEmb``.
        document_key: metadata key that names the document of a chunk.
        order_keys: metadata keys of numbers by which a document's chunks are put in order, the first one first; a key counts
            if every chunk of the document has it. By default the page that loaders write and what LangChain's splitters write
            with ``add_start_index=True``. Where that leaves two chunks with one place, the document's chunks are in the order
            given.

    Raises:
        InputError: ``by`` is nothing that situates; a model and an encoder of its own, or neither.
    """

    def __init__(
        self,
        embeddings: Embeddings | None,
        by: Way | None = None,
        *,
        document_key: str = "source",
        order_keys: Sequence[str] = ("page", "start_index"),
    ) -> None:
        """Wrap a model; the class explains the arguments."""
        self._method = method_of(by)
        check_model(embeddings, self._method)
        self.embeddings = embeddings
        self.document_key = document_key
        if isinstance(order_keys, str):
            raise InputError(f"got order_keys={order_keys!r}, wanted a sequence of metadata keys: put it into a list")
        self.order_keys = tuple(order_keys)

    @property
    def model_name(self) -> str:
        """Name the model and what situates, so that a collection knows what it was filled with; empty if that is not known."""
        return situated_name(self.embeddings, self._method)

    @property
    def fingerprint(self) -> EmbeddingFingerprint:
        """The same for a collection; a name that is put together here is none to be taken apart again."""
        return EmbeddingFingerprint(name=self.model_name or None)

    @property
    def keeps_lengths(self) -> bool:
        """Whether vectors have lengths that mean something, so that they have to be compared by inner product."""
        return self._method.keeps_lengths

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, as the model does."""
        if self.embeddings is None:
            return self._method.queries([text])[0].tolist()  # type: ignore[no-any-return]
        return self.embeddings.embed_query(text)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query, as the model does."""
        if self.embeddings is None:
            return await run_in_executor(None, self.embed_query, text)
        return await self.embeddings.aembed_query(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, each as a document of one chunk."""
        return self._embedded(Chunks.alone(texts))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, each as a document of one chunk."""
        return await self._awaited(Chunks.alone(texts))

    def embed_chunks(self, chunks: Sequence[Document]) -> list[list[float]]:
        """Embed chunks of documents, situated.

        Args:
            chunks: n of them; all chunks of a document, wherever they stand.

        Returns:
            n vectors, to be compared by inner product.

        Raises:
            InputError: a chunk's metadata does not name its document.
        """
        return self._embedded(self.chunks([chunk.page_content for chunk in chunks], [chunk.metadata for chunk in chunks]))

    async def aembed_chunks(self, chunks: Sequence[Document]) -> list[list[float]]:
        """Do as :meth:`embed_chunks`, with the model's own asynchronous method."""
        return await self._awaited(self.chunks([chunk.page_content for chunk in chunks], [chunk.metadata for chunk in chunks]))

    def chunks(self, texts: Sequence[str], metadatas: Sequence[Mapping[str, Any]]) -> Chunks:
        """Say which chunks belong together, by their metadata.

        Raises:
            InputError: a chunk's metadata does not name its document.
        """
        for place, metadata in enumerate(metadatas):
            name = metadata.get(self.document_key)
            if not isinstance(name, str | int):
                raise InputError(
                    f"chunk {place} has {name!r} under the metadata key {self.document_key!r}, wanted the name of its "
                    "document: pass document_key= for another key, or use embeddings that are not situated"
                )
        documents = [metadata[self.document_key] for metadata in metadatas]
        return Chunks(texts, documents, _order(documents, metadatas, self.order_keys), metadatas)

    def to_embed(self, chunks: Chunks) -> list[str]:
        """Give the texts that the model is to embed for chunks; none where an encoder of its own embeds them."""
        return self._method.to_embed(chunks)

    def situate(self, chunks: Chunks, vectors: VectorsLike) -> Vectors:
        """Make the vectors of chunks from those of the texts of :meth:`to_embed`.

        Args:
            chunks: n of them.
            vectors: (n, dim); empty where an encoder of its own embeds them.

        Returns:
            (n, dim) float32, in the order given.
        """
        return self._method.situated(chunks, as_vectors(vectors))

    def _embedded(self, chunks: Chunks) -> list[list[float]]:
        texts = self.to_embed(chunks)
        plain = NOTHING if self.embeddings is None else self.embeddings.embed_documents(texts)
        return self.situate(chunks, plain).tolist()  # type: ignore[no-any-return]

    async def _awaited(self, chunks: Chunks) -> list[list[float]]:
        texts = self.to_embed(chunks)
        plain = NOTHING if self.embeddings is None else await self.embeddings.aembed_documents(texts)
        return (await run_in_executor(None, self.situate, chunks, plain)).tolist()  # type: ignore[no-any-return]


def _order(documents: Sequence[str | int], metadatas: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[float | None]:
    """Number the chunks of each document by what their metadata say of their place."""
    order: list[float | None] = [None] * len(documents)
    for own in places_by_document(len(documents), documents).values():
        known = [key for key in keys if all(_is_place(metadatas[chunk].get(key)) for chunk in own)]
        stands = [tuple(float(metadatas[chunk][key]) for key in known) for chunk in own]
        ranks = {stand: float(rank) for rank, stand in enumerate(sorted(set(stands)))}
        for chunk, stand in zip(own, stands, strict=True):
            order[chunk] = ranks[stand]
    return order


def _is_place(number: object) -> bool:
    """Whether metadata say where a chunk stands: LangChain's splitters write -1 where they did not find it again."""
    return isinstance(number, int | float) and not isinstance(number, bool) and number >= 0
