"""What an exact or a compressed search finds for a collection's questions, with labels from its judgements.

Where judges also said what is not relevant, only what was judged is labelled; elsewhere everything that is found and not judged
relevant counts as irrelevant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from rarebit.arrays import Queries, RowIdMatrix, ScoreMatrix, Vectors
from rarebit.compressors.vectors import codec_named
from rarebit.cookbook.benchmarks.embedded import MODEL, embedded, read_corpus
from rarebit.cookbook.benchmarks.judged import read_queries
from rarebit.errors import InputError
from rarebit.retrievers.collection import EmbeddingFingerprint
from rarebit.retrievers.relevance import Background, LabelledScores, ScoreSource
from rarebit.retrievers.relevance.labels import relevant_from

EXACT = "exact"
COMPRESSED = "48 bytes"
CODEC = "trellis"

CUTS = {"trec-dl19": 2, "liveqa-med": 2}
"""Lowest relevant grade; 1 elsewhere."""


@dataclass(frozen=True)
class ScoredCollection:
    """A collection with its embeddings."""

    folder: Path
    cache: Path

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.folder.name

    @cached_property
    def documents(self) -> dict[str, str]:
        """Texts by their ids."""
        return {passage.id: f"{passage.title} {passage.text}".strip() for passage in read_corpus(self.folder)}

    @cached_property
    def vectors(self) -> Vectors:
        """(n, dim) embeddings of the documents."""
        return embedded(list(self.documents.values()), self.cache)

    @cached_property
    def background(self) -> Background:
        """Mean and spread of the documents' vectors."""
        return Background.of(self.vectors)

    @cached_property
    def compressed(self) -> Vectors:
        """The documents' vectors as 48-byte codes keep them."""
        codec = codec_named(CODEC).fit(self.vectors)
        return codec.decode(codec.encode(self.vectors))

    @cached_property
    def _questions(self) -> tuple[dict[str, int], Queries]:
        texts = read_queries(self.folder / "queries.jsonl")
        return {key: row for row, key in enumerate(texts)}, embedded(list(texts.values()), self.cache)

    def source(self, setting: str) -> ScoreSource:
        """Name the source of the scores of a setting."""
        return ScoreSource(EmbeddingFingerprint(MODEL), "cosine", "" if setting == EXACT else CODEC)

    def queries(self, split: str) -> tuple[list[str], Queries]:
        """Give ids and embeddings of the judged questions of a split."""
        row_of, vectors = self._questions
        judged = self.judgements(split)
        keys = [key for key in row_of if key in judged]
        return keys, vectors[[row_of[key] for key in keys]]

    def has(self, split: str) -> bool:
        """Whether the collection has a split."""
        return (self.folder / "qrels" / f"{split}.tsv").exists()

    def judgements(self, split: str) -> dict[str, dict[str, float]]:
        """Read every judgement of a split, also those of what is not relevant."""
        found: dict[str, dict[str, float]] = {}
        path = self.folder / "qrels" / f"{split}.tsv"
        if not path.exists():
            raise InputError(f"got the split {split!r} of {self.name}, wanted one that has {path}: check --data")
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            if document in self.documents:
                found.setdefault(query, {})[document] = float(grade)
        return found

    def found(self, queries: Queries, k: int, setting: str = EXACT) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Search exactly among the vectors, or among what codes keep of them: (q, k) scores and places, best first."""
        index = faiss.IndexFlatIP(self.vectors.shape[1])
        index.add(self.vectors if setting == EXACT else self.compressed)
        scores, places = index.search(queries, min(k, len(self.documents)))
        return scores, places

    def labelled(self, split: str, k: int, setting: str = EXACT, *, most: int | None = None) -> LabelledScores:
        """Search for the questions of a split; for so many of them, drawn at random, if there are more."""
        keys, queries = self.queries(split)
        if most is not None and len(keys) > most:
            drawn = np.sort(np.random.default_rng(0).permutation(len(keys))[:most])
            keys, queries = [keys[place] for place in drawn], queries[drawn]
        scores, places = self.found(queries, k, setting)
        judgements = self.judgements(split)
        explicit = any(grade <= 0 for own in judgements.values() for grade in own.values())
        default = np.nan if explicit else 0.0
        ids = list(self.documents)
        grades = np.array(
            [[judgements[key].get(ids[place], default) for place in row] for key, row in zip(keys, places, strict=True)],
            np.float32,
        ).reshape(places.shape)
        labels = relevant_from(grades, CUTS.get(self.name, 1))
        return self._made(queries, scores, labels, setting)

    def asked(self, queries: Queries, k: int, setting: str = EXACT, *, weight: float = 1.0) -> LabelledScores:
        """Search for questions of another collection, to which nothing here is relevant."""
        scores, _ = self.found(queries, k, setting)
        made = self._made(queries, scores, np.zeros_like(scores), setting)
        return LabelledScores(
            made.queries, made.scores, made.labels, made.moments, weights=np.full(len(made), weight), source=made.source
        )

    def _made(self, queries: Queries, scores: ScoreMatrix, labels: npt.NDArray[np.float32], setting: str) -> LabelledScores:
        made = LabelledScores(queries, np.ascontiguousarray(scores), labels, source=self.source(setting))
        return made.with_background(self.background)


def of_folder(data: Path, names: Sequence[str], cache: Path) -> list[ScoredCollection]:
    """Name the collections of a folder."""
    return [ScoredCollection(data / name, cache) for name in names]
