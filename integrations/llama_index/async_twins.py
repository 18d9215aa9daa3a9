"""The asynchronous methods of the store: each does as its synchronous twin, in a thread."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import BasePydanticVectorStore


class AsyncTwins(BasePydanticVectorStore):
    """A store whose asynchronous methods leave the event loop alone; LlamaIndex's own run on it."""

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Do as :meth:`add` in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Do as :meth:`query` in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    async def aget_nodes(self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Do as :meth:`get_nodes` in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def adelete(self, ref_doc_id: str | None, **delete_kwargs: Any) -> None:
        """Do as :meth:`delete` in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Do as :meth:`delete_nodes` in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """Do as :meth:`clear` in a thread."""
        await asyncio.to_thread(self.clear)

    @abstractmethod
    def get_nodes(self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Read nodes."""

    @abstractmethod
    def delete(self, ref_doc_id: str | None, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""

    @abstractmethod
    def delete_nodes(
        self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes."""
