"""What a store of LangChain is bound to: an open collection, a tenant of it or none, an embedding model."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from rarebit.arrays import Scores, Vector, VectorsLike
from rarebit.integrations.recent_queries import RecentQueries
from rarebit.integrations.tenancy import tenant_of
from rarebit.retrievers.engines import AnyCollection, AnyRows

Store = TypeVar("Store", bound="BoundStore")


class BoundStore(VectorStore):
    """The part of :class:`~rarebit.integrations.langchain.RarebitVectorStore` that says whose rows it has.

    ``_rows`` is what every search, read and write goes through; ``_collection`` is for what concerns the whole file.
    """

    _embedding: Embeddings
    _collection: AnyCollection
    _rows: AnyRows
    _recent: RecentQueries

    @property
    def collection(self) -> AnyCollection:
        """The collection underneath, for everything that LangChain has no word for; it is not bound to a tenant."""
        return self._collection

    @property
    def tenant(self) -> str | None:
        """The tenant that the store is bound to; None for the collection's own rows."""
        return tenant_of(self._rows)

    def for_tenant(self: Store, tenant: str) -> Store:
        """Give a store of another tenant over the same open collection: cheap enough to make one a request.

        It has the settings of this one. Closing either closes the collection of both.

        Raises:
            InputError: the name is none.
        """
        bound = copy.copy(self)
        bound._rows = self._collection.tenant(tenant)
        return bound

    @property
    def embeddings(self) -> Embeddings:
        """The embedding model."""
        return self._embedding

    def embed_query(self, text: str) -> Vector:
        """Embed a question; the embeddings of the last 64 are remembered, for what stands behind a retriever."""
        return self._recent.get(text, self._embedding.embed_query)

    async def aembed_query(self, text: str) -> Vector:
        """Do as :meth:`embed_query`, with the embedding model's own asynchronous method."""
        return await self._recent.aget(text, self._embedding.aembed_query)

    def scores(self, embedding: VectorsLike, ids: Sequence[str]) -> Scores:
        """Score documents that are known already, (n,) in the order of ids; see :meth:`rarebit.Collection.scores`.

        Raises:
            MissingRowError: an id is not in the store.
        """
        return self._rows.scores(embedding, ids)

    def close(self) -> None:
        """Close the collection underneath, also one that was given, for every tenant."""
        self._collection.close()

    def __enter__(self: Store) -> Store:
        """Use the store in a ``with`` block, which closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the collection underneath."""
        self.close()

    def save_local(self, folder_path: str | os.PathLike[str], index_name: str = "index") -> None:
        """Write a copy of the store to ``folder_path/index_name.rarebit``; an older copy is replaced.

        The copy of a tenant's store has the rows that it sees and no others; ``load_local(..., tenant=...)`` opens it. A
        store that is kept in that very file is saved already, and is left alone.
        """
        target = file_in(folder_path, index_name)
        target.parent.mkdir(parents=True, exist_ok=True)
        own = self._collection.path
        if own is None or not target.exists() or not target.samefile(own):
            self._rows.backup(target, overwrite=True)


def file_in(folder: str | os.PathLike[str], index_name: str) -> Path:
    """Name the file of a saved store."""
    return Path(folder) / f"{index_name}.rarebit"
