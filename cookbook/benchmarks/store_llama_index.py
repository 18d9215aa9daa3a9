"""Stores through their LlamaIndex adapters: ten nodes with texts and metadata a query.

An adapter that keeps no nodes is used as a ``VectorStoreIndex`` uses it, with a document store beside it that the nodes are
read from; reading them is timed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery

from rarebit.cookbook.benchmarks.store_data import Batch, K, Where, row_of
from rarebit.cookbook.benchmarks.store_subjects import Store

NAME = "passages"
_ADAPTERS = "llama_index.vector_stores."


class LlamaIndexStore(Store):
    """What LlamaIndex's stores have in common."""

    store: Any

    def add(self, batch: Batch) -> None:
        """Add nodes with their embeddings."""
        self.store.add(_nodes(batch))

    def search(self, query: list[float], where: Where | None = None, mode: str = "") -> list[BaseNode]:  # noqa: ARG002
        """Query."""
        filters = None if where is None else _filters(where)
        found = self.store.query(VectorStoreQuery(query_embedding=query, similarity_top_k=K, filters=filters))
        return self.nodes(found)

    def nodes(self, found: Any) -> list[BaseNode]:
        """Give the nodes of a result."""
        nodes: list[BaseNode] = found.nodes
        return nodes

    def rows(self, found: Any) -> list[int]:
        """Read the nodes' ids."""
        return [row_of(node.node_id) for node in found]


def _nodes(batch: Batch) -> list[TextNode]:
    rows = zip(batch.ids, batch.texts, batch.metadatas, batch.vectors, strict=True)
    return [TextNode(id_=key, text=text, metadata=metadata, embedding=vector) for key, text, metadata, vector in rows]


def _filters(where: Where) -> MetadataFilters:
    return MetadataFilters(
        filters=[
            MetadataFilter(key=where.field, value=where.low, operator=FilterOperator.GTE),
            MetadataFilter(key=where.field, value=where.high, operator=FilterOperator.LT),
        ]
    )


class Rarebit(LlamaIndexStore):
    """Rarebit with default settings."""

    imports = ("rarebit.integrations.llama_index",)

    def create(self) -> None:
        """Open or make the file."""
        from rarebit.integrations.llama_index import RarebitVectorStore

        self.store = RarebitVectorStore(self.folder / "store.rarebit")

    def open(self) -> None:
        """Open the file."""
        self.create()

    def finish(self) -> None:
        """Close the file."""
        self.store.close()

    def close(self) -> None:
        """Close the file."""
        self.store.close()


class WithoutNodes(LlamaIndexStore):
    """A store that keeps no nodes, and the document store beside it."""

    docstore: SimpleDocumentStore

    def add(self, batch: Batch) -> None:
        """Add nodes to both; those of the document store have no embeddings."""
        nodes = _nodes(batch)
        self.store.add(nodes)
        for node in nodes:
            node.embedding = None
        self.docstore.add_documents(nodes, allow_update=True)

    def nodes(self, found: Any) -> list[BaseNode]:
        """Read the nodes from the document store."""
        return self.docstore.get_nodes(found.ids)


class Simple(WithoutNodes):
    """LlamaIndex's default, in memory; it could be written as JSON, with every number spelt out."""

    reopens = False
    imports = ("llama_index.core",)

    def create(self) -> None:
        """Make both."""
        self.store = import_module("llama_index.core.vector_stores").SimpleVectorStore()
        self.docstore = SimpleDocumentStore()


class Faiss(WithoutNodes):
    """A flat index that numbers nodes; which number is whose node, a ``VectorStoreIndex`` would remember."""

    imports = (f"{_ADAPTERS}faiss", "faiss")

    def create(self) -> None:
        """Make the index."""
        faiss, adapter = import_module("faiss"), import_module(f"{_ADAPTERS}faiss")
        self.store = adapter.FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatIP(self.dim)))
        self.docstore = SimpleDocumentStore()

    def finish(self) -> None:
        """Write index, map and nodes."""
        self.store.persist(str(self.folder / "index.json"))
        self.docstore.persist(str(self.folder / "docstore.json"))

    def open(self) -> None:
        """Read index, map and nodes."""
        self.store = import_module(f"{_ADAPTERS}faiss").FaissMapVectorStore.from_persist_path(str(self.folder / "index.json"))
        self.docstore = SimpleDocumentStore.from_persist_path(str(self.folder / "docstore.json"))


class Chroma(LlamaIndexStore):
    """Chroma in a folder, with its default graph, for cosines."""

    imports = (f"{_ADAPTERS}chroma", "chromadb")

    def create(self) -> None:
        """Make or open the collection."""
        chroma = import_module("chromadb")
        client = chroma.PersistentClient(
            str(self.folder), settings=import_module("chromadb.config").Settings(anonymized_telemetry=False)
        )
        collection = client.get_or_create_collection(NAME, embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
        self.store = import_module(f"{_ADAPTERS}chroma").ChromaVectorStore(chroma_collection=collection)

    def open(self) -> None:
        """Open the collection."""
        self.create()


class Qdrant(LlamaIndexStore):
    """Qdrant's local mode, which is written in Python."""

    imports = (f"{_ADAPTERS}qdrant", "qdrant_client")

    def create(self) -> None:
        """Make or open the folder; the collection comes with the first rows."""
        path = str(self.folder / "qdrant")
        self._client = import_module("qdrant_client").QdrantClient(path=path, force_disable_check_same_thread=True)
        self.store = import_module(f"{_ADAPTERS}qdrant").QdrantVectorStore(NAME, self._client)

    def open(self) -> None:
        """Open the collection."""
        self.create()

    def finish(self) -> None:
        """Close the folder."""
        self._client.close()

    def close(self) -> None:
        """Close the folder."""
        self._client.close()


class Lance(LlamaIndexStore):
    """LanceDB without an index."""

    imports = (f"{_ADAPTERS}lancedb", "lancedb")

    def create(self) -> None:
        """Make or open the table."""
        self.store = import_module(f"{_ADAPTERS}lancedb").LanceDBVectorStore(str(self.folder), NAME)

    def open(self) -> None:
        """Open the table."""
        self.create()


class Turbovec(LlamaIndexStore):
    """turbovec's own adapter: codes of 4 bits a dimension, nodes in a dictionary."""

    imports = ("turbovec.llama_index",)

    def create(self) -> None:
        """Make the index."""
        self.store = import_module("turbovec.llama_index").TurboQuantVectorStore()

    def finish(self) -> None:
        """Write index and nodes."""
        self.store.persist(str(self.folder / "store.json"))

    def open(self) -> None:
        """Read index and nodes."""
        adapter = import_module("turbovec.llama_index").TurboQuantVectorStore
        self.store = adapter.from_persist_path(str(self.folder / "store.json"))
