"""Labels for what a user's own collection finds: from judgements, from a log of feedback, or from a stronger judge.

In every case the collection is searched, so that scores are those that it really gives, also where it is compressed, and the
passages found without being relevant are the hard ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from rarebit.arrays import Queries, VectorsLike, as_vectors, normalized
from rarebit.errors import InputError
from rarebit.retrievers.collection import Hit
from rarebit.retrievers.collection.arguments import as_count, as_ids, as_share
from rarebit.retrievers.engines import AnyRows
from rarebit.retrievers.relevance.background import Background
from rarebit.retrievers.relevance.controls import ReadPairs, judged
from rarebit.retrievers.relevance.labels import LabelledScores, relevant_from
from rarebit.retrievers.relevance.score_source import ScoreSource

K: Final = 100
AT_ONCE: Final = 64
"""Queries that are searched at once."""

GUARD: Final = 0.95
"""Cosine to a relevant passage from which a passage that nobody judged may well be relevant too."""

Embed: TypeAlias = Callable[[list[str]], VectorsLike]
"""Makes (n, dim) vectors of n questions."""
Unjudged: TypeAlias = Literal["irrelevant", "unknown"]
Grades: TypeAlias = Mapping[str, float]
"""Id of a passage -> its grade."""


@dataclass(frozen=True)
class Feedback:
    """What one person did with what was shown for a question.

    Args:
        query: the question.
        shown: ids of passages, in the order in which they were shown.
        liked: ids that were clicked, or given a thumbs up.
        disliked: ids that were given a thumbs down.
    """

    query: str
    shown: Sequence[str] = ()
    liked: Sequence[str] = ()
    disliked: Sequence[str] = ()

    def grades(self) -> dict[str, float]:
        """Give 1 for what was liked, 0 for what was disliked, or passed over: shown above something liked, and not liked.

        What was shown below the last thing that was liked may never have been seen ("skip above", Joachims, KDD 2002).
        """
        last = max((place for place, key in enumerate(self.shown) if key in set(self.liked)), default=0)
        passed = dict.fromkeys(self.shown[:last], 0.0)
        return {**passed, **dict.fromkeys(self.disliked, 0.0), **dict.fromkeys(self.liked, 1.0)}


def read_feedback(path: str | os.PathLike[str]) -> Iterator[Feedback]:
    """Read a log: a JSON object a line, with the fields of :class:`Feedback`; others are passed over.

    Raises:
        InputError: a line is none, or has no query.
    """
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                    ids = {name: _ids(record.get(name, [])) for name in ("shown", "liked", "disliked")}
                    if not isinstance(record["query"], str):
                        raise TypeError(f"the query is {record['query']!r}")  # noqa: TRY301
                    yield Feedback(record["query"], **ids)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InputError(
                        f"line {number} of {os.fspath(path)} is no feedback ({error!r}), wanted a JSON object such as "
                        '{"query": "...", "shown": ["id", ...], "liked": ["id"]}'
                    ) from error


def from_judgements(
    rows: AnyRows,
    queries: VectorsLike,
    judgements: Sequence[Grades],
    *,
    k: int = K,
    cut: float = 1,
    unjudged: Unjudged = "irrelevant",
    guard: float | None = GUARD,
    progress: bool = False,
) -> LabelledScores:
    """Search for queries, and label what is found by judgements.

    Args:
        rows: the collection, or a tenant's handle.
        queries: (q, dim) embeddings.
        judgements: for each query the grades of passages by their ids.
        k: passages that are looked for. A judged passage that is not among them is added.
        cut: the lowest grade that counts as relevant.
        unjudged: what a passage is that was found and that nobody judged: irrelevant, or unknown, and then not learned from.
        guard: a passage that nobody judged is unknown all the same if its cosine to a relevant one is this high: a copy of what
            is relevant is relevant. None judges by ``unjudged`` alone.
        progress: show a bar.

    Raises:
        InputError: and its kinds, for what does not fit together.
    """
    vectors = as_vectors(queries)
    if len(vectors) != len(judgements) or unjudged not in ("irrelevant", "unknown"):
        raise InputError(
            f"got {len(vectors)} queries, judgements of {len(judgements)}, and unjudged={unjudged!r}, wanted judgements for "
            "each query, and 'irrelevant' or 'unknown'"
        )
    guard = None if guard is None else as_share("guard", guard)
    guard = guard if unjudged == "irrelevant" else None
    found = _searched(
        rows, vectors, [list(grades) for grades in judgements], k, vectors_too=guard is not None, progress=progress
    )
    default = np.nan if unjudged == "unknown" else -np.inf
    labels = []
    for hits, grades in zip(found, judgements, strict=True):
        graded = np.array([grades.get(hit.id, default) for hit in hits], np.float32)
        if guard is not None:
            graded[_copies(hits, graded, cut, guard)] = np.nan
        labels.append(relevant_from(graded[np.newaxis], cut)[0])
    return _gathered(rows, vectors, found, labels)


def from_feedback(
    rows: AnyRows, log: Iterable[Feedback], embed: Embed, *, k: int = K, progress: bool = False
) -> LabelledScores:
    """Search for the questions of a log, and label what is found by what people did with it.

    Where they disagree, the label is the share of those who liked a passage. What nobody liked, disliked or passed over is
    unknown; passages that are no longer there do not count.

    Args:
        rows: the collection, or a tenant's handle.
        log: the feedback, in any order.
        embed: makes vectors of questions, with the model that filled the collection.
        k: passages that are looked for.
        progress: show a bar.
    """
    votes: dict[str, dict[str, list[float]]] = {}
    for entry in log:
        for key, grade in entry.grades().items():
            votes.setdefault(entry.query, {}).setdefault(key, []).append(grade)
    vectors = _embedded(embed, list(votes))
    found = _searched(rows, vectors, [list(own) for own in votes.values()], k, vectors_too=False, progress=progress)
    labels = [
        np.array([np.mean(own[hit.id]) if hit.id in own else np.nan for hit in hits], np.float32)
        for hits, own in zip(found, votes.values(), strict=True)
    ]
    return _gathered(rows, vectors, found, labels)


def from_judge(
    rows: AnyRows,
    texts: Sequence[str],
    embed: Embed,
    judge: ReadPairs,
    *,
    k: int = 20,
    logits: bool = True,
    progress: bool = False,
) -> LabelledScores:
    """Search for questions, and label what is found by a judge that reads question and passage together.

    Args:
        rows: the collection, or a tenant's handle.
        texts: the questions.
        embed: makes vectors of questions, with the model that filled the collection.
        judge: scores pairs of a question and a passage, such as the ``score`` of a cross-encoder.
        k: passages that are looked for, and judged.
        logits: whether the judge's scores are logits; else they are probabilities.
        progress: show a bar.
    """
    questions = list(texts)
    vectors = _embedded(embed, questions)
    found = _searched(rows, vectors, [[] for _ in questions], k, vectors_too=False, progress=progress)
    labels = []
    for question, hits in zip(tqdm(questions, desc="judging", disable=not progress), found, strict=True):
        labels.append(judged(judge, question, [hit.text for hit in hits], logits=logits))
    return _gathered(rows, vectors, found, labels)


def _ids(given: list[Any]) -> list[str]:
    """Read ids of a log, which may be whole numbers there."""
    if not isinstance(given, list):
        raise TypeError(f"{given!r} is no list of ids")
    ids: list[Any] = [str(key) if isinstance(key, int) and not isinstance(key, bool) else key for key in given]
    return as_ids(ids)


def _embedded(embed: Embed, texts: list[str]) -> Queries:
    if not texts:
        return np.empty((0, 0), np.float32)
    vectors = as_vectors(embed(texts))
    if len(vectors) != len(texts):
        raise InputError(
            f"got {len(vectors)} vectors of {len(texts)} questions from embed=, wanted one each: look at the function"
        )
    return vectors


def _searched(
    rows: AnyRows,
    queries: Queries,
    wanted: Sequence[Sequence[str]],
    k: int,
    *,
    vectors_too: bool,
    progress: bool,
) -> list[list[Hit]]:
    """Search, and add what is wanted of each query and was not found; the best first."""
    k, found = as_count("k", k, least=1), []
    with tqdm(total=len(queries), desc="searching", unit="query", disable=not progress) as bar:
        for start in range(0, len(queries), AT_ONCE):
            part = queries[start : start + AT_ONCE]
            for query, own, hits in zip(
                part, wanted[start:], rows.search_many(part, k, include_vectors=vectors_too), strict=False
            ):
                found.append(sorted([*hits, *_added(rows, query, own, hits, vectors_too)], key=lambda hit: -hit.score))
            bar.update(len(part))
    return found


def _added(
    rows: AnyRows, query: npt.NDArray[np.float32], wanted: Sequence[str], hits: Sequence[Hit], vectors_too: bool
) -> Iterator[Hit]:
    present = {hit.id for hit in hits}
    missing = rows.get([key for key in wanted if key not in present]) if set(wanted) - present else []
    ids = [row.id for row in missing]
    vectors = rows.vectors(ids) if vectors_too and ids else [None] * len(ids)
    for row, score, vector in zip(missing, rows.scores(query, ids) if ids else [], vectors, strict=True):
        yield Hit(row.id, float(score), row.text, row.metadata, vector)


def _copies(hits: Sequence[Hit], grades: npt.NDArray[np.float32], cut: float, guard: float) -> npt.NDArray[np.bool_]:
    """Tell which passages without a grade are nearly the same as a relevant one."""
    unjudged, relevant = np.isneginf(grades), grades >= cut
    if not unjudged.any() or not relevant.any():
        return np.zeros(len(hits), np.bool_)
    vectors = normalized(np.array([hit.vector for hit in hits], np.float32))
    alike: npt.NDArray[np.bool_] = unjudged & ((vectors @ vectors[relevant].T).max(axis=1) >= guard)
    return alike


def _gathered(
    rows: AnyRows, queries: Queries, found: Sequence[Sequence[Hit]], labels: Sequence[npt.NDArray[Any]]
) -> LabelledScores:
    width = max(map(len, found), default=0)
    scores, labelled = np.full((2, len(found), width), np.nan, np.float32)
    for row, (hits, own) in enumerate(zip(found, labels, strict=True)):
        scores[row, : len(hits)], labelled[row, : len(hits)] = [hit.score for hit in hits], own
    background = Background.of_collection(rows) if len(rows) else None
    made = LabelledScores(queries, scores, labelled, source=ScoreSource.of(rows))
    return made.with_background(background) if len(queries) else made
