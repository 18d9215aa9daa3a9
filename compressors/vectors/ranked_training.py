"""Training of :class:`~rarebit.compressors.vectors.ranked_product.RankedProduct`: the only part of it that needs torch.

The codes' scores of a query's candidates are drawn towards the ranking that the float vectors give (Distill-VQ, 2204.00185),
through one or more of: the centroids, a residual adapter of the documents (RepCONC, 2110.05789), and a linear map of the
queries with negatives that the current codes find (JPQ, 2108.00644). The maps start at the identity and are folded into the
codec's matrices at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import faiss
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.course import Course, best_looked_at, reproducible
from rarebit.compressors.vectors.ranked_losses import contrast, evenly_assigned, list_net, rank_pairs
from rarebit.compressors.vectors.ranked_product import Quantiser
from rarebit.compressors.vectors.yardstick import NOWHERE

CANDIDATES = 100
"""Nearest documents by float score that each query brings into its batch."""

BATCH = 32
"""Queries a step; the candidates of all of them are scored for each of them."""

CENTROID_RATE, MAP_RATE = 0.02, 1e-4
"""Adam's steps: of centroids relative to their root mean square, and of the maps relative to the identity."""

TEMPERATURE = 0.05
"""Of the softmax over scores, relative to the product of the mean lengths of queries and documents."""

CLOSENESS = 1e-4
"""Weight of the squared distance between documents and what their codes stand for, in the constrained clustering."""

HIDDEN = -1e4
"""Score, in temperatures, of a query's own document, so that it is no candidate."""


@dataclass(frozen=True)
class Options:
    """What is trained, and how long; the arguments of the codec."""

    distillation: bool
    constraint: bool
    query_transform: bool
    joint_negatives: bool
    seed: int
    steps: int


@dataclass(frozen=True)
class Examples:
    """Documents and queries to train on; ``own[i]`` is the document that query i is itself, or -1."""

    documents: Vectors
    queries: Queries
    own: npt.NDArray[np.int64]


def trained(
    start: Quantiser, examples: Examples, options: Options, measure: Callable[[Quantiser], float], *, progress: bool
) -> tuple[Quantiser, int]:
    """Train from a quantiser on, and give the best of all looked at, the start included, and after how many steps it stood.

    Args:
        start: what training begins with.
        examples: to train on.
        options: what is trained.
        measure: recall on held-out queries; the higher, the better.
        progress: whether to show a bar.
    """
    course = _Course(start, examples, options)
    with reproducible():
        return best_looked_at(start, course, options.steps, measure, progress=progress)


class _Student(torch.nn.Module):
    """The quantiser with what is trained as parameters."""

    def __init__(self, start: Quantiser, options: Options) -> None:
        super().__init__()
        self._options = options
        for name in ("mean", "encoder", "decoder", "nearest"):
            self.register_buffer(name, torch.from_numpy(getattr(start, name)))
        dim = len(start.mean)
        self.points = torch.nn.Parameter(torch.from_numpy(start.points.copy()))
        self.adapter = torch.nn.Parameter(torch.zeros(dim, dim), requires_grad=options.constraint)
        self.turn = torch.nn.Parameter(torch.zeros(dim, dim), requires_grad=options.query_transform)
        self.mean: torch.Tensor
        self.encoder: torch.Tensor
        self.decoder: torch.Tensor
        self.nearest: torch.Tensor

    def decoded(
        self, documents: Float[torch.Tensor, "n dim"], values: Int64[torch.Tensor, "n parts"] | None
    ) -> Float[torch.Tensor, "n dim"]:
        """Give what the codes of documents stand for; gradients pass straight through to the adapter."""
        if values is None:
            centred = documents - self.mean
            placed = (centred + centred @ self.adapter) @ self.encoder
            with torch.no_grad():
                values = self._assigned(placed)
            points = self._points(values) + placed - placed.detach()
        else:
            points = self._points(values)
        decoded = points @ self.decoder
        return decoded + decoded @ self.turn + self.mean

    def folded(self, start: Quantiser) -> Quantiser:
        """Put the trained maps into the matrices of the quantiser."""
        dim = len(start.mean)
        adapter, turn = np.eye(dim) + _array(self.adapter), np.eye(dim) + _array(self.turn)
        encoder = (adapter @ start.encoder).astype(np.float32)
        decoder = (start.decoder @ turn).astype(np.float32)
        return replace(start, encoder=encoder, decoder=decoder, points=_array(self.points))

    def _points(self, values: torch.Tensor) -> torch.Tensor:
        parts = torch.arange(len(self.points), device=values.device)
        return self.points[parts, values].reshape(len(values), -1)

    def _assigned(self, placed: torch.Tensor) -> torch.Tensor:
        by_part = placed.reshape(len(placed), len(self.nearest), -1).transpose(0, 1)
        distances = torch.cdist(by_part, self.nearest) ** 2
        return evenly_assigned(distances).T


class _Course(Course[Quantiser]):
    """The state of training: student, optimiser, and whose candidates are what."""

    def __init__(self, start: Quantiser, examples: Examples, options: Options) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._start, self._examples, self._options = start, examples, options
        self._rng = np.random.default_rng(options.seed)
        self._neighbours = neighbours(examples)
        self._values = None if options.constraint else torch.from_numpy(start.values(examples.documents).astype(np.int64))
        self._decoded = start.rebuilt(examples.documents)
        self._temperature = temperature(examples)
        self.student = _Student(start, options).to(self._device)
        rate = CENTROID_RATE * float(np.sqrt(np.mean(start.points**2)))
        maps = [part for part in (self.student.adapter, self.student.turn) if part.requires_grad]
        groups = [{"params": [self.student.points], "lr": rate}, {"params": maps, "lr": MAP_RATE}]
        self._optimizer = torch.optim.Adam(groups[: 1 + bool(maps)])
        self._schedule = falling(self._optimizer, options.steps)

    def step(self) -> None:
        """Take one batch of queries."""
        count = len(self._examples.queries)
        batch = self._rng.choice(count, min(BATCH, count), replace=False)
        candidates = self._candidates(batch)
        loss = self._loss(batch, candidates)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def look(self) -> Quantiser:
        """Give the quantiser as it is now; from now on, negatives are looked for in its codes."""
        now = self.student.folded(self._start)
        if self._options.joint_negatives:
            self._decoded = now.rebuilt(self._examples.documents)
        return now

    def _candidates(self, batch: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        found = self._neighbours[batch].ravel()
        if self._options.joint_negatives:
            scores = self._examples.queries[batch] @ self._decoded.T
            best = np.argpartition(-scores, min(CANDIDATES, scores.shape[1] - 1), axis=1)[:, :CANDIDATES]
            found = np.concatenate([found, best.ravel()])
        return np.unique(found[found != NOWHERE])

    def _loss(self, batch: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64]) -> torch.Tensor:
        documents = torch.from_numpy(self._examples.documents[candidates]).to(self._device)
        queries = torch.from_numpy(self._examples.queries[batch]).to(self._device)
        values = None if self._values is None else self._values[candidates].to(self._device)
        decoded = self.student.decoded(documents, values)
        own = torch.from_numpy(candidates == self._examples.own[batch][:, np.newaxis]).to(self._device)
        out = HIDDEN * self._temperature
        teacher = (queries @ documents.T).masked_fill(own, out)
        student = (queries @ decoded.T).masked_fill(own, out)
        loss = self._ranking_loss(teacher, student)
        if self._options.constraint:
            loss = loss + CLOSENESS * ((documents - decoded) ** 2).sum(dim=1).mean()
        return loss

    def _ranking_loss(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        losses = []
        if self._options.distillation:
            losses.append(list_net(teacher, student, self._temperature))
        if self._options.joint_negatives:
            losses.append(rank_pairs(teacher, student, self._temperature))
        return torch.stack(losses).sum() if losses else contrast(teacher, student, self._temperature)


def neighbours(examples: Examples) -> npt.NDArray[np.int64]:
    """Find the nearest documents of each query by float score; -1 in the place of the query itself."""
    count = min(CANDIDATES + 1, len(examples.documents))
    found: npt.NDArray[np.int64] = faiss.knn(examples.queries, examples.documents, count, metric=faiss.METRIC_INNER_PRODUCT)[1]
    found[found == examples.own[:, np.newaxis]] = NOWHERE
    return found


def temperature(examples: Examples) -> float:
    """Give the temperature of the softmax over scores."""
    return TEMPERATURE * _length(examples.documents) * _length(examples.queries)


def falling(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Let the size of an optimiser's steps fall to nearly nothing, evenly."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.02, 1 - step / steps))


def _length(vectors: Vectors) -> float:
    """Give the mean length, never 0."""
    return float(np.linalg.norm(vectors, axis=1).mean()) or 1.0


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy().copy()
    return array
