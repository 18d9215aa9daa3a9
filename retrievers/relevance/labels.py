"""Labelled scores: what a search found for queries, with what is known about the relevance of each passage."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Float64, Int64

from rarebit.arrays import Queries, ScoreMatrix, VectorsLike, as_vectors, normalized
from rarebit.errors import DimensionError, InputError
from rarebit.retrievers.relevance.background import Background, Moments
from rarebit.retrievers.relevance.score_source import UNKNOWN, ScoreSource

Labels: TypeAlias = Float32[npt.NDArray[np.float32], "q k"]
Relevances: TypeAlias = Float32[npt.NDArray[np.float32], "q k"]
Known: TypeAlias = Bool[npt.NDArray[np.bool_], "q k"]
Weights: TypeAlias = Float64[npt.NDArray[np.float64], "q"]
Groups: TypeAlias = Int64[npt.NDArray[np.int64], "q"]
Places: TypeAlias = npt.NDArray[np.integer[Any]]

RELEVANT_FROM = 0.5
"""A label may be a judge's probability; from this on it counts as relevant where yes or no is asked for."""


@dataclass(frozen=True)
class LabelledScores:
    """What a search found for q queries, k passages at most.

    Args:
        queries: (q, dim) embeddings.
        scores: (q, k) as the search gave them, NaN where it found fewer.
        labels: (q, k) from 0, irrelevant, to 1, relevant, NaN where nobody knows; those take part as evidence alone.
        moments: (q, 2) mean and spread of each query's scores over the collection that was searched, NaN if unknown.
        groups: (q,) which collection was searched, where there were several.
        weights: (q,) of the queries in training.
        source: of the scores.
        background: of the collection that was searched, if it was one.
    """

    queries: Queries
    scores: ScoreMatrix
    labels: Labels
    moments: Moments = field(default_factory=lambda: np.empty((0, 2)))
    groups: Groups = field(default_factory=lambda: np.empty(0, np.int64))
    weights: Weights = field(default_factory=lambda: np.empty(0))
    source: ScoreSource = UNKNOWN
    background: Background | None = None

    def __post_init__(self) -> None:
        """Fill in what was left out, and check that all agree."""
        count = len(self.queries)
        defaults: dict[str, npt.NDArray[Any]] = {
            "moments": np.full((count, 2), np.nan),
            "groups": np.zeros(count, np.int64),
            "weights": np.ones(count),
        }
        for name, default in defaults.items():
            if not len(getattr(self, name)) and count:
                object.__setattr__(self, name, default)
        sizes = {item.name: len(getattr(self, item.name)) for item in fields(self) if item.name not in ("source", "background")}
        if set(sizes.values()) != {count} or self.scores.shape != self.labels.shape:
            raise InputError(
                f"got {sizes} with scores of shape {self.scores.shape} and labels of shape {self.labels.shape}, wanted as many "
                "of each as there are queries, and a label (or NaN) for each score"
            )
        if np.isinf(self.scores).any():
            raise InputError("got scores that are infinite, wanted numbers, or NaN where a search found fewer passages")
        given = self.labels[~np.isnan(self.labels)]
        if given.size and not (given.min() >= 0 and given.max() <= 1):
            raise InputError(
                f"got labels from {given.min()} to {given.max()}, wanted 0 (irrelevant) to 1 (relevant): cut grades first"
            )
        object.__setattr__(self, "labels", np.where(np.isnan(self.scores), np.float32(np.nan), self.labels))

    @classmethod
    def of_pairs(
        cls,
        query_vectors: VectorsLike,
        scores: Sequence[float] | npt.NDArray[Any],
        labels: Sequence[float] | npt.NDArray[Any],
        query_ids: Sequence[Hashable] | npt.NDArray[Any],
        *,
        cut: float = 1,
        source: ScoreSource | None = None,
        background: Background | None = None,
    ) -> LabelledScores:
        """Gather pairs of a query and a passage by their queries.

        Args:
            query_vectors: (q, dim), one for each query, in the order in which the ids of queries first appear.
            scores: n numbers.
            labels: n grades; NaN for a passage that was found and not judged.
            query_ids: n names of queries.
            cut: the lowest grade that counts as relevant.
            source: of the scores, if it is known.
            background: of the collection that was searched.

        Raises:
            InputError: and its kinds, for what does not fit together.
        """
        names = list(query_ids)
        vectors, flat = as_vectors(query_vectors), np.asarray(scores, np.float32)
        grades = np.asarray(labels, np.float32)
        rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
        if not len(names) == len(flat) == len(grades) or len(rows) != len(vectors) or flat.ndim != 1 or grades.ndim != 1:
            raise InputError(
                f"got {len(flat)} scores, {len(grades)} labels and {len(names)} query ids of {len(rows)} queries, and "
                f"{len(vectors)} query vectors, wanted one score, label and query id a pair, and one vector a query"
            )
        by_query: list[list[int]] = [[] for _ in rows]
        for pair, name in enumerate(names):
            by_query[rows[name]].append(pair)
        gathered, graded = np.full((2, len(rows), max(map(len, by_query), default=0)), np.nan, np.float32)
        for row, pairs in enumerate(by_query):
            best_first = np.array(pairs)[np.argsort(-flat[pairs], kind="stable")]
            gathered[row, : len(pairs)], graded[row, : len(pairs)] = flat[best_first], grades[best_first]
        return cls(vectors, gathered, relevant_from(graded, cut), source=source or UNKNOWN).with_background(background)

    @classmethod
    def joined(cls, parts: Sequence[LabelledScores]) -> LabelledScores:
        """Put together what was found in several collections; the n-th is group n."""
        if not parts:
            raise InputError("got nothing to join, wanted some labelled scores")
        dims = sorted({part.queries.shape[1] for part in parts})
        if len(dims) > 1:
            raise DimensionError(f"got parts with queries of the dimensions {dims}, wanted one: join those of one model")
        for part in parts[1:]:
            parts[0].source.check(part.source)
        width = max(part.scores.shape[1] for part in parts)

        def padded(matrix: Any) -> Any:
            return np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])), constant_values=np.nan)

        return cls(
            np.concatenate([part.queries for part in parts]),
            np.concatenate([padded(part.scores) for part in parts]),
            np.concatenate([padded(part.labels) for part in parts]),
            np.concatenate([part.moments for part in parts]),
            np.concatenate([np.full(len(part), number) for number, part in enumerate(parts)]),
            np.concatenate([part.weights for part in parts]),
            source=parts[0].source,
        )

    def with_background(self, background: Background | None) -> LabelledScores:
        """Add mean and spread of each query's scores over the collection that was searched."""
        if background is None:
            return self
        queries = self.queries if self.source.metric == "inner_product" else normalized(self.queries)
        return replace(self, moments=background.moments(queries), background=background)

    def __len__(self) -> int:
        """Count the queries."""
        return len(self.queries)

    def __getitem__(self, chosen: slice | Places | npt.NDArray[np.bool_]) -> LabelledScores:
        """Keep some of the queries."""
        names = ("queries", "scores", "labels", "moments", "groups", "weights")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def first(self, k: int) -> LabelledScores:
        """Keep the first k passages of each query."""
        return replace(self, scores=self.scores[:, :k], labels=self.labels[:, :k])

    def split(self, share: float, *, seed: int = 0) -> tuple[LabelledScores, LabelledScores]:
        """Part the queries at random: a share of them, and the rest."""
        drawn = np.random.default_rng(seed).permutation(len(self))
        cut = round(share * len(self))
        return self[np.sort(drawn[:cut])], self[np.sort(drawn[cut:])]

    @cached_property
    def known(self) -> Known:
        """(q, k) where there is a label."""
        return ~np.isnan(self.labels)

    @cached_property
    def relevant(self) -> Known:
        """(q, k) where the label says relevant."""
        return self.known & (np.nan_to_num(self.labels) >= RELEVANT_FROM)


def relevant_from(grades: Labels, cut: float) -> Labels:
    """Make labels of grades: 1 from the cut on, 0 below, NaN where there is no grade."""
    labels: Labels = np.where(np.isnan(grades), np.float32(np.nan), (grades >= cut).astype(np.float32))
    return labels
