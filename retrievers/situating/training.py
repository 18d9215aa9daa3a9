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
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int64

from rarebit.arrays import Vectors
from rarebit.compressors.vectors.course import Course, best_looked_at, reproducible
from rarebit.errors import InputError
from rarebit.retrievers.situating.examples import Examples
from rarebit.retrievers.situating.head import REACH, SHARPNESS, SPAN, SituatingHead, SituatingReport

TEMPERATURE: Final = 0.03
RATE: Final = 1e-3
SHARES_RATE: Final = 3e-3
DECAY: Final = 0.01
WARM_UP: Final = 20
BATCH: Final = 16
"""Documents of a batch."""

HELD_OUT: Final = 0.1
FEWEST_DOCUMENTS: Final = 10
MOST_MEASURED: Final = 500
"""Questions about documents kept apart that are measured with."""

Windows: TypeAlias = Float[torch.Tensor, "b n dim"]
Means: TypeAlias = Float[torch.Tensor, "b dim"]
Found: TypeAlias = Float[torch.Tensor, "b n inner"]
There: TypeAlias = Bool[torch.Tensor, "b n"]
Numbers: TypeAlias = Int64[npt.NDArray[np.int64], "m"]


def trained(head: SituatingHead, examples: Examples, steps: int, seed: int, *, progress: bool) -> SituatingHead:
    """Train a head of the shape of this one; give the best seen, with its report."""
    rng = np.random.default_rng(seed)
    asked = rng.permutation(np.unique(examples.places[:, 0]))
    if len(asked) < FEWEST_DOCUMENTS:
        raise InputError(
            f"got questions about {len(asked)} documents, wanted {FEWEST_DOCUMENTS} at least: a head that is to be used on "
            "other documents has to be measured on some; cut long documents into parts, or load a trained head"
        )
    held = asked[: max(1, int(HELD_OUT * len(asked)))]
    about_held = np.isin(examples.places[:, 0], held)
    measured = rng.permutation(np.flatnonzero(about_held))[:MOST_MEASURED]

    def measure(candidate: SituatingHead) -> float:
        return mean_reciprocal_rank(candidate, examples, measured)

    with reproducible(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        course = _Course(head, examples, np.flatnonzero(~about_held), steps, rng)
        best, step = best_looked_at(head, course, steps, measure, progress=progress)
    return best.with_arrays(best._arrays, SituatingReport(measure(head), measure(best), step, len(measured)))


def mean_reciprocal_rank(head: SituatingHead, examples: Examples, questions: Numbers) -> float:
    """Rank the right chunk among all chunks of the documents that some of the questions are about."""
    asked = np.unique(examples.places[questions, 0])
    situated = {int(number): head.situate(examples.documents[number]) for number in asked}
    every = np.concatenate(list(situated.values()))
    ranks = []
    for which in questions.tolist():
        document, chunk = examples.places[which].tolist()
        question = examples.questions[which]
        # Without the sentence, its chunk alone is another one; what it lends to its neighbours hardly differs.
        vectors = examples.documents[document]
        if examples.without is not None:
            vectors = vectors.copy()
            vectors[chunk] = examples.without[which]
        right = head.situate(vectors)[chunk] @ question
        itself = situated[document][chunk] @ question
        better = int(np.count_nonzero(every @ question > right)) - int(itself > right)
        ranks.append(1 / (1 + better))
    return float(np.mean(ranks))


@dataclass(frozen=True)
class _Window:
    """Some neighbouring chunks of a document, and the questions about them, chunk by chunk."""

    document: int
    start: int
    stop: int
    questions: dict[int, list[int]]


def _windows(examples: Examples, questions: Numbers) -> Iterator[_Window]:
    """Cut the documents that are asked about."""
    about: dict[int, dict[int, list[int]]] = {}
    for which in questions.tolist():
        document, chunk = examples.places[which].tolist()
        about.setdefault(document, {}).setdefault(chunk, []).append(which)
    for document, by_chunk in sorted(about.items()):
        count = len(examples.documents[document])
        for start in range(0, count, SPAN):
            inside = {chunk: by_chunk[chunk] for chunk in range(start, min(start + SPAN, count)) if chunk in by_chunk}
            if inside:
                yield _Window(document, start, min(start + SPAN, count), inside)


class _Course(Course[SituatingHead]):
    def __init__(
        self, head: SituatingHead, examples: Examples, questions: Numbers, steps: int, rng: np.random.Generator
    ) -> None:
        self._head, self._examples, self._rng = head, examples, rng
        self._windows = list(_windows(examples, questions))
        if not self._windows:
            raise InputError("got questions about the documents that were kept apart only, wanted some about others too")
        self._student = Student(head)
        rates: list[dict[str, Any]] = [
            {"params": [self._student.shares], "lr": SHARES_RATE, "weight_decay": 0.0},
            {"params": [weight for name, weight in self._student.named_parameters() if name != "shares"]},
        ]
        self._optimizer = torch.optim.AdamW(rates, lr=RATE, weight_decay=DECAY)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * max(0.02, 1 - step / max(steps, 1))
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
            vectors[rows, columns] = torch.from_numpy(self._examples.without[drawn])
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

    def _laid_out(self, windows: Sequence[_Window]) -> tuple[Windows, Means, There]:
        """Put windows side by side, filled up with zeros."""
        documents = self._examples.documents
        longest = max(window.stop - window.start for window in windows)
        vectors = np.zeros((len(windows), longest, self._examples.dim), np.float32)
        there = np.zeros((len(windows), longest), np.bool_)
        for row, window in enumerate(windows):
            part = documents[window.document][window.start : window.stop]
            vectors[row, : len(part)], there[row, : len(part)] = part, True
        means: Vectors = np.stack([documents[window.document].mean(axis=0) for window in windows])
        return torch.from_numpy(vectors), torch.from_numpy(means), torch.from_numpy(there)


class Student(torch.nn.Module):
    """The head with its weights as parameters; for windows that are no longer than what a chunk looks at."""

    def __init__(self, head: SituatingHead) -> None:
        """Begin near the chunks' own vectors: some of the document and of the neighbours, and nothing from attention."""
        super().__init__()
        self._heads, self._width = head.heads, head.width
        inner = head.heads * head.width
        self.shares = torch.nn.Parameter(torch.tensor([0.0, 0.2, 0.1]))
        self.queries, self.keys, self.values = (_random(inner, head.dim) for _ in range(3))
        self.output = torch.nn.Parameter(torch.zeros(head.dim, inner))
        self.distances = torch.nn.Parameter(torch.zeros(head.heads, 2 * REACH + 1))
        self.document = torch.nn.Parameter(torch.zeros(head.heads))

    def forward(self, vectors: Windows, means: Means, there: There) -> Windows:
        """Situate the chunks of windows."""
        own, document, near = self.shares
        before = torch.nn.functional.pad(vectors[:, :-1], (0, 0, 1, 0))
        after = torch.nn.functional.pad(vectors[:, 1:], (0, 0, 0, 1))
        situated: torch.Tensor = (1 + own) * vectors + document * means[:, None] + near / 2 * (before + after)
        situated += self._attended(vectors, means, there) @ self.output.T
        return situated

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
    torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
    return torch.nn.Parameter(weight)
