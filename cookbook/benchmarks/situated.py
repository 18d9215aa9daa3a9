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

``vs plain``: points of recall@10 more than plain, paired by question; intervals are the bootstrap's over questions. ``cost``
is the number of tokens that the model reads of the documents, over plain's; a head's own work is ``seconds``, and what training
reads is not counted. ``48 bytes`` is the same after compression with the codec ``trellis``, by estimated scores alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors import codec_named
from rarebit.cookbook.benchmarks.documents import CUT, PLACES, DocumentCollection, Questions, load
from rarebit.cookbook.benchmarks.embedded import default_cache, embedded
from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.errors import InputError
from rarebit.retrievers.situating import Examples, LateChunking, SituatingHead, removed_sentences, unlabelled

METHODS = ("plain", "headers", "window", "concatenation", "late", "shipped", "unlabelled", "labelled")
CUTOFFS = (5, 10, 20)
BLOCK = 16
READS = 256
"""Tokens that MiniLM reads of a text."""

LABELS = "fairytaleqa"
CODEC = "trellis"
FEWEST_COMPRESSED = 512
QUESTIONS_AT_ONCE = 256

PerQuestion = dict[str, npt.NDArray[np.float64]]


@dataclass
class Bench:
    """A collection with its embeddings, and where what other methods need is found."""

    collection: DocumentCollection
    data: Path
    cache: Path

    def __post_init__(self) -> None:
        """Embed what every method needs."""
        self.chunks = embedded(self.collection.chunks, self.cache)
        self.questions: Queries = embedded(self.collection.test.texts, self.cache)
        self.document_of = self.collection.document_of
        self.starts = np.searchsorted(self.document_of, np.arange(len(self.collection.documents)))

    def by_document(self) -> list[Vectors]:
        """Give the plain vectors of each document's chunks."""
        return np.split(self.chunks, self.starts[1:])

    def situated(self, head: SituatingHead) -> Vectors:
        """Situate the chunks of every document."""
        return head.situate_grouped(self.chunks, self.document_of.tolist())

    def vectors(self, method: str) -> tuple[Vectors, float, float] | None:
        """Give the vectors of a method, the tokens read over plain's, and the seconds it took; None where it has no meaning."""
        texts = _texts(self.collection, method)
        if texts is not None:
            if texts == self.collection.chunks and method != "plain":
                return None
            return embedded(texts, self.cache), _tokens(texts) / _tokens(self.collection.chunks), 0.0
        if method == "late":
            return self._late()
        head = {"shipped": self._shipped, "unlabelled": self._unlabelled, "labelled": self._labelled}[method]()
        if head is None:
            return None
        start = perf_counter()
        return self.situated(head), 1.0, perf_counter() - start

    def _late(self) -> tuple[Vectors, float, float]:
        from rarebit.cookbook.models import load_minilm

        late, start = LateChunking(load_minilm()), perf_counter()
        documents = self.collection.documents
        vectors = late.embed_many([document.text for document in documents], [document.chunks for document in documents])
        # Neighbouring windows share a quarter.
        whole = sum(_lengths([document.text for document in documents], longest=None)) * 4 / 3
        return np.concatenate(vectors), whole / _tokens(self.collection.chunks), perf_counter() - start

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

    def judged(self, vectors: Vectors) -> PerQuestion:
        """Ask every question: recall and nDCG among all chunks, recall among those of its document."""
        found: dict[str, list[float]] = {}
        for start in range(0, len(self.questions), QUESTIONS_AT_ONCE):
            scores = self.questions[start : start + QUESTIONS_AT_ONCE] @ vectors.T
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
    make: dict[str, Callable[[str, Sequence[str], int], str]] = {
        "plain": lambda _, chunks, place: chunks[place],
        "headers": lambda title, chunks, place: f"{title}\n{chunks[place]}" if title else chunks[place],
        "window": lambda _, chunks, place: "\n".join(chunks[max(0, place - 1) : place + 2]),
        "concatenation": lambda _, chunks, place: "\n".join([chunks[place], *chunks[place // BLOCK * BLOCK :][:BLOCK]]),
    }
    if method not in make:
        return None
    return [
        make[method](document.title, document.chunks, place)
        for document in collection.documents
        for place in range(len(document.chunks))
    ]


def _tokens(texts: Sequence[str]) -> int:
    return sum(_lengths(texts, longest=READS))


def _lengths(texts: Sequence[str], longest: int | None) -> list[int]:
    from rarebit.cookbook.models import load_minilm

    encoded = load_minilm().tokenizer(list(texts), truncation=longest is not None, max_length=longest, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def measure(bench: Bench, methods: Sequence[str]) -> list[Figure]:
    """Measure methods on a collection."""
    figures: list[Figure] = []
    plain: dict[str, PerQuestion] = {}
    for method in methods:
        given = bench.vectors(method)
        if given is None:
            continue
        vectors, cost, seconds = given
        for setting, searched in (("exact", vectors), ("48 bytes", _compressed(vectors))):
            if searched is None:
                continue
            found = bench.judged(searched)
            if method == "plain":
                plain[setting] = found
            subject = Subject("situated", bench.collection.name, method, setting)
            figures += [subject.sampled(metric, values) for metric, values in found.items()]
            if setting in plain:
                compared = plain[setting]
                figures.append(subject.sampled("vs plain", 100 * (found["recall@10"] - compared["recall@10"])))
            if setting == "exact":
                figures += [subject.counted("cost", cost, len(vectors)), subject.counted("seconds", seconds, len(vectors))]
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
    parser.add_argument("--methods", default=",".join(METHODS), help=f"some of {', '.join(METHODS)}, with commas between")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    methods = given.methods.split(",")
    for method in methods:
        if method not in METHODS:
            raise InputError(f"got the method {method!r}, wanted some of {', '.join(METHODS)}")
    figures: list[Figure] = []
    for name in given.collections.split(","):
        for collection in load(given.data / name):
            found = measure(Bench(collection, given.data, given.cache), methods)
            sizes = f"{len(collection.documents):,} documents, {len(collection.chunks):,} chunks"
            print(
                f"\n{collection.name}: {sizes}, {len(collection.test):,} questions\n{table(found, ('vs plain',))}", flush=True
            )
            figures += found
            if given.json is not None:
                write_json(figures, given.json)


if __name__ == "__main__":
    main()
