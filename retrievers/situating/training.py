"""Training of a situating head: the right chunk has to score above the others of its document and of other documents.

InfoNCE on the inner product of the question and the situated chunks, as SitEmb trains its encoders (2508.01959), with all
chunks of a batch of documents as candidates: those of the same document are the hard ones. Where a sentence took the place of a
question, candidates that lie nearer to it than the chunk it was taken from are not counted as wrong (GISTEmbed, 2402.16829).

The only part of the head that needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float

from rarebit.arrays import Vectors
from rarebit.compressors.vectors.course import Course, best_looked_at, reproducible
from rarebit.errors import InputError
from rarebit.retrievers.situating.examples import Examples
from rarebit.retrievers.situating.head import NEAR, REACH, SHARPNESS, SPAN, SituatingHead, SituatingReport

TEMPERATURE: Final = 0.05
RATE: Final = 1e-3
SHARES_RATE: Final = 2e-2
SHARES_FIRST: Final = 0.4
"""Share of the steps in which the attention waits: what is the same for all chunks is learned first, of few examples too."""

DECAY: Final = 0.01
WARM_UP: Final = 20
BATCH: Final = 16
"""Documents of a batch."""

HELD_OUT: Final = 0.2
FEWEST_WINDOWS: Final = 10
MOST_MEASURED: Final = 1000
"""Questions about documents kept apart that are measured with."""

Windows: TypeAlias = Float[torch.Tensor, "b n dim"]
Means: TypeAlias = Float[torch.Tensor, "b dim"]
Found: TypeAlias = Float[torch.Tensor, "b n inner"]
There: TypeAlias = Bool[torch.Tensor, "b n"]


def trained(head: SituatingHead, examples: Examples, steps: int, seed: int, *, progress: bool) -> SituatingHead:
    """Train a head of the shape of this one; give the best seen, with its report."""
    rng = np.random.default_rng(seed)
    windows = list(_windows(examples))
    if len(windows) < FEWEST_WINDOWS:
        raise InputError(
            f"got questions about {len(windows)} documents or parts of {SPAN} chunks, wanted {FEWEST_WINDOWS} at least: a head "
            "that is to be used on other documents has to be measured on some; take more documents, or load a trained head"
        )
    held, rest = _parted(windows, rng)
    asked = [which for window in held for about in window.questions.values() for which in about]
    measured = set(rng.permutation(asked)[:MOST_MEASURED].tolist())

    def measure(candidate: SituatingHead) -> float:
        return _log_rank(candidate, examples, held, measured)

    with reproducible(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        course = _Course(head, examples, rest, steps, rng)
        best, step = best_looked_at(head, course, steps, measure, progress=progress)
    return best.with_arrays(
        best._arrays, SituatingReport(float(np.exp(-measure(head))), float(np.exp(-measure(best))), step, len(measured))
    )


def _parted(windows: list[Window], rng: np.random.Generator) -> tuple[list[Window], list[Window]]:
    """Give the windows to measure on and those to train on: of different documents, if there are enough documents for that."""
    documents = np.array([window.document for window in windows])
    groups = documents if len(set(documents.tolist())) >= FEWEST_WINDOWS else np.arange(len(windows))
    drawn = rng.permutation(np.unique(groups))
    apart = np.isin(groups, drawn[: max(1, int(HELD_OUT * len(drawn)))])
    held, rest = ([windows[place] for place in np.flatnonzero(chosen)] for chosen in (apart, ~apart))
    return held, rest


def typical_rank(head: SituatingHead, examples: Examples) -> float:
    """Give the geometric mean of the ranks of the right chunks, among all chunks that are asked about and around."""
    return float(np.exp(-_log_rank(head, examples, list(_windows(examples)), set(range(len(examples))))))


def _log_rank(head: SituatingHead, examples: Examples, windows: Sequence[Window], asked: set[int]) -> float:
    """Give minus the mean logarithm of the rank of the right chunk of each of some questions among the windows' chunks."""
    situated = [head.situate_among(window.of(examples), examples.means[window.document]) for window in windows]
    every = np.concatenate(situated)
    ranks: list[float] = []
    for window, before in zip(windows, situated, strict=True):
        for chunk, about in window.questions.items():
            for which in sorted(asked.intersection(about)):
                question, here = examples.questions[which], before
                if examples.without is not None:
                    # Its neighbours and its document lose what it lent them as well.
                    vectors, mean = window.of(examples).copy(), examples.means[window.document]
                    lost = vectors[chunk - window.start] - examples.without[which]
                    vectors[chunk - window.start] = examples.without[which]
                    here = head.situate_among(vectors, mean - lost / len(examples.documents[window.document]))
                scores = here @ question
                right = scores[chunk - window.start]
                elsewhere = np.count_nonzero(every @ question > right) - np.count_nonzero(before @ question > right)
                ranks.append(float(1 + elsewhere + np.count_nonzero(scores > right)))
    return -float(np.log(ranks).mean())


@dataclass(frozen=True)
class Window:
    """Some neighbouring chunks of a document, and the questions about them, chunk by chunk."""

    document: int
    start: int
    stop: int
    questions: dict[int, list[int]]

    def of(self, examples: Examples) -> Vectors:
        """Give the vectors of the chunks."""
        return examples.documents[self.document][self.start : self.stop]


def _windows(examples: Examples) -> Iterator[Window]:
    """Cut the documents that are asked about."""
    about: dict[int, dict[int, list[int]]] = {}
    for which, (document, chunk) in enumerate(examples.places.tolist()):
        about.setdefault(document, {}).setdefault(chunk, []).append(which)
    for document, by_chunk in sorted(about.items()):
        count = len(examples.documents[document])
        for start in range(0, count, SPAN):
            inside = {chunk: by_chunk[chunk] for chunk in range(start, min(start + SPAN, count)) if chunk in by_chunk}
            if inside:
                yield Window(document, start, min(start + SPAN, count), inside)


class _Course(Course[SituatingHead]):
    def __init__(
        self, head: SituatingHead, examples: Examples, windows: Sequence[Window], steps: int, rng: np.random.Generator
    ) -> None:
        self._head, self._examples, self._windows, self._rng = head, examples, windows, rng
        self._student = Student(head)
        rates: list[dict[str, Any]] = [
            {"params": self._student.shares, "lr": SHARES_RATE, "weight_decay": 0.0},
            {"params": self._student.attention},
        ]
        self._optimizer = torch.optim.AdamW(rates, lr=RATE, weight_decay=DECAY)
        first = int(SHARES_FIRST * steps) if head.heads else 0
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, [lambda step: _rate(step, steps), lambda step: _rate(step - first, steps - first)]
        )
        self._waiting: list[int] = []

    def step(self) -> None:
        """Take a batch of documents, with a question about each chunk that there is one for."""
        windows = [self._windows[place] for place in self._next()]
        vectors, means, there = self._laid_out(windows)
        asked_about = [(row, chunk, which) for row, window in enumerate(windows) for chunk, which in window.questions.items()]
        rows = torch.tensor([row for row, _, _ in asked_about])
        columns = torch.tensor([chunk - windows[row].start for row, chunk, _ in asked_about])
        drawn = [int(self._rng.choice(which)) for _, _, which in asked_about]
        asked = torch.from_numpy(self._examples.questions[drawn])
        guard = None
        if self._examples.without is not None:
            guard = asked @ vectors[there].T > (asked * vectors[rows, columns]).sum(1, keepdim=True)
            without = torch.from_numpy(self._examples.without[drawn])
            lost = torch.zeros_like(means).index_add_(0, rows, vectors[rows, columns] - without)
            means = means - lost / torch.tensor([[len(self._examples.documents[window.document])] for window in windows])
            vectors[rows, columns] = without
        right = (torch.cumsum(there.flatten().int(), 0) - 1).reshape(there.shape)[rows, columns].long()
        scores = asked @ self._student(vectors, means, there)[there].T / TEMPERATURE
        if guard is not None:
            guard[torch.arange(len(right)), right] = False
            scores = scores.masked_fill(guard, -torch.inf)
        loss = torch.nn.functional.cross_entropy(scores, right)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def look(self) -> SituatingHead:
        """Give the head as it stands."""
        arrays = {name: weight.detach().numpy().copy() for name, weight in self._student.named_parameters()}
        return self._head.with_arrays(arrays)

    def _next(self) -> Sequence[int]:
        if len(self._waiting) < min(BATCH, len(self._windows)):
            self._waiting = self._rng.permutation(len(self._windows)).tolist()
        taken, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return taken

    def _laid_out(self, windows: Sequence[Window]) -> tuple[Windows, Means, There]:
        """Put windows side by side, filled up with zeros."""
        longest = max(window.stop - window.start for window in windows)
        vectors = np.zeros((len(windows), longest, self._examples.dim), np.float32)
        there = np.zeros((len(windows), longest), np.bool_)
        for row, window in enumerate(windows):
            part = window.of(self._examples)
            vectors[row, : len(part)], there[row, : len(part)] = part, True
        means = self._examples.means[[window.document for window in windows]]
        return torch.from_numpy(vectors), torch.from_numpy(means), torch.from_numpy(there)


def _rate(step: int, steps: int) -> float:
    """Give the share of the learning rate: it rises, then falls in a line; 0 before the first step."""
    return max(0.0, min(1.0, (step + 1) / WARM_UP)) * max(0.02, 1 - step / max(steps, 1)) if step >= 0 else 0.0


class Student(torch.nn.Module):
    """The head with its weights as parameters; for windows that are no longer than what a chunk looks at."""

    def __init__(self, head: SituatingHead) -> None:
        """Begin at the chunks' own vectors."""
        super().__init__()
        self._heads, self._width = head.heads, head.width
        inner = head.heads * head.width
        self.near = torch.nn.Parameter(torch.zeros(2 * NEAR + 1))
        self.document_share = torch.nn.Parameter(torch.zeros(1))
        self.queries, self.keys, self.values = (_random(inner, head.dim) for _ in range(3))
        self.output = torch.nn.Parameter(torch.zeros(head.dim, inner))
        self.distances = torch.nn.Parameter(torch.zeros(head.heads, 2 * REACH + 1))
        self.document = torch.nn.Parameter(torch.zeros(head.heads))

    def forward(self, vectors: Windows, means: Means, there: There) -> Windows:
        """Situate the chunks of windows."""
        count = vectors.shape[1]
        padded = torch.nn.functional.pad(vectors, (0, 0, NEAR, NEAR))
        situated: torch.Tensor = vectors + self.document_share * means[:, None]
        for place, share in enumerate(self.near):
            situated = situated + share * padded[:, place : place + count]
        return situated + self._attended(vectors, means, there) @ self.output.T if self._heads else situated

    @property
    def shares(self) -> list[torch.nn.Parameter]:
        """The weights that do not look at what the chunks say."""
        return [self.near, self.document_share]

    @property
    def attention(self) -> list[torch.nn.Parameter]:
        """The other weights."""
        return [self.queries, self.keys, self.values, self.output, self.distances, self.document]

    def _attended(self, vectors: Windows, means: Means, there: There) -> Found:
        batch, count, _ = vectors.shape
        looked_at = torch.cat([vectors, means[:, None]], 1)
        queries = self._by_head(vectors @ self.queries.T) * (SHARPNESS / self._width**0.5)
        keys, values = self._by_head(looked_at @ self.keys.T), self._by_head(looked_at @ self.values.T)
        places = torch.arange(count)
        distances = self.distances[:, (places - places[:, None]).clamp(-REACH, REACH) + REACH]
        beside = torch.cat([distances, self.document[:, None, None].expand(-1, count, 1)], 2)
        hidden = ~torch.cat([there, torch.ones(batch, 1, dtype=torch.bool)], 1)
        scores = (queries @ keys.transpose(2, 3) + beside).masked_fill(hidden[:, None, None], -torch.inf)
        found: torch.Tensor = (scores.softmax(-1) @ values).transpose(1, 2).reshape(batch, count, -1)
        return found

    def _by_head(self, projected: torch.Tensor) -> torch.Tensor:
        batch, count, _ = projected.shape
        return projected.view(batch, count, self._heads, self._width).transpose(1, 2)


def _random(count: int, dim: int) -> torch.nn.Parameter:
    weight = torch.empty(count, dim)
    if count:
        torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
    return torch.nn.Parameter(weight)
