"""The context that a chunk is read in: fixed blocks of consecutive chunks, as SitEmb has them (2508.01959).

A document is cut into blocks of 16 chunks, and every chunk of a block has the whole block, itself included, as its context. A
chunk at a block's border knows one side better than the other: that is the protocol that the paper trained and measured with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Queries, Vectors
from rarebit.errors import InputError
from rarebit.retrievers.situating.grouping import places_by_document

Found: TypeAlias = Float32[npt.NDArray[np.float32], "found dim"]

BLOCK: Final = 16
"""Chunks of a block."""

JOINER: Final = "\n"
"""What stands between the chunks of a block."""


def block_contexts(chunks: Sequence[str], *, block: int = BLOCK, joiner: str = JOINER) -> list[str]:
    """Give each chunk of one document its context.

    Args:
        chunks: n texts in their order.
        block: chunks that share a context; the last block has what is left, which may be one chunk.
        joiner: stands between the chunks of a block.

    Returns:
        n texts: the chunks of a block have the same one. Chunks without text, of whitespace or nothing, count as chunks and add
        nothing to it.

    Raises:
        InputError: what was passed is no sequence of texts, or a block has no chunks.
    """
    texts = checked_texts(chunks, "chunk")
    if block < 1:
        raise InputError(f"got blocks of {block} chunks, wanted at least 1 (the paper has 16)")
    contexts: list[str] = []
    for start in range(0, len(texts), block):
        inside = texts[start : start + block]
        contexts += [joiner.join(text for text in inside if text.strip())] * len(inside)
    return contexts


def grouped_contexts(
    chunks: Sequence[str],
    documents: Sequence[Hashable],
    order: Sequence[float] | None = None,
    *,
    block: int = BLOCK,
    joiner: str = JOINER,
) -> list[str]:
    """Give each chunk of many documents its context.

    Args:
        chunks: n texts.
        documents: n names, which say what belongs together.
        order: n numbers by which the chunks of a document are put in order; as they are given if left out.
        block: as in :func:`block_contexts`, as ``joiner``.
        joiner: stands between the chunks of a block.

    Returns:
        n texts, in the order given.

    Raises:
        InputError: as :func:`block_contexts`, or there is not one name and number for each chunk.
    """
    texts = checked_texts(chunks, "chunk")
    contexts = [""] * len(texts)
    for own in places_by_document(len(texts), documents, order).values():
        found = block_contexts([texts[place] for place in own], block=block, joiner=joiner)
        for place, context in zip(own, found, strict=True):
            contexts[place] = context
    return contexts


def checked_texts(texts: Sequence[str], what: str) -> list[str]:
    """Give texts as a list, or say which one is none.

    Args:
        texts: what a user passed.
        what: one of them, in words.

    Raises:
        InputError: one text instead of a sequence; something else than a text among them; a text that is no Unicode.
    """
    if isinstance(texts, str):
        raise InputError(f"got one text, wanted a sequence with a text for each {what}: put it into a list")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{what} {number} is {type(text).__name__}, wanted a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{what} {number} is no Unicode text ({error}): leave it out or repair it") from error
    return list(texts)


def spread(vectors: Found, there: Sequence[bool]) -> Vectors:
    """Put the vectors of what is there, (found, dim), into its rows, and zeros into the others: (n, dim)."""
    rows = np.array(there, np.bool_)
    everywhere: Vectors = np.zeros((len(rows), vectors.shape[1]), np.float32)
    everywhere[rows] = vectors
    return everywhere


def with_text(chunks: Sequence[str]) -> list[bool]:
    """Say which chunks have any text but whitespace."""
    return [bool(chunk.strip()) for chunk in chunks]


class BlockEncoder(ABC):
    """What embeds chunks, each with the block of chunks that it stands in.

    Args:
        block: chunks of a block.
        batch_size: texts that are encoded at once.

    Raises:
        InputError: a block or a batch has nothing in it.
    """

    def __init__(self, *, block: int, batch_size: int) -> None:
        """Check the numbers."""
        if min(block, batch_size) < 1:
            raise InputError(f"got block={block}, batch_size={batch_size}, wanted at least 1 of each")
        self.block, self.batch_size = block, batch_size

    def embed_document(self, chunks: Sequence[str]) -> Vectors:
        """Embed the chunks of one document.

        Args:
            chunks: n texts in their order.

        Returns:
            (n, dim) float32, of differing lengths: search them by inner product. A chunk without text, of whitespace or
            nothing, gets a vector of zeros.

        Raises:
            InputError: what was passed is no sequence of texts, or a chunk has no room.
        """
        return self._embedded(chunks, block_contexts(chunks, block=self.block))

    def embed_documents_grouped(
        self, chunks: Sequence[str], documents: Sequence[Hashable], order: Sequence[float] | None = None
    ) -> Vectors:
        """Embed the chunks of many documents.

        Args:
            chunks: n texts.
            documents: n names, which say what belongs together.
            order: n numbers by which the chunks of a document are put in order; as they are given if left out.

        Returns:
            (n, dim) float32, in the order given, as :meth:`embed_document`.

        Raises:
            InputError: as :meth:`embed_document`, or there is not one name and number for each chunk.
        """
        return self._embedded(chunks, grouped_contexts(chunks, documents, order, block=self.block))

    @property
    @abstractmethod
    def models(self) -> Sequence[Any]:
        """The torch models that read, which its vectors depend on."""

    @abstractmethod
    def embed_queries(self, texts: Sequence[str]) -> Queries:
        """Embed queries.

        Args:
            texts: q of them.

        Returns:
            (q, dim) float32.

        Raises:
            InputError: what was passed is no sequence of texts.
        """

    @abstractmethod
    def _situated(self, chunks: list[str], contexts: list[str]) -> Vectors:
        """Embed n chunks that have text, with their contexts: (n, dim), also where n is 0."""

    def _embedded(self, chunks: Sequence[str], contexts: Sequence[str]) -> Vectors:
        there = with_text(chunks)
        kept = [place for place, has_text in enumerate(there) if has_text]
        return spread(self._situated([chunks[place] for place in kept], [contexts[place] for place in kept]), there)
