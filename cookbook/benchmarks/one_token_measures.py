"""What a language model makes of questions when their passages are given in one way or another."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float64, Int64
from torch.utils.flop_counter import FlopCounterMode

from rarebit import Collection
from rarebit.arrays import Queries, Vectors
from rarebit.compressors.context.bridge import ModalityBridge
from rarebit.compressors.context.costs import prefill_flops
from rarebit.compressors.context.exercises import PARAPHRASES, ExerciseBook, mark
from rarebit.compressors.context.generation import Sampling
from rarebit.compressors.context.generator import OneTokenGenerator
from rarebit.compressors.context.lessons import Lessons, Reading
from rarebit.compressors.context.passages import Passage
from rarebit.compressors.context.prompts import OPENING, Prompt
from rarebit.compressors.context.reading import Exercise, expected
from rarebit.compressors.context.references import Reference
from rarebit.cookbook.benchmarks.context_methods import Context, Shelf, others_of
from rarebit.cookbook.benchmarks.embedded import embedded
from rarebit.cookbook.benchmarks.figures import Figure, Sample, Statistic, Subject
from rarebit.cookbook.benchmarks.reading_sets import ReadingSet
from rarebit.errors import InputError

BENCHMARK: Final = "one_token"
NONE, TEXT, TOKEN, OTHER, STORE = "no passage", "text", "1 token", "other's token", "1 token, store"
CUT, SENTENCES, MIXED = "cut text", "sentences", "mixed"
RIGHT, FOUND_SETTING = "passages that answer", "10 found"

FOUND: Final = 10
BUDGETS: Final = (32, 64, 128, 256, 512)
BATCH: Final = 8
LONGEST_ANSWER, LONGEST_PARAPHRASE, WRITTEN = 48, 64, 24
MEMORY: Final = 56
"""Bytes a vector of the store: 48 for its code."""

SHORT: Final = 8
"""Words of an answer that may stand in what is written."""

TIMED: Final = 12
"""Questions whose first token is timed."""

Rows: TypeAlias = Int64[npt.NDArray[np.int64], "r"]
Values: TypeAlias = Float64[npt.NDArray[np.float64], "q"]
Asking: TypeAlias = tuple[list[Any], list[int]]
"""A prompt with passages by their places, and what should follow."""


@dataclass(frozen=True)
class Way:
    """A way to give passages: a context for each question; a bridge and vectors where they are not the usual ones."""

    setting: str
    name: str
    contexts: Sequence[Context]
    bridge: ModalityBridge | None = None
    vectors: Vectors | None = None


class Measured:
    """Measurements on the questions of one collection.

    Args:
        given: the collection.
        generator: the language model with the bridge that is measured.
        bridges: others to compare with, by their names.
        cache: folder that keeps embeddings.
        questions: how many, at most, drawn at random.
        written: to how many of them answers are written, and passages are searched for.
    """

    def __init__(
        self,
        given: ReadingSet,
        generator: OneTokenGenerator,
        bridges: dict[str, ModalityBridge],
        cache: Path,
        *,
        questions: int,
        written: int,
    ) -> None:
        """Draw questions, and search for them."""
        if generator.bridge is None:
            raise InputError("got a generator without a bridge, wanted the bridge that is measured")
        self.set, self.generator, self.bridge, self.bridges = given, generator, generator.bridge, bridges
        drawn = np.random.default_rng(0).permutation(len(given.test))[:questions]
        self.readings: list[Reading] = [given.test[place] for place in drawn]
        self.written = min(written, len(self.readings))
        self.queries: Queries = embedded([reading.question for reading in self.readings[: self.written]], cache)
        index = faiss.IndexFlatIP(given.vectors.shape[1])
        index.add(given.vectors)
        self.found: list[list[int]] = index.search(self.queries, FOUND)[1].tolist()
        self.book = ExerciseBook(generator.tokenizer, Lessons(given.texts, given.vectors, self.readings))
        shown = {place: self.book.shown(place) for own in self.found for place in own}
        self.shelf = Shelf(shown, generator.tokenizer, lambda texts: embedded(texts, cache), generator.tokens_a_vector)
        self._articles = np.array([given.articles[reading.passages[0]] for reading in self.readings])
        self._others = others_of([reading.passages for reading in self.readings])
        self._subject = Subject(BENCHMARK, given.name)

    def figures(self) -> Iterator[Figure]:
        """Measure everything."""
        yield from self._with_what_answers()
        yield from self._with_what_is_found()
        yield from self._paraphrases()
        yield from self._costs()

    @cached_property
    def _nothing(self) -> Way:
        return Way(RIGHT, NONE, [[] for _ in self.readings])

    @cached_property
    def _nll_of_nothing(self) -> Values:
        return self._nll(self._nothing)

    @cached_property
    def _right_by_heart(self) -> tuple[Values, Values]:
        return self._written(self._nothing)

    def _with_what_answers(self) -> Iterator[Figure]:
        right: list[Context] = [list(reading.passages) for reading in self.readings]
        text = Way(RIGHT, TEXT, [[self.book.shown(place) for place in reading.passages] for reading in self.readings])
        other = Way(RIGHT, OTHER, [list(own) for own in self._others])
        nll_of_text, nll_of_other = self._nll(text), self._nll(other)
        yield from self._told(self._nothing, self._nll_of_nothing)
        yield from self._told(text, nll_of_text)
        yield from self._told(other, nll_of_other)
        tokens = [
            Way(RIGHT, TOKEN, right),
            Way(RIGHT, STORE, right, vectors=self._stored()),
            *(Way(RIGHT, name, right, bridge) for name, bridge in self.bridges.items()),
        ]
        for way in tokens:
            nll, subject = self._nll(way), self._subject.of(way.name, way.setting)
            yield from self._told(way, nll)
            yield self._sampled(subject, "vs other", nll - nll_of_other)
            gains = np.stack([self._nll_of_nothing - nll, self._nll_of_nothing - nll_of_text], axis=1)
            yield self._sampled(subject, "share", gains, _share)

    def _with_what_is_found(self) -> Iterator[Figure]:
        tokens: list[Context] = [list(own) for own in self.found]
        for way in (Way(FOUND_SETTING, TEXT, list(map(self.shelf.whole, self.found))), Way(FOUND_SETTING, TOKEN, tokens)):
            yield from self._told(way, self._nll(way))
        for budget in BUDGETS:
            setting = f"{FOUND_SETTING}, {budget} tokens"
            cut = Way(setting, CUT, [self.shelf.truncated(own, budget) for own in self.found])
            nll_of_cut = self._nll(cut)
            yield from self._told(cut, nll_of_cut)
            nearest = [self.shelf.sentences(own, budget, query) for own, query in zip(self.found, self.queries, strict=True)]
            mixed = [self.shelf.mixed(own, budget) for own in self.found]
            for way in (Way(setting, SENTENCES, nearest), Way(setting, MIXED, mixed)):
                nll = self._nll(way)
                yield from self._told(way, nll)
                yield self._sampled(self._subject.of(way.name, setting), "vs cut", nll - nll_of_cut)

    def _paraphrases(self) -> Iterator[Figure]:
        places = [reading.passages[0] for reading in self.readings]
        ways = [(TOKEN, places, self.bridge), (OTHER, [own[0] for own in self._others], self.bridge)]
        ways += [(name, places, bridge) for name, bridge in self.bridges.items()]
        of_token = np.zeros(len(places))
        for name, given, bridge in ways:
            asked = [self.book.laid_out(PARAPHRASES[0].format(context=mark(place))) for place in given]
            said = [self.book.tokens_of(place)[:LONGEST_PARAPHRASE] for place in places]
            values = self._expected(list(zip(asked, said, strict=True)), bridge, self.set.vectors)
            of_token = values if name == TOKEN else of_token
            subject = self._subject.of(name, "paraphrase")
            yield self._sampled(subject, "nll", values)
            yield self._sampled(subject, "vs token", values - of_token)

    def _costs(self) -> Iterator[Figure]:
        setting, rows = f"{FOUND_SETTING}, cost", range(min(TIMED, self.written))
        contexts: dict[str, list[Context]] = {
            TEXT: list(map(self.shelf.whole, self.found)),
            TOKEN: [list(own) for own in self.found],
        }
        prompts = {name: [self._prompt(row, own[row]) for row in rows] for name, own in contexts.items()}
        seconds: dict[str, list[float]] = {name: [] for name in prompts}
        for row in rows:
            for name, own in prompts.items():
                start = perf_counter()
                self.generator.answer([own[row]], Sampling(max_new_tokens=1))
                seconds[name].append(perf_counter() - start)
        lengths = {name: [self._length(prompt) for prompt in own] for name, own in prompts.items()}
        for name, each in lengths.items():
            yield self._sampled(self._subject.of(name, setting), "prompt", np.array(each, np.float64))
        flops = {name: np.array([prefill_flops(self.generator.model, each) for each in own]) for name, own in lengths.items()}
        subject = self._subject.of(TOKEN, setting)
        yield self._sampled(subject, "flops", flops[TOKEN] / flops[TEXT])
        yield subject.counted("flops, profiler", self._profiled(prompts[TOKEN][0]) / self._profiled(prompts[TEXT][0]), 1)
        yield self._sampled(subject, "first token", np.array(seconds[TOKEN]) / np.array(seconds[TEXT]))

    def _sampled(
        self, subject: Subject, metric: str, sample: Sample, statistic: Statistic = np.mean, rows: Rows | None = None
    ) -> Figure:
        """Make a figure of the first questions, or of some, with the interval of other articles."""
        articles = self._articles[: len(sample)] if rows is None else self._articles[rows]
        return subject.sampled(metric, sample, statistic, groups=articles.tolist())

    def _told(self, way: Way, nll: Values) -> Iterator[Figure]:
        subject = self._subject.of(way.name, way.setting)
        yield self._sampled(subject, "nll", nll)
        yield self._sampled(subject, "vs none", nll - self._nll_of_nothing[: len(nll)])
        short = np.array([len(reading.answer.split()) <= SHORT for reading in self.readings[: self.written]])
        before = self._right_by_heart[0]
        right, overlap = self._right_by_heart if way is self._nothing else self._written(way)
        yield self._sampled(subject, "f1", overlap)
        if 2 * short.sum() > len(short):  # no long answer is written down as it stands
            kinds = {"match": short, "kept": short & (before > 0), "made right": short & (before == 0)}
            for metric, chosen in kinds.items():
                rows = np.flatnonzero(chosen)
                if len(rows):
                    yield self._sampled(subject, metric, right[rows], rows=rows)
        lengths = [self._length(self._prompt(row, context), way.bridge) for row, context in enumerate(way.contexts)]
        yield self._sampled(subject, "prompt", np.array(lengths, np.float64))

    def _stored(self) -> Vectors:
        """Give the vectors back that a store with 48-byte codes keeps."""
        with Collection.open(memory_per_vector=MEMORY) as collection:
            return collection.vectors(collection.add(self.set.vectors))

    def _nll(self, way: Way) -> Values:
        """Give the mean negative log-likelihood of each answer's tokens."""
        asked = [
            (self._laid_out(row, context), self.book.answer(self.readings[row].answer, OPENING, LONGEST_ANSWER))
            for row, context in enumerate(way.contexts)
        ]
        vectors = self.set.vectors if way.vectors is None else way.vectors
        return self._expected(asked, self.bridge if way.bridge is None else way.bridge, vectors)

    def _expected(self, asked: Sequence[Asking], bridge: ModalityBridge, vectors: Vectors) -> Values:
        order = sorted(range(len(asked)), key=lambda row: sum(len(part) for part in asked[row][0] if isinstance(part, list)))
        found = np.empty(len(asked))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                exercises = [Exercise(_projected(asked[row][0], bridge, vectors), asked[row][1]) for row in rows]
                found[rows] = expected(self.generator.model, exercises).mean_nll().double().numpy()
        return found

    def _written(self, way: Way) -> tuple[Values, Values]:
        """Let the model answer the first questions; give whether each right answer stands there, and the overlap of words."""
        generator = self.generator
        if way.bridge is not None:
            generator = OneTokenGenerator(generator.model, generator.tokenizer, way.bridge)
        contexts = way.contexts[: self.written]
        prompts = [self._prompt(row, context, way.vectors) for row, context in enumerate(contexts)]
        order = sorted(range(len(prompts)), key=lambda row: self._length(prompts[row]))
        texts = [""] * len(prompts)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for row, given in zip(rows, generator.answer([prompts[row] for row in rows], Sampling(WRITTEN)), strict=True):
                texts[row] = given.text
        pairs = [(text, reading.answer) for text, reading in zip(texts, self.readings[: self.written], strict=True)]
        return np.array([float(_stands_in(*pair)) for pair in pairs]), np.array([_f1(*pair) for pair in pairs])

    def _laid_out(self, row: int, context: Context) -> list[Any]:
        pieces = [mark(piece) if isinstance(piece, int) else piece.replace("\0", " ") for piece in context]
        return self.book.asked(self.readings[row].question, pieces, OPENING)

    def _prompt(self, row: int, context: Context, vectors: Vectors | None = None) -> Prompt:
        own = self.set.vectors if vectors is None else vectors
        parts = self._laid_out(row, context)
        return Prompt(tuple(self._passage(part, own) if isinstance(part, int) else part for part in parts))

    def _passage(self, place: int, vectors: Vectors) -> Passage:
        return Passage(Reference(str(place), "", ""), self.set.texts[place], vectors[[place]])

    def _length(self, prompt: Prompt, bridge: ModalityBridge | None = None) -> int:
        return prompt.length((bridge or self.bridge).config.tokens)

    def _profiled(self, prompt: Prompt) -> int:
        """Count the operations of a prefill as PyTorch does."""
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self.generator.model(inputs_embeds=self.generator.embeddings(prompt)[None], logits_to_keep=1)
        return int(counter.get_total_flops())


def _projected(prompt: Sequence[Any], bridge: ModalityBridge, vectors: Vectors) -> list[Any]:
    return [bridge(torch.from_numpy(vectors[[part]]))[0] if isinstance(part, int) else part for part in prompt]


def _share(gains: npt.NDArray[np.float64], axis: int = 0) -> Any:
    """Give the gain of a token as a share of that of the text."""
    means = gains.mean(axis=axis)
    return means[..., 0] / means[..., 1]


def _words(text: str) -> list[str]:
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _stands_in(text: str, answer: str) -> bool:
    return f" {' '.join(_words(answer))} " in f" {' '.join(_words(text))} "


def _f1(text: str, answer: str) -> float:
    written, wanted = _words(text), _words(answer)
    common = sum(min(written.count(word), wanted.count(word)) for word in set(wanted))
    return 2 * common / max(len(written) + len(wanted), 1)
