"""MiniLM fine-tuned on the questions of a collection's train split: alone, twice, and with the context; kept in a folder.

``alone`` reads chunks by themselves. ``twice`` is the sum with a second encoder that does so too, trained through the sum; and
``situated`` the sum with one that reads ``chunk </s> context``, trained in the same way on the same questions, batches and
negatives: what it has more than ``twice``, it has of the context. Both second encoders begin as the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rarebit.arrays import Queries, Vectors, as_vectors
from rarebit.cookbook.benchmarks.documents import DocumentCollection
from rarebit.retrievers.situating import Examples, FineTuningReport, SituatingHead, TextExamples, TwoEncoders, fine_tune

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LONGER: Final = 512
"""Tokens that the encoder with the context reads: as many as MiniLM's table of positions has rows for."""

SETTINGS: Final[dict[str, Any]] = {"batch_size": 32, "negatives": 0, "learning_rate": 5e-5, "bf16": True}
"""The chunks of the batch's other questions are many negatives already, and each one more is read."""


class TunedEncoders:
    """Encoders that are trained when they are asked for, or loaded if a run before has trained them.

    Args:
        collection: with a train split.
        folder: for checkpoints.
        settings: of :func:`fine_tune`, for all alike.
    """

    def __init__(self, collection: DocumentCollection, folder: Path, settings: dict[str, Any] | None = None) -> None:
        """Make examples of the train split."""
        self._folder = folder
        self._settings = SETTINGS if settings is None else settings
        starts = np.searchsorted(collection.document_of, np.arange(len(collection.documents)))
        pairs = [
            (text, int(chunk))
            for text, relevant in zip(collection.train.texts, collection.train.relevant, strict=True)
            for chunk in relevant
        ]
        documents = [int(collection.document_of[chunk]) for _, chunk in pairs]
        self._examples = TextExamples(
            [document.chunks for document in collection.documents],
            [text for text, _ in pairs],
            [(document, chunk - int(starts[document])) for (_, chunk), document in zip(pairs, documents, strict=True)],
        )
        self.reports: dict[str, FineTuningReport] = {}
        """What training brought, by the name of the encoder."""

    @cached_property
    def alone(self) -> SentenceTransformer:
        """The encoder of chunks."""
        from rarebit.cookbook.models import load_minilm

        return self._trained("alone", _without_dropout(deepcopy(load_minilm())), context=False)

    @cached_property
    def twice(self) -> SentenceTransformer:
        """A second encoder of chunks."""
        return self._trained("twice", deepcopy(self.alone), context=False, beside=self.alone)

    @cached_property
    def situated(self) -> SentenceTransformer:
        """A second encoder, of chunks with their contexts."""
        encoder = deepcopy(self.alone)
        encoder.max_seq_length = LONGER
        return self._trained("situated", encoder, context=True, beside=self.alone)

    @cached_property
    def head(self) -> SituatingHead:
        """A situating head over the vectors of the encoder of chunks, trained on the same questions."""
        chunks = as_vectors(self.alone.encode([chunk for document in self._examples.documents for chunk in document]))
        ends = np.cumsum([len(document) for document in self._examples.documents])[:-1]
        questions = as_vectors(self.alone.encode(self._examples.questions))
        return SituatingHead.fit(Examples(np.split(chunks, ends), questions, self._examples.places))

    def embed(self, name: str, collection: DocumentCollection) -> tuple[Vectors, Queries, float]:
        """Embed the chunks of a collection, document after document, and its test questions; with the seconds for the chunks.

        Args:
            name: ``alone``, ``twice`` or ``situated``.
            collection: any.
        """
        import torch

        encoders = [self.alone, *([] if name == "alone" else [getattr(self, name)])]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if name == "situated":
                both = TwoEncoders(*encoders)
                start = perf_counter()
                chunks = np.concatenate([both.embed_document(document.chunks) for document in collection.documents])
                return chunks, both.embed_queries(collection.test.texts), perf_counter() - start
            start = perf_counter()
            chunks = _summed(encoders, collection.chunks)
            seconds = perf_counter() - start
            return chunks, _summed(encoders, collection.test.texts), seconds

    def _trained(self, name: str, encoder: SentenceTransformer, **how: Any) -> SentenceTransformer:
        settings = {**self._settings, **how}
        self.reports[name] = fine_tune(encoder, self._examples, self._folder / name, progress=True, **settings)
        print(f"  {name}: {self.reports[name]}", flush=True)
        return encoder


def _without_dropout(encoder: SentenceTransformer) -> SentenceTransformer:
    """Drop nothing while training: on a CPU that takes most of the time, and one epoch is too short to learn by heart."""
    from torch.nn import Dropout

    for module in encoder.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    return encoder


def _summed(encoders: Sequence[SentenceTransformer], texts: Sequence[str]) -> Vectors:
    vectors: Vectors = np.sum([as_vectors(encoder.encode(list(texts))) for encoder in encoders], axis=0)
    return vectors
