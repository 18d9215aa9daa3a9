"""What the cosine adapter is to be compared with, behind the same interface.

All but :class:`Judge` map the scores of all queries alike, or look at the order of one query's scores alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Scores
from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.collection.arguments import as_count
from rarebit.retrievers.relevance.curves import sigmoid
from rarebit.retrievers.relevance.labels import LabelledScores
from rarebit.retrievers.relevance.model import Asked, RelevanceModel

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
ReadPairs: TypeAlias = Callable[[list[tuple[str, str]]], Sequence[float]]
"""Scores pairs of a question and a passage; the ``score`` of LangChain's ``BaseCrossEncoder``, for one."""


class RawScore(RelevanceModel):
    """The score itself, brought from [-1, 1] to [0, 1]; with ``choose_threshold(lost=...)`` the conformal raw threshold.

    Args:
        least_score: the threshold, as a score.
    """

    kind = "raw score"

    def __init__(self, least_score: float | None = None) -> None:
        """Keep every passage from a score on."""
        if least_score is not None:
            if not -1 <= least_score <= 1:
                raise InputError(f"got least_score={least_score!r}, wanted a cosine, from -1 to 1")
            self.threshold = float(_from_score(np.array([least_score], np.float32))[0])

    def relevances_of(self, asked: Asked) -> Scores:
        """Give (1 + score) / 2, at least 0 and at most 1."""
        return _from_score(asked.scores)

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> RawScore:
        del config, arrays
        return cls()


class Platt(RelevanceModel):
    """One logistic curve for all queries (Platt, 1999); fitting needs the extra ``models`` (scikit-learn)."""

    kind = "platt"

    def __init__(self, slope: float = 10.0, offset: float = -5.0) -> None:
        """Use sigmoid(slope * score + offset)."""
        self.slope, self.offset = float(slope), float(offset)

    @classmethod
    def fit(cls, labelled: LabelledScores) -> Platt:
        """Fit the curve to labelled scores; InputError if all labels are the same."""
        require("sklearn", "models")
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

        scores, labels = _two_kinds(labelled)
        fitted = LogisticRegression(C=1e6, max_iter=1000).fit(scores[:, np.newaxis].astype(np.float64), labels)
        made = cls(max(float(fitted.coef_[0, 0]), 0.0), float(fitted.intercept_[0]))
        made.source = labelled.source
        return made

    def relevances_of(self, asked: Asked) -> Scores:
        """Give the curve's values."""
        found: Scores = sigmoid(self.slope * asked.scores.astype(np.float64) + self.offset).astype(np.float32)
        return found

    def _config_kept(self) -> dict[str, Any]:
        return {"slope": self.slope, "offset": self.offset}

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> Platt:
        del arrays
        return cls(**config)


class Isotonic(RelevanceModel):
    """One rising step function for all queries (Zadrozny and Elkan, 2002); fitting needs the extra ``models``."""

    kind = "isotonic"

    def __init__(self, scores: npt.ArrayLike, relevances: npt.ArrayLike) -> None:
        """Interpolate between (n,) rising scores and their rising relevances."""
        self._scores, self._relevances = np.asarray(scores, np.float64), np.asarray(relevances, np.float64)

    @classmethod
    def fit(cls, labelled: LabelledScores) -> Isotonic:
        """Fit the function to labelled scores; InputError if all labels are the same."""
        require("sklearn", "models")
        from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]

        scores, labels = _two_kinds(labelled)
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores.astype(np.float64), labels)
        made = cls(fitted.X_thresholds_, fitted.y_thresholds_)
        made.source = labelled.source
        return made

    def relevances_of(self, asked: Asked) -> Scores:
        """Give the function's values."""
        return np.interp(asked.scores, self._scores, self._relevances).astype(np.float32)

    def _arrays_kept(self) -> Arrays:
        return {"scores": self._scores, "relevances": self._relevances}

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> Isotonic:
        del config
        return cls(**arrays)


class FixedCount(RelevanceModel):
    """The first k passages, whatever their scores: what a retriever does by itself."""

    kind = "fixed count"

    def __init__(self, k: int = 4) -> None:
        """Keep k passages."""
        self.k = as_count("k", k)

    def relevances_of(self, asked: Asked) -> Scores:
        """Give .5 and more to the k best, by rank, and less to the others."""
        ranks = np.empty(len(asked.scores))
        ranks[np.argsort(-asked.scores, kind="stable")] = np.arange(len(asked.scores))
        return (self.k / (self.k + ranks + 1) if self.k else 0 * ranks).astype(np.float32)

    def _config_kept(self) -> dict[str, Any]:
        return {"k": self.k}

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> FixedCount:
        del arrays
        return cls(**config)


class ScoreGap(RelevanceModel):
    """What stands above the largest gaps between neighbouring scores, as Weaviate's autocut does.

    Args:
        gaps: passages after so many of the largest gaps are dropped.
    """

    kind = "score gap"

    def __init__(self, gaps: int = 1) -> None:
        """Cut at the gap."""
        self.gaps = as_count("gaps", gaps, least=1)

    def relevances_of(self, asked: Asked) -> Scores:
        """Give 1 before the gap, 0 behind it."""
        order = np.argsort(-asked.scores, kind="stable")
        found = np.ones(len(order), np.float32)
        falls = -np.diff(asked.scores[order])
        count = min(self.gaps, int((falls > 0).sum()))
        if count:
            largest = np.argsort(-falls, kind="stable")[:count]
            found[order[largest.max() + 1 :]] = 0
        return found

    def _config_kept(self) -> dict[str, Any]:
        return {"gaps": self.gaps}

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> ScoreGap:
        del arrays
        return cls(**config)


class Judge(RelevanceModel):
    """A cross-encoder, or whatever else reads question and passage together: what a user has who can wait.

    Args:
        score: scores pairs of a question and a passage.
        logits: whether its scores are logits, which are squeezed into [0, 1].
    """

    kind = "judge"
    reads_texts = True
    reads_scores = False

    def __init__(self, score: ReadPairs, *, logits: bool = True) -> None:
        """Use a function."""
        self._score, self.logits = score, logits

    def relevances_of(self, asked: Asked) -> Scores:
        """Let the passages be judged; InputError if they, or the question, are not given."""
        if asked.text is None or asked.texts is None:
            raise InputError("got a question without its text or its passages' texts, which a judge reads: pass both")
        return np.clip(judged(self._score, asked.text, asked.texts, logits=self.logits), 0, 1)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Refuse: a judge is a function of yours."""
        raise InputError(
            f"got {os.fspath(folder)!r} to keep a judge in, which is a function of yours: keep that, and make a new one"
        )

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> Judge:
        del config, arrays
        raise InputError("a judge is a function of yours and is not kept in files: make a new one")


def judged(score: ReadPairs, question: str, texts: Sequence[str], *, logits: bool) -> Scores:
    """Let passages be judged: (k,), logits brought to [0, 1]; InputError if the judge does not give one number a passage."""
    given = np.asarray(score([(question, text) for text in texts]) if texts else [], np.float64)
    if given.shape != (len(texts),) or np.isnan(given).any():
        raise InputError(
            f"the judge gave numbers of shape {given.shape}, or NaN, for {len(texts)} passages, wanted one number a passage: "
            "look at the function"
        )
    found: Scores = (sigmoid(given) if logits else given).astype(np.float32)
    return found


def _from_score(scores: npt.NDArray[Any]) -> Scores:
    return np.clip((1 + scores) / 2, 0, 1).astype(np.float32)


def _two_kinds(labelled: LabelledScores) -> tuple[Scores, npt.NDArray[np.bool_]]:
    scores, relevant = labelled.scores[labelled.known], labelled.relevant[labelled.known]
    if not 0 < relevant.sum() < len(relevant):
        raise InputError(
            f"got {len(relevant)} labelled passages of which {int(relevant.sum())} are relevant, wanted some that are and some "
            "that are not"
        )
    return scores, relevant
