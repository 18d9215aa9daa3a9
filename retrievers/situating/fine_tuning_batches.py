"""What fine-tuning hands to the trainer: which questions come together, what they are compared with, and the loss.

Needs torch, sentence-transformers and datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import DefaultBatchSampler

from rarebit.arrays import Queries, Vectors, as_vectors
from rarebit.retrievers.situating.context_blocks import block_contexts
from rarebit.retrievers.situating.text_examples import TextExamples
from rarebit.retrievers.situating.token_encoder import PROMPTS

Embedded: TypeAlias = Float[torch.Tensor, "n dim"]
Excluded: TypeAlias = Bool[torch.Tensor, "asked candidates"]
Inputs: TypeAlias = dict[str, Any]

PER_DOCUMENT: Final = 8
"""Questions about one document that come together."""


class DocumentBatches(DefaultBatchSampler):
    """Puts questions about a document side by side, so that its chunks are what each is told apart from.

    The dataset has a column ``document``. The order is another one in every epoch, and the same in a run that goes on.
    """

    def __init__(self, dataset: Any, batch_size: int, **settings: Any) -> None:
        """Sort the questions by document; the last batch is always kept."""
        super().__init__(dataset, **{**settings, "batch_size": batch_size, "drop_last": False})
        # A run that goes on in the midst of an epoch wraps this, and tells the epoch to the sampler within.
        self.sampler: Any = self
        self._about: dict[int, list[int]] = {}
        for row, document in enumerate(dataset["document"]):
            self._about.setdefault(int(document), []).append(row)
        self._size = min(PER_DOCUMENT, max(1, batch_size // 2))
        self._groups_together = max(1, batch_size // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        """Draw the questions of each batch."""
        rng = np.random.default_rng([self.seed, getattr(self, "epoch", 0)])
        groups: list[list[int]] = []
        for rows in self._about.values():
            drawn = rng.permutation(rows).tolist()
            groups += [drawn[start : start + self._size] for start in range(0, len(drawn), self._size)]
        order = rng.permutation(len(groups))
        for start in range(0, len(groups), self._groups_together):
            yield [row for place in order[start : start + self._groups_together] for row in groups[place]]

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        groups = sum(ceil(len(rows) / self._size) for rows in self._about.values())
        return ceil(groups / self._groups_together)


class Beside:
    """A frozen encoder whose vectors are added to those of the one that is trained; texts are embedded once.

    Args:
        encoder: reads questions and chunks alone.
        batch_size: texts that are encoded at once.
    """

    def __init__(self, encoder: SentenceTransformer, batch_size: int = 32) -> None:
        """Know nothing yet."""
        self._encoder, self._batch_size = encoder, batch_size
        self._questions: dict[str, npt.NDArray[np.float32]] = {}
        self._chunks: dict[str, npt.NDArray[np.float32]] = {}

    def questions(self, texts: Sequence[str]) -> Queries:
        """Embed m questions: (m, dim)."""
        return self._embedded(texts, self._questions, self._encoder.encode_query)

    def chunks(self, texts: Sequence[str]) -> Vectors:
        """Embed n chunks: (n, dim)."""
        return self._embedded(texts, self._chunks, self._encoder.encode_document)

    def _embedded(self, texts: Sequence[str], known: dict[str, npt.NDArray[np.float32]], encode: Any) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            vectors = as_vectors(encode(new, batch_size=self._batch_size, show_progress_bar=False))
            known.update(zip(new, vectors, strict=True))
        found: Vectors = np.stack([known[text] for text in texts])
        return found


@dataclass
class DocumentCollator:
    """Makes a batch of some questions: their texts and those of the chunks that they are compared with.

    Candidates are the chunks that are asked about and ``negatives`` others of each of their documents. One that answers the
    question too is no wrong answer; nor is one that the guide puts nearer to a sentence than the whole chunk that it was taken
    from (GISTEmbed, 2402.16829).

    Args:
        encoder: whose tokens are made; its prompts are used.
        examples: where the rows' questions are found.
        separator: between a chunk and its context; without context if None.
        block: chunks of a context.
        negatives: other chunks of each document.
        beside: whose vectors are to be added.
        guide: what says which candidates are nearer to a sentence than its own chunk.
        seed: of the draw of chunks.
    """

    encoder: SentenceTransformer
    examples: TextExamples
    separator: str | None
    block: int
    negatives: int
    beside: Beside | None
    guide: Beside | None
    seed: int
    valid_label_columns: list[str] = field(default_factory=list)
    """The trainer asks for it: rows have no labels of their own."""

    def __call__(self, rows: Sequence[dict[str, int]]) -> Inputs:
        """Make the batch of n rows, each with the number of its question."""
        asked = [row["question"] for row in rows]
        candidates = self._candidates(asked)
        place_of = {candidate: place for place, candidate in enumerate(candidates)}
        questions = [self.examples.questions[which] for which in asked]
        alone, read = self._texts(asked, candidates)
        batch: Inputs = {}
        for name, texts, prompts in (("question", questions, ("query",)), ("chunk", read, PROMPTS)):
            for key, value in self._tokens(texts, prompts).items():
                batch[f"{name}_{key}"] = value
        batch["label"] = torch.tensor([place_of[self.examples.places[which]] for which in asked])
        batch["question_excluded"] = self._excluded(asked, questions, candidates)
        if self.beside is not None:
            batch["question_beside"] = torch.from_numpy(self.beside.questions(questions))
            batch["chunk_beside"] = torch.from_numpy(self.beside.chunks(alone))
        return batch

    def _candidates(self, asked: Sequence[int]) -> list[tuple[int, int]]:
        """Give the places of the chunks asked about and of others of their documents, the same ones for the same questions."""
        wanted = dict.fromkeys(self.examples.places[which] for which in asked)
        rng = np.random.default_rng([self.seed, *asked])
        for document in dict.fromkeys(document for document, _ in wanted):
            others = [chunk for chunk in range(len(self.examples.documents[document])) if (document, chunk) not in wanted]
            drawn = rng.permutation(others)[: self.negatives].tolist()
            wanted.update(dict.fromkeys((document, int(chunk)) for chunk in drawn))
        return list(wanted)

    def _texts(self, asked: Sequence[int], candidates: Sequence[tuple[int, int]]) -> tuple[list[str], list[str]]:
        """Give the candidates' texts alone, and as the encoder reads them."""
        documents = dict.fromkeys(document for document, _ in candidates)
        chunks = {document: self.examples.chunks(document, asked) for document in documents}
        alone = [chunks[document][chunk] for document, chunk in candidates]
        if self.separator is None:
            return alone, alone
        contexts = {document: block_contexts(own, block=self.block) for document, own in chunks.items()}
        return alone, [
            f"{text}{self.separator}{contexts[document][chunk]}"
            for text, (document, chunk) in zip(alone, candidates, strict=True)
        ]

    def _tokens(self, texts: list[str], prompts: Sequence[str]) -> Mapping[str, Any]:
        prompt = next((self.encoder.prompts[name] for name in prompts if name in self.encoder.prompts), None) or ""
        given = [prompt + text for text in texts]
        tokens: Mapping[str, Any] = self.encoder.preprocess(given)
        return tokens

    def _excluded(self, asked: Sequence[int], questions: Sequence[str], candidates: Sequence[tuple[int, int]]) -> Excluded:
        """Say which candidates do not count as wrong answers."""
        excluded = np.array(
            [
                [place != self.examples.places[which] and place in self.examples.answers[question] for place in candidates]
                for which, question in zip(asked, questions, strict=True)
            ],
            np.bool_,
        )
        if self.guide is not None:
            whole = self.guide.chunks([self.examples.documents[document][chunk] for document, chunk in candidates])
            scores = self.guide.questions(questions) @ whole.T
            own = [candidates.index(self.examples.places[which]) for which in asked]
            excluded |= scores > scores[np.arange(len(asked)), own][:, np.newaxis]
        return torch.from_numpy(excluded)


class SituatingLoss(torch.nn.Module):
    """InfoNCE over the candidates of a batch, on the inner product of the question's and the chunks' vectors.

    With vectors beside, questions and chunks are the means of both encoders' vectors, which rank as the sums do.

    Args:
        model: the encoder that is trained.
        temperature: what scores are divided by.
    """

    def __init__(self, model: SentenceTransformer, temperature: float) -> None:
        """Keep the model, which the trainer may wrap."""
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, features: Sequence[Inputs], labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss of a batch."""
        about_questions, about_chunks = features
        excluded = about_questions.pop("excluded")
        questions, chunks = self._embedded(about_questions), self._embedded(about_chunks)
        scores = (questions @ chunks.T / self.temperature).masked_fill(excluded, -torch.inf)
        return torch.nn.functional.cross_entropy(scores, labels)

    def _embedded(self, inputs: Inputs) -> Embedded:
        beside = inputs.pop("beside", None)
        vectors: torch.Tensor = self.model(inputs)["sentence_embedding"].float()
        return vectors if beside is None else (vectors + beside) / 2
