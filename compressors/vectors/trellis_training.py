"""Distillation of a trellis code: what the values of its parts stand for is trained to rank as the float vectors do.

Codes and factors stay as the search through the trellis found them. The tables that they are read with, and the axes that those
tables are along, are drawn towards the ranking by float scores (ListNet, as Distill-VQ uses it, 2204.00185). Free axes hold a
linear map of the queries (JPQ, 2108.00644) as well: ``(T q) . (axes @ y)`` is ``q . (T' axes @ y)``.

The factors are not fitted again to what was trained: measured on MiniLM vectors, that takes about a third of the gain back.

The only part of the code that needs torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.course import Course, best_looked_at, reproducible
from rarebit.compressors.vectors.factors import Factors
from rarebit.compressors.vectors.fast_scan import unpack_nibbles
from rarebit.compressors.vectors.grouped_code import Values
from rarebit.compressors.vectors.ranked_losses import list_net
from rarebit.compressors.vectors.ranked_training import (
    BATCH,
    CENTROID_RATE,
    HIDDEN,
    MAP_RATE,
    Examples,
    falling,
    neighbours,
    temperature,
)
from rarebit.compressors.vectors.trellis import TrellisCode
from rarebit.compressors.vectors.yardstick import DOCUMENTS, FEWEST, HELD_OUT, NOWHERE, QUERIES, Yardstick, asked_of

STEPS = 300
"""Batches of queries at most; 600 find no more."""


def distilled(code: TrellisCode, vectors: Vectors, queries: Queries | None, *, progress: bool) -> TrellisCode | None:
    """Train the reading of a code, and give it, or None if nothing finds more than the code read as it was written.

    Args:
        code: fitted.
        vectors: (n, dim) that it was fitted on; up to 20,000 of them are ranked.
        queries: (q, dim) to rank them for; without, vectors take their place, each left out of its own candidates.
        progress: whether to show a bar.
    """
    if len(vectors) < FEWEST:
        return None
    rng = np.random.default_rng(code.seed)
    documents = vectors[rng.permutation(len(vectors))[:DOCUMENTS]]
    asked, own = asked_of(documents, queries, rng)
    held = min(HELD_OUT, len(asked) // 4)
    yardstick = Yardstick(documents, asked[:held], own[:held])
    course = _Course(code, Examples(documents, asked[held : held + QUERIES], own[held : held + QUERIES]))
    codes = code.encode(documents)

    def recall(reading: TrellisCode) -> float:
        return yardstick.recall(reading.decode(codes))

    with reproducible():
        best, step = best_looked_at(code, course, STEPS, recall, progress=progress)
    return best if step else None


class _Student(torch.nn.Module):
    """What the values of the parts stand for, as parameters."""

    def __init__(self, code: TrellisCode) -> None:
        super().__init__()
        groups = torch.from_numpy(code._groups.astype(np.int64))
        self.register_buffer("mean", torch.from_numpy(code._mean))
        self.register_buffer("groups", groups)
        self.register_buffer("before", (groups - 1).clamp_min(0))
        self.register_buffer("late", (groups > 0).to(torch.float32))
        self.axes = torch.nn.Parameter(torch.from_numpy(code._axes.copy()))
        self.own = torch.nn.Parameter(torch.from_numpy(code._own.T.copy()))
        self.carried = torch.nn.Parameter(torch.from_numpy(code._carried.T.copy()))
        self.mean: torch.Tensor
        self.groups: torch.Tensor
        self.before: torch.Tensor
        self.late: torch.Tensor

    def scores(
        self,
        queries: Float[torch.Tensor, "q dim"],
        values: torch.Tensor,
        factors: Float[torch.Tensor, "n"],  # noqa: UP037 - a shape
    ) -> Float[torch.Tensor, "q n"]:
        """Score codes, of (n, parts) values; nothing is carried over to the first group."""
        points = self.own.gather(0, values[:, self.groups]) + self.carried.gather(0, values[:, self.before]) * self.late
        return (queries @ self.mean).unsqueeze(1) + queries @ self.axes @ (points * factors.unsqueeze(1)).T


class _Course(Course[TrellisCode]):
    """The state of training: student, optimiser, and whose candidates are what."""

    def __init__(self, code: TrellisCode, examples: Examples) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._code, self._examples = code, examples
        self._rng = np.random.default_rng(code.seed)
        self._neighbours = neighbours(examples)
        self._values, self._factors = _written(code, examples.documents)
        self._temperature = temperature(examples)
        self._student = _Student(code).to(self._device)
        tables, rate = [self._student.own, self._student.carried], CENTROID_RATE * float(np.sqrt(np.mean(code._own**2)))
        groups: list[dict[str, Any]] = [{"params": tables, "lr": rate}, {"params": [self._student.axes], "lr": MAP_RATE}]
        self._optimizer = torch.optim.Adam(groups)
        self._schedule = falling(self._optimizer, STEPS)

    def step(self) -> None:
        """Take one batch of queries, and rank the neighbours of all of them for each of them."""
        count = len(self._examples.queries)
        batch = self._rng.choice(count, min(BATCH, count), replace=False)
        found = self._neighbours[batch].ravel()
        loss = self._loss(batch, np.unique(found[found != NOWHERE]))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def look(self) -> TrellisCode:
        """Give the code as it would be read now."""
        axes, own, carried = (_array(part) for part in (self._student.axes, self._student.own.T, self._student.carried.T))
        return self._code.read_with(axes, own, carried)

    def _loss(self, batch: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64]) -> torch.Tensor:
        queries = self._sent(self._examples.queries[batch])
        values = self._sent(self._values[candidates].astype(np.int64))
        themselves = self._sent(candidates == self._examples.own[batch][:, np.newaxis])
        hidden = HIDDEN * self._temperature
        teacher = queries @ self._sent(self._examples.documents[candidates]).T
        student = self._student.scores(queries, values, self._sent(self._factors[candidates]))
        return list_net(teacher.masked_fill(themselves, hidden), student.masked_fill(themselves, hidden), self._temperature)

    def _sent(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _written(code: TrellisCode, documents: Vectors) -> tuple[Values, Factors]:
    """Give the values and factors that the codes of documents hold."""
    factors, packed = code._split(code.encode(documents))
    return unpack_nibbles(packed, code._parts), code._grid.decode(factors)


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = np.ascontiguousarray(tensor.detach().cpu().numpy()).copy()
    return array
