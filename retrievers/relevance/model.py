"""What every model of relevance can do: judge what was found for a question, and be kept in a folder.

A model turns the scores of the passages found into relevances in [0, 1], and keeps those from its threshold on, though never
fewer than ``min_keep`` nor more than ``max_keep``. That nothing is kept is an answer: nothing that was found is relevant.
"""

from __future__ import annotations

import copy
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from rarebit.arrays import Scores, Vector, VectorsLike, as_vector
from rarebit.errors import CalibrationError, InputError
from rarebit.retrievers.collection.arguments import as_count, as_share
from rarebit.retrievers.relevance import thresholds
from rarebit.retrievers.relevance.labels import LabelledScores, Relevances
from rarebit.retrievers.relevance.report import RelevanceReport, report_on
from rarebit.retrievers.relevance.score_source import UNKNOWN, ScoreSource
from rarebit.retrievers.relevance.thresholds import Target, as_target

CONFIG_FILE: Final = "config.json"
ARRAYS_FILE: Final = "relevance.safetensors"

Own = TypeVar("Own", bound="RelevanceModel")


@dataclass(frozen=True)
class Asked:
    """A question, and what a search found for it.

    Args:
        scores: (k,) of the passages, in any order.
        vector: (dim,) the question's embedding, for models that need it.
        text: the question.
        texts: k passages, for models that read them.
    """

    scores: Scores
    vector: Vector | None = None
    text: str | None = None
    texts: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        scores: npt.ArrayLike,
        vector: VectorsLike | None = None,
        text: str | None = None,
        texts: Sequence[str] | None = None,
    ) -> Asked:
        """Check what is given; InputError for scores that are no finite numbers, or another number of texts."""
        try:
            flat = np.asarray(scores, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"got scores that are no numbers ({error}), wanted one number a passage") from error
        if flat.ndim != 1 or not np.isfinite(flat).all():
            raise InputError(f"got scores of shape {flat.shape}, or NaN or infinity among them, wanted k finite numbers")
        if texts is not None and len(texts) != len(flat):
            raise InputError(f"got {len(texts)} texts and {len(flat)} scores, wanted as many of each")
        return cls(flat, None if vector is None else as_vector(vector), text, texts)


@dataclass(frozen=True)
class Verdict:
    """What a model thinks of what was found for a question."""

    relevances: Scores
    """(k,) from 0 to 1, in the order of the scores."""
    kept: list[int]
    """Places of the passages that are kept, in that order."""

    @property
    def nothing_is_relevant(self) -> bool:
        """Whether nothing is kept."""
        return not self.kept

    @property
    def best(self) -> float:
        """The highest relevance; 0 where nothing was found."""
        return float(self.relevances.max(initial=0.0))


class RelevanceModel(ABC):
    """Maps the scores of what was found to relevances, and keeps what is relevant enough."""

    kind: ClassVar[str]
    """Its name in ``config.json``."""
    reads_vector: ClassVar[bool] = False
    """Whether it needs the question's embedding."""
    reads_texts: ClassVar[bool] = False
    """Whether it needs the question and the passages themselves."""
    reads_scores: ClassVar[bool] = True
    """Whether it needs the scores."""

    threshold: float = 0.5
    target: Target | None = None
    """What the threshold was chosen for, if it was chosen by :meth:`choose_threshold`."""
    min_keep: int = 0
    max_keep: int | None = None
    source: ScoreSource = UNKNOWN
    """Of the scores that it was calibrated on."""

    @abstractmethod
    def relevances_of(self, asked: Asked) -> Scores:
        """Give the relevance of each passage found, (k,) from 0 to 1."""

    def relevances(self, labelled: LabelledScores) -> Relevances:
        """Give the relevances of what was found for many queries, (q, k); 0 where there is no score."""
        found = np.zeros(labelled.scores.shape, np.float32)
        for row, (query, scores) in enumerate(zip(labelled.queries, labelled.scores, strict=True)):
            there = ~np.isnan(scores)
            found[row, there] = self.relevances_of(Asked(scores[there], query))
        return found

    def judge(self, asked: Asked) -> Verdict:
        """Say which of the passages found are kept.

        Raises:
            InputError: and its kinds, where what the model needs is missing or cannot be used.
        """
        if not len(asked.scores):
            return Verdict(np.empty(0, np.float32), [])
        relevances = self.relevances_of(asked)
        order = np.lexsort((-asked.scores, -relevances))
        count = int((relevances >= self.threshold).sum())
        count = max(count, self.min_keep)
        count = count if self.max_keep is None else min(count, self.max_keep)
        return Verdict(relevances, sorted(order[:count].tolist()))

    def check_source(self, source: ScoreSource) -> None:
        """Raise CalibrationError for scores of another model, metric or codec than it was calibrated on."""
        self.source.check(source)

    def choose_threshold(
        self: Own,
        labelled: LabelledScores,
        target: Target | None = None,
        *,
        recall: float | None = None,
        precision: float | None = None,
        f_beta: float | None = None,
        lost: float | None = None,
        confidence: float | None = None,
    ) -> Own:
        """Give the model with a threshold that reaches a target on labelled queries; arguments as in :class:`Target`.

        Take queries that the model was not trained on: :meth:`LabelledScores.split` parts them.

        Raises:
            InputError: more than one target, or no passage that is labelled relevant.
            CalibrationError: the scores are of another source than those that the model was calibrated on.
        """
        asked = {"recall": recall, "precision": precision, "f_beta": f_beta, "lost": lost, "confidence": confidence}
        chosen = as_target(target, asked)
        self.check_source(labelled.source)
        return self._with(threshold=thresholds.choose(self.relevances(labelled), labelled, chosen), target=chosen)

    def with_threshold(self: Own, threshold: float) -> Own:
        """Give the model with another threshold."""
        return self._with(threshold=as_share("threshold", threshold), target=None)

    def keeping(self: Own, *, least: int = 0, most: int | None = None) -> Own:
        """Give the model that keeps never fewer and never more passages, whatever their relevance.

        Raises:
            InputError: the numbers are none, or the least is above the most.
        """
        least, most = as_count("least", least), None if most is None else as_count("most", most)
        if most is not None and least > most:
            raise InputError(f"got least={least} and most={most}, wanted the least to be no more than the most")
        return self._with(min_keep=least, max_keep=most)

    def report(self, labelled: LabelledScores) -> RelevanceReport:
        """Measure the model on labelled queries.

        Raises:
            InputError: no passage is labelled relevant.
            CalibrationError: the scores are of another source than those that the model was calibrated on.
        """
        self.check_source(labelled.source)
        return report_on(self.relevances(labelled), labelled, self.threshold)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` into a folder, and the arrays there are into ``relevance.safetensors``."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        kept = {
            "kind": self.kind,
            "threshold": self.threshold,
            "target": None if self.target is None else self.target.to_dict(),
            "min_keep": self.min_keep,
            "max_keep": self.max_keep,
            "source": self.source.to_dict(),
        }
        arrays = self._arrays_kept()
        if arrays:
            safetensors.numpy.save_file(arrays, path / ARRAYS_FILE)
        (path / CONFIG_FILE).write_text(json.dumps({**kept, **self._config_kept()}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls: type[Own], folder: str | os.PathLike[str]) -> Own:
        """Load what :meth:`save_pretrained` wrote; nothing heavy is imported.

        Raises:
            InputError: the folder holds no such model, or a damaged one.
        """
        found = model_from(folder)
        if not isinstance(found, cls):
            raise InputError(f"got {os.fspath(folder)!r}, which holds a {type(found).__name__}, wanted a {cls.__name__}")
        return found

    def _config_kept(self) -> dict[str, Any]:
        """Give what belongs to ``config.json`` beside what every model has."""
        return {}

    def _arrays_kept(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    @classmethod
    @abstractmethod
    def _restored(cls: type[Own], config: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Own:
        """Make a model of what was kept."""

    def _with(self: Own, **changes: Any) -> Own:
        changed = copy.copy(self)
        for name, value in changes.items():
            setattr(changed, name, value)
        return changed

    def __repr__(self) -> str:
        """Say what it is, and from where on it keeps."""
        reason = "" if self.target is None else f" ({self.target})"
        return f"<{type(self).__name__} keeping from {self.threshold:.4g} on{reason}>"


def model_from(folder: str | os.PathLike[str]) -> RelevanceModel:
    """Load a model of whatever kind from a folder.

    Raises:
        InputError: the folder holds none, or a damaged one.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        kinds = {kind.kind: kind for kind in _kinds(RelevanceModel)}  # type: ignore[type-abstract]
        arrays = safetensors.numpy.load_file(path / ARRAYS_FILE) if (path / ARRAYS_FILE).exists() else {}
        common = {name: config.pop(name) for name in ("threshold", "target", "min_keep", "max_keep", "source")}
        model = kinds[config.pop("kind")]._restored(config, arrays)
        most = common["max_keep"]
        return model._with(
            threshold=as_share("threshold", common["threshold"]),
            target=None if common["target"] is None else Target(**common["target"]),
            min_keep=as_count("min_keep", common["min_keep"]),
            max_keep=None if most is None else as_count("max_keep", most),
            source=ScoreSource.from_dict(common["source"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, CalibrationError) as error:
        raise InputError(
            f"got {path}, wanted a folder with {CONFIG_FILE} of a model of relevance ({error!r}): check the path, or save it "
            "anew"
        ) from error


def _kinds(of: type[RelevanceModel]) -> list[type[RelevanceModel]]:
    return [kind for own in of.__subclasses__() for kind in ([own] if hasattr(own, "kind") else []) + _kinds(own)]
