"""Relevance as the store's own, and the embeddings of questions that it remembers."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from support.relevance import CONTROLS, DIM, FAR, NEAR, Counting, adapter_with_query, curve, ids_of, random_store

from rarebit.errors import InputError
from rarebit.integrations.langchain import (
    RarebitRetriever,
    RarebitVectorStore,
)
from rarebit.retrievers.relevance import (
    Asked,
    CosineAdapter,
)


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
