"""Milvus for :mod:`.engines`: Rarebit's two stages beside the usual LangChain adapter with its float32 vectors, on Milvus Lite.

The address is that of a folder, ``milvus:///folder``; each store has a file of its own in it, so that its bytes can be told. A
file keeps the room of what was dropped, as after Rarebit's training, and uses it again.

    - ``index``: bytes a row of what a search goes through, which Milvus Lite has no graph for: Rarebit's bits, all of which are
      compared, or the adapter's float32, of which its default compares some inverted lists and the line ``FLAT`` all.
    - ``tables``: of everything else in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

from langchain_core.documents import Document

from rarebit import Collection
from rarebit.cookbook.benchmarks.engine_store import NAME, EngineStore
from rarebit.cookbook.benchmarks.store_data import Batch, K, Where, row_of
from rarebit.integrations.langchain import RarebitVectorStore
from rarebit.retrievers.engines.milvus.connections import load_lite

FLOAT_BYTES = 4


@contextmanager
def own_folder(folder: Path) -> Iterator[str]:
    """Give the address of a folder for files of Milvus Lite, whose servers end with the block."""
    load_lite()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield f"milvus://{folder}"
    finally:
        import_module("milvus_lite.server_manager").server_manager_instance.release_all()


class RarebitOnMilvus(EngineStore):
    """Rarebit's collection in a file of Milvus Lite, with default settings."""

    method = "rarebit, Milvus Lite"

    def create(self) -> None:
        """Make the collection."""
        self.collection = Collection.connect(f"{self.url}/rarebit.db", NAME)
        self.store = RarebitVectorStore(self._embedding(), collection=self.collection)

    def sizes(self) -> dict[str, int]:
        """Count the bits, and the file."""
        plane = self.collection._engine.kept().plane
        bits = 0 if plane is None else plane.bits // 8 * self.collection.count()
        return {"index": bits, "tables": self.collection.stats().disk["file"] - bits, "other indexes": 0}

    def close(self) -> None:
        """Close the connection."""
        self.store.close()


class LangChainMilvus(EngineStore):
    """langchain-milvus with its defaults; the filtered fields are fields of the collection."""

    method = "langchain-milvus float32"
    modes = ("",)
    name = "floats.db"
    index: ClassVar[dict[str, Any] | None] = None

    def create(self) -> None:
        """Make the collection, when the first rows come."""
        self.file = Path(self.url.removeprefix("milvus://")) / self.name
        milvus = import_module("langchain_milvus").Milvus
        named = {"collection_name": NAME, "connection_args": {"uri": str(self.file)}, "index_params": self.index}
        self.store = milvus(self._embedding(), **named)
        # The adapter asks for a connection by a name that later versions of the client do not register any more.
        import_module("pymilvus").connections.connect(alias=self.store.alias, uri=str(self.file))

    def add(self, batch: Batch) -> None:
        """Add texts with their embeddings."""
        self.store.add_embeddings(batch.texts, batch.vectors, batch.metadatas, ids=batch.ids)

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- one mode
        """Give the keywords of a filtered search."""
        return {"expr": f"{where.field} >= {where.low} and {where.field} < {where.high}"}

    def search(self, query: list[float], where: Where | None = None, mode: str = "") -> list[Document]:
        """Search by vector."""
        given = {} if where is None else self.filter(where, mode)
        found: list[Document] = self.store.similarity_search_by_vector(query, k=K, **given)
        return found

    def rows(self, found: Any) -> list[int]:
        """Read the documents' keys."""
        return [row_of(document.metadata["pk"]) for document in found]

    def sizes(self) -> dict[str, int]:
        """Count the floats, and the file."""
        index = FLOAT_BYTES * self.dim * len(self.prepared.vectors)
        return {"index": index, "tables": self.file.stat().st_size - index, "other indexes": 0}


class LangChainMilvusFlat(LangChainMilvus):
    """The same with an index that compares all vectors.

    A recall has its time: the default's lists are fast because they find no more than .61 of the nearest of 200,000 rows.
    """

    method = "langchain-milvus FLAT float32"
    name = "flat.db"
    index: ClassVar[dict[str, Any] | None] = {"index_type": "FLAT", "metric_type": "L2"}


STORES: Final[tuple[type[EngineStore], ...]] = (RarebitOnMilvus, LangChainMilvus, LangChainMilvusFlat)
