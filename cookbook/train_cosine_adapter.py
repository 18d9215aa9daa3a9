"""Train the cosine adapter that comes with Rarebit.

    python -m rarebit.cookbook.train_cosine_adapter --data DIR --out retrievers/relevance/shipped

It learns, from the questions of a dozen public collections and exact cosines of MiniLM, how to read the evidence on a query
(:mod:`rarebit.retrievers.relevance.evidence`), whatever the collection: each has a level of its own in training, and the
shipped level is their mean. Questions of each collection are also asked of the others, where nothing is relevant. trec-dl19 and
liveqa-med take no part, and of collections with a train split only that does. Seconds, once the embeddings are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rarebit.cookbook.benchmarks.embedded import default_cache
from rarebit.cookbook.benchmarks.scored import ScoredCollection, of_folder
from rarebit.retrievers.relevance import CosineAdapter, LabelledScores, RelevanceReport

COLLECTIONS = (
    *("anthropic-codebase", "chunking-eval", "cisi", "cranfield", "fairytaleqa", "hotpotqa-mini", "med", "medquad", "npl"),
    *("nq-oracle", "scifact", "squadshifts-newwiki"),
)
HELD_OUT = ("fairytaleqa", "liveqa-med", "medquad", "scifact", "trec-dl19")
"""Collections whose test questions are no part of it: the report is on their first ten passages."""

K = 100
QUESTIONS = 800
"""Of each collection, at most."""

STRANGERS = 40
"""Questions of each other collection that are asked of one."""

STRANGE_WEIGHT = 0.25
TARGET, READ = 0.95, 10
"""The threshold keeps so much of what is relevant among the first ten passages: more are seldom read."""

STEPS = 2000


def examples(collections: Sequence[ScoredCollection]) -> LabelledScores:
    """Gather what every collection finds for its own questions and for those of the others."""
    own = [each.labelled(split_of(each), K, most=QUESTIONS) for each in collections]
    parts, groups = [], []
    for number, each in enumerate(collections):
        strangers = [
            each.asked(other.queries[:STRANGERS], K, weight=STRANGE_WEIGHT)
            for place, other in enumerate(own)
            if place != number
        ]
        for part in (own[number], *strangers):
            parts.append(part)
            groups.append(np.full(len(part), number))
    return replace(LabelledScores.joined(parts), groups=np.concatenate(groups), source=parts[0].source)


def split_of(collection: ScoredCollection) -> str:
    """Name the split whose questions are learned from."""
    return "train" if collection.has("train") else "test"


def trained(data: Path, cache: Path, *, progress: bool = False) -> CosineAdapter:
    """Train the adapter, and choose its threshold on the questions that have an answer."""
    collections = of_folder(data, COLLECTIONS, cache)
    adapter = CosineAdapter.fit(examples(collections), reads="evidence", steps=STEPS, progress=progress)
    answered = LabelledScores.joined([each.labelled(split_of(each), K, most=QUESTIONS) for each in collections])
    return adapter.choose_threshold(answered.first(READ), recall=TARGET)


def report(adapter: CosineAdapter, data: Path, cache: Path) -> RelevanceReport:
    """Measure the adapter on questions that it has not seen, with the background of each collection."""
    held_out = [each.labelled("test", READ, most=QUESTIONS) for each in of_folder(data, HELD_OUT, cache)]
    return adapter.report(LabelledScores.joined(held_out))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, say what it brought, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the adapter to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    adapter = trained(given.data, given.cache, progress=True)
    adapter.save_pretrained(given.out)
    measured = report(adapter, given.data, given.cache)
    measured.save(given.out / "report.json")
    print(adapter, adapter.fit_report, f"on questions held out, of {', '.join(HELD_OUT)}:", measured, sep="\n")


if __name__ == "__main__":
    main()
