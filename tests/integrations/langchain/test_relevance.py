"""The filter of relevance: what it keeps, what it refuses, and whom it sees."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from pydantic import ValidationError
from support.relevance import (
    CONTROLS,
    DIM,
    FAR,
    NEAR,
    NOTHING,
    Counting,
    adapter_with_query,
    curve,
    ids_of,
    marks_of,
    random_store,
)

from rarebit import EmbeddingFingerprint
from rarebit.errors import CalibrationError, DimensionError, InputError
from rarebit.integrations.langchain import (
    ContextualRetriever,
    CosineAdapterFilter,
    RarebitRetriever,
    RarebitVectorStore,
)
from rarebit.retrievers.relevance import (
    Asked,
    CosineAdapter,
    Judge,
    Platt,
    ScoreSource,
)


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
