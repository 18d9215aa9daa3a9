"""What the adapter is compared with: each is what another says it is, and takes whatever a search finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import InputError
from rarebit.retrievers.relevance import (
    Asked,
    FixedCount,
    Isotonic,
    Judge,
    LabelledScores,
    Platt,
    RawScore,
    RelevanceModel,
    ScoreGap,
)

Scored = Callable[..., LabelledScores]

found = st.lists(st.integers(-20, 20).map(lambda number: number / 20), max_size=12)
"""Scores, many of them equal."""


def kept(model: RelevanceModel, scores: list[float]) -> list[int]:
    return model.judge(Asked.of(scores)).kept


@pytest.mark.parametrize(
    "model",
    [
        RawScore(),
        RawScore(-0.5),
        Platt(),
        Isotonic([0.2, 0.8], [0.1, 0.9]),
        FixedCount(),
        FixedCount(0),
        ScoreGap(),
        ScoreGap(3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("scores", [[], [0.7], [0.5, 0.5, 0.5]])
def test_few_passages_are_judged(model: RelevanceModel, scores: list[float]) -> None:
    verdict = model.judge(Asked.of(scores))
    assert verdict.relevances.shape == (len(scores),)
    assert ((verdict.relevances >= 0) & (verdict.relevances <= 1)).all()
    assert model.relevances_of(Asked.of(scores)).shape == (len(scores),)


@given(found, st.integers(0, 15))
def test_a_fixed_count_keeps_the_best(scores: list[float], k: int) -> None:
    places = sorted(range(len(scores)), key=lambda place: -scores[place])
    assert kept(FixedCount(k), scores) == sorted(places[:k])


@given(found)
def test_the_largest_gap_is_where_it_is_cut(scores: list[float]) -> None:
    places = kept(ScoreGap(), scores)
    if len(set(scores)) < 2:
        assert places == list(range(len(scores)))
        return
    levels = np.unique(np.array(scores, np.float32))
    above = levels[int(np.diff(levels)[::-1].argmax()) * -1 - 1]
    assert places == [place for place, score in enumerate(scores) if np.float32(score) >= above]


@given(found, st.integers(1, 5))
def test_passages_of_one_score_are_kept_together(scores: list[float], gaps: int) -> None:
    places = kept(ScoreGap(gaps), scores)
    assert not {scores[place] for place in places} & {own for place, own in enumerate(scores) if place not in places}


def test_further_gaps_keep_more() -> None:
    scores = [0.9, 0.5, 0.45, 0.2, 0.88]
    assert kept(ScoreGap(1), scores) == [0, 4]
    assert kept(ScoreGap(2), scores) == [0, 1, 2, 4]
    assert kept(ScoreGap(3), scores) == [0, 1, 2, 4]


@given(found, st.integers(-20, 20))
def test_a_raw_score_is_the_threshold_itself(scores: list[float], least: int) -> None:
    own = RawScore(least / 20)
    assert kept(own, scores) == [place for place, score in enumerate(scores) if score >= least / 20]
    assert np.allclose(own.judge(Asked.of(scores)).relevances, (1 + np.array(scores)) / 2)


def test_platt_is_a_logistic_regression(scored: Scored) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="fitting needs the extra models")
    labelled = scored(100, holes=0.2)
    own = Platt.fit(labelled)
    scores, labels = labelled.scores[labelled.known].astype(float)[:, np.newaxis], labelled.labels[labelled.known]
    wanted = linear_model.LogisticRegression(C=np.inf).fit(scores, labels)
    assert np.allclose(own.relevances(labelled)[labelled.known], wanted.predict_proba(scores)[:, 1], atol=0.01)
    assert own.source == labelled.source


def test_platt_never_falls(scored: Scored) -> None:
    pytest.importorskip("sklearn", reason="fitting needs the extra models")
    labelled = scored(100)
    upside_down = Platt.fit(LabelledScores(labelled.queries, -labelled.scores, labelled.labels))
    assert upside_down.slope == 0


def test_isotonic_is_an_isotonic_regression(scored: Scored) -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", reason="fitting needs the extra models")
    labelled, fresh = scored(100, holes=0.2), scored(100, seed=1)
    own = Isotonic.fit(labelled)
    wanted = isotonic.IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    wanted.fit(labelled.scores[labelled.known].astype(float), labelled.labels[labelled.known])
    assert np.allclose(own.relevances(fresh), wanted.predict(fresh.scores.ravel().astype(float)).reshape(fresh.scores.shape))
    assert (np.diff(own.relevances_of(Asked.of(np.linspace(-1, 1, 500)))) >= 0).all()


@pytest.mark.parametrize("kind", [Platt, Isotonic])
def test_labels_of_one_kind_teach_nothing(scored: Scored, kind: type[Platt | Isotonic]) -> None:
    pytest.importorskip("sklearn", reason="fitting needs the extra models")
    labelled = scored(20)
    for label in (0.0, 1.0, np.nan):
        with pytest.raises(InputError, match="some that are and some"):
            kind.fit(LabelledScores(labelled.queries, labelled.scores, np.full_like(labelled.labels, label)))


def test_a_judge_reads_question_and_passages() -> None:
    read: list[tuple[str, str]] = []

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        read.extend(pairs)
        return [{"good": 2.0, "fair": 0.25, "bad": -3.0}[text] for _, text in pairs]

    asked = Asked.of([0.1, 0.2, 0.3], text="why?", texts=["bad", "good", "fair"])
    verdict = Judge(score).judge(asked)
    assert read == [("why?", "bad"), ("why?", "good"), ("why?", "fair")]
    assert verdict.kept == [1, 2]
    assert np.allclose(verdict.relevances, 1 / (1 + np.exp([3.0, -2.0, -0.25])))
    assert np.allclose(Judge(score, logits=False).judge(asked).relevances, [0, 1, 0.25])
    assert Judge(score).judge(Asked.of([], text="why?", texts=[])).nothing_is_relevant
    assert Judge(score).judge(Asked.of([0.5], text="why?", texts=["bad"])).nothing_is_relevant
    for wrong in ([1.0, 2.0], [[1.0], [2.0], [3.0]], [1.0, 2.0, np.nan]):
        with pytest.raises(InputError, match="one number a passage"):
            Judge(lambda _, wrong=wrong: wrong).judge(asked)  # type: ignore[misc]
    for incomplete in (Asked.of([0.5], text="why?"), Asked.of([0.5], texts=["bad"])):
        with pytest.raises(InputError, match="which a judge reads"):
            Judge(score).judge(incomplete)


@pytest.mark.unchecked
def test_wrong_numbers_are_refused() -> None:
    for wrong in (-1, 1.5, "4", None):
        with pytest.raises(InputError, match="whole number"):
            FixedCount(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 or more"):
        ScoreGap(0)
    for cosine in (1.5, -2.0, np.nan):
        with pytest.raises(InputError, match="from -1 to 1"):
            RawScore(cosine)
