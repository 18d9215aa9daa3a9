"""The filter of relevance where LangChain puts it, and relevance as the store's own."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from rarebit import EmbeddingFingerprint
from rarebit.errors import CalibrationError, DimensionError, InputError
from rarebit.integrations.langchain import (
    ContextualRetriever,
    CosineAdapterFilter,
    NearDuplicateFilter,
    RarebitRetriever,
    RarebitVectorStore,
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

DIM = 16
NEAR = ["east", "east by north", "north-east"]
"""What a new adapter keeps for "east": its relevance is sigmoid(10 score - 5)."""
FAR = ["north", "south", "west"]
NOTHING = "Nothing in the notes is about that."


def ids_of(documents: Any) -> list[str | None]:
    return [document.id for document in documents]


def marks_of(documents: Sequence[Document], key: str = "relevance") -> list[float]:
    return [document.metadata[key] for document in documents]


def curve(score: float) -> float:
    """Give what a new adapter makes of a score."""
    return float(1 / (1 + np.exp(5 - np.logaddexp(0, 10) * score)))


class Counting(Embeddings):
    """Counts what another model is asked for."""

    def __init__(self, inner: Embeddings, model_name: str | None = None) -> None:
        self.inner, self.model_name = inner, model_name
        self.calls: Counter[str] = Counter()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls["documents"] += len(texts)
        return self.inner.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        self.calls["query"] += 1
        return self.inner.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls["documents"] += len(texts)
        return self.inner.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        self.calls["aquery"] += 1
        return self.inner.embed_query(text)


def adapter_with_query(dim: int = DIM, seed: int = 0) -> CosineAdapter:
    """Give an adapter whose curves differ from query to query."""
    made, rng = CosineAdapter(dim, hidden=4), np.random.default_rng(seed)
    arrays = {name: values + 0.3 * rng.standard_normal(values.shape) for name, values in made._arrays.items()}
    return made.with_arrays({**arrays, "evidence_scale": made._arrays["evidence_scale"]})


def random_store(count: int = 120, **keywords: Any) -> RarebitVectorStore:
    store = RarebitVectorStore(Counting(DeterministicFakeEmbedding(size=DIM)), **keywords)
    store.add_texts([f"text {place}" for place in range(count)], ids=[str(place) for place in range(count)])
    return store


@pytest.fixture
def counting(compass: Embeddings) -> Counting:
    return Counting(compass)


@pytest.fixture
def filled(store: RarebitVectorStore, counting: Counting) -> Iterator[RarebitVectorStore]:
    """The compass of the fixture ``store`` over a model that counts, with scores."""
    made = RarebitVectorStore(counting, score_key="score", collection=store.collection)
    counting.calls.clear()
    return made


@pytest.fixture
def plain() -> CosineAdapter:
    return CosineAdapter(2)


CONTROLS: dict[str, tuple[RelevanceModel, list[str]]] = {
    "adapter": (CosineAdapter(2), NEAR),
    "fixed count": (FixedCount(2), NEAR[:2]),
    "fixed count of none": (FixedCount(0), []),
    "raw score": (RawScore(0.5), NEAR),
    "platt": (Platt(20.0, -15.0), NEAR[:2]),
    "isotonic": (Isotonic([-1.0, 0.8, 1.0], [0.0, 0.4, 1.0]), NEAR[:2]),
    "score gap": (ScoreGap(), [*NEAR, "north", "south"]),
    "judge": (Judge(lambda pairs: [5.0 if "north" in text else -5.0 for _, text in pairs]), [*NEAR[1:], "north"]),
    "judge of shares": (Judge(lambda pairs: [float(text in FAR) for _, text in pairs], logits=False), FAR),
    "at least four": (CosineAdapter(2).keeping(least=4), [*NEAR, "north"]),
    "at most one": (CosineAdapter(2).keeping(most=1), NEAR[:1]),
}


class TestCosineAdapterFilter:
    def test_what_is_below_the_threshold_goes(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        found = filled.similarity_search("east", k=6)
        kept = CosineAdapterFilter(adapter=plain, store=filled).compress_documents(found, "east")
        assert ids_of(found)[:3] == ids_of(kept) == NEAR
        assert marks_of(kept) == pytest.approx([curve(1), curve(0.96), curve(0.6)], abs=2e-3)
        assert all(type(mark) is float for mark in marks_of(kept))
        least = marks_of(kept)[1]
        assert (
            ids_of(CosineAdapterFilter(adapter=plain.with_threshold(least), store=filled).compress_documents(found, "east"))
            == (NEAR[:2])
        )

    def test_order_ids_and_metadata_are_kept(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        found = filled.similarity_search("east", k=6)[::-1]
        kept = CosineAdapterFilter(adapter=plain, store=filled).compress_documents(found, "east")
        assert ids_of(kept) == NEAR[::-1]
        for document, place in zip(kept, (2, 1, 0), strict=True):
            assert document.page_content == document.id
            assert {**document.metadata, "relevance": 0, "score": 0} == {"place": place, "relevance": 0, "score": 0}

    @pytest.mark.parametrize("key", ["relevance", "mark", "place", None])
    def test_the_relevance_stands_where_it_is_wanted(
        self, filled: RarebitVectorStore, plain: CosineAdapter, key: str | None
    ) -> None:
        found = filled.similarity_search("east", k=6)
        before = copy.deepcopy(found)
        filters = CosineAdapterFilter(adapter=plain, store=filled, relevance_key=key)
        for kept in (filters.compress_documents(found, "east"), asyncio.run(filters.acompress_documents(found, "east"))):
            assert ids_of(kept) == NEAR
            for document, old in zip(kept, before[:3], strict=True):
                mark = pytest.approx(curve(old.metadata["score"]), abs=1e-5)
                assert document.metadata == (old.metadata if key is None else {**old.metadata, key: mark})
        assert found == before

    def test_nothing_and_one(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        filters = CosineAdapterFilter(adapter=plain, store=filled)
        assert filters.compress_documents([], "east") == []
        assert asyncio.run(filters.acompress_documents([], "east")) == []
        assert filled.embeddings.calls == {}
        (one,) = filled.get_by_ids(["north-east"])
        assert ids_of(filters.compress_documents([one], "east")) == ["north-east"]
        assert filters.compress_documents([one], "west") == []
        assert ids_of(filters.compress_documents((one, one), "east")) == ["north-east"] * 2

    def test_nothing_is_relevant(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        far = filled.get_by_ids(FAR)
        filters = CosineAdapterFilter(adapter=plain, store=filled)
        assert filters.compress_documents(far, "east") == []
        assert asyncio.run(filters.acompress_documents(far, "east")) == []

    def test_a_text_may_say_so(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        filters = CosineAdapterFilter(adapter=plain, store=filled, when_empty=NOTHING)
        for best, documents in ((curve(0), filled.get_by_ids(FAR)), (0, [])):
            for kept in (
                filters.compress_documents(documents, "east"),
                asyncio.run(filters.acompress_documents(documents, "east")),
            ):
                (said,) = kept
                assert (said.id, said.page_content) == (None, NOTHING)
                assert said.metadata == {"nothing_relevant": True, "best_relevance": pytest.approx(best, abs=1e-3)}
        assert ids_of(filters.compress_documents(filled.get_by_ids(NEAR), "east")) == NEAR

    def test_scores_are_the_stores_own(self) -> None:
        store = random_store()
        adapter = adapter_with_query().for_collection(store.collection).with_threshold(0)
        scored = store.similarity_search_with_score("a question", k=30)
        found, scores = [document for document, _ in scored], np.array([score for _, score in scored], np.float32)
        expected = adapter.relevances_of(Asked.of(scores, store.embed_query("a question")))
        kept = CosineAdapterFilter(adapter=adapter, store=store).compress_documents(found, "a question")
        assert ids_of(kept) == ids_of(found)
        assert marks_of(kept) == pytest.approx(expected.tolist(), abs=1e-6)
        ids = [str(document.id) for document in found]
        assert store.scores(store.embed_query("a question"), ids) == pytest.approx(scores, abs=1e-6)
        by_relevance = store.similarity_search_with_relevance_scores("a question", k=30)
        assert [relevance for _, relevance in by_relevance] != pytest.approx(expected.tolist(), abs=1e-3)

    @pytest.mark.parametrize("codec", ["rabitq", "rabitq4", "float16", "float32"])
    def test_looked_up_and_carried_scores_are_the_same(self, codec: str) -> None:
        store = random_store(400, codec=codec, score_key="score")
        adapter = adapter_with_query().with_threshold(0)
        for question in ("a", "b", "c"):
            found = store.similarity_search(question, k=40)
            looked_up = CosineAdapterFilter(adapter=adapter, store=store)
            carried = CosineAdapterFilter(adapter=adapter, store=store, score_key="score")
            marks = [marks_of(filters.compress_documents(found, question)) for filters in (looked_up, carried)]
            assert marks[0] == pytest.approx(marks[1], abs=1e-5)

    def test_without_a_store_documents_carry_scores(self, counting: Counting, plain: CosineAdapter) -> None:
        documents = [Document(text, metadata={"score": score}) for text, score in (("a", 1), ("b", 0.9), ("c", 0.1))]
        filters = CosineAdapterFilter(adapter=plain, embeddings=counting, score_key="score")
        for kept in (
            filters.compress_documents(documents, "east"),
            asyncio.run(filters.acompress_documents(documents, "east")),
        ):
            assert [document.page_content for document in kept] == ["a", "b"]
            assert marks_of(kept) == pytest.approx([curve(1), curve(0.9)], abs=1e-6)
        assert counting.calls == {"query": 1}
        assert filters.compress_documents([], "west") == []
        asyncio.run(filters.acompress_documents(documents, "west"))
        asyncio.run(filters.acompress_documents(documents, "west"))
        assert counting.calls == {"query": 1, "aquery": 1}

    def test_a_model_that_reads_no_vector_needs_no_embedding_model(self) -> None:
        documents = [Document(text, metadata={"score": score}) for text, score in (("a", 1), ("b", 0.9), ("c", 0.1))]
        kept = CosineAdapterFilter(adapter=Platt(), score_key="score").compress_documents(documents, "east")
        assert [document.page_content for document in kept] == ["a", "b"]

    @pytest.mark.parametrize("name", CONTROLS)
    @pytest.mark.parametrize("carried", [False, True])
    def test_every_model_of_relevance(self, filled: RarebitVectorStore, name: str, *, carried: bool) -> None:
        model, expected = CONTROLS[name]
        filters = CosineAdapterFilter(adapter=model, store=filled, score_key="score" if carried else None)
        found = filled.similarity_search("east", k=6)
        kept = filters.compress_documents(found, "east")
        assert sorted(map(str, ids_of(kept))) == sorted(expected)
        assert ids_of(kept) == [key for key in ids_of(found) if key in expected]
        assert all(0 <= mark <= 1 for mark in marks_of(kept))
        assert asyncio.run(filters.acompress_documents(found, "east")) == kept

    def test_a_judge_reads_question_and_passages(self, filled: RarebitVectorStore) -> None:
        read: list[tuple[str, str]] = []

        def judged(pairs: list[tuple[str, str]]) -> list[float]:
            read.extend(pairs)
            return [0.0] * len(pairs)

        CosineAdapterFilter(adapter=Judge(judged), store=filled).compress_documents(filled.get_by_ids(NEAR), "where?")
        assert read == [("where?", text) for text in NEAR]

    @given(st.lists(st.floats(-1, 1, width=32), max_size=12), st.floats(0, 1))
    def test_it_keeps_what_the_model_keeps(self, scores: list[float], threshold: float) -> None:
        adapter = adapter_with_query().with_threshold(threshold)
        documents = [Document(str(place), metadata={"s": score}) for place, score in enumerate(scores)]
        model = DeterministicFakeEmbedding(size=DIM)
        kept = CosineAdapterFilter(adapter=adapter, embeddings=model, score_key="s").compress_documents(documents, "q")
        verdict = adapter.judge(Asked.of(np.array(scores, np.float32), model.embed_query("q")))
        assert [int(document.page_content) for document in kept] == verdict.kept
        assert marks_of(kept) == [float(verdict.relevances[place]) for place in verdict.kept]

    def test_its_search_has_embedded_the_question(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        calls = filled.embeddings.calls
        for number, base in enumerate((filled.as_retriever(search_kwargs={"k": 6}), RarebitRetriever(store=filled, k=6)), 1):
            for score_key in (None, "score"):
                filters = CosineAdapterFilter(adapter=plain, store=filled, score_key=score_key)
                within = ContextualRetriever(base_retriever=base, base_compressor=filters)
                for question in ("east", "west"):
                    within.invoke(question)
                    within.invoke(question)
            assert calls == {"query": 2}, number

    def test_asynchronously_too(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        filters = CosineAdapterFilter(adapter=plain, store=filled)
        for base in (filled.as_retriever(search_kwargs={"k": 6}), RarebitRetriever(store=filled, k=6)):
            within = ContextualRetriever(base_retriever=base, base_compressor=filters)
            for question in ("east", "west"):
                asyncio.run(within.ainvoke(question))
        assert filled.embeddings.calls == {"aquery": 2}

    def test_many_threads_at_once(self) -> None:
        store = random_store()
        adapter = adapter_with_query().for_collection(store.collection)
        within = ContextualRetriever(
            base_retriever=store.as_retriever(search_kwargs={"k": 30}),
            base_compressor=CosineAdapterFilter(adapter=adapter, store=store, when_empty=NOTHING),
        )
        questions = [f"question {number}" for number in range(70)]  # more than are remembered
        alone = {question: within.invoke(question) for question in questions}
        assert len({len(found) for found in alone.values()}) > 1
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(within.invoke, questions)) == [*alone.values()]

        async def together() -> list[list[Document]]:
            return await asyncio.gather(*(within.ainvoke(question) for question in questions[:20]))

        assert asyncio.run(together()) == within.batch(questions[:20]) == [*alone.values()][:20]

    def test_copied_and_pickled(self, tmp_path: Path, plain: CosineAdapter) -> None:
        with RarebitVectorStore(DeterministicFakeEmbedding(size=2), path=tmp_path / "c.rarebit") as store:
            store.add_texts(["a", "b", "c"], ids=["a", "b", "c"])
            filters = CosineAdapterFilter(adapter=plain.with_threshold(0.3), store=store, when_empty=NOTHING)
            found = store.similarity_search("q")
            expected = filters.compress_documents(found, "q")
            pickled = pickle.loads(pickle.dumps(filters))
            for again in (pickled, filters.model_copy()):
                assert again.compress_documents(found, "q") == expected
            pickled.store.close()


class TestWhatIsRefused:
    def test_no_place_for_scores_or_the_question(self, compass: Embeddings, plain: CosineAdapter) -> None:
        with pytest.raises(ValidationError, match="neither store= nor score_key="):
            CosineAdapterFilter(adapter=plain)
        with pytest.raises(ValidationError, match="neither store= nor score_key="):
            CosineAdapterFilter(adapter=plain, embeddings=compass)
        with pytest.raises(ValidationError, match="neither store= nor embeddings="):
            CosineAdapterFilter(adapter=plain, score_key="score")

    @pytest.mark.unchecked
    @pytest.mark.parametrize("wrong", [{"adapter": 0.5}, {"adapter": CosineAdapter}, {"store": 5}, {"adaptor": Platt()}])
    def test_wrong_arguments(self, plain: CosineAdapter, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            CosineAdapterFilter(**{"adapter": plain, "score_key": "score", "embeddings": Counting(None), **wrong})

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [(Document("east"), "without ids"), (Document(id="up", page_content=""), "not in the store.*'up'")],
    )
    def test_documents_that_cannot_be_looked_up(
        self, filled: RarebitVectorStore, plain: CosineAdapter, wrong: Document, message: str
    ) -> None:
        filters = CosineAdapterFilter(adapter=plain, store=filled)
        with pytest.raises(InputError, match=message):
            filters.compress_documents([wrong], "east")
        with pytest.raises(InputError, match=message):
            asyncio.run(filters.acompress_documents([wrong], "east"))

    def test_a_document_that_was_deleted_since_is_left_out(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        found = [*filled.get_by_ids(["east"]), Document(id="up", page_content="east")]
        kept = CosineAdapterFilter(adapter=plain, store=filled).compress_documents(found, "east")
        assert [document.id for document in kept] == ["east"]

    @pytest.mark.parametrize("score", [None, "0.5", True, float("nan"), float("inf"), [0.5]])
    def test_scores_that_are_none(self, compass: Embeddings, plain: CosineAdapter, score: Any) -> None:
        filters = CosineAdapterFilter(adapter=plain, embeddings=compass, score_key="score")
        for metadata in ({"score": score}, {} if score is None else {"score": score}):
            with pytest.raises(InputError, match="score"):
                filters.compress_documents([Document(id="east", page_content="east", metadata=metadata)], "east")

    @pytest.mark.parametrize("score_key", [None, "score"])
    def test_scores_of_another_source(self, counting: Counting, plain: CosineAdapter, score_key: str | None) -> None:
        counting.model_name = "mine"
        stores = {
            "metric": RarebitVectorStore(counting, metric="inner_product", score_key="score"),
            "estimated by": RarebitVectorStore(counting, fine="none", score_key="score"),
            "name": RarebitVectorStore(Counting(counting.inner, "another"), score_key="score"),
            "": RarebitVectorStore(counting, score_key="score"),
        }
        stores[""].add_texts(NEAR, ids=NEAR)
        adapter = plain.with_source(ScoreSource.of(stores[""].collection))
        assert adapter.source == ScoreSource(EmbeddingFingerprint("mine"), "cosine", "")
        for difference, store in stores.items():
            store.add_texts(NEAR, ids=NEAR)
            found = store.similarity_search("east")
            filters = CosineAdapterFilter(adapter=adapter, store=store, score_key=score_key)
            judging = RarebitVectorStore(store.embeddings, collection=store.collection, relevance=adapter)
            calls: list[Callable[[], Any]] = [
                lambda filters=filters, found=found: filters.compress_documents(found, "east"),
                lambda filters=filters, found=found: asyncio.run(filters.acompress_documents(found, "east")),
                lambda judging=judging: judging.similarity_search_with_relevance_scores("east"),
                lambda judging=judging: asyncio.run(judging.asimilarity_search_with_relevance_scores("east")),
                *([] if difference == "" else [lambda store=store: adapter.for_collection(store.collection)]),
            ]
            for call in calls:
                if difference == "":
                    assert len(call()) == 3
                else:
                    with pytest.raises(CalibrationError, match=difference):
                        call()
            if difference == "metric":
                assert filters.compress_documents([], "east") == []

    def test_estimated_scores_must_be_carried(self) -> None:
        store = random_store(300, fine="none", codec="rabitq", score_key="score")
        adapter = adapter_with_query().with_threshold(0).with_source(ScoreSource.of(store.collection))
        found = store.similarity_search("a question", k=20)
        with pytest.raises(InputError, match="score_key='score'"):
            CosineAdapterFilter(adapter=adapter, store=store).compress_documents(found, "a question")
        carrying = CosineAdapterFilter(adapter=adapter, store=store, score_key="score")
        scores = np.array([document.metadata["score"] for document in found], np.float32)
        expected = adapter.relevances_of(Asked.of(scores, store.embed_query("a question")))
        assert marks_of(carrying.compress_documents(found, "a question")) == expected.tolist()

    def test_an_adapter_of_another_dimension(self, filled: RarebitVectorStore) -> None:
        with pytest.raises(DimensionError, match="dimension 2, wanted 3"):
            CosineAdapterFilter(adapter=CosineAdapter(3), store=filled).compress_documents(filled.get_by_ids(NEAR), "east")


class TestTenants:
    @pytest.mark.parametrize("score_key", [None, "score"])
    def test_each_is_judged_by_its_own(self, compass: Embeddings, plain: CosineAdapter, score_key: str | None) -> None:
        with RarebitVectorStore(compass, score_key="score") as ours:
            acme, bolt = ours.for_tenant("acme"), ours.for_tenant("bolt")
            acme.add_texts(["east", "north"], ids=["1", "2"])
            bolt.add_texts(["north", "east", "east by north"], ids=["1", "2", "only bolt's"])
            for store, expected in ((acme, ["1"]), (bolt, ["2", "only bolt's"])):
                for again in (store, ours.for_tenant(str(store.tenant))):
                    within = ContextualRetriever(
                        base_retriever=store.as_retriever(),
                        base_compressor=CosineAdapterFilter(adapter=plain, store=again, score_key=score_key),
                    )
                    assert ids_of(within.invoke("east")) == ids_of(asyncio.run(within.ainvoke("east"))) == expected
            if score_key is None:
                with pytest.raises(InputError, match=r"not in the store.*only bolt's"):
                    CosineAdapterFilter(adapter=plain, store=acme).compress_documents(bolt.get_by_ids(["only bolt's"]), "east")

    def test_what_is_shared_and_what_relevance_the_store_gives(self, compass: Embeddings, plain: CosineAdapter) -> None:
        with RarebitVectorStore(compass, relevance=plain) as ours:
            ours.add_texts(NEAR, ids=NEAR)
            acme = ours.for_tenant("acme")
            acme.add_texts(["north"], ids=["own"])
            ours.collection.share(["north-east"])
            kept = CosineAdapterFilter(adapter=plain, store=acme).compress_documents(acme.similarity_search("east"), "east")
            assert ids_of(kept) == ["north-east"]
            judged = acme.similarity_search_with_relevance_scores("east")
            assert [(document.id, pytest.approx(own, abs=2e-3)) for document, own in judged] == [
                ("north-east", curve(0.6)),
                ("own", curve(0)),
            ]
            fitting = plain.for_collection(acme.collection.tenant("acme"))
            assert fitting.background is not None
            assert fitting.background.mean == pytest.approx([0.3, 0.9], abs=0.01)

    def test_one_model_embeds_for_all(self, counting: Counting, plain: CosineAdapter) -> None:
        ours = RarebitVectorStore(counting)
        for name in ("acme", "bolt"):
            store = ours.for_tenant(name)
            store.add_texts(NEAR, ids=NEAR)
            CosineAdapterFilter(adapter=plain, store=store).compress_documents(store.similarity_search("east"), "east")
        assert counting.calls["query"] == 1


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


class TestRelevanceOfTheStore:
    def test_the_adapter_gives_it(self) -> None:
        bare = random_store()
        adapter = adapter_with_query().for_collection(bare.collection)
        store = RarebitVectorStore(bare.embeddings, collection=bare.collection, relevance=adapter)
        for question in ("a", "b", "c"):
            scored = bare.similarity_search_with_score(question, k=30)
            scores = np.array([score for _, score in scored], np.float32)
            expected = adapter.relevances_of(Asked.of(scores, bare.embed_query(question))).tolist()
            judged = store.similarity_search_with_relevance_scores(question, k=30)
            assert [document for document, _ in judged] == [document for document, _ in scored]
            assert [own for _, own in judged] == expected
            assert all(type(own) is float and 0 <= own <= 1 for _, own in judged)
            assert asyncio.run(store.asimilarity_search_with_relevance_scores(question, k=30)) == judged

    @pytest.mark.parametrize("quantile", [0.0, 0.3, 0.8, 1.0])
    def test_a_threshold_is_a_probability(self, quantile: float) -> None:
        bare = random_store()
        adapter = adapter_with_query().for_collection(bare.collection)
        store = RarebitVectorStore(bare.embeddings, collection=bare.collection, relevance=adapter)
        for question in ("a", "b"):
            judged = store.similarity_search_with_relevance_scores(question, k=40)
            ranked = sorted(own for _, own in judged)
            threshold = ranked[round(quantile * (len(ranked) - 1))]
            expected = [document for document, own in judged if own >= threshold]
            assert 0 < len(expected) <= 40
            kwargs = {"score_threshold": threshold, "k": 40}
            within = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=kwargs)
            own = RarebitRetriever(store=store, k=40, score_threshold=threshold)
            for retriever in (within, own):
                assert retriever.invoke(question) == asyncio.run(retriever.ainvoke(question)) == expected
            assert [each for each, _ in store.similarity_search_with_relevance_scores(question, **kwargs)] == expected
            assert own.invoke(question, score_threshold=None) == bare.similarity_search(question, k=40)

    def test_nothing_is_relevant(self, compass: Embeddings, plain: CosineAdapter) -> None:
        store = RarebitVectorStore(compass, relevance=plain)
        retriever = RarebitRetriever(store=store, score_threshold=0.5)
        assert retriever.invoke("east") == asyncio.run(retriever.ainvoke("east")) == []
        store.add_texts(FAR)
        assert retriever.invoke("east") == asyncio.run(retriever.ainvoke("east")) == []
        assert len(retriever.invoke("east", score_threshold=0.0)) == 3

    @pytest.mark.parametrize("name", CONTROLS)
    def test_every_model_of_relevance(self, store: RarebitVectorStore, name: str) -> None:
        model, _ = CONTROLS[name]
        judging = RarebitVectorStore(store.embeddings, collection=store.collection, relevance=model)
        judged = judging.similarity_search_with_relevance_scores("east", k=6)
        assert len(judged) == 6
        assert all(0 <= own <= 1 for _, own in judged)
        kept = RarebitRetriever(store=judging, k=6, score_threshold=0.6).invoke("east")
        assert kept == [document for document, own in judged if own >= 0.6]

    def test_keywords_and_the_one_embedding(self, filled: RarebitVectorStore, plain: CosineAdapter) -> None:
        judging = RarebitVectorStore(filled.embeddings, collection=filled.collection, relevance=plain, score_key="score")
        judged = judging.similarity_search_with_relevance_scores("east", 3, filter={"place": {"$gt": 0}})
        assert [document.id for document, _ in judged] == [*NEAR[1:], "north"]
        assert [own for _, own in judged] == pytest.approx([curve(each.metadata["score"]) for each, _ in judged], abs=1e-5)
        judging.similarity_search_with_relevance_scores("east")
        assert filled.embeddings.calls == {"query": 1}
        with pytest.raises(InputError, match="filtre"):
            judging.similarity_search_with_relevance_scores("east", filtre={})

    def test_without_a_model_all_is_as_before(self, store: RarebitVectorStore) -> None:
        scores = [score for _, score in store.similarity_search_with_score("east", k=6)]
        plain = store.similarity_search_with_relevance_scores("east", k=6)
        assert [own for _, own in plain] == [min(1.0, max(0.0, score)) for score in scores]
        assert asyncio.run(store.asimilarity_search_with_relevance_scores("east", k=6)) == plain
        with pytest.warns(UserWarning, match="Relevance scores must be between"):
            halved = RarebitVectorStore(
                store.embeddings, collection=store.collection, relevance_score_fn=lambda score: score / 2
            ).similarity_search_with_relevance_scores("east", k=6)
        assert [own for _, own in halved] == [score / 2 for score in scores]

    def test_every_way_to_make_a_store(self, compass: Embeddings, tmp_path: Path, plain: CosineAdapter) -> None:
        first = RarebitVectorStore.from_texts(NEAR, compass, ids=NEAR, relevance=plain)
        first.save_local(tmp_path)
        stores = [
            first,
            asyncio.run(RarebitVectorStore.afrom_texts(NEAR, compass, ids=NEAR, relevance=plain)),
            RarebitVectorStore.load_local(tmp_path, compass, relevance=plain),
            RarebitVectorStore.from_store(InMemoryVectorStore.from_texts(NEAR, compass), relevance=plain),
            first.for_tenant("acme"),
        ]
        stores[-1].add_texts(NEAR, ids=NEAR)
        for store in stores:
            judged = store.similarity_search_with_relevance_scores("east")
            assert [own for _, own in judged] == pytest.approx([curve(1), curve(0.96), curve(0.6)], abs=2e-3)
        for store in stores:
            store.close()

    def test_pickled(self, tmp_path: Path) -> None:
        adapter = adapter_with_query()
        model = DeterministicFakeEmbedding(size=DIM)
        for path in (tmp_path / "c.rarebit", None):
            store = RarebitVectorStore(model, path=path, relevance=adapter, score_key="score")
            store.add_texts(["a", "b", "c"], ids=["a", "b", "c"])
            judged = store.similarity_search_with_relevance_scores("q")
            acme = store.for_tenant("acme")
            acme.add_texts(["d"], ids=["d"])
            copied, copied_acme = pickle.loads(pickle.dumps((store, acme)))
            assert copied.similarity_search_with_relevance_scores("q") == judged
            assert copied.embed_query("q").tolist() == store.embed_query("q").tolist()
            assert ids_of(copied_acme.similarity_search("q")) == ["d"]
            for each in (store, copied, copied_acme):
                each.close()

    def test_a_misspelt_keyword_is_refused_by_its_name(self, compass: Embeddings, plain: CosineAdapter) -> None:
        with pytest.raises(InputError, match="relevence"):
            RarebitVectorStore(compass, relevence=plain)

    def test_many_threads_at_once(self) -> None:
        bare = random_store()
        store = RarebitVectorStore(bare.embeddings, collection=bare.collection, relevance=adapter_with_query())
        questions = [f"question {number}" for number in range(24)]
        alone = [store.similarity_search_with_relevance_scores(question) for question in questions]
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(store.similarity_search_with_relevance_scores, questions * 3)) == alone * 3


class TestEmbeddingOfQuestions:
    def test_each_search_embeds_a_question_once(self, filled: RarebitVectorStore) -> None:
        assert filled.embed_query("east").tolist() == [1.0, 0.0]
        for search_type in ("similarity", "mmr", "hybrid", "lexical", "similarity_score_threshold"):
            keywords = {"score_threshold": 0.1} if search_type == "similarity_score_threshold" else {}
            assert filled.search("east", search_type, **keywords) == asyncio.run(
                filled.asearch("east", search_type, **keywords)
            )
        assert filled.embeddings.calls == {"query": 1}
        assert asyncio.run(filled.aembed_query("north")).tolist() == [0.0, 1.0]
        assert asyncio.run(filled.aembed_query("east")).tolist() == [1.0, 0.0]
        assert filled.embeddings.calls == {"query": 1, "aquery": 1}

    def test_passages_are_never_remembered_as_questions(self, counting: Counting) -> None:
        store = RarebitVectorStore(counting)
        store.add_texts(NEAR)
        counting.calls.clear()
        store.similarity_search("east")
        assert counting.calls == {"query": 1}

    def test_a_question_is_no_array_that_can_be_written(self, filled: RarebitVectorStore) -> None:
        for vector in (filled.embed_query("east"), asyncio.run(filled.aembed_query("east"))):
            with pytest.raises(ValueError, match="read-only"):
                vector[0] = 5

    def test_scores_of_what_is_known(self, store: RarebitVectorStore) -> None:
        ids = ["west", "east", "north", "east"]
        assert store.scores([2.0, 0.0], ids) == pytest.approx([-1, 1, 0, 1], abs=2e-3)
        assert store.scores([1.0, 0.0], []).shape == (0,)
