"""Collections with test queries, and the judge of what a search found for them.

Where a collection has ``qrels/test.tsv``, the queries are those with a relevant document there, and a judgement's score is the
gain of the document, as in trec_eval. Where it has none, passages are drawn at random (seeded), and the last of them are the
queries. Embeddings are MiniLM's, from the cache where they are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from rarebit.arrays import Queries, RowIdMatrix, ScoreMatrix, Vectors
from rarebit.compressors.vectors.int8 import Int8
from rarebit.cookbook.benchmarks.embedded import chosen, embedded, read_corpus
from rarebit.errors import InputError

K = 10
CANDIDATES = 100
"""What one search asks for: recall is taken of its first ten and of all, and all are re-ranked."""

TIE = 1e-6
"""A document this near to the score of the last that is wanted counts as well."""

SHORTEST = 30
"""Characters of a passage that is drawn from a collection without judgements."""

BATCH = 64
"""Queries whose candidates are scored at once."""

Gains: TypeAlias = dict[int, float]
"""Place of a relevant document -> its gain."""
PerQuery: TypeAlias = Float64[npt.NDArray[np.float64], "q"]
TrainQueries: TypeAlias = Float32[npt.NDArray[np.float32], "t dim"]
Judgements: TypeAlias = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Limits:
    """How much of a collection is used."""

    rows: int = 200_000
    """Passages drawn from a collection without judgements."""
    queries: int = 1000
    """Queries of such a collection."""
    quick: bool = False
    """Cut collections with judgements to so many rows and queries too."""


QUICK = Limits(2000, 50, quick=True)


@dataclass(frozen=True)
class Judged:
    """Documents, test queries, and the relevant documents of each; ``gains`` is None where nobody judged."""

    name: str
    docs: Vectors
    queries: Queries
    gains: Sequence[Gains] | None
    train_queries: TrainQueries
    """Queries of the train split, none of which is a test query; (0, dim) where there is none."""

    def first(self, rows: int) -> Judged:
        """Keep the first documents of a collection without judgements, and all of one with them."""
        return self if self.gains is not None else replace(self, docs=self.docs[:rows])


def load(folder: Path, cache: Path, limits: Limits) -> Judged:
    """Read and embed a collection."""
    if (folder / "qrels" / "test.tsv").exists():
        return _load_judged(folder, cache, limits)
    texts = [passage.text for passage in chosen(list(read_corpus(folder)), limits.rows + limits.queries, shortest=SHORTEST)]
    count = max(1, min(limits.queries, len(texts) // 10))
    vectors = embedded(texts, cache)
    return Judged(folder.name, vectors[:-count], vectors[-count:], None, vectors[:0])


def _load_judged(folder: Path, cache: Path, limits: Limits) -> Judged:
    documents = {passage.id: f"{passage.title} {passage.text}".strip() for passage in read_corpus(folder)}
    queries = read_queries(folder / "queries.jsonl")
    test = _usable(read_judgements(folder / "qrels" / "test.tsv"), queries, documents)
    if limits.quick:
        test = dict(list(test.items())[: limits.queries])
        documents = _cut(documents, test, limits.rows)
        queries = {key: queries[key] for key in test}
    place_of = {key: place for place, key in enumerate(documents)}
    gains = [{place_of[key]: gain for key, gain in found.items()} for found in test.values()]
    vectors = embedded(list(queries.values()), cache)
    row_of = {key: row for row, key in enumerate(queries)}
    train = folder / "qrels" / "train.tsv"
    trained = [key for key in (read_judgements(train) if train.exists() else {}) if key in row_of and key not in test]
    docs = embedded(list(documents.values()), cache)
    return Judged(folder.name, docs, vectors[_rows(row_of, test)], gains, vectors[_rows(row_of, trained)])


def _rows(row_of: dict[str, int], keys: Iterable[str]) -> npt.NDArray[np.intp]:
    return np.array([row_of[key] for key in keys], dtype=np.intp)


def _usable(judgements: Judgements, queries: dict[str, str], documents: dict[str, str]) -> Judgements:
    """Keep the queries that have a relevant document, in the order of the file of queries."""
    present = {
        key: {document: gain for document, gain in judgements.get(key, {}).items() if document in documents} for key in queries
    }
    usable = {key: found for key, found in present.items() if found}
    if not usable:
        raise InputError("got judgements that name no query and document of the collection, wanted one at least: check --data")
    return usable


def _cut(documents: dict[str, str], test: Judgements, rows: int) -> dict[str, str]:
    """Keep the relevant documents, and the first others."""
    relevant = {key for found in test.values() for key in found}
    others = [key for key in documents if key not in relevant][: max(0, rows - len(relevant))]
    kept = relevant.union(others)
    return {key: text for key, text in documents.items() if key in kept}


def read_queries(path: Path) -> dict[str, str]:
    """Read ``queries.jsonl``: id -> text, in the order of the file."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["_id"]: record["text"] for record in records}


def read_judgements(path: Path) -> Judgements:
    """Read a file of judgements: query id -> document id -> score, those above 0."""
    found: Judgements = {}
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, score = line.rstrip("\n").split("\t")
            if float(score) > 0:
                found.setdefault(query, {})[document] = float(score)
    return found


class Judge:
    """Knows the exact answers of a collection, and measures other answers against them.

    Answers are places, (q, CANDIDATES), best first, -1 where there are fewer.
    """

    def __init__(self, collection: Judged) -> None:
        """Search exactly, once for all methods."""
        self.collection = collection
        docs = collection.docs
        self.flat = faiss.IndexFlatIP(docs.shape[1])
        self.flat.add(docs)
        scores, self.exact = self.flat.search(collection.queries, CANDIDATES)
        self._least = {k: scores[:, [min(k, len(docs)) - 1]] - np.float32(TIE) for k in (K, CANDIDATES)}
        self.fine = Int8().with_dim(docs.shape[1])
        self._decoded = self.fine.decode(self.fine.encode(docs))

    def recall(self, places: RowIdMatrix, k: int) -> PerQuery:
        """Give the share of the exact k best that are among the first k."""
        found = scored(self.collection.docs, self.collection.queries, places[:, :k]) >= self._least[k]
        shares: PerQuery = found.sum(axis=1) / min(k, len(self.collection.docs))
        return shares

    def re_ranked(self, places: RowIdMatrix) -> RowIdMatrix:
        """Sort candidates by the scores of their fine vectors."""
        return sorted_by(self._decoded, self.collection.queries, places)


def scored(vectors: Vectors, queries: Queries, places: RowIdMatrix) -> ScoreMatrix:
    """Give the inner products of (q, dim) queries with the vectors at (q, k) places; minus infinity where there is none."""
    scores = np.empty(places.shape, np.float32)
    for start in range(0, len(places), BATCH):
        rows = slice(start, start + BATCH)
        scores[rows] = np.einsum("qkd,qd->qk", vectors[places[rows]], queries[rows])
    scores[places < 0] = -np.inf
    return scores


def sorted_by(vectors: Vectors, queries: Queries, places: RowIdMatrix) -> RowIdMatrix:
    """Sort the (q, k) places of each query by the inner products of the vectors there, the highest first."""
    order = np.argsort(-scored(vectors, queries, places), axis=1, kind="stable")
    return np.take_along_axis(places, order, axis=1)


def ndcg(places: RowIdMatrix, gains: Sequence[Gains], k: int = K) -> PerQuery:
    """Give each query's discounted gain over the best possible (Järvelin and Kekäläinen, 2002), with the gains as they are."""
    discounts = 1 / np.log2(np.arange(2, k + 2))

    def discounted(found: Sequence[float]) -> float:
        return float(np.dot(found, discounts[: len(found)]))

    ideals = [discounted(sorted(relevant.values(), reverse=True)[:k]) for relevant in gains]
    sums = [
        discounted([relevant.get(place, 0.0) for place in row[:k]])
        for row, relevant in zip(places.tolist(), gains, strict=True)
    ]
    shares: PerQuery = np.array(sums) / np.array(ideals)
    return shares


def share(pairs: npt.NDArray[np.float64], axis: int = 0) -> Any:
    """Give the mean of the first column over the mean of the second; 1 where the second has nothing that could be lost."""
    means = pairs.mean(axis=axis)
    own, exact = means[..., 0], means[..., 1]
    return np.where(exact > 0, own / np.where(exact > 0, exact, 1), 1.0)
