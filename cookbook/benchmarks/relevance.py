"""Relevance filtering: the cosine adapter beside every control, on questions that it has not seen.

``python -m rarebit.cookbook.benchmarks.relevance --data DIR [--collections trec-dl19,liveqa-med] [--depths 10,100,1000]``

The first K passages of each question are judged. Collections with a train split are learned from there (4,000 questions at
most) and measured on the test split; others are cross-validated by question, in five parts, and figures are means over the
parts, so that a threshold means one model's. Methods:

    - ``raw score``: one threshold on the cosine. ``platt`` and ``isotonic`` calibrate it, which changes no order of pairs;
      ``fixed count`` goes by rank alone; ``score gap`` keeps what stands above the largest gap.
    - ``adapter, query``: the paper's; ``adapter, evidence``; ``adapter``: both, the default. Each falls back to one curve where
      it is not better on held-out questions.
    - ``shipped``: the adapter that comes with Rarebit, which has seen neither trec-dl19 nor liveqa-med, and of medquad and
      scifact other questions; with the background of the collection.
    - ``..., from medquad``: trained on medquad's questions alone, with the background of the collection that is measured.

``pr_auc`` is the area below the precision-recall curve over all pairs of a part, ``p_at_r95`` the precision where 95 % of what
is relevant is kept; ``auc_vs_raw`` and ``p_vs_raw`` are the differences to the raw score, paired by question. ``recall``,
``removed`` and ``emptied`` are what comes of the threshold that keeps 95 % of what is relevant on the questions learned from.

``unanswerable`` asks the questions of one collection of another: how well the best relevance tells them from the collection's
own (AUROC). ``conformal`` draws 100 halves of the questions, chooses thresholds there, and measures on the others.
Intervals are the bootstrap's over questions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from rarebit.cookbook.benchmarks.embedded import default_cache
from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.cookbook.benchmarks.pair_curves import Curves, Sample, area_under_roc
from rarebit.cookbook.benchmarks.scored import COMPRESSED, EXACT, ScoredCollection, of_folder
from rarebit.errors import InputError
from rarebit.retrievers.relevance import (
    CosineAdapter,
    FixedCount,
    Isotonic,
    LabelledScores,
    Platt,
    RawScore,
    RelevanceModel,
    ScoreGap,
)
from rarebit.retrievers.relevance.adapter import Reads
from rarebit.retrievers.relevance.metrics import mean_lost_shares

COLLECTIONS = ("trec-dl19", "liveqa-med", "scifact", "medquad")
DEPTHS = (10, 100, 1000)
COMPRESSED_DEPTH = 100
TEACHER = "medquad"
"""What adapters that are measured elsewhere were trained on."""

FOLDS = 5
LEARNED = 4000
"""Questions of a train split, at most."""

RECALL = 0.95
LOST, CONFIDENCE, SPLITS = 0.05, 0.9, 100
STRANGERS = 300
STEPS, QUICK_STEPS = 600, 50
QUICK = 60
"""Questions of each split."""
BENCHMARK = "relevance"
RAW = "raw score"
ADAPTER = "adapter"
SHIPPED = "shipped"

Part: TypeAlias = tuple[LabelledScores, LabelledScores]
"""What is learned from, and what is measured on."""
Teach: TypeAlias = Callable[[LabelledScores], RelevanceModel]
Models: TypeAlias = list[RelevanceModel]
"""One for each part."""


CONTROLS: dict[str, Teach] = {
    RAW: lambda _: RawScore(),
    "platt": Platt.fit,
    "isotonic": Isotonic.fit,
    "fixed count": lambda _: FixedCount(),
    "score gap": lambda _: ScoreGap(),
}
ADAPTERS: dict[str, Reads] = {"adapter, query": "query", "adapter, evidence": "evidence", ADAPTER: "both"}


@dataclass
class Bench:
    """What is measured, and on how much of it."""

    data: Path
    cache: Path
    depths: Sequence[int]
    quick: bool = False
    _teachers: dict[tuple[str, int, str], CosineAdapter] = field(default_factory=dict)

    def collection(self, name: str) -> ScoredCollection:
        """Name a collection."""
        return of_folder(self.data, [name], self.cache)[0]

    def figures(self, name: str) -> Iterator[Figure]:
        """Measure everything on a collection."""
        collection = self.collection(name)
        for k in self.depths:
            for setting in (EXACT, COMPRESSED) if k == COMPRESSED_DEPTH else (EXACT,):
                yield from self._filtering(collection, k, setting)
        k = min(max(self.depths), COMPRESSED_DEPTH)
        yield from self._conformal(collection, k)
        yield from self._unanswerable(collection, k)

    def _parts(self, collection: ScoredCollection, k: int, setting: str = EXACT) -> list[Part]:
        """Give what is learned from and what is measured on, part by part."""
        test = self._labelled(collection, "test", k, setting)
        if collection.has("train"):
            return [(self._labelled(collection, "train", k, setting), test)]
        drawn = np.random.default_rng(0).permutation(len(test)) % FOLDS
        return [(test[drawn != fold], test[drawn == fold]) for fold in range(FOLDS)]

    def _labelled(self, collection: ScoredCollection, split: str, k: int, setting: str = EXACT) -> LabelledScores:
        most = QUICK if self.quick else LEARNED if split == "train" else None
        return collection.labelled(split, k, setting, most=most)

    def _filtering(self, collection: ScoredCollection, k: int, setting: str) -> Iterator[Figure]:
        parts = self._parts(collection, k, setting)
        subject = Subject(BENCHMARK, collection.name, setting=f"K={k}, {setting}")
        raw = Curves([(test.scores, test) for _, test in parts])
        for method, models in self._models(collection, parts, k, setting):
            found = Curves([(model.relevances(test), test) for model, (_, test) in zip(models, parts, strict=True)])
            yield from found.figures(subject.of(method), None if method == RAW else raw)
            yield from _at_threshold(subject.of(method), models, parts)

    def _models(
        self, collection: ScoredCollection, parts: Sequence[Part], k: int, setting: str
    ) -> Iterator[tuple[str, Models]]:
        """Give the models of every method."""
        for method, teach in CONTROLS.items():
            yield method, [teach(learned) for learned, _ in parts]
        for method, reads in ADAPTERS.items():
            yield method, [self._fitted(learned, reads) for learned, _ in parts]
        yield SHIPPED, [_shipped(collection, setting) for _ in parts]
        if collection.name != TEACHER and (self.data / TEACHER).exists():
            for method, reads in ADAPTERS.items():
                taught = self._teacher(reads, k, setting).with_background(collection.background)
                yield f"{method}, from {TEACHER}", [taught for _ in parts]

    def _fitted(self, learned: LabelledScores, reads: Reads) -> CosineAdapter:
        return CosineAdapter.fit(learned, reads=reads, steps=QUICK_STEPS if self.quick else STEPS)

    def _teacher(self, reads: Reads, k: int, setting: str) -> CosineAdapter:
        key = (reads, k, setting)
        if key not in self._teachers:
            learned = self._labelled(self.collection(TEACHER), "train", k, setting)
            self._teachers[key] = self._fitted(learned, reads)
        return self._teachers[key]

    def _conformal(self, collection: ScoredCollection, k: int) -> Iterator[Figure]:
        test = self._labelled(collection, "test", k)
        test = _answered(test)
        for method, model in ((RAW, RawScore()), (SHIPPED, _shipped(collection, EXACT))):
            subject = Subject(BENCHMARK, collection.name, method, f"conformal, {SPLITS} halves of the questions")
            expected = [_kept_elsewhere(model, test, seed, None) for seed in range(SPLITS)]
            sure = [_kept_elsewhere(model, test, seed, CONFIDENCE) for seed in range(SPLITS)]
            yield subject.counted("promised", 1 - LOST, SPLITS)
            yield subject.sampled("mean_recall", np.array(expected))
            yield subject.counted("promised_splits", CONFIDENCE, SPLITS)
            yield subject.counted("splits", float(np.mean(np.array(sure) >= 1 - LOST)), SPLITS)

    def _unanswerable(self, collection: ScoredCollection, k: int) -> Iterator[Figure]:
        parts = self._parts(collection, k)
        own = [_answered(test) for _, test in parts]
        models: dict[str, Models] = {
            RAW: [RawScore() for _ in parts],
            ADAPTER: [self._fitted(learned, "both") for learned, _ in parts],
            SHIPPED: [_shipped(collection, EXACT) for _ in parts],
        }
        for other in COLLECTIONS:
            if other == collection.name or not (self.data / other).exists():
                continue
            strangers = collection.asked(self.collection(other).queries("test")[1][:STRANGERS], k)
            subject = Subject(BENCHMARK, collection.name, setting=f"unanswerable, questions of {other}")
            for method, each in models.items():
                pairs = [(_best(model, asked), _best(model, strangers)) for model, asked in zip(each, own, strict=True)]
                value = float(np.mean([area_under_roc(*pair) for pair in pairs]))
                yield subject.of(method).counted("auroc", value, len(strangers))


def _shipped(collection: ScoredCollection, setting: str) -> CosineAdapter:
    """Give the shipped adapter for a collection; estimated scores are not what it was calibrated on, and it is told so."""
    return CosineAdapter.shipped(collection.background).with_source(collection.source(setting))


def _at_threshold(subject: Subject, models: Models, parts: Sequence[Part]) -> Iterator[Figure]:
    """Give what comes of the threshold that is chosen on the questions learned from."""
    prices = [
        model.choose_threshold(learned, recall=RECALL).report(test).chosen
        for model, (learned, test) in zip(models, parts, strict=True)
    ]
    count = sum(len(test) for _, test in parts)
    for metric, name in (("recall", "recall"), ("removed", "share_removed"), ("emptied", "queries_emptied")):
        yield subject.counted(metric, float(np.mean([getattr(price, name) for price in prices])), count)


def _kept_elsewhere(model: RelevanceModel, test: LabelledScores, seed: int, confidence: float | None) -> float:
    """Choose a threshold on one half of the questions; give the mean share of what is relevant that it keeps on the other."""
    half, rest = test.split(0.5, seed=seed)
    chosen = model.choose_threshold(half, lost=LOST, confidence=confidence).threshold
    return 1 - float(mean_lost_shares(model.relevances(rest), rest, np.array([chosen]))[0])


def _answered(labelled: LabelledScores) -> LabelledScores:
    return labelled[np.flatnonzero(labelled.relevant.any(axis=1))]


def _best(model: RelevanceModel, labelled: LabelledScores) -> Sample:
    best: Sample = model.relevances(labelled).max(axis=1).astype(np.float64)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table for each collection."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="(default: %(default)s)")
    parser.add_argument("--depths", default=",".join(map(str, DEPTHS)), help="passages of each question (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} questions of each split")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args(arguments)
    bench = Bench(given.data, given.cache, _depths(given.depths), given.quick)
    figures: list[Figure] = []
    for name in given.collections.split(","):
        found = list(bench.figures(name))
        figures += found
        print(f"\n{name}")
        for settings in dict.fromkeys(figure.setting.split(",")[0] for figure in found):
            shown = [figure for figure in found if figure.setting.split(",")[0] == settings]
            print(table(shown, with_intervals=("pr_auc", "auc_vs_raw", "p_vs_raw")), flush=True)
        if given.json:
            write_json(figures, given.json)


def _depths(given: str) -> list[int]:
    try:
        depths = [int(part) for part in given.split(",")]
    except ValueError:
        depths = []
    if not depths or min(depths) < 1:
        raise InputError(f"got --depths {given!r}, wanted numbers of passages, such as 10,100")
    return depths


if __name__ == "__main__":
    main(sys.argv[1:])
