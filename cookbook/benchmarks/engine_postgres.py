"""PostgreSQL for :mod:`.engines`: Rarebit's two stages beside pgvector's float32 index through langchain-postgres."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from rarebit import Collection
from rarebit.cookbook.benchmarks.engine_store import NAME, EngineStore
from rarebit.cookbook.benchmarks.store_data import BUCKET, TOPIC, Batch, Where
from rarebit.integrations.langchain import RarebitVectorStore

WIDER: Final = (100, 300)
"""How much of its index pgvector is asked to look at besides, without filters: a recall has its time."""


class RarebitOnPostgres(EngineStore):
    """Rarebit's collection on the server, with default settings."""

    method = "rarebit, PostgreSQL"

    def create(self) -> None:
        """Make the collection."""
        self.collection = Collection.connect(self.url, NAME)
        self.store = RarebitVectorStore(self._embedding(), collection=self.collection)

    def finish(self) -> None:
        """Build indexes over the fields of filters."""
        for field in (BUCKET, TOPIC):
            self.collection.index_field(field)

    def sizes(self) -> dict[str, int]:
        """As the server counts."""
        disk = dict(self.collection.stats().disk)
        return {"index": disk["plane_index"], "tables": disk["tables"], "other indexes": disk["other_indexes"]}

    def close(self) -> None:
        """Close the connections."""
        self.store.close()


class PgVector(EngineStore):
    """langchain-postgres with an HNSW index over float32 and its defaults; the filtered fields are columns."""

    method = "pgvector HNSW float32"
    modes = ("",)

    def create(self) -> None:
        """Make the table."""
        postgres = import_module("langchain_postgres")
        column = postgres.Column
        self.engine = postgres.PGEngine.from_connection_string(self.url.replace("postgresql://", "postgresql+psycopg://"))
        columns = [column(name, "INTEGER") for name in (BUCKET, TOPIC)]
        self.engine.init_vectorstore_table(NAME, self.dim, metadata_columns=columns)
        self.store = postgres.PGVectorStore.create_sync(self.engine, self._embedding(), NAME, metadata_columns=[BUCKET, TOPIC])

    def add(self, batch: Batch) -> None:
        """Add texts with their embeddings."""
        self.store.add_embeddings(batch.texts, batch.vectors, batch.metadatas, batch.ids)

    def filter(self, where: Where, mode: str) -> dict[str, Any]:  # noqa: ARG002 -- one mode
        """Give the keywords of a filtered search: one bound at a time."""
        bounds = [{where.field: {"$gte": where.low}}, {where.field: {"$lt": where.high}}]
        return {"filter": {"$and": bounds}}

    def finish(self) -> None:
        """Build the index."""
        self.store.apply_vector_index(import_module("langchain_postgres.v2.indexes").HNSWIndex(name="passages_nearest"))

    def wider(self) -> Sequence[EngineStore]:
        """Give the same rows, searched with longer lists."""
        return [WiderPgVector(self, scanned) for scanned in WIDER]

    def sizes(self) -> dict[str, int]:
        """As the server counts."""
        statement = (
            "SELECT pg_relation_size('passages_nearest'), pg_table_size('passages'), "
            "pg_indexes_size('passages') - pg_relation_size('passages_nearest')"
        )
        with import_module("psycopg").connect(self.url) as connection:
            found = connection.execute(statement).fetchone()
        return dict(zip(("index", "tables", "other indexes"), map(int, found), strict=True))


class WiderPgVector(PgVector):
    """The same table and index, with another ``hnsw.ef_search`` than the usual 40."""

    def __init__(self, usual: PgVector, scanned: int) -> None:
        """Take the rows of another store."""
        self.method = f"{usual.method}, ef_search {scanned}"
        options = import_module("langchain_postgres.v2.indexes").HNSWQueryOptions(ef_search=scanned)
        create = import_module("langchain_postgres").PGVectorStore.create_sync
        fields = [BUCKET, TOPIC]
        self.store = create(usual.engine, usual._embedding(), NAME, metadata_columns=fields, index_query_options=options)


STORES: Final[tuple[type[EngineStore], ...]] = (RarebitOnPostgres, PgVector)
