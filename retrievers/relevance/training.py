"""Training of a cosine adapter: cross-entropy of the labelled pairs, in stages that have to earn their place.

The stages are: one curve for all queries; curves told from the evidence; and from the query's embedding too. The first two have
few weights and are fitted by L-BFGS, the evidence's with a penalty of its own; the last by AdamW. Each is trained with
parts of the queries held out in turn, stops where the held-out loss is least, and is taken over the one before only if it is
better on held-out queries by more than two standard errors of the difference. What is taken is then trained on all queries, for
as many steps as did best.

The only part of the adapter that needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Float64

from rarebit.arrays import normalized
from rarebit.compressors.vectors.course import Course, best_looked_at, reproducible
from rarebit.retrievers.relevance.adapter import CosineAdapter, FitReport, Reads
from rarebit.retrievers.relevance.curves import EXPONENTS, OFFSET, OFFSET_STEP, SLOPE, SLOPE_STEP, Family
from rarebit.retrievers.relevance.labels import LabelledScores

RATE: Final = 1e-3
DECAY: Final = 0.1
DROPOUT: Final = 0.2
BATCH: Final = 64
WARM_UP: Final = 20

PENALTIES: Final = (0.3, 0.03, 0.003)
"""On the squared distance of the evidence's weights from where they began, as a share of the loss; the best is taken."""

FOLDS: Final = 5
MANY: Final = 2000
"""Queries from which on one part is held out, and no others."""

SURE: Final = 2.0
"""Standard errors by which a stage has to be better."""

FIT_STEPS: Final = 100
"""Of L-BFGS."""

Losses: TypeAlias = Float64[npt.NDArray[np.float64], "q"]
PerQuery: TypeAlias = Float[torch.Tensor, "q"]
Pairs: TypeAlias = Float[torch.Tensor, "q k"]
There: TypeAlias = Bool[torch.Tensor, "q k"]


@dataclass(frozen=True)
class Tensors:
    """Labelled scores as training takes them."""

    directions: Float[torch.Tensor, "q dim"]
    evidence: Float[torch.Tensor, "q evidence"]
    scores: Pairs
    labels: Pairs
    known: There
    groups: Any
    weights: PerQuery

    @classmethod
    def of(cls, adapter: CosineAdapter, labelled: LabelledScores) -> Tensors:
        """Lay out what is labelled."""
        told = adapter.standardised(adapter._evidence(labelled.scores, adapter._moments_of(labelled)))
        return cls(
            torch.from_numpy(normalized(labelled.queries) * np.float32(adapter.dim**0.5)),
            torch.from_numpy(told.astype(np.float32)),
            torch.from_numpy(np.nan_to_num(labelled.scores) / np.float32(adapter.unit)),
            torch.from_numpy(np.nan_to_num(labelled.labels)),
            torch.from_numpy(labelled.known),
            torch.from_numpy(np.unique(labelled.groups, return_inverse=True)[1].astype(np.int64)),
            torch.from_numpy(_evened(labelled).astype(np.float32)),
        )

    def at(self, places: npt.NDArray[np.intp]) -> Tensors:
        """Keep some queries."""
        rows = torch.from_numpy(places)
        return Tensors(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _evened(labelled: LabelledScores) -> npt.NDArray[np.float64]:
    """Weigh queries so that collections count alike; those with few relevant passages a little more, for their rarity."""
    weights = labelled.weights.copy()
    for group in np.unique(labelled.groups):
        own = labelled.groups == group
        share = max(float(labelled.relevant[own].sum() / max(labelled.known[own].sum(), 1)), 1e-6)
        weights[own] *= share**-0.5 / own.sum()
    weights *= len(weights) / weights.sum()
    return weights


@dataclass(frozen=True)
class Stage:
    """What curves are told from: the evidence, with a penalty, if there is one; the query's embedding, or not."""

    penalty: float | None = None
    query: bool = False

    @property
    def told(self) -> str:
        """Name it."""
        names = [name for name, used in (("evidence", self.penalty is not None), ("query", self.query)) if used]
        return " and ".join(names) or "nothing"


class Student(torch.nn.Module):
    """The adapter with its weights as parameters; one base a group of queries."""

    def __init__(self, adapter: CosineAdapter, stage: Stage, groups: int = 1) -> None:
        """Begin at the adapter's weights; a hidden layer that nothing looks at yet gets random ones."""
        super().__init__()
        self.family: Family = adapter.family
        self.stage = stage
        arrays = {name: torch.from_numpy(values.copy()) for name, values in adapter._arrays.items()}
        if stage.penalty is None:
            arrays["evidence_weight"].zero_()
        if stage.query and not arrays["query_out"].any():
            torch.nn.init.kaiming_uniform_(arrays["query_in"], a=5**0.5)
        self.base = torch.nn.Parameter(arrays["base"].repeat(groups, 1))
        self.evidence_weight = torch.nn.Parameter(arrays["evidence_weight"])
        self.query_in = torch.nn.Parameter(arrays["query_in"])
        self.query_bias = torch.nn.Parameter(arrays["query_bias"])
        self.query_out = torch.nn.Parameter(arrays["query_out"])

    def forward(self, given: Tensors) -> Pairs:
        """Give the logits of pairs."""
        numbers = self.base[given.groups] + given.evidence @ self.evidence_weight.T
        if self.stage.query:
            hidden = torch.tanh(given.directions @ self.query_in.T + self.query_bias)
            numbers = numbers + torch.nn.functional.dropout(hidden, DROPOUT, self.training) @ self.query_out.T
        return curve(self.family, given.scores, numbers)

    def losses(self, given: Tensors) -> PerQuery:
        """Give each query's cross-entropy, weighted, the sum over its pairs."""
        each = torch.nn.functional.binary_cross_entropy_with_logits(self(given), given.labels, reduction="none")
        found: torch.Tensor = (each * given.known).sum(1) * given.weights
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Give the weights, with the mean of the groups' bases."""
        found = {name: weight.detach().numpy().copy() for name, weight in self.named_parameters()}
        return {**found, "base": found["base"].mean(axis=0)}


def curve(family: Family, scores: Pairs, numbers: Float[torch.Tensor, "q 3"]) -> Pairs:
    """Map scores to logits; :func:`rarebit.retrievers.relevance.curves.logits` says how."""
    if family == "raw":
        return scores
    slope = torch.nn.functional.softplus(SLOPE + SLOPE_STEP * numbers[:, :1])
    exponent = EXPONENTS.get(family, 2 * torch.sigmoid(numbers[:, 2:]))
    # The slope of |x|^k at 0 is infinite for k < 1: a score this small changes nothing.
    size = scores.abs().clamp_min(1e-6)
    return torch.sign(scores) * slope * size**exponent + OFFSET + OFFSET_STEP * numbers[:, 1:2]


@dataclass(frozen=True)
class _Lesson:
    """What is taught, and with what held out in turn."""

    begun: CosineAdapter
    given: Tensors
    parts: Sequence[npt.NDArray[np.intp]]
    steps: int
    rng: np.random.Generator
    progress: bool

    def held_out(self, stage: Stage) -> tuple[Losses, int]:
        """Train with each part held out; give the losses of the queries held out, and how many steps did best."""
        losses, taken = np.zeros(len(self.given.weights)), []
        for held in self.parts:
            rest, apart = self.given.at(np.setdiff1d(np.arange(len(losses)), held)), self.given.at(held)
            course = _Course(self.begun, rest, stage, self.steps, self.rng)

            def measure(arrays: dict[str, torch.Tensor], course: _Course = course, apart: Tensors = apart) -> float:
                return -float(course.losses_of(arrays, apart).sum())

            steps = self.steps if stage.query else 0
            best, step = best_looked_at(course.look(), course, steps, measure, progress=self.progress and stage.query)
            losses[held] = course.losses_of(best, apart)
            taken.append(step)
        return losses, round(float(np.mean(taken)))

    def taught(self, stage: Stage, steps: int) -> Student:
        """Train on everything."""
        course = _Course(self.begun, self.given, stage, self.steps, self.rng)
        for _ in range(steps):
            course.step()
        return course.student


def trained(
    new: CosineAdapter, labelled: LabelledScores, reads: Reads, steps: int, seed: int, *, progress: bool
) -> CosineAdapter:
    """Train stage by stage; give the adapter of the last stage that earned its place, with its report."""
    labelled, rng = labelled[np.flatnonzero(labelled.known.any(axis=1))], np.random.default_rng(seed)
    given = Tensors.of(new, labelled)
    parts = _parts(len(labelled), rng)
    apart = given.at(np.concatenate(parts))
    pairs = float((apart.known.sum(1) * apart.weights).sum())
    lesson = _Lesson(new, given, parts, steps, rng, progress)
    with reproducible(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen, best = Stage(), 0
        losses = calibrated = lesson.held_out(chosen)[0]
        if reads != "query":
            tried = {penalty: lesson.held_out(Stage(penalty))[0] for penalty in PENALTIES}
            penalty = min(tried, key=lambda own: float(tried[own].sum()))
            if _is_less(tried[penalty], losses):
                chosen, losses = Stage(penalty), tried[penalty]
        if reads != "evidence" and new.family != "raw":  # which has no parameters to tell
            with_query, taken = lesson.held_out(Stage(chosen.penalty, query=True))
            if _is_less(with_query, losses):
                chosen, losses, best = Stage(chosen.penalty, query=True), with_query, taken
        student = lesson.taught(chosen, best)
    made = new.with_arrays({**new._arrays, **student.arrays()})
    made.fit_report = FitReport(float(calibrated.sum() / pairs), float(losses.sum() / pairs), chosen.told, len(labelled), best)
    return made


def _parts(count: int, rng: np.random.Generator) -> list[npt.NDArray[np.intp]]:
    """Part queries at random: what is held out in turn."""
    parts = np.array_split(rng.permutation(count), FOLDS)
    return parts[:1] if count >= MANY else parts


def _is_less(losses: Losses, before: Losses) -> bool:
    """Tell whether losses of the same queries are smaller by more than chance, as told by the standard error of the mean."""
    seen = (losses != 0) | (before != 0)
    gains = (before - losses)[seen]
    return bool(len(gains) > 1 and gains.mean() > SURE * gains.std(ddof=1) / len(gains) ** 0.5)


class _Course(Course[dict[str, torch.Tensor]]):
    def __init__(self, begun: CosineAdapter, given: Tensors, stage: Stage, steps: int, rng: np.random.Generator) -> None:
        """Begin with the best fit without the query's embedding."""
        self.student = Student(begun, stage, groups=int(given.groups.max()) + 1)
        self._given, self._rng, self._waiting = given, rng, np.empty(0, np.intp)
        _fit(self.student, given, stage.penalty)
        student = self.student
        rates: list[dict[str, Any]] = [
            {"params": [student.base], "weight_decay": 0.0},
            {"params": [student.query_in, student.query_bias, student.query_out], "weight_decay": DECAY},
        ]
        self._optimizer = torch.optim.AdamW(rates, lr=RATE)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * max(0.02, 1 - step / max(steps, 1))
        )

    def step(self) -> None:
        """Take a batch of queries."""
        self.student.train()
        batch = self._given.at(self._next())
        loss = self.student.losses(batch).sum() / (batch.known.sum(1) * batch.weights).sum().clamp_min(1e-9)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def look(self) -> dict[str, torch.Tensor]:
        """Give the weights as they stand."""
        return {name: weight.detach().clone() for name, weight in self.student.named_parameters()}

    def losses_of(self, arrays: dict[str, torch.Tensor], given: Tensors) -> Losses:
        """Give the losses of queries by other weights."""
        self.student.eval()
        with torch.no_grad():
            now = self.look()
            self.student.load_state_dict(arrays)
            found: Losses = self.student.losses(given).double().numpy()
            self.student.load_state_dict(now)
        return found

    def _next(self) -> npt.NDArray[np.intp]:
        if len(self._waiting) < min(BATCH, len(self._given.weights)):
            self._waiting = self._rng.permutation(len(self._given.weights))
        taken, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return taken


def _fit(student: Student, given: Tensors, penalty: float | None) -> None:
    """Fit the base of each group, and the evidence's weights if there is a penalty on them."""
    weights = [student.base] if penalty is None else [student.base, student.evidence_weight]
    optimizer: Any = torch.optim.LBFGS(weights, max_iter=FIT_STEPS, line_search_fn="strong_wolfe")
    bases, told = student.base.detach().clone(), student.evidence_weight.detach().clone()
    total = (given.known.sum(1) * given.weights).sum()
    student.eval()
    with torch.no_grad():
        scale = student.losses(given).sum() / total

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        moved = (penalty or 0.0) * scale * ((student.evidence_weight - told) ** 2).sum()
        loss: torch.Tensor = student.losses(given).sum() / total + moved + 1e-6 * ((student.base - bases) ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
