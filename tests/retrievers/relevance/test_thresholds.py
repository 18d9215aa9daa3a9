"""Thresholds: what they were chosen for is what brute force finds, and what is promised is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import InputError
from rarebit.retrievers.relevance import Asked, LabelledScores, Platt, RawScore, Target
from rarebit.retrievers.relevance.thresholds import chance_of_less, choose

Scored = Callable[..., LabelledScores]
Measured = tuple[float, float, float]


def judged(seed: int, queries: int = 12, k: int = 7, levels: int = 12) -> tuple[np.ndarray, LabelledScores]:
    """Make relevances with ties, and labels that they say something about; some are missing."""
    rng = np.random.default_rng(seed)
    relevances = (rng.integers(levels + 1, size=(queries, k)) / levels).astype(np.float32)
    labels = (rng.random((queries, k)) < relevances).astype(np.float32)
    labels[rng.random((queries, k)) < 0.2] = np.nan
    labels[0, 0] = 1
    return relevances, LabelledScores(np.ones((queries, 2), np.float32), relevances, labels)


def measured(relevances: np.ndarray, labelled: LabelledScores) -> list[Measured]:
    """Try each relevance that is labelled as a threshold, from the highest down: (threshold, precision, recall)."""
    pairs = [
        (float(relevance), bool(label >= 0.5))
        for relevance, label in zip(relevances.ravel(), labelled.labels.ravel(), strict=True)
        if not math.isnan(label)
    ]
    found = []
    for threshold in sorted({relevance for relevance, _ in pairs}, reverse=True):
        kept = [relevant for relevance, relevant in pairs if relevance >= threshold]
        found.append((threshold, sum(kept) / len(kept), sum(kept) / sum(relevant for _, relevant in pairs)))
    return found


def lost(relevances: np.ndarray, labelled: LabelledScores, threshold: float) -> float:
    """Give the mean share of a query's relevant passages that a threshold drops."""
    dropped = (labelled.relevant & (relevances < threshold)).sum(axis=1)
    there = labelled.relevant.sum(axis=1)
    return float((dropped[there > 0] / there[there > 0]).mean())


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_recall_is_reached_as_high_as_can_be(seed: int, wanted: float) -> None:
    relevances, labelled = judged(seed)
    best = max(threshold for threshold, _, recall in measured(relevances, labelled) if recall >= wanted - 1e-12)
    assert choose(relevances, labelled, Target(recall=wanted)) == best


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_precision_is_reached_as_low_as_can_be(seed: int, wanted: float) -> None:
    relevances, labelled = judged(seed)
    tried = measured(relevances, labelled)
    reached = [threshold for threshold, precision, _ in tried if precision >= wanted]
    highest = max(tried, key=lambda own: own[1])[0]
    assert choose(relevances, labelled, Target(precision=wanted)) == (min(reached) if reached else highest)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_no_threshold_has_a_higher_f_measure(seed: int, beta: float) -> None:
    relevances, labelled = judged(seed)

    def measure(precision: float, recall: float) -> float:
        return (1 + beta**2) * precision * recall / (beta**2 * precision + recall) if precision else 0.0

    tried = {threshold: measure(precision, recall) for threshold, precision, recall in measured(relevances, labelled)}
    assert tried[choose(relevances, labelled, Target(f_beta=beta))] == pytest.approx(max(tried.values()))


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_controlled_threshold_is_the_highest_that_the_formula_allows(seed: int, alpha: float) -> None:
    relevances, labelled = judged(seed)
    count = int(labelled.relevant.any(axis=1).sum())
    allowed = [
        threshold
        for threshold, _, _ in measured(relevances, labelled)
        if (count * lost(relevances, labelled, threshold) + 1) / (count + 1) <= alpha
    ]
    assert choose(relevances, labelled, Target(lost=alpha)) == max(allowed, default=0.0)


def population(queries: int, seed: int) -> tuple[np.ndarray, LabelledScores]:
    """Draw queries that differ in how well their relevant passages are recognised."""
    rng = np.random.default_rng(seed)
    relevant = rng.random((queries, 6)) < 0.4
    logits = 3 * relevant + rng.standard_normal((queries, 6)) + rng.standard_normal((queries, 1))
    relevances = (1 / (1 + np.exp(1 - logits))).astype(np.float32)
    return relevances, LabelledScores(np.ones((queries, 2), np.float32), relevances, relevant.astype(np.float32))


def losses_of_splits(target: Target, splits: int = 200, queries: int = 60) -> np.ndarray:
    """Choose on as many draws of queries; give what the thresholds lose of a large sample."""
    large, labelled = population(5000, 0)
    thresholds = [choose(*population(queries, seed), target) for seed in range(1, splits + 1)]
    return np.array([lost(large, labelled, threshold) for threshold in thresholds])


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_what_is_lost_is_expected_to_be_no_more_than_promised(alpha: float) -> None:
    losses = losses_of_splits(Target(lost=alpha))
    assert alpha - 0.04 < losses.mean() <= alpha + 0.005


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_with_confidence_few_draws_lose_more(alpha: float) -> None:
    losses = losses_of_splits(Target(lost=alpha, confidence=0.9))
    assert (losses > alpha).mean() <= 0.1 + 0.04
    assert losses.mean() > 0


def test_few_queries_allow_no_threshold() -> None:
    relevances, labelled = population(60, 0)
    asked = np.flatnonzero(labelled.relevant.any(axis=1))
    few, enough = asked[:18], asked[:19]  # 1 / .05 - 1
    assert choose(relevances[few], labelled[few], Target(lost=0.05)) == 0
    assert choose(relevances[enough], labelled[enough], Target(lost=0.05)) > 0
    assert choose(relevances, labelled, Target(lost=0)) == 0
    assert choose(relevances, labelled, Target(lost=1)) == relevances.max()


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.001, 0.999))
def test_the_chance_is_bounded_as_hoeffding_and_bentkus_say(count: int, mean: float, risk: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    found = chance_of_less(mean, count, risk)
    if mean >= risk:
        assert found == 1
        return
    entropy = sum(p * math.log(p / q) for p, q in ((mean, risk), (1 - mean, 1 - risk)) if p > 0)
    bentkus = math.e * stats.binom.cdf(math.ceil(count * mean - 1e-9), count, risk)
    assert found == pytest.approx(min(math.exp(-count * entropy), bentkus, 1.0), rel=1e-6, abs=1e-300)


def test_the_chance_at_the_ends() -> None:
    assert chance_of_less(0.0, 10, 0.0) == 1
    assert chance_of_less(1.0, 10, 1.0) == 1
    assert chance_of_less(0.5, 10, 1.0) == 0


def test_a_model_keeps_what_its_threshold_was_chosen_for(scored: Scored) -> None:
    labelled = scored(100, holes=0.1)
    plain = Platt(20.0, -8.0)
    assert plain.choose_threshold(labelled).target == Target(recall=0.95)
    for asked in ({"recall": 0.8}, {"precision": 0.9}, {"f_beta": 2.0}, {"lost": 0.1}, {"lost": 0.1, "confidence": 0.9}):
        own = plain.choose_threshold(labelled, **asked)
        assert own.target == Target(**asked)
        assert own.threshold == choose(plain.relevances(labelled), labelled, Target(**asked))
        assert own.threshold == plain.choose_threshold(labelled, Target(**asked)).threshold
        assert str(own.target) in repr(own)
    assert own.with_threshold(0.25).target is None
    assert (plain.threshold, plain.target) == (0.5, None)


def test_never_fewer_and_never_more_are_kept() -> None:
    asked = Asked.of([0.1, 0.9, 0.3, 0.8, 0.2])
    own = RawScore(0.5)
    assert own.judge(asked).kept == [1, 3]
    assert own.keeping(least=3).judge(asked).kept == [1, 2, 3]
    assert own.keeping(least=9).judge(asked).kept == [0, 1, 2, 3, 4]
    assert own.keeping(most=1).judge(asked).kept == [1]
    assert own.keeping(most=0).judge(asked).nothing_is_relevant
    assert own.with_threshold(0).judge(asked).kept == [0, 1, 2, 3, 4]
    assert own.with_threshold(1).keeping(least=1, most=1).judge(asked).kept == [1]


def test_controlling_what_is_lost_does_not_take_memory_by_the_square() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    rng = np.random.default_rng(0)
    scores = rng.random((400, 100)).astype(np.float32)
    labelled = LabelledScores(np.ones((400, 2), np.float32), scores, (rng.random(scores.shape) < scores).astype(np.float32))
    tracemalloc.start()
    choose(scores, labelled, Target(lost=0.1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "bad",
    [
        {"recall": 1.1},
        {"recall": "high"},
        {"precision": -0.1},
        {"lost": math.nan},
        {"lost": 0.1, "confidence": 2},
        {"confidence": 0.9},
        {"recall": 0.9, "confidence": 0.9},
        {"recall": 0.9, "precision": 0.9},
        {"f_beta": 0},
        {"f_beta": math.inf},
        {"f_beta": "one"},
    ],
)
def test_what_is_no_target_is_refused(scored: Scored, bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="wanted"):
        Target(**bad)
    with pytest.raises(InputError, match="wanted"):
        RawScore().choose_threshold(scored(), **bad)


@pytest.mark.unchecked
def test_wrong_input_is_named(scored: Scored) -> None:
    labelled = scored()
    with pytest.raises(InputError, match="one or the other"):
        RawScore().choose_threshold(labelled, Target(), recall=0.9)
    with pytest.raises(InputError, match="nothing relevant"):
        RawScore().choose_threshold(LabelledScores(labelled.queries, labelled.scores, 0 * labelled.labels))
    with pytest.raises(InputError, match="least=3 and most=2"):
        RawScore().keeping(least=3, most=2)
    with pytest.raises(InputError, match="least"):
        RawScore().keeping(least=-1)
    with pytest.raises(InputError, match="threshold"):
        RawScore().with_threshold(1.5)
