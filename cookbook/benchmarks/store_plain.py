"""What has no adapter: the exact index that all are compared with, and Qdrant's engine in the process."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from rarebit.cookbook.benchmarks.store_data import Batch, K, Where, row_of
from rarebit.cookbook.benchmarks.store_subjects import Store


class Flat(Store):
    """faiss's exact index of float32: gives row numbers, and is told which rows match; finding them is not timed."""

    imports = ("faiss",)
    modes = ("rows given",)

    def create(self) -> None:
        """Make the index."""
        self._index = import_module("faiss").IndexFlatIP(self.dim)

    def add(self, batch: Batch) -> None:
        """Add vectors."""
        self._index.add(np.asarray(batch.vectors, dtype=np.float32))

    def finish(self) -> None:
        """Write the file."""
        import_module("faiss").write_index(self._index, str(self.folder / "index.faiss"))

    def open(self) -> None:
        """Read the file."""
        self._index = import_module("faiss").read_index(str(self.folder / "index.faiss"))

    def tell(self, where: Where) -> None:
        """Find the rows that match."""
        faiss = import_module("faiss")
        matching = np.zeros(-(-self._index.ntotal // 8) * 8, dtype=bool)
        matching[self.prepared.matching(where)] = True
        self._told = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(matching, bitorder="little")))

    def search(self, query: list[float], where: Where | None = None, mode: str = "") -> Any:  # noqa: ARG002 -- one mode
        """Search."""
        given = np.asarray([query], dtype=np.float32)
        return self._index.search(given, K, params=None if where is None else self._told)

    def rows(self, found: Any) -> list[int]:
        """Give the row numbers."""
        return [int(row) for row in found[1][0] if row >= 0]


class QdrantEdge(Store):
    """Qdrant's own engine in the process, with indexes on the filtered fields and its default graph; gives payloads."""

    imports = ("qdrant_edge",)

    def create(self) -> None:
        """Make the shard."""
        edge = import_module("qdrant_edge")
        path = self.folder / "shard"
        path.mkdir()
        vectors = edge.EdgeVectorParams(size=self.dim, distance=edge.Distance.Cosine)
        self._shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors))
        for name in ("bucket", "topic"):
            self._shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Integer))

    def add(self, batch: Batch) -> None:
        """Add points."""
        edge = import_module("qdrant_edge")
        points = [
            edge.Point(key, vector, {**metadata, "text": text})
            for key, vector, metadata, text in zip(batch.ids, batch.vectors, batch.metadatas, batch.texts, strict=True)
        ]
        self._shard.update(edge.UpdateOperation.upsert_points(points))

    def finish(self) -> None:
        """Build the graph, which nothing does by itself."""
        self._shard.optimize()
        self._shard.flush()
        self._shard.close()

    def open(self) -> None:
        """Open the shard."""
        self._shard = import_module("qdrant_edge").EdgeShard.load(str(self.folder / "shard"))

    def search(self, query: list[float], where: Where | None = None, mode: str = "") -> Any:  # noqa: ARG002 -- one mode
        """Search, with payloads."""
        edge = import_module("qdrant_edge")
        conditions = []
        if where is not None:
            limits = edge.RangeFloat(gte=where.low, lt=where.high)
            conditions.append(edge.FieldCondition(where.field, range=limits))
        request = edge.QueryRequest(
            limit=K,
            query=edge.Query.Nearest(query),
            filter=edge.Filter(must=conditions) if conditions else None,
            with_payload=True,
        )
        return self._shard.query(request)

    def rows(self, found: Any) -> list[int]:
        """Read the ids of the points."""
        return [row_of(str(point.id)) for point in found]

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()
