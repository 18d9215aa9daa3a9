"""The same store, reached three ways: through the core and through each framework's own calls and filters.

And each way once more as one tenant of a collection in which everybody else has rows of the same ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from rarebit import And, Collection, Compare, Filter, Not, Or, Tenant
from rarebit.integrations.langchain import RarebitVectorStore as LangChainStore
from rarebit.integrations.llama_index import RarebitVectorStore as LlamaIndexStore
from support.oracle import OPERATORS


@dataclass
class Passage:
    id: str
    vector: list[float]
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Subject(ABC):
    """What the behaviour suite does with a store."""

    operators: frozenset[str]
    carries_any_json = True
    """Whether its filters can hold None, booleans and nested values."""

    tenant: ClassVar[str | None] = None

    def __init__(self, collection: Collection) -> None:
        self.file = collection
        self.collection: Collection | Tenant = collection if self.tenant is None else collection.tenant(self.tenant)

    @abstractmethod
    def add(self, passages: Sequence[Passage]) -> list[str]: ...

    @abstractmethod
    def delete(self, ids: list[str]) -> None: ...

    @abstractmethod
    def get(self, ids: list[str]) -> list[tuple[str, str, dict[str, Any]]]: ...

    @abstractmethod
    def search(self, vector: list[float], k: int, expression: Any = None) -> list[tuple[str, float]]: ...

    @abstractmethod
    def mmr(self, vector: list[float], k: int, fetch_k: int, lambda_mult: float) -> list[str]: ...


class CoreSubject(Subject):
    operators = frozenset(OPERATORS)

    def add(self, passages: Sequence[Passage]) -> list[str]:
        return self.collection.add(
            [each.vector for each in passages],
            texts=[each.text for each in passages],
            metadatas=[each.metadata for each in passages],
            ids=[each.id for each in passages],
        )

    def delete(self, ids: list[str]) -> None:
        self.collection.delete(ids)

    def get(self, ids: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
        return [(row.id, row.text, row.metadata) for row in self.collection.get(ids)]

    def search(self, vector: list[float], k: int, expression: Any = None) -> list[tuple[str, float]]:
        tree = None if expression is None else core_filter(expression)
        return [(hit.id, hit.score) for hit in self.collection.search(vector, k, filter=tree)]

    def mmr(self, vector: list[float], k: int, fetch_k: int, lambda_mult: float) -> list[str]:
        return [hit.id for hit in self.collection.search_mmr(vector, k, fetch_k=fetch_k, lambda_mult=lambda_mult)]


class GivenVectors(Embeddings):
    """Embeds a text as the vector that was set for it."""

    def __init__(self) -> None:
        self.queue: list[list[float]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        taken, self.queue = self.queue[: len(texts)], self.queue[len(texts) :]
        return taken

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError(f"the suite searches by vector, not by {text!r}")


class LangChainSubject(Subject):
    operators = frozenset(OPERATORS)

    def __init__(self, collection: Collection) -> None:
        super().__init__(collection)
        self.embedding = GivenVectors()
        self.store = LangChainStore(self.embedding, collection=collection, tenant=self.tenant)

    def add(self, passages: Sequence[Passage]) -> list[str]:
        self.embedding.queue = [each.vector for each in passages]
        documents = [Document(each.text, id=each.id, metadata=each.metadata) for each in passages]
        return self.store.add_documents(documents)

    def delete(self, ids: list[str]) -> None:
        self.store.delete(ids)

    def get(self, ids: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
        return [(str(each.id), each.page_content, each.metadata) for each in self.store.get_by_ids(ids)]

    def search(self, vector: list[float], k: int, expression: Any = None) -> list[tuple[str, float]]:
        given = None if expression is None else langchain_filter(expression)
        found = self.store.similarity_search_with_score_by_vector(vector, k, filter=given)
        return [(str(document.id), score) for document, score in found]

    def mmr(self, vector: list[float], k: int, fetch_k: int, lambda_mult: float) -> list[str]:
        found = self.store.max_marginal_relevance_search_by_vector(vector, k, fetch_k=fetch_k, lambda_mult=lambda_mult)
        return [str(document.id) for document in found]


class LlamaIndexSubject(Subject):
    operators = frozenset(OPERATORS) - {"exists", "like"}
    carries_any_json = False

    def __init__(self, collection: Collection) -> None:
        super().__init__(collection)
        self.store = LlamaIndexStore(collection=collection, tenant=self.tenant)

    def add(self, passages: Sequence[Passage]) -> list[str]:
        return self.store.add(
            [TextNode(id_=each.id, text=each.text, metadata=each.metadata, embedding=each.vector) for each in passages]
        )

    def delete(self, ids: list[str]) -> None:
        self.store.delete_nodes(ids)

    def get(self, ids: list[str]) -> list[tuple[str, str, dict[str, Any]]]:
        return [(node.node_id, node.get_content(), node.metadata) for node in self.store.get_nodes(ids)]

    def search(self, vector: list[float], k: int, expression: Any = None) -> list[tuple[str, float]]:
        given = None if expression is None else llama_index_filter(expression)
        result = self.store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=k, filters=given))
        assert result.ids is not None
        assert result.similarities is not None
        return list(zip(result.ids, result.similarities, strict=True))

    def mmr(self, vector: list[float], k: int, fetch_k: int, lambda_mult: float) -> list[str]:
        query = VectorStoreQuery(
            query_embedding=vector, similarity_top_k=k, mode=VectorStoreQueryMode.MMR, mmr_threshold=lambda_mult
        )
        return list(self.store.query(query, mmr_prefetch_k=fetch_k).ids or ())


class Crowded(Subject):
    """A tenant among others, and beside the collection's own rows: they have what it has, before it and after it."""

    tenant = "acme"

    def add(self, passages: Sequence[Passage]) -> list[str]:
        self.crowd(["acm", "acme2"], passages)
        added = super().add(passages)  # type: ignore[safe-super]
        self.crowd([None, "ACME"], passages)
        return added

    def crowd(self, others: Sequence[str | None], passages: Sequence[Passage]) -> None:
        for other in others:
            (self.file if other is None else self.file.tenant(other)).add(
                [each.vector for each in passages],
                texts=["foreign" for _ in passages],
                metadatas=[each.metadata for each in passages],
                ids=[each.id for each in passages],
            )


class CoreTenant(Crowded, CoreSubject):
    pass


class LangChainTenant(Crowded, LangChainSubject):
    pass


class LlamaIndexTenant(Crowded, LlamaIndexSubject):
    pass


SUBJECTS: dict[str, type[Subject]] = {
    "core": CoreSubject,
    "langchain": LangChainSubject,
    "llama_index": LlamaIndexSubject,
    "core, a tenant": CoreTenant,
    "langchain, a tenant": LangChainTenant,
    "llama_index, a tenant": LlamaIndexTenant,
}


def core_filter(expression: tuple[Any, ...]) -> Filter:
    kind, *rest = expression
    if kind == "and":
        return And(*map(core_filter, rest))
    if kind == "or":
        return Or(*map(core_filter, rest))
    if kind == "not":
        return Not(core_filter(rest[0]))
    return Compare(*rest)


def langchain_filter(expression: tuple[Any, ...]) -> dict[str, Any]:
    kind, *rest = expression
    if kind == "is":
        field_name, operator, value = rest
        return {field_name: {f"${operator}": value}}
    children = [langchain_filter(child) for child in rest]
    return {"$not": children[0]} if kind == "not" else {f"${kind}": children}


LLAMA_INDEX_OPERATORS = {
    "eq": "==",
    "ne": "!=",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
}


def llama_index_filter(expression: tuple[Any, ...]) -> MetadataFilters:
    kind, *rest = expression
    if kind == "is":
        return MetadataFilters(filters=[_metadata_filter(*rest)])
    children: list[Any] = [llama_index_filter(child) for child in rest]
    return MetadataFilters(filters=children, condition=FilterCondition(kind))


def _metadata_filter(field_name: str, operator: str, value: Any) -> MetadataFilter:
    named = FilterOperator(LLAMA_INDEX_OPERATORS.get(operator, operator))
    return MetadataFilter(key=field_name, operator=named, value=None if operator == "is_empty" else value)
