"""Situated chunk embeddings beside what else a user could do about context, and what each costs.

``python -m rarebit.cookbook.benchmarks.situated --data DIR [--collections fairytaleqa,medquad] [--methods plain,shipped]``

Chunks of documents, embedded with MiniLM; questions, embedded as they are, are asked of all chunks and of those of their own
document (:mod:`.documents`). Methods:

    - ``plain``: each chunk by itself.
    - ``headers``: the document's title before each chunk, where there are titles.
    - ``window``: the texts of a chunk and of its two neighbours, embedded as one.
    - ``concatenation``: the chunk, and behind it the sixteen chunks of its block.
    - ``late``: late chunking in overlapping windows of the 256 tokens that MiniLM reads.
    - ``shipped``: the situating head that comes with Rarebit, which has seen none of these documents.
    - ``unlabelled``: a head trained on the collection's own documents, without a question.
    - ``labelled``: a head trained on the questions of fairytaleqa's train split; on other collections it is a stranger.
    - ``tuned alone``, ``tuned twice``, ``tuned situated``: MiniLM fine-tuned on the same questions, chunks by themselves; two
      such encoders, summed; and two, summed, of which the second reads the context (:mod:`.tuned`). ``tuned head``: the first,
      and a head over its vectors that is trained on the same questions. They take an hour to train on two cores, and are kept
      in the folder ``--tuned``.

``vs plain``: points of recall@10 more than plain, ``vs tuned`` more than ``tuned alone``, paired by question; intervals are
the bootstrap's over questions. ``cost`` is the number of tokens that the model reads of the documents, over plain's;
``seconds``, of reading them and of the head's own work, with embedding timed on a sample. What training reads is not counted.
``48 bytes`` is the same after compression with the codec ``trellis``, by estimated scores alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors import codec_named
from rarebit.cookbook.benchmarks.documents import CUT, PLACES, DocumentCollection, Questions, load
from rarebit.cookbook.benchmarks.embedded import default_cache, embedded, load_encoder
from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.cookbook.benchmarks.tuned import LONGER, TunedEncoders
from rarebit.errors import InputError
from rarebit.retrievers.situating import (
    Chunks,
    Examples,
    LateChunking,
    NeighbourWindow,
    SituatingHead,
    TitleHeaders,
    block_contexts,
    removed_sentences,
    unlabelled,
)

METHODS = ("plain", "headers", "window", "concatenation", "late", "shipped", "unlabelled", "labelled")
TUNED = ("tuned alone", "tuned twice", "tuned situated", "tuned head")
KNOWN = (*METHODS, *TUNED)
VERSUS = {"vs plain": "plain", "vs tuned": "tuned alone"}
CUTOFFS = (5, 10, 20)
READS = 256
"""Tokens that MiniLM reads of a text."""

LABELS = "fairytaleqa"
TIMED, WARM_UP = 512, 32
"""Texts whose embedding is timed, and those before."""

CODEC = "trellis"
FEWEST_COMPRESSED = 512
QUESTIONS_AT_ONCE = 256

PerQuestion = dict[str, npt.NDArray[np.float64]]


class Made(NamedTuple):
    """What a method made: (n, dim) vectors of chunks, the tokens it read over plain's, the seconds it took."""

    chunks: Vectors
    cost: float
    seconds: float
    questions: Queries | None = None
    """Vectors of the questions, where they are not plain's."""


@dataclass
class Bench:
    """A collection with its embeddings, and where what other methods need is found."""

    collection: DocumentCollection
    data: Path
    cache: Path
    tuned: TunedEncoders | None = None

    def __post_init__(self) -> None:
        """Embed what every method needs."""
        self.chunks = embedded(self.collection.chunks, self.cache)
        self.questions: Queries = embedded(self.collection.test.texts, self.cache)
        self.document_of = self.collection.document_of
        self.starts = np.searchsorted(self.document_of, np.arange(len(self.collection.documents)))

    @cached_property
    def plain_seconds(self) -> float:
        """Seconds to embed each chunk by itself."""
        return _seconds(self.collection.chunks)

    def by_document(self) -> list[Vectors]:
        """Give the plain vectors of each document's chunks."""
        return np.split(self.chunks, self.starts[1:])

    def situated(self, head: SituatingHead) -> Vectors:
        """Situate the chunks of every document."""
        return head.situate_grouped(self.chunks, self.document_of.tolist())

    def made(self, method: str) -> Made | None:
        """Give the vectors of a method; None where it has no meaning."""
        if method in TUNED:
            return self._tuned(method.removeprefix("tuned "))
        texts = _texts(self.collection, method)
        if texts is not None:
            if texts == self.collection.chunks and method != "plain":
                return None
            seconds = self.plain_seconds if method == "plain" else _seconds(texts)
            return Made(embedded(texts, self.cache), _tokens(texts) / _tokens(self.collection.chunks), seconds)
        if method == "late":
            return self._late()
        head = {"shipped": self._shipped, "unlabelled": self._unlabelled, "labelled": self._labelled}[method]()
        if head is None:
            return None
        start = perf_counter()
        situated = self.situated(head)
        return Made(situated, 1.0, perf_counter() - start + self.plain_seconds)

    def _late(self) -> Made:
        from rarebit.cookbook.models import load_minilm

        late, start = LateChunking(load_minilm()), perf_counter()
        documents = self.collection.documents
        vectors = late.embed_many([document.text for document in documents], [document.chunks for document in documents])
        # Neighbouring windows share a quarter.
        whole = sum(_lengths([document.text for document in documents], longest=None)) * 4 / 3
        return Made(np.concatenate(vectors), whole / _tokens(self.collection.chunks), perf_counter() - start)

    def _shipped(self) -> SituatingHead:
        return SituatingHead.shipped(self.chunks.shape[1])

    def _unlabelled(self) -> SituatingHead | None:
        sentences = removed_sentences([document.chunks for document in self.collection.documents])
        vectors = embedded([sentence.text for sentence in sentences], self.cache)
        try:
            return SituatingHead.fit(unlabelled(self.by_document(), sentences, vectors))
        except InputError as error:
            print(f"  unlabelled: {error}", file=sys.stderr)
            return None

    def _tuned(self, name: str) -> Made:
        assert self.tuned is not None  # noqa: S101
        plain = _tokens(self.collection.chunks)
        if name == "head":
            chunks, questions, seconds = self.tuned.embed("alone", self.collection)
            head, start = self.tuned.head, perf_counter()
            situated = head.situate_grouped(chunks, self.document_of.tolist())
            return Made(situated, 1.0, seconds + perf_counter() - start, questions)
        chunks, questions, seconds = self.tuned.embed(name, self.collection)
        if name == "situated":
            read = ["[SEP]".join(pair) for pair in zip(self.collection.chunks, _contexts(self.collection), strict=True)]
            return Made(chunks, 1 + sum(_lengths(read, longest=LONGER)) / plain, seconds, questions)
        return Made(chunks, 2.0 if name == "twice" else 1.0, seconds, questions)

    def _labelled(self) -> SituatingHead:
        if self.collection.name == LABELS:
            return SituatingHead.fit(self.labelled(self.collection.train))
        (other,) = load(self.data / LABELS)
        return Bench(other, self.data, self.cache)._labelled()

    def labelled(self, questions: Questions) -> Examples:
        """Make examples of questions and the chunks that answer them."""
        vectors = embedded(questions.texts, self.cache)
        pairs = [(which, int(chunk)) for which, relevant in enumerate(questions.relevant) for chunk in relevant]
        documents = [int(self.document_of[chunk]) for _, chunk in pairs]
        places = [(document, chunk - int(self.starts[document])) for (_, chunk), document in zip(pairs, documents, strict=True)]
        return Examples(self.by_document(), vectors[[which for which, _ in pairs]], places)

    def judged(self, vectors: Vectors, questions: Queries | None = None) -> PerQuestion:
        """Ask every question: recall and nDCG among all chunks, recall among those of its document."""
        found: dict[str, list[float]] = {}
        asked = self.questions if questions is None else questions
        for start in range(0, len(asked), QUESTIONS_AT_ONCE):
            scores = asked[start : start + QUESTIONS_AT_ONCE] @ vectors.T
            for own, relevant in zip(scores, self.collection.test.relevant[start:], strict=False):
                for metric, value in self._of_question(own, relevant).items():
                    found.setdefault(metric, []).append(value)
        return {metric: np.array(values) for metric, values in found.items()}

    def _of_question(self, scores: npt.NDArray[np.float32], relevant: npt.NDArray[np.int64]) -> dict[str, float]:
        best = np.argsort(-scores, kind="stable")[: max(CUTOFFS)]
        hits = np.isin(best, relevant)
        discounts = 1 / np.log2(np.arange(2, 12))
        values = {f"recall@{k}": hits[:k].sum() / len(relevant) for k in CUTOFFS}
        values["nDCG@10"] = (hits[:10] * discounts[: len(hits[:10])]).sum() / discounts[: len(relevant)].sum()
        inside = np.flatnonzero(self.document_of == self.document_of[relevant[0]])
        nearest = inside[np.argsort(-scores[inside], kind="stable")[:5]]
        values["recall@5 in its document"] = np.isin(nearest, relevant).sum() / len(relevant)
        return {metric: float(value) for metric, value in values.items()}


def _texts(collection: DocumentCollection, method: str) -> list[str] | None:
    """Give what a method embeds in place of each chunk; None for one that embeds the chunks or the documents."""
    titles = [{"title": document.title} for document in collection.documents for _ in document.chunks]
    chunks = Chunks(collection.chunks, collection.document_of.tolist(), [None] * len(titles), titles)
    if method == "plain":
        return collection.chunks
    if method == "headers":
        return TitleHeaders().to_embed(chunks)
    if method == "window":
        return NeighbourWindow().to_embed(chunks)
    if method == "concatenation":
        return ["\n".join(pair) for pair in zip(collection.chunks, _contexts(collection), strict=True)]
    return None


def _contexts(collection: DocumentCollection) -> list[str]:
    return [context for document in collection.documents for context in block_contexts(document.chunks)]


def _tokens(texts: Sequence[str]) -> int:
    return sum(_lengths(texts, longest=READS))


def _seconds(texts: Sequence[str]) -> float:
    """Say how long embedding takes, by the time for some of the texts."""
    encode, drawn = load_encoder(), np.random.default_rng(0).permutation(len(texts))[:TIMED]
    encode([texts[int(place)] for place in drawn[:WARM_UP]])
    start = perf_counter()
    encode([texts[int(place)] for place in drawn])
    return (perf_counter() - start) * len(texts) / len(drawn)


def _lengths(texts: Sequence[str], longest: int | None) -> list[int]:
    from rarebit.cookbook.models import load_minilm

    encoded = load_minilm().tokenizer(list(texts), truncation=longest is not None, max_length=longest, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def measure(bench: Bench, methods: Sequence[str]) -> list[Figure]:
    """Measure methods on a collection."""
    figures: list[Figure] = []
    compared: dict[tuple[str, str], PerQuestion] = {}
    for method in methods:
        made = bench.made(method)
        if made is None:
            continue
        count = len(made.chunks)
        for setting, searched in (("exact", made.chunks), ("48 bytes", _compressed(made.chunks))):
            if searched is None:
                continue
            found = compared[method, setting] = bench.judged(searched, made.questions)
            subject = Subject("situated", bench.collection.name, method, setting)
            figures += [subject.sampled(metric, values) for metric, values in found.items()]
            for metric, other in VERSUS.items():
                if (other, setting) in compared and (other == "plain" or method in TUNED):
                    more = found["recall@10"] - compared[other, setting]["recall@10"]
                    figures.append(subject.sampled(metric, 100 * more))
            if setting == "exact":
                figures += [subject.counted("cost", made.cost, count), subject.counted("seconds", made.seconds, count)]
    return figures


def _compressed(vectors: Vectors) -> Vectors | None:
    if len(vectors) < FEWEST_COMPRESSED:
        return None
    codec = codec_named(CODEC).fit(vectors)
    return codec.decode(codec.encode(vectors))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--collections", default=",".join([*PLACES, CUT]), help="names with commas between")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"some of {', '.join(KNOWN)}, with commas between")
    parser.add_argument("--tuned", type=Path, help="folder that keeps the fine-tuned encoders")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    methods = given.methods.split(",")
    for method in methods:
        if method not in KNOWN:
            raise InputError(f"got the method {method!r}, wanted some of {', '.join(KNOWN)}")
    if set(methods) & set(TUNED) and given.tuned is None:
        raise InputError("got fine-tuned methods without a folder to keep the encoders in, wanted --tuned FOLDER")
    tuned = None if given.tuned is None else TunedEncoders(load(given.data / LABELS)[0], given.tuned)
    figures: list[Figure] = []
    for name in given.collections.split(","):
        for collection in load(given.data / name):
            found = measure(Bench(collection, given.data, given.cache, tuned), methods)
            sizes = f"{len(collection.documents):,} documents, {len(collection.chunks):,} chunks"
            print(f"\n{collection.name}: {sizes}, {len(collection.test):,} questions\n{table(found, VERSUS)}", flush=True)
            figures += found
            if given.json is not None:
                write_json(figures, given.json)


if __name__ == "__main__":
    main()
