"""Questions with their answers and the passages that hold them, for training a bridge and for measuring what its tokens carry.

Passages and questions of one article or document are all learned from or all measured on. Beside the passages that answer a
question stand those that a search finds for it and that nobody judged relevant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import faiss
import numpy as np

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.context.lessons import Lessons, Reading
from rarebit.cookbook.benchmarks.embedded import Passage, chosen, embedded, read_corpus
from rarebit.errors import InputError

Split: TypeAlias = Literal["train", "test"]

FOUND = 10
"""Passages that a search finds for a question, at most."""

HELD_OUT = 5
"""One in so many articles is held out, where a collection says nothing of that."""

SHORTEST, LONGEST = 60, 2000
"""Characters of a passage that is only paraphrased."""


@dataclass(frozen=True)
class ReadingSet:
    """A collection of passages with questions.

    Args:
        name: of the collection.
        texts: n passages.
        vectors: (n, dim) of them.
        train: questions to learn from.
        test: questions to measure with, of other articles.
        articles: n names of what passages are parts of.
    """

    name: str
    texts: list[str]
    vectors: Vectors
    train: list[Reading]
    test: list[Reading]
    articles: list[str]


def load(folder: Path, cache: Path) -> ReadingSet:
    """Read a collection with answers.

    Raises:
        InputError: it is none of those whose answers are known how to read.
    """
    name = folder.name
    if name not in _READERS:
        raise InputError(f"got the collection {name!r}, wanted one with answers: {', '.join(_READERS)}")
    passages = list(read_corpus(folder))
    texts = [f"{passage.title} {passage.text}".strip() for passage in passages]
    vectors = embedded(texts, cache)
    place_of = {passage.id: place for place, passage in enumerate(passages)}
    records = [json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    queries = embedded([record["text"] for record in records], cache)
    judged = _judged(folder)
    asked: dict[Split, list[tuple[int, Reading]]] = {"train": [], "test": []}
    for row, record in enumerate(records):
        for split, answer, ids in _READERS[name](record, judged, passages, place_of):
            relevant = tuple(place_of[key] for key in ids if key in place_of)
            if relevant and answer.strip():
                asked[split].append((row, Reading(record["text"], answer.strip(), relevant)))
    found = {split: _with_others(own, queries, texts, vectors) for split, own in asked.items()}
    articles = [passage.title or passage.id.rpartition("-")[0] or passage.id for passage in passages]
    return ReadingSet(name, texts, vectors, found["train"], found["test"], articles)


def unasked(folder: Path, cache: Path, most: int) -> tuple[list[str], Vectors]:
    """Draw passages of a collection to paraphrase, with their vectors."""
    if (folder / "qrels").exists():
        texts = [f"{passage.title} {passage.text}".strip() for passage in read_corpus(folder)]
    else:
        texts = [passage.text for passage in chosen(list(read_corpus(folder)), 201_000, shortest=30)]
    vectors = embedded(texts, cache)
    fitting = [place for place, text in enumerate(texts) if SHORTEST <= len(text) <= LONGEST]
    drawn = np.sort(np.random.default_rng(0).permutation(fitting)[:most])
    return [texts[place] for place in drawn], vectors[drawn]


def joined(sets: Sequence[ReadingSet], more: Sequence[tuple[list[str], Any]], measured: Sequence[ReadingSet]) -> Lessons:
    """Gather what is learned from: passages, and questions about some of them.

    Args:
        sets: their train splits.
        more: passages with their vectors that nobody asks about.
        measured: what is measured with. What its test questions are about, and those of ``sets``, is left out wherever it
            stands, by its text.
    """
    tested = (*sets, *measured)
    barred = {each.texts[place] for each in tested for reading in each.test for place in reading.passages}
    asked = {reading.question for each in tested for reading in each.test}
    texts: list[str] = []
    vectors: list[Vectors] = []
    readings: list[Reading] = []
    for each in sets:
        kept = [place for place, text in enumerate(each.texts) if text not in barred]
        moved = {place: len(texts) + number for number, place in enumerate(kept)}
        texts += [each.texts[place] for place in kept]
        vectors.append(each.vectors[kept])
        for reading in each.train:
            right, others = ([moved[place] for place in own if place in moved] for own in (reading.passages, reading.others))
            if right and reading.question not in asked:
                readings.append(replace(reading, passages=tuple(right), others=tuple(others)))
    for some, own in more:
        kept = [place for place, text in enumerate(some) if text not in barred]
        texts += [some[place] for place in kept]
        vectors.append(own[kept])
    return Lessons(texts, np.concatenate(vectors), readings)


def _with_others(
    asked: Sequence[tuple[int, Reading]], queries: Queries, texts: Sequence[str], vectors: Vectors
) -> list[Reading]:
    """Put beside each question what a search finds for it and does not answer it: no copy of what does, either."""
    if not asked:
        return []
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    found = index.search(np.ascontiguousarray(queries[[row for row, _ in asked]]), FOUND)[1]
    return [
        replace(reading, others=tuple(place for place in near if place >= 0 and texts[place] not in right))
        for (_, reading), near in zip(asked, found.tolist(), strict=True)
        for right in [{texts[place] for place in reading.passages}]
    ]


def _judged(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Give, for each split, the relevant passages of its questions."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((folder / "qrels").glob("*.tsv")):
        own = found.setdefault(path.stem, {})
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            if float(grade) > 0:
                own.setdefault(query, []).append(document)
    return found


def held_out(name: str) -> bool:
    """Say whether an article is held out, by its name alone."""
    return int(sha256(name.encode()).hexdigest()[:8], 16) % HELD_OUT == 0


Asked: TypeAlias = Iterator[tuple[Split, str, list[str]]]
"""The split of a question, its answer, and the ids of passages that hold it."""
Reader: TypeAlias = Callable[
    [Mapping[str, Any], Mapping[str, Mapping[str, list[str]]], Sequence[Passage], Mapping[str, int]], Asked
]


def _squadshifts(record: Mapping[str, Any], judged: Any, passages: Sequence[Passage], place_of: Mapping[str, int]) -> Asked:
    del judged
    document = record["metadata"]["doc"]
    answers = [answer["text"] for answer in record["metadata"]["answers"]]
    split: Split = "test" if held_out(passages[place_of[document]].title) else "train"
    yield split, min(answers, key=len), [document]


def _nq(record: Mapping[str, Any], judged: Any, passages: Sequence[Passage], place_of: Mapping[str, int]) -> Asked:
    del judged
    document = record["metadata"]["gold"]
    split: Split = "test" if held_out(passages[place_of[document]].title) else "train"
    yield split, record["metadata"]["answers"][0], [document]


def _hotpotqa(record: Mapping[str, Any], judged: Any, passages: Sequence[Passage], place_of: Mapping[str, int]) -> Asked:
    del passages, place_of
    yield "test", record["metadata"]["answer"], judged["test"].get(record["_id"], [])


def _fairytaleqa(record: Mapping[str, Any], judged: Any, passages: Sequence[Passage], place_of: Mapping[str, int]) -> Asked:
    del passages, place_of
    for split in ("train", "test"):
        if record["_id"] in judged[split]:
            yield split, record["metadata"]["answers"][0], judged[split][record["_id"]]


def _medquad(record: Mapping[str, Any], judged: Any, passages: Sequence[Passage], place_of: Mapping[str, int]) -> Asked:
    for split in ("train", "test"):
        if record["_id"] in judged[split]:
            documents = judged[split][record["_id"]]
            yield split, passages[place_of[documents[0]]].text, documents


_READERS: dict[str, Reader] = {
    "squadshifts-newwiki": _squadshifts,
    "nq-oracle": _nq,
    "hotpotqa-mini": _hotpotqa,
    "fairytaleqa": _fairytaleqa,
    "medquad": _medquad,
}
