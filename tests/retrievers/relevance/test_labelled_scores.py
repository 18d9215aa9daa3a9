"""Labelled scores, the background of a collection, and the source of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit import Collection
from rarebit.errors import CalibrationError, InputError, VectorError
from rarebit.retrievers.collection.settings import EmbeddingFingerprint
from rarebit.retrievers.relevance import Background, CosineAdapter, LabelledScores, ScoreSource
from rarebit.retrievers.relevance.background import DIRECTIONS, LEAST_SPREAD

Scored = Callable[..., LabelledScores]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-9, 9), st.sampled_from([0, 1, 2, 3, None])), max_size=30))
def test_pairs_are_gathered_by_their_queries(pairs: list[tuple[str, int, int | None]]) -> None:
    names = list(dict.fromkeys(name for name, _, _ in pairs))
    vectors = np.arange(2 * len(names)).reshape(-1, 2)
    scores, grades = [score for _, score, _ in pairs], [np.nan if grade is None else grade for _, _, grade in pairs]
    found = LabelledScores.of_pairs(vectors, scores, grades, [name for name, _, _ in pairs], cut=2)
    assert len(found) == len(names)
    for row, name in enumerate(names):
        own = sorted(((score, grade) for other, score, grade in pairs if other == name), key=lambda pair: -pair[0])
        assert found.scores[row, : len(own)].tolist() == [score for score, _ in own]
        assert np.isnan(found.scores[row, len(own) :]).all()
        wanted = [np.nan if grade is None else float(grade >= 2) for _, grade in own]
        assert np.array_equal(found.labels[row, : len(own)], np.array(wanted, np.float32), equal_nan=True)
        assert found.queries[row].tolist() == vectors[row].tolist()


@pytest.mark.unchecked
def test_pairs_that_do_not_agree_are_refused() -> None:
    vectors: Any = np.eye(2)
    for scores, labels, names in (
        ([1.0], [1, 0], ["a", "b"]),
        ([1.0, 2.0], [1], ["a", "b"]),
        ([1.0, 2.0], [1, 0], ["a"]),
        ([1.0, 2.0], [1, 0], ["a", "a"]),
        ([1.0, 2.0, 3.0], [1, 0, 1], ["a", "b", "c"]),
        ([[1.0], [2.0]], [1, 0], ["a", "b"]),
    ):
        with pytest.raises(InputError, match="one score, label and query id a pair"):
            LabelledScores.of_pairs(vectors, scores, labels, names)
    with pytest.raises(VectorError):
        LabelledScores.of_pairs([["a"]], [1.0], [1], ["a"])


def test_labels_are_shares() -> None:
    queries, scores = np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32)
    for label in (-0.1, 1.1, np.inf):
        with pytest.raises(InputError, match="cut grades first"):
            LabelledScores(queries, scores, np.full((2, 2), label, np.float32))
    with pytest.raises(InputError, match="infinite"):
        LabelledScores(queries, scores - np.inf, scores)


@pytest.mark.unchecked
def test_sizes_have_to_agree() -> None:
    queries, scores = np.eye(2, dtype=np.float32), np.zeros((2, 3), np.float32)
    for wrong in (
        {"labels": scores[:, :2]},
        {"labels": scores[:1], "scores": scores[:1]},
        {"moments": np.zeros((1, 2))},
        {"weights": np.ones(3)},
        {"groups": np.zeros(1, np.int64)},
    ):
        with pytest.raises(InputError, match="as many of each as there are queries"):
            LabelledScores(**{"queries": queries, "scores": scores, "labels": scores, **wrong})  # type: ignore[arg-type]


def test_what_is_relevant_and_what_is_known() -> None:
    scores = np.array([[0.5, 0.4, 0.3, np.nan]], np.float32)
    labels = np.array([[0.5, 0.49, np.nan, 1]], np.float32)
    found = LabelledScores(np.eye(1, 2, dtype=np.float32), scores, labels)
    assert found.known.tolist() == [[True, True, False, False]]  # no label where there is no passage
    assert found.relevant.tolist() == [[True, False, False, False]]
    assert labels[0, 3] == 1


def test_parts_are_taken_and_put_together(scored: Scored) -> None:
    background = Background.of(np.eye(8))
    one, other = scored(20, 5, seed=1, weights=np.arange(20.0)), scored(7, 3, seed=2, background=background)
    both = LabelledScores.joined([one, other])
    assert both.groups.tolist() == [0] * 20 + [1] * 7
    assert np.array_equal(both.scores[:20], one.scores)
    assert np.array_equal(both.scores[20:, :3], other.scores)
    assert np.isnan(both.scores[20:, 3:]).all()
    assert both.background is None
    assert len(both[both.groups == 1]) == 7
    assert np.array_equal(both[both.groups == 1].moments, other.moments)
    assert np.array_equal(both[np.array([3, 1])].weights, one.weights[[3, 1]])
    assert other[1:3].background is background
    assert np.array_equal(one.first(2).scores, one.scores[:, :2])
    assert np.array_equal(one.first(99).labels, one.labels)
    with pytest.raises(InputError, match="nothing to join"):
        LabelledScores.joined([])


def test_a_split_parts_the_queries(scored: Scored) -> None:
    labelled = scored(20)
    share, rest = labelled.split(0.3)
    assert (len(share), len(rest)) == (6, 14)
    every = np.concatenate([share.queries, rest.queries])
    assert np.array_equal(np.sort(every, axis=0), np.sort(labelled.queries, axis=0))
    assert np.array_equal(labelled.split(0.3)[0].scores, share.scores)
    assert not np.array_equal(labelled.split(0.3, seed=1)[0].scores, share.scores)


@pytest.mark.parametrize("dim", [1, 8, DIRECTIONS])
def test_the_background_gives_the_moments_of_the_scores(dim: int) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((300, dim)) * np.linspace(0.2, 2, dim) + 0.5).astype(np.float32)
    queries = rng.standard_normal((20, dim)).astype(np.float32)
    scores = queries.astype(float) @ vectors.astype(float).T
    found = Background.of(vectors)
    assert (found.dim, found.rest) == (dim, 0)
    assert found.length == pytest.approx((vectors**2).sum(axis=1).mean() ** 0.5, rel=1e-4)
    assert np.allclose(found.moments(queries), np.stack([scores.mean(1), scores.std(1)], 1), rtol=1e-4, atol=1e-4)


def test_with_more_dimensions_than_directions_it_nearly_does() -> None:
    rng, dim = np.random.default_rng(0), DIRECTIONS + 60
    vectors = (rng.standard_normal((2000, dim)) * 0.97 ** np.arange(dim)).astype(np.float32)
    queries = rng.standard_normal((50, dim)).astype(np.float32)
    scores = queries @ vectors.T
    found = Background.of(vectors)
    assert found.variances.shape == (DIRECTIONS,)
    assert np.allclose(found.directions @ found.directions.T, np.eye(DIRECTIONS), atol=1e-5)
    assert np.allclose(found.moments(queries)[:, 1], scores.std(1), rtol=0.02)
    assert found.variances.sum() + found.rest * 60 == pytest.approx(vectors.var(axis=0).sum(), rel=1e-4)


def test_of_one_vector_there_is_no_spread() -> None:
    found = Background.of([[3.0, 4.0]])
    assert found.moments(np.eye(2, dtype=np.float32)).tolist() == [[3, LEAST_SPREAD], [4, LEAST_SPREAD]]
    with pytest.raises(InputError, match="no vectors"):
        Background.of([])


def test_the_moments_of_labelled_scores_are_those_of_cosines_whatever_the_length_of_a_query() -> None:
    collection = Collection.open(None, dim=4)
    collection.add(np.random.default_rng(0).standard_normal((50, 4)) + 1)
    background, query = Background.of_collection(collection), np.array([[1.0, 2.0, 0.0, -1.0]], np.float32)
    nothing = np.full((1, 1), np.nan, np.float32)
    cosine = ScoreSource.of(collection)
    one, same = (
        LabelledScores(length * query, nothing, nothing, source=cosine).with_background(background) for length in (1, 5)
    )
    assert np.allclose(one.moments, same.moments)


def test_a_source_knows_others() -> None:
    own = ScoreSource(EmbeddingFingerprint("a model", revision="1"), "cosine", "")
    for same in (own, ScoreSource(), ScoreSource(EmbeddingFingerprint("a model")), ScoreSource(metric="cosine")):
        own.check(same)
        same.check(own)
        assert same.completed(own) == own
    for other, named in (
        (ScoreSource(metric="inner_product"), "metric: 'inner_product' instead of 'cosine'"),
        (ScoreSource(estimated_by="sq4"), "estimated by: 'sq4' instead of 'nothing'"),
        (ScoreSource(EmbeddingFingerprint("other model")), "name: 'other model' instead of 'a model'"),
        (ScoreSource(EmbeddingFingerprint("a model", revision="2")), "revision"),
    ):
        with pytest.raises(CalibrationError, match=named):
            own.check(other)
        with pytest.raises(CalibrationError, match="calibrate"):
            CosineAdapter(4).with_source(own).check_source(other)
    assert ScoreSource.from_dict(own.to_dict()) == own


@pytest.mark.parametrize(
    ("codec", "fine", "estimated_by"),
    [(None, None, ""), ("float32", None, ""), ("float16", None, ""), ("sq8", "none", "sq8"), ("sq4", "int8", "")],
)
def test_the_source_of_a_collection(codec: str | None, fine: str | None, estimated_by: str) -> None:
    rows = Collection.open(None, dim=8, codec=codec, fine=fine, metric="inner_product", fingerprint="a model")
    wanted = ScoreSource(EmbeddingFingerprint("a model"), "inner_product", estimated_by)
    assert ScoreSource.of(rows) == ScoreSource.of(rows.tenant("ann")) == wanted


def test_parts_of_other_sources_are_not_joined(scored: Scored) -> None:
    with pytest.raises((InputError, CalibrationError)):
        LabelledScores.joined([scored(source=ScoreSource(metric=metric)) for metric in ("cosine", "inner_product")])


@pytest.mark.unchecked
def test_parts_of_other_dimensions_are_not_joined(scored: Scored) -> None:
    with pytest.raises(InputError):
        LabelledScores.joined([scored(), scored(dim=9)])
