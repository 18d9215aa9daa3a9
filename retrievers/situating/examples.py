"""What a situating head learns from: documents, and questions whose answers stand in one of their chunks.

Where nobody has asked yet, a sentence takes the place of a question (inverse cloze task): it is taken out of its chunk, and the
chunk has to be found by it. What it was about is then said by the chunks around.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Queries, Vectors, VectorsLike, as_vectors, normalized
from rarebit.errors import InputError

SHORTEST: Final = 30
LONGEST: Final = 250
"""Characters of a sentence that may take the place of a question."""

FEWEST_SENTENCES: Final = 3
"""Sentences that a chunk needs to lose one."""

MOST_TAKEN: Final = 0.6
"""Share of a chunk's vector that a sentence takes with it at most."""

_ENDS: Final = re.compile(r"(?<=[.!?;{}])\s+|(?<=[\u3002\uff01\uff1f])|\n\s*\n")


@dataclass(frozen=True)
class RemovedSentence:
    """A sentence of a chunk, and the share of the chunk's characters that it has."""

    document: int
    chunk: int
    text: str
    share: float


class Examples:
    """Documents and questions.

    Args:
        documents: for each document the (n, dim) vectors of its chunks, in their order.
        questions: (m, dim) vectors.
        places: for each question the number of its document, and that of the chunk that answers it.
        without: (m, dim) vectors that take the chunk's place while this question is asked; the chunk's own if left out.

    Raises:
        InputError: and its kinds, for vectors of several dimensions, documents without chunks, places that are not there.
    """

    def __init__(
        self,
        documents: Sequence[VectorsLike],
        questions: VectorsLike,
        places: Sequence[tuple[int, int]],
        without: VectorsLike | None = None,
    ) -> None:
        """Check everything against everything."""
        self.questions: Queries = as_vectors(questions)
        self.dim = self.questions.shape[1]
        self.documents: list[Vectors] = [as_vectors(document, dim=self.dim) for document in documents]
        self.without: Vectors | None = None if without is None else as_vectors(without, dim=self.dim)
        self.places: npt.NDArray[np.int64] = np.array(places, dtype=np.int64).reshape(-1, 2)
        counts = {len(self.questions), len(self.places), len(self.questions if self.without is None else self.without)}
        if len(counts) > 1:
            raise InputError(
                f"got {len(self.questions)} questions, {len(self.places)} places"
                f"{'' if self.without is None else f' and {len(self.without)} chunks without them'}, wanted one of each"
            )
        for number, vectors in enumerate(self.documents):
            if not len(vectors):
                raise InputError(f"document {number} has no chunks, wanted at least one: leave it out")
        for document, chunk in self.places.tolist():
            if not (0 <= document < len(self.documents) and 0 <= chunk < len(self.documents[document])):
                raise InputError(
                    f"got a question about chunk {chunk} of document {document}, which is not there: count both from 0"
                )

    @cached_property
    def means(self) -> Vectors:
        """The mean of each document's chunks: (documents, dim)."""
        return np.stack([document.mean(axis=0) for document in self.documents])

    def __len__(self) -> int:
        """Count the questions."""
        return len(self.questions)


def removed_sentences(documents: Sequence[Sequence[str]], *, per_chunk: int = 2, seed: int = 0) -> list[RemovedSentence]:
    """Draw sentences that can take the place of questions.

    Args:
        documents: for each document the texts of its chunks.
        per_chunk: sentences of a chunk at most; chunks of fewer than three sentences lose none.
        seed: of the draw.

    Raises:
        InputError: a document is no list of chunks.
    """
    rng = np.random.default_rng(seed)
    found = []
    for number, chunks in enumerate(documents):
        if isinstance(chunks, str):
            raise InputError(f"got the text {chunks[:40]!r} as document {number}, wanted a list of the texts of its chunks")
        for place, text in enumerate(chunks):
            sentences = [sentence.strip() for sentence in _ENDS.split(text) if sentence.strip()]
            usable = [sentence for sentence in sentences if SHORTEST <= len(sentence) <= LONGEST]
            if len(sentences) < FEWEST_SENTENCES or not usable:
                continue
            drawn = rng.permutation(len(usable))[:per_chunk]
            found += [RemovedSentence(number, place, usable[which], len(usable[which]) / len(text)) for which in drawn]
    return found


def unlabelled(documents: Sequence[VectorsLike], sentences: Sequence[RemovedSentence], vectors: VectorsLike) -> Examples:
    """Make examples of sentences that :func:`removed_sentences` drew.

    The chunk is not embedded again without its sentence: the sentence's share of its vector is taken off. So what training
    costs beside the chunks is the embedding of the sentences.

    Args:
        documents: for each document the (n, dim) vectors of its chunks.
        sentences: m of them.
        vectors: (m, dim) the vectors of the sentences, embedded as questions are.
    """
    if not sentences:
        raise InputError(
            f"got no sentences to learn from, wanted some: only chunks of {FEWEST_SENTENCES} sentences and more give any, so "
            "cut the documents into longer chunks, take the shipped head, or train with questions"
        )
    questions = as_vectors(vectors)
    if len(questions) != len(sentences):
        raise InputError(f"got {len(sentences)} sentences and {len(questions)} vectors, wanted one each")
    places = [(sentence.document, sentence.chunk) for sentence in sentences]
    examples = Examples(documents, questions, places)
    whole = np.array([examples.documents[document][chunk] for document, chunk in places], np.float32)
    taken = np.minimum([sentence.share for sentence in sentences], MOST_TAKEN).astype(np.float32)[:, np.newaxis]
    lengths = np.linalg.norm(whole, axis=1, keepdims=True).astype(np.float32)
    without = normalized(whole - taken * lengths * normalized(questions)) * lengths
    return Examples(examples.documents, questions, places, without)
