"""LangChain's own standard suites: nothing skipped, nothing overridden."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from rarebit.integrations.langchain import RarebitRetriever, RarebitVectorStore


class TestStoreInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        store = RarebitVectorStore(self.get_embeddings())
        with store.collection:
            yield store


class TestStoreInFile(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = RarebitVectorStore(self.get_embeddings(), path=tmp_path / "docs.rarebit")
        with store.collection:
            yield store


class TestStoreOnPostgres(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, postgres: str) -> Iterator[VectorStore]:
        from support.postgres import connected

        with connected(postgres) as collection:
            yield RarebitVectorStore(self.get_embeddings(), collection=collection)


class TestStoreOnMilvus(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, milvus: str) -> Iterator[VectorStore]:
        from support.milvus import connected

        with connected(milvus) as collection:
            yield RarebitVectorStore(self.get_embeddings(), collection=collection)


class _Retriever(RetrieversIntegrationTests):
    search_type = "similarity"

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RarebitRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        texts = [f"a passage about the number {number}" for number in range(5)]
        store = RarebitVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=6))
        return {"store": store, "search_type": self.search_type}

    @property
    def retriever_query_example(self) -> str:
        return "a passage"


class TestSimilarityRetriever(_Retriever):
    pass


class TestDiverseRetriever(_Retriever):
    search_type = "mmr"


class TestHybridRetriever(_Retriever):
    search_type = "hybrid"


class TestLexicalRetriever(_Retriever):
    search_type = "lexical"
