"""What a chunk's vector may be made of, one interface for all: what the frameworks' adapters take as ``by``.

:class:`Plain`, :class:`TitleHeaders` and :class:`NeighbourWindow` change the text that any embedding model reads;
:class:`.SituatingHead` changes the vectors that it gave; :class:`.LateChunking`, :class:`.TwoEncoders` and :class:`.SitEmb`
embed by themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float32
from numpy import typing as npt

from rarebit.arrays import Queries, Vectors, normalized
from rarebit.errors import InputError
from rarebit.retrievers.situating.context_blocks import BlockEncoder
from rarebit.retrievers.situating.encoder_identity import hash_of
from rarebit.retrievers.situating.grouping import places_by_document
from rarebit.retrievers.situating.head import SituatingHead
from rarebit.retrievers.situating.late_chunking import LateChunking

Plainly: TypeAlias = Float32[npt.NDArray[np.float32], "embedded size"]
"""Vectors of the texts that an embedding model embedded, which may be none."""


@dataclass(frozen=True)
class Chunks:
    """n chunks of documents."""

    texts: Sequence[str]
    documents: Sequence[Hashable]
    """Of each the name of its document."""
    order: Sequence[float | None]
    """Of each a number by which the chunks of its document are put in order.

    Where one has none, or two have the same, the chunks of that document are in the order in which they are given.
    """
    metadatas: Sequence[Mapping[str, Any]]

    @classmethod
    def alone(cls, texts: Sequence[str]) -> Chunks:
        """Take each text as a document of one chunk, of which nothing is known."""
        return cls(texts, range(len(texts)), [None] * len(texts), [{}] * len(texts))

    @property
    def numbers(self) -> list[float]:
        """The order, with the place where it is given in place of what is not known."""
        counted = Counter(zip(self.documents, self.order, strict=True))
        unordered = {document for (document, number), count in counted.items() if number is None or count > 1}
        return [
            float(place if number is None or document in unordered else number)
            for place, (document, number) in enumerate(zip(self.documents, self.order, strict=True))
        ]

    @property
    def places(self) -> list[list[int]]:
        """The places of each document's chunks, in their order."""
        return list(places_by_document(len(self.texts), self.documents, self.numbers).values())


class SituatingMethod(ABC):
    """Makes the vectors of chunks, with an embedding model or without one."""

    keeps_lengths: ClassVar[bool] = False
    """Whether the length of a vector means something, so that only the inner product ranks by it."""
    needs_model: ClassVar[bool] = True
    """Whether an embedding model embeds texts for it."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What tells it apart from all others: two that do the same have the same one; empty for what does nothing."""

    def to_embed(self, chunks: Chunks) -> list[str]:
        """Give the n texts that the embedding model is to embed."""
        return list(chunks.texts)

    def situated(self, chunks: Chunks, vectors: Plainly) -> Vectors:
        """Give the (n, dim) vectors of the chunks, from those of the texts to embed, (n, dim)."""
        del chunks
        return vectors

    def queries(self, texts: Sequence[str]) -> Queries:
        """Embed queries, where no embedding model does."""
        raise NotImplementedError


class Plain(SituatingMethod):
    """Each chunk by itself."""

    @property
    def fingerprint(self) -> str:
        """Nothing: vectors are the model's own."""
        return ""


@dataclass(frozen=True)
class TitleHeaders(SituatingMethod):
    """Before each chunk what its document and section are called.

    Args:
        keys: of the chunk's metadata, from the outermost on, such as those of a splitter by headers; missing ones are left out.
        joiner: stands between headers.
    """

    keys: Sequence[str] = ("title",)
    joiner: str = " > "

    def __post_init__(self) -> None:
        """Check the keys."""
        if isinstance(self.keys, str) or not all(isinstance(key, str) for key in self.keys):
            raise InputError(f"got keys={self.keys!r}, wanted a sequence of metadata keys, such as ('title',)")

    @property
    def fingerprint(self) -> str:
        """Name the keys."""
        return f"headers {self.joiner.join(self.keys)}"

    def to_embed(self, chunks: Chunks) -> list[str]:
        """Put the header on a line of its own."""
        return [self._headed(text, metadata) for text, metadata in zip(chunks.texts, chunks.metadatas, strict=True)]

    def _headed(self, text: str, metadata: Mapping[str, Any]) -> str:
        header = self.joiner.join(str(metadata[key]) for key in self.keys if metadata.get(key) not in (None, ""))
        return f"{header}\n{text}" if header else text


@dataclass(frozen=True)
class NeighbourWindow(SituatingMethod):
    """The texts of a chunk and of its neighbours, embedded as one. A model cuts what it does not read.

    Args:
        size: neighbours on each side.
    """

    size: int = 1

    def __post_init__(self) -> None:
        """Check the size."""
        if self.size < 1:
            raise InputError(f"got a window of {self.size} neighbours, wanted 1 at least: for none, use Plain")

    @property
    def fingerprint(self) -> str:
        """Name the size."""
        return f"window {self.size}"

    def to_embed(self, chunks: Chunks) -> list[str]:
        """Put the texts on lines of their own."""
        found = [""] * len(chunks.texts)
        for own in chunks.places:
            for number, place in enumerate(own):
                around = own[max(0, number - self.size) : number + self.size + 1]
                found[place] = "\n".join(chunks.texts[neighbour] for neighbour in around)
        return found


@dataclass(frozen=True)
class _Head(SituatingMethod):
    """A situating head; the shipped one if None.

    Heads are made for vectors of length 1: of longer ones the longest would win, whatever is asked.
    """

    head: SituatingHead | None
    keeps_lengths: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        return (self.head or SituatingHead.shipped(1)).fingerprint

    def situated(self, chunks: Chunks, vectors: Plainly) -> Vectors:
        if not len(vectors):
            return vectors
        head = self.head or SituatingHead.shipped(vectors.shape[1])
        return head.situate_grouped(normalized(vectors), chunks.documents, chunks.numbers)


@dataclass(frozen=True)
class _Local(SituatingMethod):
    """What embeds by itself: no texts are to be embedded."""

    needs_model: ClassVar[bool] = False

    def to_embed(self, chunks: Chunks) -> list[str]:
        del chunks
        return []


@dataclass(frozen=True)
class _Late(_Local):
    late: LateChunking

    @property
    def fingerprint(self) -> str:
        return f"{self.late!r} {hash_of(self.late.models)}"

    def situated(self, chunks: Chunks, vectors: Plainly) -> Vectors:
        del vectors
        places = chunks.places
        found = self.late.embed_joined([[chunks.texts[place] for place in own] for own in places])
        return _put_back(places, found)

    def queries(self, texts: Sequence[str]) -> Queries:
        return self.late.embed_queries(texts)


@dataclass(frozen=True)
class _Blocks(_Local):
    encoder: BlockEncoder
    keeps_lengths: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        return f"{self.encoder!r} {hash_of(self.encoder.models)}"

    def situated(self, chunks: Chunks, vectors: Plainly) -> Vectors:
        del vectors
        return self.encoder.embed_documents_grouped(chunks.texts, chunks.documents, chunks.numbers)

    def queries(self, texts: Sequence[str]) -> Queries:
        return self.encoder.embed_queries(texts)


Way: TypeAlias = SituatingMethod | SituatingHead | LateChunking | BlockEncoder
"""What users pass as ``by``."""


def method_of(by: Way | None) -> SituatingMethod:
    """Give the method that a user means; the shipped head if left out.

    Raises:
        InputError: what was passed is none.
    """
    if isinstance(by, SituatingMethod):
        return by
    if by is None or isinstance(by, SituatingHead):
        return _Head(by)
    if isinstance(by, LateChunking):
        return _Late(by)
    if isinstance(by, BlockEncoder):
        return _Blocks(by)
    raise InputError(
        f"got by={by!r}, wanted a SituatingHead, Plain(), TitleHeaders(), NeighbourWindow(), a LateChunking, TwoEncoders or "
        "SitEmb"
    )


def _put_back(places: Sequence[Sequence[int]], found: Sequence[npt.NDArray[np.float32]]) -> Vectors:
    """Give vectors that were found document by document in the order in which the chunks came."""
    there = np.concatenate([np.asarray(own, np.int64) for own in places]) if places else np.empty(0, np.int64)
    joined = np.concatenate(found) if found else np.empty((0, 0), np.float32)
    vectors: Vectors = np.empty_like(joined)
    vectors[there] = joined
    return vectors
