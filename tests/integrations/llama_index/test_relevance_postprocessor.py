"""The postprocessor of relevance where LlamaIndex puts it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import ValidationError
from support.hashed_embedding import DIM, Hashed
from support.llama_index_events import Listener, listening

from rarebit.errors import DimensionError, InputError, VectorError
from rarebit.integrations.llama_index import (
    CosineAdapterPostprocessor,
    NearDuplicatePostprocessor,
    RarebitVectorStore,
    RelevanceJudgedEvent,
)
from rarebit.retrievers.relevance import (
    Asked,
    CosineAdapter,
    FixedCount,
    Isotonic,
    Judge,
    Platt,
    RawScore,
    RelevanceModel,
    ScoreGap,
    ScoreSource,
)

SCORES = {"a": 1.0, "b": 0.96, "c": 0.6, "d": 0.0, "e": 0.0, "f": -1.0}
NEAR = ["a", "b", "c"]
"""What a new adapter keeps: its relevance is sigmoid(10 score - 5)."""
ASKED = QueryBundle("tea", embedding=[1.0, 0.0])


def curve(score: float) -> float:
    """Give what a new adapter makes of a score."""
    return float(1 / (1 + np.exp(5 - np.logaddexp(0, 10) * score)))


def found(keys: Sequence[str] = tuple(SCORES)) -> list[NodeWithScore]:
    nodes = {
        "a": TextNode(id_="a", text="text a", metadata={"page": 1}, excluded_llm_metadata_keys=["page"]),
        "b": IndexNode(id_="b", text="text b", index_id="others", obj={"age": 9}),
        "c": ImageNode(id_="c", text="text c", image="aW1hZ2U="),
        **{key: TextNode(id_=key, text=f"text {key}", metadata={"of": key}) for key in "def"},
    }
    return [NodeWithScore(node=nodes[key], score=SCORES[key]) for key in keys]


def ids_of(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.node.node_id for node in nodes]


def marks_of(nodes: Sequence[NodeWithScore], key: str = "relevance") -> list[float]:
    return [node.node.metadata[key] for node in nodes]


class Telling(MockLLM):
    """Remembers what it was asked, and answers with it."""

    _prompts: list[str] = PrivateAttr(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return self._prompts

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self._prompts.append(prompt)
        return super().complete(prompt, formatted, **kwargs)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening(lambda event: isinstance(event, RelevanceJudgedEvent)) as made:
        yield made


@pytest.fixture
def plain() -> CosineAdapterPostprocessor:
    return CosineAdapterPostprocessor(adapter=CosineAdapter(2))


def adapter_with_query(seed: int = 0) -> CosineAdapter:
    """Give an adapter whose curves differ from query to query."""
    made, rng = CosineAdapter(DIM, hidden=4), np.random.default_rng(seed)
    arrays = {name: values + 0.3 * rng.standard_normal(values.shape) for name, values in made._arrays.items()}
    return made.with_arrays({**arrays, "evidence_scale": made._arrays["evidence_scale"]})


CONTROLS: dict[str, tuple[RelevanceModel, list[str]]] = {
    "adapter": (CosineAdapter(2), NEAR),
    "fixed count": (FixedCount(2), NEAR[:2]),
    "fixed count of none": (FixedCount(0), []),
    "raw score": (RawScore(0.5), NEAR),
    "platt": (Platt(20.0, -15.0), NEAR[:2]),
    "isotonic": (Isotonic([-1.0, 0.8, 1.0], [0.0, 0.4, 1.0]), NEAR[:2]),
    "score gap": (ScoreGap(), [*"abcde"]),
    "judge": (Judge(lambda pairs: [5.0 if text[-1] in "cf" else -5.0 for _, text in pairs]), ["c", "f"]),
    "judge of shares": (Judge(lambda pairs: [float(text[-1] == "d") for _, text in pairs], logits=False), ["d"]),
    "at least four": (CosineAdapter(2).keeping(least=4), [*"abcd"]),
    "at most one": (CosineAdapter(2).keeping(most=1), ["a"]),
}


class TestPostprocessing:
    def test_what_is_below_the_threshold_goes(self, plain: CosineAdapterPostprocessor) -> None:
        for kept in (
            plain.postprocess_nodes(found(), query_bundle=ASKED),
            plain.postprocess_nodes(found(), ASKED),
            asyncio.run(plain.apostprocess_nodes(found(), query_bundle=ASKED)),
        ):
            assert ids_of(kept) == NEAR
            assert marks_of(kept) == pytest.approx([curve(SCORES[key]) for key in NEAR], abs=1e-6)
            assert [node.score for node in kept] == [SCORES[key] for key in NEAR]
            assert [type(node.node) for node in kept] == [TextNode, IndexNode, ImageNode]
            assert kept[1].node.obj == {"age": 9}

    def test_order_is_kept_and_nodes_are_not_changed(self, plain: CosineAdapterPostprocessor) -> None:
        keys = ["d", "c", "f", "a", "b"]
        nodes = found(keys)
        assert ids_of(plain.postprocess_nodes(nodes, ASKED)) == ["c", "a", "b"]
        assert ids_of(asyncio.run(plain.apostprocess_nodes(nodes, ASKED))) == ["c", "a", "b"]
        assert [node.to_dict() for node in nodes] == [node.to_dict() for node in found(keys)]
        assert QueryBundle("tea", embedding=[1.0, 0.0]) == ASKED

    def test_the_threshold_is_inclusive(self, plain: CosineAdapterPostprocessor) -> None:
        exact = marks_of(plain.postprocess_nodes(found(), ASKED))[1]
        strict = CosineAdapterPostprocessor(adapter=CosineAdapter(2).with_threshold(exact))
        assert ids_of(strict.postprocess_nodes(found(), ASKED)) == ["a", "b"]

    def test_nothing_one_and_nothing_relevant(self, plain: CosineAdapterPostprocessor) -> None:
        for given_, expected in (([], []), (found("a"), ["a"]), (found("f"), []), (found("def"), [])):
            assert ids_of(plain.postprocess_nodes(given_, ASKED)) == expected
            assert ids_of(asyncio.run(plain.apostprocess_nodes(given_, ASKED))) == expected
        assert plain.postprocess_nodes([], query_str="tea") == []  # there is nothing to embed for
        assert asyncio.run(plain.apostprocess_nodes([], query_str="tea")) == []

    def test_the_relevance_is_hidden_from_models(self, plain: CosineAdapterPostprocessor) -> None:
        first, second, _ = plain.postprocess_nodes(found(), ASKED)
        assert first.node.excluded_llm_metadata_keys == ["page", "relevance"]
        assert first.node.excluded_embed_metadata_keys == ["relevance"]
        assert first.node.get_content(MetadataMode.LLM) == "text a"
        assert first.node.get_content(MetadataMode.EMBED) == "page: 1\n\ntext a"
        assert second.node.get_content(MetadataMode.LLM) == "text b"
        again = plain.postprocess_nodes([first, second], ASKED)
        assert again[0].node.excluded_llm_metadata_keys == ["page", "relevance"]
        assert again[0].node.metadata.keys() == {"page", "relevance"}

    @pytest.mark.parametrize("key", ["mark", "page", None])
    def test_it_stands_where_it_is_wanted(self, key: str | None) -> None:
        kept = CosineAdapterPostprocessor(adapter=CosineAdapter(2), relevance_key=key).postprocess_nodes(found(), ASKED)
        assert ids_of(kept) == NEAR
        if key is None:
            assert [node.to_dict() for node in kept] == [node.to_dict() for node in found(NEAR)]
        else:
            assert kept[0].node.metadata == {"page": 1, key: pytest.approx(curve(1))}

    def test_it_may_replace_the_score(self) -> None:
        nodes = found()
        for key in ("relevance", None):
            made = CosineAdapterPostprocessor(adapter=CosineAdapter(2), replace_score=True, relevance_key=key)
            for kept in (made.postprocess_nodes(nodes, ASKED), asyncio.run(made.apostprocess_nodes(nodes, ASKED))):
                assert [node.score for node in kept] == pytest.approx([curve(SCORES[name]) for name in NEAR], abs=1e-6)
                assert all("relevance" in node.node.metadata for node in kept) is (key is not None)
        assert [node.score for node in nodes] == [*SCORES.values()]

    @pytest.mark.parametrize("name", CONTROLS)
    def test_every_model_of_relevance(self, name: str) -> None:
        model, expected = CONTROLS[name]
        made = CosineAdapterPostprocessor(adapter=model)
        asked = [ASKED] if model.reads_vector else [ASKED, QueryBundle("tea")]
        for query in asked:
            kept = made.postprocess_nodes(found(), query)
            assert ids_of(kept) == expected
            assert all(0 <= mark <= 1 for mark in marks_of(kept))
            assert asyncio.run(made.apostprocess_nodes(found(), query)) == kept

    def test_a_judge_reads_question_and_passages(self) -> None:
        read: list[tuple[str, str]] = []

        def judged(pairs: list[tuple[str, str]]) -> list[float]:
            read.extend(pairs)
            return [1.0] * len(pairs)

        kept = CosineAdapterPostprocessor(adapter=Judge(judged)).postprocess_nodes(found("fa"), query_str="where?")
        assert read == [("where?", "text f"), ("where?", "text a")]
        assert ids_of(kept) == ["f", "a"]

    @given(st.lists(st.floats(-1, 1, width=32), max_size=12), st.floats(0, 1))
    def test_it_keeps_what_the_model_keeps(self, scores: list[float], threshold: float) -> None:
        adapter = adapter_with_query().with_threshold(threshold)
        vector = np.linspace(-1, 1, DIM)
        nodes = [NodeWithScore(node=TextNode(id_=str(place), text=""), score=score) for place, score in enumerate(scores)]
        made = CosineAdapterPostprocessor(adapter=adapter)
        kept = made.postprocess_nodes(nodes, QueryBundle("q", embedding=vector.tolist()))
        verdict = adapter.judge(Asked.of(np.array(scores, np.float32), vector))
        assert [int(key) for key in ids_of(kept)] == verdict.kept
        assert marks_of(kept) == [float(verdict.relevances[place]) for place in verdict.kept]


class TestTheQuerysEmbedding:
    def test_the_one_that_comes_with_the_query_is_taken(self) -> None:
        model = Hashed()
        made = CosineAdapterPostprocessor(adapter=CosineAdapter(2), embed_model=model)
        assert ids_of(made.postprocess_nodes(found(), ASKED)) == NEAR
        assert ids_of(asyncio.run(made.apostprocess_nodes(found(), ASKED))) == NEAR
        assert model.embedded == 0

    def test_without_one_the_model_embeds_it_once(self) -> None:
        model, adapter = Hashed(), adapter_with_query().with_threshold(0)
        made = CosineAdapterPostprocessor(adapter=adapter, embed_model=model)
        expected = adapter.relevances_of(Asked.of([*SCORES.values()], Hashed().get_query_embedding("tea"))).tolist()
        for kept in (
            made.postprocess_nodes(found(), query_str="tea"),
            made.postprocess_nodes(found(), query_bundle=QueryBundle("tea")),
            asyncio.run(made.apostprocess_nodes(found(), query_str="tea")),
            asyncio.run(made.apostprocess_nodes(found(), QueryBundle("tea"))),
        ):
            assert marks_of(kept) == expected
        assert model.embedded == 1
        asyncio.run(made.apostprocess_nodes(found(), query_str="milk"))
        made.postprocess_nodes(found(), query_str="milk")
        assert model.embedded == 2
        made.postprocess_nodes([], query_str="coffee")
        assert model.embedded == 2

    def test_who_reads_no_vector_embeds_nothing(self) -> None:
        model = Hashed()
        made = CosineAdapterPostprocessor(adapter=Platt(), embed_model=model)
        assert ids_of(made.postprocess_nodes(found(), query_str="tea")) == NEAR
        assert ids_of(asyncio.run(made.apostprocess_nodes(found(), query_str="tea"))) == NEAR
        assert model.embedded == 0

    def test_without_a_model_it_is_missed(self, plain: CosineAdapterPostprocessor) -> None:
        with pytest.raises(InputError, match="embed_model="):
            plain.postprocess_nodes(found(), query_str="tea")
        with pytest.raises(InputError, match="embed_model="):
            asyncio.run(plain.apostprocess_nodes(found(), query_bundle=QueryBundle("tea")))


class TestWhatIsRefused:
    def test_nodes_without_their_query(self, plain: CosineAdapterPostprocessor) -> None:
        for nodes in (found(), []):
            with pytest.raises(InputError, match="query_bundle= or query_str="):
                plain.postprocess_nodes(nodes)
            with pytest.raises(InputError, match="query_bundle= or query_str="):
                asyncio.run(plain.apostprocess_nodes(nodes))

    def test_nodes_without_scores(self, plain: CosineAdapterPostprocessor) -> None:
        nodes = [*found("ab"), NodeWithScore(node=TextNode(id_="bare", text="")), NodeWithScore(node=TextNode(text=""))]
        with pytest.raises(InputError, match=r"2 nodes have no score.*'bare'"):
            plain.postprocess_nodes(nodes, ASKED)
        with pytest.raises(InputError, match=r"2 nodes have no score.*'bare'"):
            asyncio.run(plain.apostprocess_nodes(nodes, ASKED))

    @pytest.mark.parametrize("score", [float("nan"), float("inf")])
    def test_scores_that_are_no_numbers(self, plain: CosineAdapterPostprocessor, score: float) -> None:
        with pytest.raises(InputError, match="NaN or infinity"):
            plain.postprocess_nodes([NodeWithScore(node=TextNode(text=""), score=score)], ASKED)

    def test_embeddings_of_another_dimension_or_none(self, plain: CosineAdapterPostprocessor) -> None:
        with pytest.raises(DimensionError, match="dimension 3, wanted 2"):
            plain.postprocess_nodes(found(), QueryBundle("tea", embedding=[1.0, 0.0, 0.0]))
        with pytest.raises(VectorError):
            plain.postprocess_nodes(found(), QueryBundle("tea", embedding=[float("nan"), 0.0]))

    @pytest.mark.parametrize("wrong", [None, 0.5, "shipped", CosineAdapter, object()])
    def test_what_is_no_model_of_relevance(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"adapter=.*wanted a model of relevance"):
            CosineAdapterPostprocessor(adapter=wrong)

    @pytest.mark.parametrize("wrong", [{"embed_model": "local"}, {"replace_score": "maybe"}, {"relevance_key": 5}])
    def test_other_wrong_arguments(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            CosineAdapterPostprocessor(adapter=CosineAdapter(2), **wrong)
        with pytest.raises(ValidationError, match="adapter"):
            CosineAdapterPostprocessor()


class TestComponent:
    def test_its_name_and_its_settings(self) -> None:
        made = CosineAdapterPostprocessor(
            adapter=CosineAdapter(2), embed_model=Hashed(), replace_score=True, relevance_key="mark"
        )
        assert CosineAdapterPostprocessor.class_name() == "CosineAdapterPostprocessor"
        described = {"class_name": "CosineAdapterPostprocessor", "replace_score": True, "relevance_key": "mark"}
        assert made.to_dict() == described
        again = CosineAdapterPostprocessor.from_dict(made.to_dict(), adapter=made.adapter)
        assert again.postprocess_nodes(found(), ASKED) == made.postprocess_nodes(found(), ASKED)

    def test_pickled(self) -> None:
        made = CosineAdapterPostprocessor(adapter=adapter_with_query(), embed_model=Hashed())
        expected = made.postprocess_nodes(found(), query_str="tea")
        again = pickle.loads(pickle.dumps(made))
        assert again.postprocess_nodes(found(), query_str="tea") == expected
        assert asyncio.run(again.apostprocess_nodes(found(), query_str="tea")) == expected

    def test_both_paths_give_the_same_class(self) -> None:
        from llama_index.postprocessor import rarebit as namespaced

        assert namespaced.CosineAdapterPostprocessor is CosineAdapterPostprocessor
        assert "CosineAdapterPostprocessor" in namespaced.__all__

    def test_many_threads_at_once(self) -> None:
        model = Hashed()
        made = CosineAdapterPostprocessor(adapter=adapter_with_query(), embed_model=model)
        questions = [f"question {number}" for number in range(70)]  # more than are remembered
        alone = [made.postprocess_nodes(found(), query_str=question) for question in questions]
        assert len({tuple(marks_of(kept)) for kept in alone}) > 60
        with ThreadPoolExecutor(16) as pool:
            both = pool.map(lambda question: made.postprocess_nodes(found(), query_str=question), questions)
            assert list(both) == alone

        async def together() -> list[list[NodeWithScore]]:
            return await asyncio.gather(*(made.apostprocess_nodes(found(), query_str=question) for question in questions))

        assert asyncio.run(together()) == alone


class TestEvents:
    def test_handlers_hear_of_each_verdict(self, plain: CosineAdapterPostprocessor, listener: Listener) -> None:
        plain.postprocess_nodes(found(["d", "a", "f", "c"]), ASKED)
        asyncio.run(plain.apostprocess_nodes(found("de"), ASKED))
        plain.postprocess_nodes([], query_str="milk")
        some, none, nothing = listener.heard
        assert (some.query_str, some.kept, some.dropped) == ("tea", ["a", "c"], ["d", "f"])
        assert (some.best_relevance, some.nothing_is_relevant) == (pytest.approx(curve(1)), False)
        assert (none.query_str, none.kept, none.dropped) == ("tea", [], ["d", "e"])
        assert (none.best_relevance, none.nothing_is_relevant) == (pytest.approx(curve(0)), True)
        assert (nothing.query_str, nothing.kept, nothing.dropped) == ("milk", [], [])
        assert (nothing.best_relevance, nothing.nothing_is_relevant) == (0, True)
        assert some.class_name() == some.model_dump()["class_name"] == "RelevanceJudgedEvent"
        assert some.model_dump_json()

    def test_what_is_refused_is_no_verdict(self, plain: CosineAdapterPostprocessor, listener: Listener) -> None:
        with pytest.raises(InputError):
            plain.postprocess_nodes(found(), query_str="tea")
        assert listener.heard == []


TEXTS = ["The kettle is on.", "Cats chase mice.", "Bread needs flour.", "Stars shine.", "The sea is wide."]


class TestInEngines:
    @pytest.fixture
    def model(self) -> Hashed:
        return Hashed()

    @pytest.fixture
    def store(self) -> Iterator[RarebitVectorStore]:
        made = RarebitVectorStore()
        yield made
        made.client.close()

    @pytest.fixture
    def index(self, model: Hashed, store: RarebitVectorStore) -> VectorStoreIndex:
        nodes = [TextNode(id_=str(place), text=text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
        context = StorageContext.from_defaults(vector_store=store)
        return VectorStoreIndex(nodes, storage_context=context, embed_model=model)

    def expected(self, index: VectorStoreIndex, question: str, least: float) -> list[str]:
        nodes = index.as_retriever(similarity_top_k=5).retrieve(question)
        assert len(nodes) == 5
        return [node.node.node_id for node in nodes if node.score >= least]

    def chat(self, index: VectorStoreIndex, llm: MockLLM, made: CosineAdapterPostprocessor) -> BaseChatEngine:
        memory = ChatMemoryBuffer.from_defaults(token_limit=1000)  # the default one leaves a connection open
        return index.as_chat_engine(chat_mode="context", llm=llm, memory=memory, similarity_top_k=5, node_postprocessors=[made])

    @pytest.mark.parametrize("question", ["tea", "milk", "coffee"])
    def test_retriever_and_postprocessor(
        self, index: VectorStoreIndex, model: Hashed, store: RarebitVectorStore, question: str
    ) -> None:
        adapter = adapter_with_query().for_collection(store.client)
        assert adapter.background is not None
        made = CosineAdapterPostprocessor(adapter=adapter, embed_model=model)
        retriever = index.as_retriever(similarity_top_k=5)
        nodes = retriever.retrieve(question)
        scores = np.array([node.score for node in nodes], np.float32)
        verdict = adapter.judge(Asked.of(scores, model.get_query_embedding(question)))
        for kept in (
            made.postprocess_nodes(nodes, query_str=question),
            made.postprocess_nodes(nodes, query_bundle=QueryBundle(question)),
            asyncio.run(made.apostprocess_nodes(nodes, query_str=question)),
        ):
            assert ids_of(kept) == [nodes[place].node.node_id for place in verdict.kept]
            assert marks_of(kept) == [float(verdict.relevances[place]) for place in verdict.kept]

    def test_query_engine(self, index: VectorStoreIndex, model: Hashed, listener: Listener) -> None:
        least = sorted(node.score for node in index.as_retriever(similarity_top_k=5).retrieve("tea"))[3]
        expected, llm = self.expected(index, "tea", least), Telling()
        assert len(expected) == 2
        made = CosineAdapterPostprocessor(adapter=RawScore(least - 1e-4))
        engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[made])
        for answer in (engine.query("tea"), asyncio.run(engine.aquery("tea"))):
            assert ids_of(answer.source_nodes) == expected
        assert len(llm.prompts) == 2
        for prompt in llm.prompts:
            assert [text in prompt for text in TEXTS] == [str(place) in expected for place in range(5)]
            assert "place:" in prompt
            assert "relevance" not in prompt
        assert [event.kept for event in listener.heard] == [expected] * 2

    def test_the_engines_embedding_is_taken(self, index: VectorStoreIndex, model: Hashed) -> None:
        adapter = adapter_with_query().with_threshold(0)
        scores = np.array([node.score for node in index.as_retriever(similarity_top_k=5).retrieve("tea")], np.float32)
        expected = adapter.relevances_of(Asked.of(scores, model.get_query_embedding("tea"))).tolist()
        bare, with_model = (CosineAdapterPostprocessor(adapter=adapter, embed_model=each) for each in (None, model))
        for made in (bare, with_model):
            engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=5, node_postprocessors=[made])
            before = model.embedded
            assert marks_of(engine.query("tea").source_nodes) == pytest.approx(expected, abs=1e-6)
            assert model.embedded == before + 1  # by the retriever

    def test_asynchronous_engines_hand_no_embedding_on(self, index: VectorStoreIndex, model: Hashed) -> None:
        adapter = adapter_with_query().with_threshold(0)
        scores = np.array([node.score for node in index.as_retriever(similarity_top_k=5).retrieve("tea")], np.float32)
        expected = adapter.relevances_of(Asked.of(scores, model.get_query_embedding("tea"))).tolist()
        bare, with_model = (CosineAdapterPostprocessor(adapter=adapter, embed_model=each) for each in (None, model))
        engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=5, node_postprocessors=[with_model])
        before = model.embedded
        for number in range(1, 4):
            assert marks_of(asyncio.run(engine.aquery("tea")).source_nodes) == pytest.approx(expected, abs=1e-6)
            assert model.embedded == before + number + 1  # by each retriever, and once by the postprocessor
        engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=5, node_postprocessors=[bare])
        with pytest.raises(InputError, match="embed_model="):
            asyncio.run(engine.aquery("tea"))

    def test_nothing_is_relevant(self, index: VectorStoreIndex, model: Hashed, listener: Listener) -> None:
        llm = Telling()
        made = CosineAdapterPostprocessor(adapter=CosineAdapter(DIM).with_threshold(1), embed_model=model)
        engine = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[made])
        streaming = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[made], streaming=True)
        chat = self.chat(index, llm, made)
        for answer in (
            engine.query("tea"),
            asyncio.run(engine.aquery("tea")),
            chat.chat("tea"),
            asyncio.run(chat.achat("tea")),
        ):
            assert answer.response == "Empty Response"
            assert answer.source_nodes == []
        assert str(streaming.query("tea").get_response()) == "Empty Response"
        assert llm.prompts == []
        assert [event.nothing_is_relevant for event in listener.heard] == [True] * 5

    def test_chat_engine(self, index: VectorStoreIndex, model: Hashed) -> None:
        adapter = CosineAdapter(DIM)
        nodes = index.as_retriever(similarity_top_k=5).retrieve("tea")
        scores = np.array([node.score for node in nodes], np.float32)
        second = float(adapter.relevances_of(Asked.of(scores, model.get_query_embedding("tea")))[1])
        made = CosineAdapterPostprocessor(adapter=adapter.with_threshold(second), embed_model=model)
        before = model.embedded
        for number in range(1, 4):
            chat = self.chat(index, MockLLM(), made)
            answer = chat.chat("tea") if number < 3 else asyncio.run(chat.achat("tea"))
            assert ids_of(answer.source_nodes) == ids_of(nodes[:2])
            assert model.embedded == before + number + 1  # each retriever embeds it, and the postprocessor did so once
            for place, text in enumerate(TEXTS):
                assert (text in answer.response) is (str(place) in ids_of(nodes[:2]))

    def test_chat_engine_without_a_model(self, index: VectorStoreIndex) -> None:
        made = CosineAdapterPostprocessor(adapter=CosineAdapter(DIM))
        chat = self.chat(index, MockLLM(), made)
        with pytest.raises(InputError, match="embed_model="):
            chat.chat("tea")

    def test_behind_and_before_another_postprocessor(self, index: VectorStoreIndex) -> None:
        index.insert_nodes([TextNode(id_="again", text=TEXTS[0])])
        made, dropping = CosineAdapterPostprocessor(adapter=FixedCount(6)), NearDuplicatePostprocessor(record="also")
        for chain in ([made, dropping], [dropping, made]):
            engine = RetrieverQueryEngine.from_args(
                index.as_retriever(similarity_top_k=6), llm=MockLLM(), node_postprocessors=chain
            )
            nodes = engine.query("tea").source_nodes
            assert len(nodes) == len(TEXTS)
            assert all("relevance" in node.node.metadata for node in nodes)
            assert sum("also" in node.node.metadata for node in nodes) == 1

    def test_tenants(self, model: Hashed, store: RarebitVectorStore) -> None:
        for name in ("acme", "bolt"):
            mine = store.for_tenant(name)
            nodes = [TextNode(id_=str(place), text=f"{name}: {text}") for place, text in enumerate(TEXTS)]
            mine.add([node.model_copy(update={"embedding": model.get_text_embedding(node.text)}) for node in nodes])
            adapter = adapter_with_query().with_threshold(0).for_collection(store.client.tenant(name))
            assert adapter.source == ScoreSource()
            engine = VectorStoreIndex.from_vector_store(mine, embed_model=model).as_query_engine(
                llm=MockLLM(), similarity_top_k=9, node_postprocessors=[CosineAdapterPostprocessor(adapter=adapter)]
            )
            kept = engine.query("tea").source_nodes
            assert len(kept) == 5
            assert all(node.node.get_content().startswith(name) for node in kept)
