"""Lexical and hybrid search, and maximal marginal relevance, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit import Collection, Compare
from rarebit.retrievers.collection.ranking import maximal_marginal_relevance, reciprocal_rank_fusion, weighted_fusion

TEXTS = {
    "cats": "The cat sat on the mat while another cat slept.",
    "dogs": "Dogs bark at every cat they see.",
    "fish": "Fish swim quietly.",
    "code": 'A "quoted" NEAR/2 query* (with) operators: AND OR NOT ^column:',
    "uml": "Über den Wölken muß die Freiheit grenzenlos sein.",
    "empty": "",
}


@pytest.fixture
def collection() -> Collection:
    opened = Collection.open()
    vectors = np.eye(len(TEXTS), dtype=np.float32)
    metadatas = [{"length": len(text)} for text in TEXTS.values()]
    opened.add(vectors, texts=list(TEXTS.values()), metadatas=metadatas, ids=list(TEXTS))
    return opened


def found(collection: Collection, text: str, k: int = 10) -> list[str]:
    return [hit.id for hit in collection.search_lexical(text, k)]


def test_rows_with_more_of_the_words_come_first(collection: Collection) -> None:
    assert found(collection, "cat") == ["cats", "dogs"]
    assert found(collection, "barking cats") == ["dogs", "cats"]
    scores = [hit.score for hit in collection.search_lexical("cat")]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_accents_case_and_stems(collection: Collection) -> None:
    assert found(collection, "UBER wolken") == ["uml"]
    assert found(collection, "swimming") == ["fish"]


@pytest.mark.parametrize("text", ["", "   ", "!!!", '"', "*", "(", "^", "-", "'"])
def test_nothing_to_look_for_finds_nothing(collection: Collection, text: str) -> None:
    assert found(collection, text) == []


@pytest.mark.parametrize(
    "text", ['"quoted', "NEAR(a b)", "query*", "AND", "NOT fish OR", "column:x", "a:b", "quoted'; --", "x\u0000quoted"]
)
def test_query_syntax_is_only_words(collection: Collection, text: str) -> None:
    found(collection, text)
    assert found(collection, "quoted " + text)[0] in ("code", "fish")


def test_filters_and_k(collection: Collection) -> None:
    short = Compare("length", "lt", 40)
    assert [hit.id for hit in collection.search_lexical("cat fish", 10, filter=short)] == ["fish", "dogs"]
    assert found(collection, "cat fish", 1) == found(collection, "cat fish")[:1]
    assert found(collection, "cat", 0) == []


def test_k_results_behind_a_filter_that_drops_the_best() -> None:
    collection = Collection.open()
    texts = ["word word word"] * 200 + ["word and many other things beside it"] * 3
    collection.add(np.ones((203, 2)), texts=texts, metadatas=[{"last": number >= 200} for number in range(203)])
    assert len(collection.search_lexical("word", 3, filter=Compare("last", "eq", True))) == 3


def test_lexical_search_follows_overwriting_and_deleting(collection: Collection) -> None:
    collection.add(np.eye(6)[:1], texts=["a bird instead"], ids=["cats"])
    assert found(collection, "cat") == ["dogs"]
    assert found(collection, "bird") == ["cats"]
    collection.delete(["cats"])
    assert found(collection, "bird") == []


def test_trigrams_find_inside_words() -> None:
    collection = Collection.open(tokenizer="trigram")
    collection.add([[1.0], [1.0]], texts=["情報検索システム", "全文"], ids=["a", "b"])
    assert [hit.id for hit in collection.search_lexical("検索シ")] == ["a"]


def test_hybrid_finds_what_either_side_finds(collection: Collection) -> None:
    query = np.eye(6)[2] + 0.1 * np.eye(6)[0]
    ids = [hit.id for hit in collection.search_hybrid(query, "barking", 2)]
    assert set(ids) == {"fish", "dogs"}


def test_alpha_goes_from_words_to_vectors(collection: Collection) -> None:
    query = np.eye(6)[2]
    by_vector = collection.search_hybrid(query, "cat", 1, fusion="weighted", alpha=1.0)
    by_words = collection.search_hybrid(query, "cat", 1, fusion="weighted", alpha=0.0)
    assert (by_vector[0].id, by_words[0].id) == ("fish", "cats")
    assert by_vector[0].score == pytest.approx(1.0)


def test_hybrid_respects_the_filter(collection: Collection) -> None:
    hits = collection.search_hybrid(np.eye(6)[0], "cat", 10, filter=Compare("length", "lt", 40))
    assert {hit.id for hit in hits} == {"dogs", "fish", "empty"}


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
    assert fused == {"a": pytest.approx(1 / 61), "b": pytest.approx(1 / 62 + 1 / 61), "c": pytest.approx(1 / 62)}


def test_weighted_fusion_by_hand() -> None:
    fused = weighted_fusion({"a": 3.0, "b": 1.0, "c": 2.0}, {"b": 10.0, "d": 10.0}, alpha=0.25)
    assert fused == {"a": 0.25, "b": 0.75, "c": 0.125, "d": 0.75}
    assert weighted_fusion({"a": 1.0}, {"b": 1.0, "c": 4.0}, alpha=0.0) == {"a": 0.0, "b": 0.25, "c": 1.0}
    assert weighted_fusion({}, {}, 0.5) == {}


def test_mmr_by_hand() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    scores = np.array([0.9, 0.89, 0.1, 0.5], dtype=np.float32)
    assert maximal_marginal_relevance(scores, vectors, 3, 1.0) == [0, 1, 3]
    assert maximal_marginal_relevance(scores, vectors, 3, 0.0) == [0, 2, 3]
    # After 0: 1 -> .445 - .5, 2 -> .05 - 0, 3 -> .25 - .3. After 2: 3 -> .25 - .4, 1 -> .445 - .5.
    assert maximal_marginal_relevance(scores, vectors, 3, 0.5) == [0, 2, 1]
    assert maximal_marginal_relevance(scores, vectors, 9, 0.5) == [0, 2, 1, 3]
    assert maximal_marginal_relevance(scores[:0], vectors[:0], 3, 0.5) == []
