"""Passages as one token each, in LangChain: the compressor, and chains with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("transformers", reason="one-token contexts need the extra models")

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from pydantic import ValidationError
from support.one_token import TEXTS, generator_of
from support.relevance import NOTHING, ids_of

from rarebit.compressors.context import ContextBudget, OneTokenGenerator, Reference
from rarebit.errors import InputError, MissingRowError
from rarebit.integrations.langchain import (
    ChatOneToken,
    ContextualRetriever,
    CosineAdapterFilter,
    OneTokenCompressor,
    RarebitVectorStore,
)
from rarebit.retrievers.relevance import CosineAdapter

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture
def documents(notes: RarebitVectorStore) -> list[Document]:
    return notes.get_by_ids(list(TEXTS))


def referred(generator: OneTokenGenerator, document: Document) -> str | None:
    """Give the id of the passage that a document's content refers to."""
    parts = generator.passages.read(document.page_content)
    return parts[0].id if len(parts) == 1 and isinstance(parts[0], Reference) else None


BETWEEN = 2
"""Tokens of what stands between passages at the longest, two line ends."""


def fidelities(documents: Any) -> list[str]:
    return [document.metadata["fidelity"] for document in documents]


class TestCompressor:
    def test_each_becomes_a_reference(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        before = [document.model_copy(deep=True) for document in documents]
        given = OneTokenCompressor(generator=generator).compress_documents(documents, "what?")
        assert documents == before
        assert ids_of(given) == [referred(generator, document) for document in given] == list(TEXTS)
        for number, (document, text) in enumerate(zip(given, TEXTS.values(), strict=True)):
            tokens = document.metadata.pop("text_tokens")
            assert document.metadata == {"number": number, "fidelity": "token", "context_tokens": 1 + BETWEEN}
            assert tokens == generator.count_tokens(text) + BETWEEN > 2

    def test_asynchronously(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        compressor = OneTokenCompressor(generator=generator, budget=ContextBudget(max_tokens=40))
        assert asyncio.run(compressor.acompress_documents(documents, "")) == compressor.compress_documents(documents, "")

    def test_within_a_budget(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        whole = OneTokenCompressor(generator=generator, budget=ContextBudget(text_top=2)).compress_documents(documents, "")
        assert fidelities(whole) == ["text", "text", *["token"] * 4]
        assert [document.page_content for document in whole[:2]] == list(TEXTS.values())[:2]
        for most in range(40):
            budget = ContextBudget(max_tokens=most, text_top=None, least_cut=4)
            given = OneTokenCompressor(generator=generator, budget=budget, text_key="whole").compress_documents(documents, "")
            assert ids_of(given) == list(TEXTS)[: min(most // (1 + BETWEEN), len(TEXTS))]
            assert sum(document.metadata["context_tokens"] for document in given) <= most
            for document in given:
                whole_text = document.metadata["whole"]
                assert whole_text == TEXTS[str(document.id)]
                assert document.metadata["fidelity"] == "token" or whole_text.startswith(document.page_content)

    def test_the_surest_are_text(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        relevances = [0.2, 0.9, 0.4, 0.1, 0.6, 0.3]
        for document, relevance in zip(documents, relevances, strict=True):
            document.metadata |= {"relevance": relevance, "own": 1.0 - relevance, "some": True}
        settings: dict[str, Any] = {"generator": generator, "budget": ContextBudget(text_top=1)}

        def first_text(**more: Any) -> int:
            return fidelities(OneTokenCompressor(**settings, **more).compress_documents(documents, "")).index("text")

        assert (first_text(), first_text(relevance_key="own")) == (1, 3)
        assert first_text(relevance_key=None) == first_text(relevance_key="none") == first_text(relevance_key="some") == 0
        del documents[4].metadata["relevance"]
        assert first_text() == 0

    def test_labels(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        documents[0].metadata["title"] = "On [geese]"
        given = OneTokenCompressor(generator=generator, label_key="title").compress_documents(documents[:2], "")
        assert given[0].page_content.endswith("|On (geese)]]")
        assert f"|{documents[1].page_content[:20]}" in given[1].page_content
        assert referred(generator, given[0]) == "passage 0"

    def test_nothing(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        compressor = OneTokenCompressor(generator=generator, budget=ContextBudget(max_tokens=1 + BETWEEN, text_top=0))
        nothing = Document(NOTHING, metadata={"nothing_relevant": True, "best_relevance": 0.1})
        assert compressor.compress_documents([], "") == asyncio.run(compressor.acompress_documents([], "")) == []
        assert compressor.compress_documents([nothing], "") == [nothing]
        mixed = compressor.compress_documents([documents[0], documents[1], nothing], "")
        assert ids_of(mixed) == ["passage 0", None]
        assert mixed[1] is nothing

    def test_documents_without_text_go_on_as_they_are(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        empty = Document(" ", id="empty")
        given = OneTokenCompressor(generator=generator).compress_documents([empty, documents[0]], "")
        assert given[0] is empty
        assert referred(generator, given[1]) == "passage 0"

    def test_what_the_store_does_not_hold(self, generator: OneTokenGenerator, documents: list[Document]) -> None:
        compressor = OneTokenCompressor(generator=generator)
        for stranger in (
            Document("gone", id="no such"),
            Document("no id"),
            documents[0].model_copy(update={"page_content": "changed"}),
        ):
            with pytest.raises(InputError, match="does not hold"):
                compressor.compress_documents([documents[1], stranger], "")
        without = OneTokenCompressor(generator=OneTokenGenerator(generator.model, generator.tokenizer))
        with pytest.raises(InputError, match="without passages"):
            without.compress_documents(documents, "")

    def test_wrong_arguments(self, generator: OneTokenGenerator) -> None:
        with pytest.raises(ValidationError, match=r"wanted a .*OneTokenGenerator"):
            OneTokenCompressor(generator="model")
        with pytest.raises(ValidationError, match="text"):
            OneTokenCompressor(generator=generator, text="text")
        with pytest.raises(ValidationError, match="budget"):
            OneTokenCompressor(generator=generator, budget=100)


class TestBehindRetrievers:
    @pytest.fixture
    def filters(self, notes: RarebitVectorStore) -> CosineAdapterFilter:
        return CosineAdapterFilter(adapter=CosineAdapter(12), store=notes, when_empty=NOTHING)

    def test_behind_the_filter_of_relevance(
        self, notes: RarebitVectorStore, generator: OneTokenGenerator, filters: CosineAdapterFilter
    ) -> None:
        retrievers = pytest.importorskip("langchain_classic.retrievers")
        compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
        compressor = OneTokenCompressor(generator=generator)
        base = notes.as_retriever(search_kwargs={"k": 6})
        pipeline = compressors.DocumentCompressorPipeline(transformers=[filters, compressor])
        inner = ContextualRetriever(base_retriever=base, base_compressor=filters)
        for within in (
            ContextualRetriever(base_retriever=inner, base_compressor=compressor),
            ContextualRetriever(base_retriever=base, base_compressor=pipeline),
            retrievers.ContextualCompressionRetriever(base_retriever=base, base_compressor=pipeline),
        ):
            found = within.invoke(TEXTS["passage 3"])
            assert ids_of(found) == [referred(generator, document) for document in found]
            assert found[0].id == "passage 3"
            assert {"relevance", "fidelity"} <= set(found[0].metadata)
            assert found == asyncio.run(within.ainvoke(TEXTS["passage 3"]))
            for nothing in (within.invoke("nowhere"), asyncio.run(within.ainvoke("nowhere"))):
                assert [document.page_content for document in nothing] == [NOTHING]

    def test_in_a_chain(self, notes: RarebitVectorStore, generator: OneTokenGenerator) -> None:
        base = notes.as_retriever(search_kwargs={"k": 3})
        chat = ChatOneToken(generator=generator, max_tokens=8)
        joined = RunnableLambda(lambda documents: "\n".join(document.page_content for document in documents))
        prompt = ChatPromptTemplate.from_template("Background: {context}\n\nQuestion: {question}")
        short = ContextualRetriever(base_retriever=base, base_compressor=OneTokenCompressor(generator=generator))
        asked = {"context": short | joined, "question": RunnablePassthrough()} | prompt
        long = {"context": base | joined, "question": RunnablePassthrough()} | prompt
        question = TEXTS["passage 1"]
        answer, plain = (asked | chat).invoke(question), (long | chat).invoke(question)
        assert (answer.response_metadata["passage_tokens"], plain.response_metadata["passage_tokens"]) == (3, 0)
        saved = sum(generator.count_tokens(TEXTS[str(document.id)]) - 1 for document in base.invoke(question))
        assert plain.usage_metadata["input_tokens"] - answer.usage_metadata["input_tokens"] == pytest.approx(saved, abs=4)
        assert plain.response_metadata["prefill_flops"] > answer.response_metadata["prefill_flops"]
        chain = asked | chat | StrOutputParser()
        assert chain.invoke(question) == asyncio.run(chain.ainvoke(question)) == answer.content
        assert "".join(chain.stream(question)) == answer.content
        assert chain.batch([question, question]) == [answer.content] * 2

    def test_as_an_agents_tool(self, notes: RarebitVectorStore, generator: OneTokenGenerator) -> None:
        compressor = OneTokenCompressor(generator=generator)
        within = ContextualRetriever(base_retriever=notes.as_retriever(search_kwargs={"k": 2}), base_compressor=compressor)
        tool = create_retriever_tool(within, "notes", "Searches the notes.")
        said = tool.invoke({"query": TEXTS["passage 2"]})
        prompt = generator.prompt([{"role": "user", "content": said}])
        assert prompt.passages[0].text == TEXTS["passage 2"]
        assert len(prompt.passages) == 2

    def test_of_a_tenant(self, notes: RarebitVectorStore, generator: OneTokenGenerator) -> None:
        own = notes.for_tenant("ann")
        own.add_texts(["ann's own words"], ids=["hers"])
        hers = generator_of(notes.collection.tenant("ann"))
        within = ContextualRetriever(
            base_retriever=own.as_retriever(search_kwargs={"k": 9}), base_compressor=OneTokenCompressor(generator=hers)
        )
        (found,) = within.invoke("anything")
        assert (referred(hers, found), referred(generator, found)) == ("hers", None)
        own.delete(["hers"])
        with pytest.raises(MissingRowError, match="'hers'"):
            ChatOneToken(generator=hers).invoke(found.page_content)
