"""The cosine adapter as it judges: with weights of any kind, for one query and for many; training is tested beside this."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from rarebit import Collection
from rarebit.errors import CalibrationError, DimensionError, InputError
from rarebit.retrievers.relevance import Asked, Background, CosineAdapter, LabelledScores, ScoreSource
from rarebit.retrievers.relevance.curves import FAMILIES, Family

DIM = 8
Scored = Callable[..., LabelledScores]
Random = Callable[..., CosineAdapter]

scores_found = arrays_of.arrays(np.float32, st.integers(1, 12), elements=st.floats(-1, 1, width=32))


@given(st.sampled_from(FAMILIES), st.integers(0, 1000), st.floats(0, 20), scores_found)
def test_the_order_of_a_query_stays(
    random_adapter: Random, family: Family, seed: int, scale: float, scores: np.ndarray
) -> None:
    own = random_adapter(DIM, seed=seed, scale=scale, family=family)
    found = own.judge(Asked.of(scores, np.random.default_rng(seed).standard_normal(DIM))).relevances
    assert (np.diff(found[np.argsort(scores, kind="stable")]) >= 0).all()


@given(st.integers(0, 1000), st.floats(0, 1), scores_found)
def test_what_is_kept_are_the_best(random_adapter: Random, seed: int, threshold: float, scores: np.ndarray) -> None:
    own = random_adapter(DIM, seed=seed).with_threshold(threshold).keeping(least=1, most=4)
    verdict = own.judge(Asked.of(scores, np.ones(DIM)))
    dropped = [place for place in range(len(scores)) if place not in verdict.kept]
    assert 1 <= len(verdict.kept) <= min(4, len(scores))
    assert verdict.kept == sorted(verdict.kept)
    assert max(scores[dropped], default=-2) <= min(scores[verdict.kept])


@pytest.mark.parametrize("with_background", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_one_query_is_judged_as_it_is_among_many(
    scored: Scored, random_adapter: Random, k: int, *, with_background: bool
) -> None:
    labelled, rng = scored(20, k, holes=0.2, moments=np.full((20, 2), np.nan)), np.random.default_rng(0)
    background = Background.of(rng.standard_normal((50, DIM)) + 1) if with_background else None
    own = random_adapter(DIM).with_background(background)
    many = own.relevances(labelled)
    for row, (query, scores) in enumerate(zip(labelled.queries, labelled.scores, strict=True)):
        there = ~np.isnan(scores)
        found = own.relevances_of(Asked.of(scores[there], 3 * query))  # the length of a query says nothing for cosines
        assert np.allclose(found, many[row, there], atol=1e-6)
        assert not many[row, ~there].any()


def test_who_is_kept_among_many_is_kept_alone(scored: Scored, random_adapter: Random) -> None:
    rng = np.random.default_rng(3)
    for seed in range(10):
        labelled = scored(60, 10, dim=24, seed=seed)
        background = Background.of(rng.standard_normal((100, 24)))
        own = random_adapter(24, seed=seed, scale=1.0).with_background(background).choose_threshold(labelled, recall=1.0)
        for query, scores, relevant in zip(labelled.queries, labelled.scores, labelled.relevant, strict=True):
            assert set(np.flatnonzero(relevant)) <= set(own.judge(Asked.of(scores, query)).kept)


def test_without_passages_there_is_nothing_to_keep(random_adapter: Random) -> None:
    own = random_adapter(DIM).with_threshold(0).keeping(least=3)
    verdict = own.judge(Asked.of([], np.ones(DIM)))
    assert verdict.kept == []
    assert verdict.nothing_is_relevant
    assert verdict.best == 0
    assert own.relevances_of(Asked.of([], np.ones(DIM))).shape == (0,)


def test_what_is_given_is_not_changed(scored: Scored, random_adapter: Random) -> None:
    labelled, own = scored(holes=0.2), random_adapter(DIM)
    scores, query = np.array([0.1, 0.5], np.float32), np.full(DIM, 2, np.float32)
    given_arrays = [labelled.queries, labelled.scores, labelled.labels, labelled.moments, scores, query, *own._arrays.values()]
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.flags.writeable = False
    own.judge(Asked(scores, query))
    own.relevances(labelled)
    own.parameters(labelled)
    own.choose_threshold(labelled).report(labelled)
    assert all(np.array_equal(array, kept, equal_nan=True) for array, kept in zip(given_arrays, before, strict=True))


def test_changes_are_made_to_a_copy(scored: Scored, random_adapter: Random) -> None:
    own = random_adapter(DIM)
    before = (own.threshold, own.target, own.min_keep, own.max_keep, own.background, own.source)
    background = Background.of(np.eye(DIM))
    other = own.with_threshold(0.9).keeping(least=1, most=2).with_background(background).choose_threshold(scored())
    other = other.with_source(ScoreSource(metric="cosine"))
    assert (own.threshold, own.target, own.min_keep, own.max_keep, own.background, own.source) == before
    assert (other.min_keep, other.max_keep, other.background) == (1, 2, background)


def test_scores_are_divided_by_their_unit(scored: Scored, random_adapter: Random) -> None:
    labelled, own = scored(moments=np.full((60, 2), np.nan)), random_adapter(DIM)
    larger = LabelledScores(labelled.queries, 8 * labelled.scores, labelled.labels)
    scaled = own.with_source(ScoreSource(metric="inner_product"), unit=8)
    assert np.allclose(scaled.relevances(larger), own.relevances(labelled), atol=1e-6)
    assert (own.unit, own.source) == (1, ScoreSource())
    for unit in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match="unit"):
            own.with_source(ScoreSource(), unit=unit)


def test_it_takes_the_background_of_a_collection(random_adapter: Random) -> None:
    collection = Collection.open(None, dim=DIM, fingerprint="some model")
    vectors = np.random.default_rng(0).standard_normal((30, DIM)) + 1
    own = random_adapter(DIM).with_source(ScoreSource.of(collection))
    with pytest.raises(InputError, match="empty"):
        own.for_collection(collection)
    collection.add(vectors)
    background = own.for_collection(collection).background
    assert background is not None
    assert np.allclose(background.mean, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0), atol=0.01)
    with pytest.raises(CalibrationError, match="other model"):
        own.for_collection(Collection.open(None, dim=DIM, fingerprint="other model"))


@pytest.mark.unchecked
def test_wrong_input_is_named(scored: Scored, random_adapter: Random) -> None:
    own = random_adapter(DIM)
    with pytest.raises(DimensionError, match=f"dimension 9, wanted {DIM}"):
        own.judge(Asked.of([0.5], np.ones(9)))
    with pytest.raises(DimensionError):
        own.relevances(scored(dim=9))
    with pytest.raises(DimensionError, match="background"):
        own.with_background(Background.of(np.eye(9)))
    with pytest.raises(InputError, match="without its embedding"):
        own.judge(Asked.of([0.5]))
    for scores in ([[0.5]], [np.nan], [np.inf], ["high"], 0.5):
        with pytest.raises(InputError, match="scores"):
            Asked.of(scores, np.ones(DIM))
    with pytest.raises(InputError, match="2 texts and 1 scores"):
        Asked.of([0.5], texts=["a", "b"])
    with pytest.raises(InputError, match="other shapes"):
        own.with_arrays({**own._arrays, "base": np.zeros(4)})
    with pytest.raises(InputError, match="query_bias"):
        own.with_arrays({name: array for name, array in own._arrays.items() if name != "query_bias"})
    with pytest.raises(InputError, match="dim"):
        CosineAdapter(0)


def test_the_shipped_adapter() -> None:
    shipped = CosineAdapter.shipped()
    assert (shipped.dim, shipped.source.metric, shipped.source.fingerprint.name) == (384, "cosine", "all-MiniLM-L6-v2")
    assert shipped.fit_report is not None
    assert shipped.fit_report.trained <= shipped.fit_report.calibrated
    vectors = np.random.default_rng(0).standard_normal((500, 384))
    shipped = CosineAdapter.shipped(Background.of(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    high, low = (shipped.judge(Asked.of(scores, vectors[0])).best for scores in ([0.8, 0.3, 0.3, 0.2], [0.1, 0.09, 0.09, 0.08]))
    assert high > 0.5
    assert low < 0.01
    with pytest.raises(DimensionError, match="wanted 384"):
        CosineAdapter.shipped(Background.of(np.eye(8)))
