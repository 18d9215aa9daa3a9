"""Collections whose passages are chunks of documents, and questions whose answers stand in some of the chunks.

Passages of a collection are grouped by what their metadata or their ids say of their document, and put in order. The collection
``chunking-eval`` has whole documents and the characters that answer each question, so it is cut anew: 500 and 1,000 characters
are about 100 and 200 tokens. There a chunk is relevant if it holds some of those characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rarebit.cookbook.benchmarks.embedded import Passage, read_corpus
from rarebit.cookbook.benchmarks.judged import read_judgements, read_queries
from rarebit.errors import InputError
from rarebit.passages import cut

CUT: str = "chunking-eval"
"""The collection that is cut anew."""

SIZES = (500, 1000)
"""Characters of its chunks at most."""

Numbers: TypeAlias = npt.NDArray[np.int64]
Place: TypeAlias = tuple[str, float, float]
"""Of a passage: its document, and what its place there is sorted by."""


@dataclass(frozen=True)
class Document:
    """A document and its chunks, in their order."""

    name: str
    title: str
    text: str
    chunks: list[str]


@dataclass(frozen=True)
class Questions:
    """Questions and, for each, the numbers of the relevant chunks, counted through all documents."""

    texts: list[str] = field(default_factory=list)
    relevant: list[Numbers] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the questions."""
        return len(self.texts)


@dataclass(frozen=True)
class DocumentCollection:
    """Documents, test questions, and the questions of the train split, where there is one."""

    name: str
    documents: list[Document]
    test: Questions
    train: Questions

    @property
    def chunks(self) -> list[str]:
        """Every chunk, document after document."""
        return [chunk for document in self.documents for chunk in document.chunks]

    @property
    def document_of(self) -> Numbers:
        """The number of each chunk's document."""
        return np.repeat(np.arange(len(self.documents)), [len(document.chunks) for document in self.documents])


def load(folder: Path) -> list[DocumentCollection]:
    """Read a collection; the one that is cut anew gives several."""
    if folder.name == CUT:
        return [_cut_anew(folder, size) for size in SIZES]
    if folder.name not in PLACES:
        raise InputError(f"got the collection {folder.name}, wanted one whose documents are known: {', '.join([*PLACES, CUT])}")
    return [_grouped(folder, PLACES[folder.name])]


def _of_story(passage: Passage) -> Place:
    return passage.metadata["story"], passage.metadata["section"], 0


def _of_file(passage: Passage) -> Place:
    return passage.metadata["doc"], passage.metadata["index"], 0


def _of_article(passage: Passage) -> Place:
    return passage.title, passage.metadata["para"], 0


def _of_page(passage: Passage) -> Place:
    """Answers about one disease stand on one page; long ones are in several pieces."""
    page, answer, piece = re.fullmatch(r"(.*)-(\d+)(?:~(\d+))?", passage.id).groups()  # type: ignore[union-attr]
    return page, int(answer), int(piece or 0)


PLACES: dict[str, Callable[[Passage], Place]] = {
    "fairytaleqa": _of_story,
    "anthropic-codebase": _of_file,
    "squadshifts-newwiki": _of_article,
    "medquad": _of_page,
}
"""Collection -> what says where a passage stands."""


def _grouped(folder: Path, place_of: Callable[[Passage], Place]) -> DocumentCollection:
    by_document: dict[str, list[tuple[Place, Passage]]] = {}
    for passage in read_corpus(folder):
        place = place_of(passage)
        by_document.setdefault(place[0], []).append((place, passage))
    documents: list[Document] = []
    number_of: dict[str, int] = {}
    for name, placed in by_document.items():
        ordered = [passage for _, passage in sorted(placed, key=lambda pair: pair[0][1:])]
        for passage in ordered:
            number_of[passage.id] = len(number_of)
        chunks = [passage.text for passage in ordered]
        documents.append(Document(name, ordered[0].title, "\n".join(chunks), chunks))
    texts = read_queries(folder / "queries.jsonl")
    test = _questions(texts, read_judgements(folder / "qrels" / "test.tsv"), number_of)
    train = folder / "qrels" / "train.tsv"
    return DocumentCollection(
        folder.name, documents, test, _questions(texts, read_judgements(train), number_of) if train.exists() else Questions()
    )


def _questions(texts: dict[str, str], judgements: dict[str, dict[str, float]], number_of: dict[str, int]) -> Questions:
    questions = Questions()
    for key, found in judgements.items():
        relevant = sorted(number_of[chunk] for chunk in found if chunk in number_of)
        if key in texts and relevant:
            questions.texts.append(texts[key])
            questions.relevant.append(np.array(relevant))
    return questions


def _cut_anew(folder: Path, size: int) -> DocumentCollection:
    documents: list[Document] = []
    starts: list[int] = []
    spans: dict[str, tuple[int, Numbers]] = {}
    for path in sorted((folder / "documents").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        pieces = list(cut(text, size))
        spans[path.stem] = (len(starts), np.array([(start, start + len(piece)) for start, piece in pieces]))
        starts += [start for start, _ in pieces]
        documents.append(Document(path.stem, "", text, [piece for _, piece in pieces]))
    questions = Questions()
    for record in _records(folder / "queries.jsonl"):
        first, places = spans[record["metadata"]["corpus"]]
        relevant = np.unique(np.concatenate([*_holding(places, record["metadata"]["references"])])) + first
        if len(relevant):
            questions.texts.append(record["text"])
            questions.relevant.append(relevant)
    return DocumentCollection(f"{folder.name}-{size}", documents, questions, Questions())


def _holding(places: Numbers, references: Sequence[dict[str, Any]]) -> Iterator[Numbers]:
    """Number the chunks that hold some characters of each reference."""
    for reference in references:
        yield np.flatnonzero((places[:, 0] < reference["end_index"]) & (places[:, 1] > reference["start_index"]))


def _records(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
