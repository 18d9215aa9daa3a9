"""Stores of LlamaIndex as sources: their vectors become rows of a collection, and nothing is embedded again.

A SimpleVectorStore keeps vectors and no texts; the nodes are in the docstore beside it, as a StorageContext or an index has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_index.core import StorageContext
from llama_index.core.indices.base import BaseIndex
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from rarebit.arrays import as_vectors
from rarebit.errors import InputError
from rarebit.integrations.llama_index.nodes import to_row
from rarebit.retrievers import importing
from rarebit.retrievers.importing import Rows, Source
from rarebit.retrievers.importing.source import Ranking


def source_of(given: Any, docstore: BaseDocumentStore | None = None) -> Source:
    """Make a source of a SimpleVectorStore, a storage context, an index, a ChromaVectorStore; or of what the core knows.

    Args:
        given: the store, or what has it.
        docstore: with the nodes of a SimpleVectorStore; a storage context or an index has its own.

    Raises:
        InputError: it is none of these, or the nodes are not there.
    """
    if isinstance(given, BaseIndex):
        given = given.storage_context
    if isinstance(given, StorageContext):
        return source_of(given.vector_store, given.docstore if docstore is None else docstore)
    if isinstance(given, SimpleVectorStore):
        return SimpleSource(given, docstore)
    inner = getattr(given, "client", None)
    return importing.source_of(inner if type(inner).__module__.partition(".")[0] == "chromadb" else given)


class SimpleSource:
    """The rows of a SimpleVectorStore, in its order: as if its nodes were added with their embeddings."""

    name = "SimpleVectorStore"
    ranked_by: Ranking | None = "cosine"

    def __init__(self, store: SimpleVectorStore, docstore: BaseDocumentStore | None) -> None:
        """Take the store, and look whether every vector has its node.

        Raises:
            InputError: there is no docstore, or nodes are missing from it.
        """
        if docstore is None:
            raise InputError(
                "got a SimpleVectorStore, which keeps no texts, without the docstore that has its nodes: pass docstore=, or "
                "the StorageContext or the index itself"
            )
        self._vectors, self._docstore = store.data.embedding_dict, docstore
        self.count = len(self._vectors)
        missing = [key for key in self._vectors if not docstore.document_exists(key)]
        if missing:
            raise InputError(
                f"{len(missing)} of the {self.count} vectors have no node in the docstore (first: {missing[0]!r}), wanted the "
                "docstore that belongs to the store: without the nodes there are no texts"
            )

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows."""
        ids = list(self._vectors)
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            rows = [to_row(self._docstore.get_node(key)) for key in part]
            vectors = as_vectors([self._vectors[key] for key in part])
            yield Rows(part, vectors, [row.text for row in rows], [row.metadata for row in rows])
