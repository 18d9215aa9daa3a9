"""The precision-recall curve, what thresholds drop, and the report, by brute force."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import InputError, MissingExtraError
from rarebit.retrievers.relevance import LabelledScores, RawScore, RelevanceReport
from rarebit.retrievers.relevance.metrics import mean_lost_shares, precision_recall, share_emptied
from rarebit.retrievers.relevance.report import BINS, MOST_POINTS, TARGETS, report_on

Scored = Callable[..., LabelledScores]


def judged(seed: int, *, levels: int, queries: int = 8, k: int = 6) -> tuple[np.ndarray, LabelledScores]:
    """Make relevances, with ties if there are few levels, and labels of which some are missing, and some shares."""
    rng = np.random.default_rng(seed)
    relevances = (rng.integers(levels + 1, size=(queries, k)) / levels).astype(np.float32)
    labels = np.where(rng.random((queries, k)) < 0.2, rng.random((queries, k)), rng.random((queries, k)) < relevances)
    labels[rng.random((queries, k)) < 0.2] = np.nan
    labels[1], labels[0, 0] = np.nan, 1
    return relevances, LabelledScores(np.ones((queries, 2), np.float32), relevances, labels.astype(np.float32))


def flat(relevances: np.ndarray, labelled: LabelledScores) -> list[tuple[float, float]]:
    """List relevance and label of the pairs that have one."""
    pairs = zip(relevances.ravel().tolist(), labelled.labels.ravel().tolist(), strict=True)
    return [(relevance, label) for relevance, label in pairs if label == label]  # noqa: PLR0124 -- no NaN


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 10, 100_000]))
def test_the_area_is_average_precision(seed: int, levels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle comes with the extra models")
    relevances, labelled = judged(seed, levels=levels)
    pairs = flat(relevances, labelled)
    wanted = metrics.average_precision_score([label >= 0.5 for _, label in pairs], [relevance for relevance, _ in pairs])
    assert precision_recall(relevances, labelled).area == pytest.approx(wanted)


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 10, 100_000]), st.floats(0, 1))
def test_the_price_of_a_recall(seed: int, levels: int, wanted: float) -> None:
    relevances, labelled = judged(seed, levels=levels)
    pairs = flat(relevances, labelled)
    for threshold in sorted({relevance for relevance, _ in pairs}, reverse=True):
        kept = [label >= 0.5 for relevance, label in pairs if relevance >= threshold]
        if sum(kept) / sum(label >= 0.5 for _, label in pairs) >= wanted - 1e-12:
            break
    found = precision_recall(relevances, labelled).at_recall(wanted)
    assert found == pytest.approx((threshold, sum(kept) / len(kept), 1 - len(kept) / len(pairs)))


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 100_000]), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_what_thresholds_drop(seed: int, levels: int, thresholds: list[float]) -> None:
    relevances, labelled = judged(seed, levels=levels)
    found = mean_lost_shares(relevances, labelled, np.array(thresholds, np.float64))
    wanted = [
        [sum(relevance < threshold for relevance in own) / len(own) for threshold in thresholds]
        for own in (relevances[row][labelled.labels[row] >= 0.5].tolist() for row in range(len(labelled)))
        if own
    ]
    assert np.allclose(found, np.mean(wanted, axis=0) if wanted else 0)
    for threshold in thresholds:
        asked = [row for row in range(len(labelled)) if labelled.known[row].any()]
        emptied = [row for row in asked if not (relevances[row][labelled.known[row]] >= np.float32(threshold)).any()]
        assert share_emptied(relevances, labelled, threshold) == pytest.approx(len(emptied) / len(asked))


def test_pairs_without_a_label_do_not_count() -> None:
    relevances, labelled = judged(0, levels=10)
    other = np.where(labelled.known, relevances, 1 - relevances).astype(np.float32)
    one, same = report_on(relevances, labelled, 0.4), report_on(other, labelled, 0.4)
    assert one == same
    assert one.queries == len(labelled) - 1


@pytest.mark.parametrize("threshold", [0.0, 0.35, 0.9, 1.0])
def test_the_report_says_what_brute_force_finds(threshold: float) -> None:
    relevances, labelled = judged(1, levels=40, queries=50)
    relevances = np.minimum(relevances, np.float32(0.975))
    pairs = flat(relevances, labelled)
    found = report_on(relevances, labelled, threshold)
    assert (found.pairs, found.relevant) == (len(pairs), sum(label >= 0.5 for _, label in pairs))
    off = 0.0
    for number, own in enumerate(found.reliability):
        part = [pair for pair in pairs if int(np.float32(pair[0]) * BINS) == number]
        means = np.mean(part, axis=0)
        assert (own.relevance, own.relevant, own.pairs) == pytest.approx((*means, len(part)))
        off += abs(means[0] - means[1]) * len(part) / len(pairs)
    assert found.calibration_error == pytest.approx(off)
    assert [price.recall >= target for price, target in zip(found.prices, TARGETS, strict=True)] == [True] * len(TARGETS)
    for price in (*found.prices, found.chosen):
        kept = [label >= 0.5 for relevance, label in pairs if relevance >= price.threshold]
        precision = sum(kept) / len(kept) if kept else 1.0
        wanted = (sum(kept) / found.relevant, price.threshold, precision, 1 - len(kept) / len(pairs))
        emptied = share_emptied(relevances, labelled, price.threshold)
        assert astuple(price) == pytest.approx((*wanted, emptied))
    assert found.chosen.threshold == threshold


def test_a_report_is_json_and_a_table(tmp_path: Path, scored: Scored) -> None:
    report = RawScore(0.4).report(scored(50, holes=0.1))
    report.save(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read == json.loads(json.dumps(report.to_dict()))
    assert set(read) == set(RelevanceReport.__dataclass_fields__)
    assert read["pr_auc"] == report.pr_auc
    lines = str(report).splitlines()
    assert lines[0] == f"50 queries, {report.pairs} pairs, {report.relevant} relevant"
    assert len(lines) == 3 + len(TARGETS) + 1
    assert lines[-1].endswith("(chosen)")
    assert "0.7" in lines[-1]


def test_a_long_curve_is_thinned_out(scored: Scored) -> None:
    labelled = scored(300)
    curve = RawScore().report(labelled).curve
    whole = precision_recall(RawScore().relevances(labelled), labelled)
    points = list(zip(whole.recall.tolist(), whole.precision.tolist(), strict=True))
    assert len(curve) == MOST_POINTS < len(points)
    assert set(curve) <= set(points)
    assert (curve[0], curve[-1]) == (points[0], points[-1])


def test_a_report_is_drawn(tmp_path: Path, scored: Scored) -> None:
    report = RawScore().report(scored())
    if find_spec("matplotlib") is None:
        with pytest.raises(MissingExtraError, match="matplotlib"):
            report.plot(tmp_path / "report.svg")
    else:
        report.plot(tmp_path / "report.svg")
        assert (tmp_path / "report.svg").stat().st_size > 0


def test_without_anything_relevant_there_is_nothing_to_measure(scored: Scored) -> None:
    labelled = scored()
    for label in (0.0, np.nan):
        nothing = LabelledScores(labelled.queries, labelled.scores, np.full_like(labelled.labels, label))
        with pytest.raises(InputError, match="nothing relevant"):
            RawScore().report(nothing)
