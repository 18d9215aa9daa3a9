"""Exact until there is enough to train on; then one training step that is kept whole or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from support.vectors import clustered, exact_ids

from rarebit import Collection, Compare
from rarebit.compressors.vectors import TrellisCode
from rarebit.errors import CodecWarning, MissingExtraError
from rarebit.retrievers.collection import training


def filled(count: int, path: Path | None = None, **settings: object) -> tuple[Collection, np.ndarray]:
    vectors = clustered(count)
    collection = Collection.open(path, **settings)  # type: ignore[arg-type]
    collection.add(vectors, ids=[str(number) for number in range(count)], texts=[f"text {number}" for number in range(count)])
    return collection, vectors


def recall(collection: Collection, vectors: np.ndarray, queries: np.ndarray, k: int = 10) -> float:
    found = collection.search_many(queries, k)
    shares = [
        len({hit.id for hit in hits} & set(exact_ids(vectors, query, k))) / k
        for query, hits in zip(queries, found, strict=True)
    ]
    return float(np.mean(shares))


def test_below_the_minimum_answers_are_exact() -> None:
    collection, vectors = filled(1023)
    assert not collection.stats().trained
    for query in clustered(20, seed=1):
        hits = collection.search(query, 10)
        assert [hit.id for hit in hits] == exact_ids(vectors, query, 10)
        assert [hit.score for hit in hits] == pytest.approx(np.sort(vectors @ query)[::-1][:10], abs=1e-6)


def test_at_the_minimum_it_is_trained_once() -> None:
    collection, vectors = filled(1023)
    collection.add(clustered(1, seed=5), ids=["last"])
    stats = collection.stats()
    assert stats.trained
    assert stats.memory["codes"] == 1024 * 8 + 1024 * 8 + 14 * 16 * 16 * 4
    generation = collection._engine.index._view.state.generation  # type: ignore[union-attr]
    collection.add(clustered(3000, seed=6))
    collection.search(vectors[0])
    assert collection._engine.index._view.state.generation == generation  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("codec", "least"),
    [("float32", 1.0), ("float16", 0.99), ("sq8", 0.99), ("sq4", 0.99), ("rabitq", 0.99), ("variance", 0.98), ("pq8", 0.9)],
)
@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_recall_with_reranking(codec: str, least: float, metric: str) -> None:
    fine = "none" if codec == "float32" else "float32"
    collection, vectors = filled(6000, codec=codec, metric=metric, fine=fine)
    assert recall(collection, vectors, clustered(50, seed=1)) >= least


@pytest.mark.parametrize("codec", ["trellis", "pq8x8", "rabitq", "matryoshka32,sq8"])
@pytest.mark.parametrize(
    ("fine", "error"),
    [("int4", 0.05), ("residual4", 0.05), ("int8", 0.01), ("residual8", 4e-3), ("float16", 1e-3), ("float32", 1e-5)],
)
def test_scores_are_true_cosines_with_reranking(codec: str, fine: str, error: float) -> None:
    collection, vectors = filled(3000, codec=codec, fine=fine)
    queries = clustered(20, seed=1)
    for query, together in zip(queries, collection.search_many(queries, 10), strict=True):
        for hit in [*collection.search(query, 10, include_vectors=True), *together]:
            assert hit.score == pytest.approx(float(vectors[int(hit.id)] @ query), abs=error)
            if hit.vector is not None:
                assert hit.score == pytest.approx(float(hit.vector @ query), abs=1e-5)


def test_without_a_fine_tier_scores_are_estimates_and_vectors_are_decoded() -> None:
    collection, vectors = filled(6000, fine="none", codec="sq8")
    hit = collection.search(vectors[17], 1)[0]
    assert hit.id == "17"
    assert hit.score == pytest.approx(1.0, abs=0.02)
    assert collection.vectors(["3", "1"]) == pytest.approx(vectors[[3, 1]], abs=0.01)
    assert collection.stats().disk["fine"] == 0


def test_more_candidates_find_more() -> None:
    collection, vectors = filled(6000)
    queries = clustered(50, seed=1)
    few = [collection.search(query, 10, candidates=10) for query in queries]
    exact = [set(exact_ids(vectors, query, 10)) for query in queries]
    shares = [len({hit.id for hit in hits} & wanted) / 10 for hits, wanted in zip(few, exact, strict=True)]
    assert np.mean(shares) < 0.9
    assert recall(collection, vectors, queries) > np.mean(shares) + 0.05
    many = [{hit.id for hit in collection.search(query, 10, candidates=300)} for query in queries]
    assert np.mean([len(found & wanted) / 10 for found, wanted in zip(many, exact, strict=True)]) > 0.98


def test_one_call_beyond_the_minimum_trains_on_its_way(tmp_path: Path) -> None:
    collection, vectors = filled(5000, tmp_path / "c.rarebit")
    collection.close()
    with Collection.open(tmp_path / "c.rarebit") as again:
        assert again.stats().trained
        assert recall(again, vectors, clustered(30, seed=1)) > 0.98


def test_inner_product_keeps_norms() -> None:
    vectors = clustered(3000) * np.linspace(0.1, 5, 3000, dtype=np.float32)[:, np.newaxis]
    collection = Collection.open(metric="inner_product")
    collection.add(vectors, ids=[str(number) for number in range(3000)])
    query = clustered(1, seed=1)[0] * 3
    hits = collection.search(query, 10)
    assert len({hit.id for hit in hits} & set(exact_ids(vectors, query, 10))) >= 9
    assert [hit.score for hit in hits] == pytest.approx([float(vectors[int(hit.id)] @ query) for hit in hits], rel=0.02)
    assert np.linalg.norm(collection.vectors(["2999"])[0]) == pytest.approx(5, rel=0.01)


def test_training_that_fails_leaves_the_collection_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, vectors = filled(1000, tmp_path / "c.rarebit")

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room to train")

    with monkeypatch.context() as patched:
        patched.setattr(TrellisCode, "_fit", fail)
        with pytest.raises(MemoryError, match="no room"):
            collection.add(clustered(100, seed=3))
    assert collection.count() == 1000
    assert [hit.id for hit in collection.search(vectors[7], 1)] == ["7"]
    collection.add(clustered(100, seed=3))
    assert collection.stats().trained


def test_a_small_minimum_can_be_set() -> None:
    collection, _ = filled(20, training_minimum=10)
    assert collection.stats().trained
    assert collection.settings.training_minimum == 10


def test_emptied_and_filled_again() -> None:
    collection, vectors = filled(2000)
    assert collection.delete_all() == 2000
    assert collection.count() == 0
    assert collection.search(vectors[0]) == []
    assert collection.search_lexical("text") == []
    collection.add(vectors[:50], ids=[str(number) for number in range(50)], texts=["again"] * 50)
    assert collection.search(vectors[7], 1)[0].id == "7"
    assert len(collection.search_lexical("again", 100)) == 50


def test_a_codec_that_cannot_be_learned_keeps_nobody_from_adding() -> None:
    collection = Collection.open(codec="pca40,sq8", training_minimum=30)
    vectors = clustered(60)
    for start in range(0, 40, 10):
        if start == 20:
            with pytest.warns(CodecWarning, match=r"pca40,sq8.*got 30 vectors.*recompress"):
                collection.add(vectors[start : start + 10], ids=[str(number) for number in range(start, start + 10)])
        else:
            with warnings.catch_warnings():
                collection.add(vectors[start : start + 10], ids=[str(number) for number in range(start, start + 10)])
    assert collection.stats().trained
    assert collection.search(vectors[25], 1)[0].id == "25"


def test_rows_are_taken_also_where_the_codec_cannot_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    collection, _ = filled(200, codec="trellis", training_minimum=200)

    def without_torch(*_: object, **__: object) -> None:
        raise MissingExtraError("torch is not installed: pip install 'rarebit[models]'")

    monkeypatch.setattr(TrellisCode, "_fit", without_torch)
    with pytest.warns(CodecWarning, match=r"rarebit\[models\]"):
        collection.add(clustered(1400, seed=2))
    assert collection.count() == 1600
    assert collection.settings.trained_rows == 200


def test_rows_that_are_all_alike_teach_no_codec() -> None:
    collection, vectors = Collection.open(), clustered(900)
    with pytest.warns(CodecWarning, match=r"only 1 of 1024 rows differ"):
        collection.add(np.tile(vectors[:1], (1024, 1)))
    assert not collection.stats().trained
    collection.add(vectors, ids=[f"own {number}" for number in range(900)])
    assert collection.stats().trained
    assert collection.search(vectors[7], 1)[0].id == "own 7"


@pytest.mark.parametrize("codec", ["trellis", "variance", "pq8", "rabitq", "sq4"])
@pytest.mark.parametrize("fine", ["int8", "none"])
def test_a_query_of_zeros_still_gets_k(codec: str, fine: str) -> None:
    collection, vectors = filled(1500, codec=codec, fine=fine)
    zeros = np.zeros(vectors.shape[1], np.float32)
    assert len(collection.search(zeros, 10)) == 10
    collection.delete([str(number) for number in range(300)])
    assert len(collection.search(zeros, 10)) == 10
    assert len(collection.search(zeros, 1100, filter=Compare("even", "exists", False))) == 1100


def test_a_rotation_is_kept_with_the_first_row(tmp_path: Path) -> None:
    collection, vectors = filled(5, tmp_path / "c.rarebit", codec="rotation,float16")
    assert collection.stats().trained
    assert collection.stats().memory["codec"] == 4 * vectors.shape[1] ** 2


def test_more_training_ends_with_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAMPLE_ROWS", 1600)
    collection, _ = filled(200, training_minimum=200)
    collection.add(clustered(1400, seed=2))
    assert collection.settings.trained_rows == 1600
    collection.add(clustered(12_000, seed=3))
    assert collection.settings.trained_rows == 1600
