"""Stores through their LangChain adapters, each in its adapter's own words; ten documents with texts and metadata a search."""

from __future__ import annotations

from collections import deque
from importlib import import_module
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from rarebit.cookbook.benchmarks.store_data import Batch, K, Where, row_of
from rarebit.cookbook.benchmarks.store_subjects import CannotError, Store

NAME = "passages"
LARGE_FETCH = 10_000
"""Documents that LangChain's FAISS reads before it filters, where it is told to read many."""


class HandedOut(Embeddings):
    """Stands in for an embedding model: hands out vectors that are there already, in order."""

    def __init__(self, dim: int) -> None:
        """Have nothing yet."""
        self._dim = dim
        self._ready: deque[list[float]] = deque()

    def expect(self, vectors: list[list[float]]) -> None:
        """Take the vectors of the texts that come next."""
        self._ready = deque(vectors)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Give the next vectors; some vector to a store that only wants to know the dimension."""
        return [self._ready.popleft() if self._ready else self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:  # noqa: ARG002 -- some stores ask for the dimension so
        """Give some vector of length 1."""
        return [1.0] + [0.0] * (self._dim - 1)


class LangChainStore(Store):
    """What LangChain's stores have in common."""

    store: Any

    def _embedding(self) -> HandedOut:
        self.handed = HandedOut(self.dim)
        return self.handed

    def add(self, batch: Batch) -> None:
        """Add texts, whose embeddings are there already."""
        self.handed.expect(batch.vectors)
        self.store.add_texts(batch.texts, batch.metadatas, ids=batch.ids)

    def search(self, query: list[float], where: Where | None = None, mode: str = "") -> list[Document]:
        """Search by vector."""
        given = {} if where is None else self.filter(where, mode)
        found: list[Document] = self.store.similarity_search_by_vector(query, k=K, **given)
        return found

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- few have more than one way
        """Give the keywords of a filtered search."""
        return {"filter": {where.field: {"$gte": where.low, "$lt": where.high}}}

    def rows(self, found: Any) -> list[int]:
        """Read the documents' ids."""
        return [row_of(document.id) for document in found]


class Rarebit(LangChainStore):
    """Rarebit with default settings."""

    imports = ("rarebit.integrations.langchain",)

    def create(self) -> None:
        """Make the file."""
        self._open(create=True)

    def open(self) -> None:
        """Open the file."""
        self._open(create=False)

    def _open(self, *, create: bool) -> None:
        from rarebit.integrations.langchain import RarebitVectorStore

        self.store = RarebitVectorStore(self._embedding(), path=self.folder / "store.rarebit", create=create)

    def finish(self) -> None:
        """Close the file."""
        self.store.close()

    def close(self) -> None:
        """Close the file."""
        self.store.close()


class Faiss(LangChainStore):
    """LangChain's FAISS on a flat index, or a graph; documents are in a dictionary, and saved by pickle."""

    imports = ("langchain_community.vectorstores.faiss", "langchain_community.docstore.in_memory", "faiss")
    modes = ("fetch_k=20, its default", f"fetch_k={LARGE_FETCH}")

    def create(self) -> None:
        """Make the index."""
        faiss, community = import_module("faiss"), import_module("langchain_community.vectorstores.faiss")
        neighbours = self.settings.get("neighbours")
        inner = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexHNSWFlat(self.dim, neighbours, inner) if neighbours else faiss.IndexFlatIP(self.dim)
        docstore = import_module("langchain_community.docstore.in_memory").InMemoryDocstore()
        strategy = import_module("langchain_community.vectorstores.utils").DistanceStrategy.MAX_INNER_PRODUCT
        self.store = community.FAISS(self._embedding(), index, docstore, {}, distance_strategy=strategy)

    def finish(self) -> None:
        """Write the index and the pickle."""
        self.store.save_local(str(self.folder))

    def open(self) -> None:
        """Read the index and the pickle."""
        community = import_module("langchain_community.vectorstores.faiss")
        self.store = community.FAISS.load_local(str(self.folder), self._embedding(), allow_dangerous_deserialization=True)

    def filter(self, where: Where, mode: str) -> dict[str, Any]:
        """Filter what was fetched."""
        fetched = {"fetch_k": LARGE_FETCH} if mode == self.modes[1] else {}
        return super().filter(where, mode) | fetched


class InMemory(LangChainStore):
    """LangChain's store for tests and small things."""

    reopens = False
    imports = ("langchain_core.vectorstores.in_memory",)

    def create(self) -> None:
        """Make the dictionary."""
        self.store = import_module("langchain_core.vectorstores.in_memory").InMemoryVectorStore(self._embedding())

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- see the base
        """Filter by a function, which is called with every document."""
        return {"filter": lambda document: where.low <= document.metadata[where.field] < where.high}


class Turbovec(InMemory):
    """turbovec's own adapter: codes of 4 bits a dimension, documents in a dictionary."""

    reopens: ClassVar[bool] = True
    imports = ("turbovec.langchain",)

    def create(self) -> None:
        """Make the index."""
        self.store = import_module("turbovec.langchain").TurboQuantVectorStore(self._embedding())

    def finish(self) -> None:
        """Write the index and the documents."""
        self.store.dump(self.folder)

    def open(self) -> None:
        """Read the index and the documents."""
        self.store = import_module("turbovec.langchain").TurboQuantVectorStore.load(self.folder, self._embedding())


class Chroma(LangChainStore):
    """Chroma in a folder, with its default graph, for cosines."""

    imports = ("langchain_chroma", "chromadb")

    def create(self) -> None:
        """Make the collection."""
        self.store = import_module("langchain_chroma").Chroma(
            NAME,
            self._embedding(),
            persist_directory=str(self.folder),
            client_settings=import_module("chromadb.config").Settings(anonymized_telemetry=False),
            collection_configuration={"hnsw": {"space": "cosine"}},
        )

    def open(self) -> None:
        """Open the collection."""
        self.create()

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- see the base
        """Filter before the search."""
        return {"filter": {"$and": [{where.field: {"$gte": where.low}}, {where.field: {"$lt": where.high}}]}}


class Qdrant(LangChainStore):
    """Qdrant's local mode, which is written in Python."""

    imports = ("langchain_qdrant", "qdrant_client")

    def create(self) -> None:
        """Make the collection."""
        models = import_module("qdrant_client.models")
        client = self._client()
        client.create_collection(NAME, models.VectorParams(size=self.dim, distance=models.Distance.COSINE))
        self._use(client)

    def open(self) -> None:
        """Open the collection."""
        self._use(self._client())

    def _client(self) -> Any:
        path = str(self.folder / "qdrant")
        return import_module("qdrant_client").QdrantClient(path=path, force_disable_check_same_thread=True)

    def _use(self, client: Any) -> None:
        self.store = import_module("langchain_qdrant").QdrantVectorStore(client, NAME, self._embedding())

    def finish(self) -> None:
        """Close the folder."""
        self.close()

    def close(self) -> None:
        """Close the folder."""
        self.store.client.close()

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- see the base
        """Filter by Qdrant's own conditions."""
        models = import_module("qdrant_client.models")
        condition = models.FieldCondition(key=f"metadata.{where.field}", range=models.Range(gte=where.low, lt=where.high))
        return {"filter": models.Filter(must=[condition])}

    def rows(self, found: Any) -> list[int]:
        """Read the ids, which the adapter puts into the metadata."""
        return [row_of(document.metadata["_id"]) for document in found]


class Lance(LangChainStore):
    """LanceDB without an index, or with the adapter's own one; its documents have no ids, so the metadata has them."""

    imports = ("langchain_community.vectorstores.lancedb", "lancedb", "lancedb.remote.table")
    modes = ("prefilter=True", "prefilter=False, its default")

    def create(self) -> None:
        """Make the database; the table comes with the first rows."""
        adapter = import_module("langchain_community.vectorstores.lancedb").LanceDB
        connection = import_module("lancedb").connect(str(self.folder))
        self.store = adapter(connection, self._embedding(), table_name=NAME, mode="append", distance="cosine")

    def open(self) -> None:
        """Open the table."""
        self.create()

    def add(self, batch: Batch) -> None:
        """Add texts and, in the metadata, their ids."""
        metadatas = [{**metadata, "id": key} for metadata, key in zip(batch.metadatas, batch.ids, strict=True)]
        super().add(Batch(batch.ids, batch.texts, metadatas, batch.vectors))

    def finish(self) -> None:
        """Train and build the index."""
        if self.settings.get("index"):
            self.store.create_index(vector_col="vector", metric="cosine")

    def filter(self, where: Where, mode: str) -> dict[str, Any]:
        """Filter by SQL; the adapter's dictionaries compare texts only."""
        sql = f"metadata.{where.field} >= {where.low} AND metadata.{where.field} < {where.high}"
        return {"filter": sql, "prefilter": mode == self.modes[0]}

    def rows(self, found: Any) -> list[int]:
        """Read the ids from the metadata."""
        return [row_of(document.metadata["id"]) for document in found]


class SqliteVec(LangChainStore):
    """sqlite-vec; its documents have no ids, so the metadata has them."""

    imports = ("langchain_community.vectorstores.sqlitevec", "sqlite_vec")

    def create(self) -> None:
        """Make the tables, on a connection that other threads may use, which the adapter's own does not let them.

        Where Python was built without extensions for SQLite, pysqlite3 stands in.
        """
        sqlite3 = import_module("sqlite3")
        if not hasattr(sqlite3.Connection, "enable_load_extension"):
            sqlite3 = import_module("pysqlite3")
        connection = sqlite3.connect(self.folder / "vec.db", check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.enable_load_extension(True)
        import_module("sqlite_vec").load(connection)
        adapter = import_module("langchain_community.vectorstores.sqlitevec").SQLiteVec
        self.store = adapter(NAME, connection, self._embedding())
        self._connection = connection

    def open(self) -> None:
        """Open the tables."""
        self.create()

    def add(self, batch: Batch) -> None:
        """Add texts and, in the metadata, their ids."""
        metadatas = [{**metadata, "id": key} for metadata, key in zip(batch.metadatas, batch.ids, strict=True)]
        self.handed.expect(batch.vectors)
        self.store.add_texts(batch.texts, metadatas)

    def finish(self) -> None:
        """Close the file."""
        self._connection.close()

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- see the base
        """Say that there are none.

        Raises:
            CannotError: always.
        """
        raise CannotError("the adapter has no filters: it takes the keyword and ignores it")

    def rows(self, found: Any) -> list[int]:
        """Read the ids from the metadata."""
        return [row_of(document.metadata["id"]) for document in found]
