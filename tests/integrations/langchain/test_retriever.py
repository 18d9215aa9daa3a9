from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings

from rarebit import Compare, errors
from rarebit.integrations.langchain import RarebitRetriever, RarebitVectorStore


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


class Listener(BaseCallbackHandler):
    """Remembers what was told about the runs."""

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.metadata: dict[str, Any] = {}

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.tags, self.metadata = kwargs["tags"], kwargs["metadata"]


class NorthOnly(BaseDocumentCompressor):
    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        return [document for document in documents if "north" in document.page_content]


class TestRarebitRetriever:
    @pytest.mark.parametrize("search_type", ["similarity", "mmr", "hybrid", "lexical"])
    def test_each_search_is_the_stores(self, store: RarebitVectorStore, search_type: Any) -> None:
        retriever = RarebitRetriever(store=store, search_type=search_type)
        assert retriever.invoke("east") == store.search("east", search_type)
        assert retriever.invoke("east") != []
        assert asyncio.run(retriever.ainvoke("east")) == retriever.invoke("east")

    def test_k_and_filter_in_constructor_and_invocation(self, store: RarebitVectorStore) -> None:
        retriever = RarebitRetriever(store=store, k=2, filter={"place": {"$gt": 0}})
        assert ids_of(retriever.invoke("east")) == ["east by north", "north-east"]
        assert ids_of(retriever.invoke("east", k=1)) == ["east by north"]
        assert ids_of(retriever.invoke("east", k=1, filter=Compare("place", "eq", 4))) == ["west"]
        assert ids_of(retriever.invoke("east", filter=lambda document: document.id == "south")) == ["south"]
        assert ids_of(retriever.invoke("east", filter=None)) == ["east", "east by north"]
        assert ids_of(asyncio.run(retriever.ainvoke("east", k=1, filter={"place": 5}))) == ["south"]

    def test_options_reach_the_search(self, store: RarebitVectorStore) -> None:
        diverse = RarebitRetriever(store=store, search_type="mmr", k=2, fetch_k=6, lambda_mult=0.0)
        assert ids_of(diverse.invoke("east")) == ["east", "west"]
        assert ids_of(diverse.invoke("east", lambda_mult=1.0)) == ["east", "east by north"]
        hybrid = RarebitRetriever(store=store, search_type="hybrid", k=2, alpha=1.0)
        assert hybrid.invoke("west") == store.similarity_search("west", k=2)
        assert hybrid.invoke("west", alpha=None, fusion="rrf", fetch_k=3) == store.hybrid_search("west", k=2, fetch_k=3)

    def test_the_threshold_is_inclusive(self, store: RarebitVectorStore) -> None:
        exact = store.similarity_search_with_relevance_scores("east", k=3)[2][1]
        retriever = RarebitRetriever(store=store, k=6, score_threshold=exact)
        assert len(retriever.invoke("east")) == 3
        assert len(retriever.invoke("east", score_threshold=0.9)) == 2
        assert len(asyncio.run(retriever.ainvoke("east", score_threshold=None))) == 6

    def test_the_search_type_may_change_for_one_call(self, store: RarebitVectorStore) -> None:
        retriever = RarebitRetriever(store=store)
        assert retriever.invoke("north", search_type="lexical") == store.lexical_search("north")

    @pytest.mark.parametrize(
        "wrong", [{"kk": 3}, {"search_type": "nearest"}, {"lambda_mult": 0.5}, {"search_type": "mmr", "score_threshold": 0.5}]
    )
    def test_what_cannot_be_meant_is_refused(self, store: RarebitVectorStore, wrong: dict[str, Any]) -> None:
        name = [*wrong][-1]
        with pytest.raises(ValueError, match=name):
            RarebitRetriever(store=store, **wrong)
        with pytest.raises(errors.InputError, match=name):
            RarebitRetriever(store=store).invoke("east", **wrong)

    def test_tracers_learn_store_and_model(self, store: RarebitVectorStore) -> None:
        listener = Listener()
        RarebitRetriever(store=store).invoke("east", {"callbacks": [listener]}, verbose=True)
        assert listener.tags == ["RarebitVectorStore", "Compass"]
        assert listener.metadata["ls_vector_store_provider"] == "RarebitVectorStore"
        assert listener.metadata["ls_embedding_provider"] == "Compass"
        assert listener.metadata["ls_retriever_name"] == "rarebit"
        RarebitRetriever(store=store, tags=["mine"]).invoke("east", {"callbacks": [listener]})
        assert listener.tags == ["mine"]

    def test_sixteen_threads(self, store: RarebitVectorStore) -> None:
        retriever = RarebitRetriever(store=store, search_type="hybrid")
        alone = retriever.invoke("west")
        with ThreadPoolExecutor(16) as pool:
            assert all(found == alone for found in pool.map(lambda _: retriever.invoke("west"), range(64)))

    def test_inside_a_contextual_compression_retriever(self, store: RarebitVectorStore) -> None:
        retrievers = pytest.importorskip("langchain_classic.retrievers")
        for base in (RarebitRetriever(store=store, k=6), store.as_retriever(search_kwargs={"k": 6})):
            retriever = retrievers.ContextualCompressionRetriever(base_retriever=base, base_compressor=NorthOnly())
            assert ids_of(retriever.invoke("east")) == ["east by north", "north-east", "north"]
            assert ids_of(asyncio.run(retriever.ainvoke("east"))) == ["east by north", "north-east", "north"]


class TestAsRetriever:
    @pytest.mark.parametrize(
        ("search_type", "search_kwargs", "expected"),
        [
            ("similarity", {"k": 2}, ["east", "east by north"]),
            ("similarity", {"k": 1, "filter": {"place": 4}}, ["west"]),
            ("mmr", {"k": 2, "fetch_k": 6, "lambda_mult": 0.0}, ["east", "west"]),
            ("similarity_score_threshold", {"k": 6, "score_threshold": 0.9}, ["east", "east by north"]),
        ],
    )
    def test_search_types_and_keywords(
        self, store: RarebitVectorStore, search_type: str, search_kwargs: dict[str, Any], expected: list[str]
    ) -> None:
        retriever = store.as_retriever(search_type=search_type, search_kwargs=search_kwargs)
        assert ids_of(retriever.invoke("east")) == expected
        assert ids_of(asyncio.run(retriever.ainvoke("east"))) == expected
        assert len(retriever.invoke("east", k=1)) == 1

    def test_a_misspelt_keyword_is_refused(self, store: RarebitVectorStore) -> None:
        with pytest.raises(errors.InputError, match="filtre"):
            store.as_retriever(search_kwargs={"filtre": {"place": 4}}).invoke("east")

    def test_an_empty_store(self, compass: Embeddings) -> None:
        assert RarebitVectorStore(compass).as_retriever().invoke("east") == []
