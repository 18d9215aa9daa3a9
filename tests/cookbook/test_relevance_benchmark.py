"""The benchmark of relevance filtering, on collections of a few dozen passages with made-up embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from rarebit.cookbook.benchmarks import pair_curves, relevance, scored
from rarebit.cookbook.benchmarks.pair_curves import Curves, area_under_roc
from rarebit.retrievers.relevance import LabelledScores
from rarebit.retrievers.relevance import training as training_
from rarebit.retrievers.relevance.metrics import precision_recall

DIM = 384


def embedded(texts: list[str], cache: Path) -> np.ndarray:
    """Make unit vectors: near to each other where texts share their first word."""
    del cache
    made = []
    for text in texts:
        topic, own = (np.random.default_rng(crc32(part.encode())).standard_normal(DIM) for part in (text.split()[0], text))
        made.append(topic + 1.2 * own)
    vectors = np.array(made, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(folder: Path, splits: dict[str, range], *, explicit: bool) -> None:
    """Write a collection with four passages a topic; the first is relevant to the topic's question."""
    (folder / "qrels").mkdir(parents=True)
    topics = range(max(own.stop for own in splits.values()))
    passages = [{"_id": f"{topic}.{place}", "text": f"{folder.name}{topic} {place}"} for topic in topics for place in range(4)]
    questions = [{"_id": str(topic), "text": f"{folder.name}{topic} question"} for topic in topics]
    for name, records in (("corpus", passages), ("queries", questions)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    for split, own in splits.items():
        lines = [f"{topic}\t{topic}.0\t3\n{topic}\t{topic}.1\t{0 if explicit else 2}\n" for topic in own]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_everything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "liveqa-med", {"test": range(24)}, explicit=True)
    write(tmp_path / "medquad", {"train": range(24), "test": range(24, 40)}, explicit=False)
    monkeypatch.setattr(scored, "embedded", embedded)
    monkeypatch.setattr(scored, "CODEC", "int8")
    monkeypatch.setattr(pair_curves, "DRAWS", 10)
    monkeypatch.setattr(training_, "FIT_STEPS", 8)
    monkeypatch.setattr(training_, "FOLDS", 2)
    monkeypatch.setattr(relevance, "SPLITS", 3)
    file = tmp_path / "figures.json"
    asked = [
        "--data",
        str(tmp_path),
        "--collections",
        "liveqa-med,medquad",
        "--depths",
        "10,100",
        "--quick",
        "--json",
        str(file),
    ]
    relevance.main(asked)
    figures = json.loads(file.read_text())
    printed = capsys.readouterr().out

    def value(collection: str, method: str, setting: str, metric: str) -> float:
        return next(
            figure["value"]
            for figure in figures
            if (figure["collection"], figure["method"], figure["setting"], figure["metric"])
            == (collection, method, setting, metric)
        )

    for collection in ("liveqa-med", "medquad"):
        assert f"\n{collection}\n" in printed
        for setting in ("K=10, exact", "K=100, exact", "K=100, 48 bytes"):
            for method in (*relevance.CONTROLS, *relevance.ADAPTERS, relevance.SHIPPED):
                assert 0 < value(collection, method, setting, "pr_auc") <= 1
            assert value(collection, "platt", setting, "auc_vs_raw") < 1e-9, "one curve for all changes no order"
    assert 0 < value("liveqa-med", "adapter, from medquad", "K=10, exact", "recall") <= 1
    assert 0.5 < value("liveqa-med", "raw score", "unanswerable, questions of medquad", "auroc") <= 1
    halves = "conformal, 3 halves of the questions"
    assert value("medquad", "raw score", halves, "mean_recall") >= value("medquad", "raw score", halves, "promised") - 0.2


def labelled(seed: int, queries: int = 8, passages: int = 12) -> tuple[np.ndarray, LabelledScores]:
    rng = np.random.default_rng(seed)
    labels: Any = rng.choice([0.0, 0.0, 1.0, np.nan], (queries, passages)).astype(np.float32)
    scores = rng.integers(0, 6, (queries, passages)).astype(np.float32) / 5
    return scores, LabelledScores(np.ones((queries, 2), np.float32), scores, labels)


@pytest.mark.parametrize("seed", range(5))
def test_curves_measure_what_the_library_does(seed: int) -> None:
    scores, own = labelled(seed)
    curve = precision_recall(scores, own)
    assert Curves([(scores, own)]).value == pytest.approx((curve.area, curve.at_recall(0.95)[1]))
    twice = np.repeat(np.arange(len(own)), 2)
    weighted = pair_curves.Curve.of(scores, own).measured(np.full(len(own), 2.0))
    assert weighted == pytest.approx(Curves([(scores[twice], own[twice])]).value)


def test_the_area_under_the_roc_counts_ties_half() -> None:
    assert area_under_roc(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("depths", ["", "ten", "0", "10,"])
def test_depths_that_are_none_are_refused(depths: str) -> None:
    with pytest.raises(ValueError, match="--depths"):
        relevance.main(["--data", ".", "--depths", depths])
