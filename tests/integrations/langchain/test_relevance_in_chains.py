"""The filter of relevance where LangChain puts it: retrievers, pipelines, chains and tools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from pydantic import ValidationError
from support.relevance import NEAR, NOTHING, ids_of, marks_of

from rarebit.errors import InputError
from rarebit.integrations.langchain import (
    ContextualRetriever,
    CosineAdapterFilter,
    NearDuplicateFilter,
    RarebitRetriever,
    RarebitVectorStore,
)
from rarebit.retrievers.relevance import (
    CosineAdapter,
)


class Listener(BaseCallbackHandler):
    """Remembers the queries of retrievers."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, bool]] = []
        self.ended: list[int] = []

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.begun.append((query, kwargs["parent_run_id"] is None))

    def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
        self.ended.append(len(documents))


class Refusing(BaseDocumentCompressor):
    """Takes no empty list, as many do not."""

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        assert documents
        return [documents[-1]]


class TestContextualRetriever:
    @pytest.fixture
    def within(self, filled: RarebitVectorStore, plain: CosineAdapter) -> ContextualRetriever:
        return ContextualRetriever(
            base_retriever=RarebitRetriever(store=filled, k=6),
            base_compressor=CosineAdapterFilter(adapter=plain, store=filled),
        )

    def test_it_finds_and_filters(self, within: ContextualRetriever) -> None:
        assert ids_of(within.invoke("east")) == ids_of(asyncio.run(within.ainvoke("east"))) == NEAR
        assert within.invoke("nowhere at all") == asyncio.run(within.ainvoke("nowhere at all"))

    def test_what_invoke_is_given_goes_on(self, within: ContextualRetriever) -> None:
        assert ids_of(within.invoke("east", k=2)) == ids_of(asyncio.run(within.ainvoke("east", k=2))) == NEAR[:2]
        assert ids_of(within.invoke("east", filter={"place": {"$gt": 0}})) == NEAR[1:]
        with pytest.raises(InputError, match="kk"):
            within.invoke("east", kk=2)

    def test_callbacks_see_both(self, within: ContextualRetriever) -> None:
        listener = Listener()
        within.invoke("east", {"callbacks": [listener]})
        assert listener.begun == [("east", True), ("east", False)]
        assert listener.ended == [6, 3]

    def test_nothing_found(self, compass: Embeddings, plain: CosineAdapter) -> None:
        empty = RarebitVectorStore(compass)
        base = empty.as_retriever()
        silent = ContextualRetriever(base_retriever=base, base_compressor=CosineAdapterFilter(adapter=plain, store=empty))
        speaking = ContextualRetriever(
            base_retriever=base, base_compressor=CosineAdapterFilter(adapter=plain, store=empty, when_empty=NOTHING)
        )
        refusing = ContextualRetriever(base_retriever=base, base_compressor=Refusing())
        for invoke in (
            lambda retriever: retriever.invoke("east"),
            lambda retriever: asyncio.run(retriever.ainvoke("east")),
        ):
            assert invoke(silent) == invoke(refusing) == []
            assert [document.page_content for document in invoke(speaking)] == [NOTHING]

    def test_any_compressor(self, filled: RarebitVectorStore) -> None:
        within = ContextualRetriever(base_retriever=filled.as_retriever(search_kwargs={"k": 2}), base_compressor=Refusing())
        assert ids_of(within.invoke("east")) == ids_of(asyncio.run(within.ainvoke("east"))) == [NEAR[1]]

    @pytest.mark.unchecked
    def test_wrong_arguments(self, filled: RarebitVectorStore) -> None:
        with pytest.raises(ValidationError, match="base_retriever"):
            ContextualRetriever(base_retriever=filled, base_compressor=Refusing())
        with pytest.raises(ValidationError, match="compressor"):
            ContextualRetriever(base_retriever=filled.as_retriever(), compressor=Refusing())


class TestLangChainsOwnPlaces:
    def test_contextual_compression_and_pipelines(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        retrievers = pytest.importorskip("langchain_classic.retrievers")
        compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
        filled.add_texts(["east"], ids=["east again"])
        filled.embeddings.calls.clear()
        base = filled.as_retriever(search_kwargs={"k": 7})
        filters = CosineAdapterFilter(adapter=plain, store=filled)
        dropping = NearDuplicateFilter(record="also")
        for transformers, expected in (
            ([filters], ["east", "east again", *NEAR[1:]]),
            ([dropping, filters], NEAR),
            ([filters, dropping], NEAR),
            ([filters, dropping, filters], NEAR),
        ):
            pipeline = compressors.DocumentCompressorPipeline(transformers=transformers)
            for compressor in [pipeline, *(transformers if len(transformers) == 1 else [])]:
                for kind in (retrievers.ContextualCompressionRetriever, ContextualRetriever):
                    within = kind(base_retriever=base, base_compressor=compressor)
                    kept = within.invoke("east")
                    assert sorted(map(str, ids_of(kept))) == sorted(expected)
                    assert marks_of(kept) == sorted(marks_of(kept), reverse=True)
                    assert kept == asyncio.run(within.ainvoke("east"))
                    if dropping in transformers:
                        assert kept[0].metadata["also"] == ["east again"]
        assert filled.embeddings.calls == {"query": 1}

    def test_nothing_is_relevant(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        retrievers = pytest.importorskip("langchain_classic.retrievers")
        filters = CosineAdapterFilter(adapter=plain, store=filled, when_empty=NOTHING)
        base = filled.as_retriever(search_kwargs={"k": 6, "filter": {"place": {"$gte": 3}}})
        within = retrievers.ContextualCompressionRetriever(base_retriever=base, base_compressor=filters)
        for kept in (within.invoke("east"), asyncio.run(within.ainvoke("east"))):
            assert [document.page_content for document in kept] == [NOTHING]

    def test_in_a_chain(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        within = ContextualRetriever(
            base_retriever=RarebitRetriever(store=filled, k=6),
            base_compressor=CosineAdapterFilter(adapter=plain, store=filled),
        )
        joined = RunnableLambda(lambda documents: ", ".join(document.page_content for document in documents))
        chain = {"context": within | joined, "question": RunnablePassthrough()} | RunnableLambda(
            lambda given: f"{given['question']}: {given['context']}"
        )
        expected = {"east": "east: east, east by north, north-east", "west": "west: west"}
        assert {question: chain.invoke(question) for question in expected} == expected
        assert {question: asyncio.run(chain.ainvoke(question)) for question in expected} == expected
        assert chain.batch([*expected]) == [*expected.values()]

    def test_as_an_agents_tool(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        for when_empty in (None, NOTHING):
            within = ContextualRetriever(
                base_retriever=RarebitRetriever(store=filled, k=6, filter={"place": {"$ne": 4}}),
                base_compressor=CosineAdapterFilter(adapter=plain, store=filled, when_empty=when_empty),
            )
            tool = create_retriever_tool(within, "notes", "Searches the notes.")
            for question, said in (("east", "\n\n".join(NEAR)), ("west", when_empty or "")):
                assert tool.invoke({"query": question}) == asyncio.run(tool.ainvoke({"query": question})) == said
            tool = create_retriever_tool(within, "notes", "Searches the notes.", response_format="content_and_artifact")
            call = {"type": "tool_call", "id": "1", "name": "notes", "args": {"query": "west"}}
            message = tool.invoke(call)
            assert message.content == (when_empty or "")
            assert [document.metadata["nothing_relevant"] for document in message.artifact] == [True] * bool(when_empty)
