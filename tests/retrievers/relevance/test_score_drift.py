"""Drift: no alarm while queries stay what they were, one when they have changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rarebit.errors import NotFittedError
from rarebit.retrievers.relevance import CosineAdapter, LabelledScores
from rarebit.retrievers.relevance.drift import KEPT, drift_between, remembered

Scored = Callable[..., LabelledScores]


@pytest.fixture(scope="module")
def fitted(scored: Scored) -> CosineAdapter:
    pytest.importorskip("torch", reason="training needs the extra models")
    from rarebit.retrievers.relevance import training

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(training, "FIT_STEPS", 20)
        return CosineAdapter.fit(scored(300), reads="query", steps=0)


def test_queries_of_the_same_kind_are_no_drift(fitted: CosineAdapter, scored: Scored) -> None:
    live = [scored(80, seed=seed) for seed in range(1, 101)]
    alarms = sum(fitted.drift(own.queries, own.scores).has_drifted for own in live)
    assert alarms <= 4


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_scores_that_moved_are_drift(fitted: CosineAdapter, scored: Scored, shift: float) -> None:
    live = scored(80, seed=1, shift=shift)
    found = fitted.drift(live.queries, live.scores)
    assert found.has_drifted
    assert found.queries == 80
    moved = {own.statistic: own for own in found.shifts}
    assert {"best_score", "gap_to_second", "gap_to_fourth", "best_relevance"} == set(moved)
    assert moved["best_score"].now - moved["best_score"].before == pytest.approx(shift, abs=0.03)
    assert moved["best_score"].chance < 1e-6 < moved["gap_to_second"].chance
    lines = str(found).splitlines()
    assert lines[0] == "drifted in 80 queries"
    assert len(lines) == 5


def test_more_passages_or_fewer_are_no_drift(fitted: CosineAdapter, scored: Scored) -> None:
    live = scored(300)
    padded = np.pad(live.scores, ((0, 0), (0, 3)), constant_values=-0.9)
    assert not fitted.drift(live.queries, padded).has_drifted
    best_four = -np.sort(-live.scores, axis=1)[:, :4]
    found = fitted.drift(live.queries, best_four)
    assert max(own.distance for own in found.shifts) < 1e-6
    assert str(found).startswith("no drift seen in 300 queries")


def test_no_queries_are_no_drift(fitted: CosineAdapter) -> None:
    found = fitted.drift(np.empty((0, 8), np.float32), np.empty((0, 8), np.float32))
    assert not found.has_drifted
    assert found.shifts == []


def test_who_saw_nothing_cannot_compare(scored: Scored) -> None:
    live = scored()
    with pytest.raises(NotFittedError, match="fit it"):
        CosineAdapter(8).drift(live.queries, live.scores)


def test_distances_and_chances_are_kolmogorovs_and_smirnovs() -> None:
    stats = pytest.importorskip("scipy.stats", reason="the oracle comes with the extra models")
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.2, 0.4, 1.0):
        before, now = rng.standard_normal(200), rng.standard_normal(150) + shift
        (found,) = drift_between(remembered({"some": before}), {"some": now}).shifts
        wanted = stats.ks_2samp(before, now, method="exact")
        assert found.distance == pytest.approx(wanted.statistic, abs=1e-6)
        assert found.chance == pytest.approx(wanted.pvalue, rel=0.15, abs=1e-6)
        assert (found.before, found.now) == pytest.approx((np.median(before), np.median(now)))


def test_of_many_values_quantiles_are_remembered() -> None:
    values = np.random.default_rng(0).standard_normal(10 * KEPT)
    kept = remembered({"many": values, "none": np.full(3, np.nan), "few": np.array([2.0, np.nan, 1.0])})
    assert set(kept) == {"many", "few"}
    assert kept["few"].tolist() == [1, 2]
    assert len(kept["many"]) == KEPT
    (found,) = drift_between({"many": kept["many"]}, {"many": values}).shifts
    assert found.distance <= 1.01 / KEPT
