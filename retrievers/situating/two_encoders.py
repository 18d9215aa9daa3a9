"""Two encoders, one for the chunk and one for what its context adds: the residual form of SitEmb, v1 (2508.01959).

``c = E_b(chunk) + E_s(chunk </s> context)`` and ``q = E_b(query) + E_s(query)``. In the paper E_b is trained first and alone,
and E_s then through these sums, so that it learns what E_b leaves open. Encoders that were not trained so gain little or lose.

The score is the inner product of the sums, as the paper trains it: all four products of the parts are in it, so both encoders
have to share a space. Sums keep their lengths. A chunk whose two vectors agree is longer than one whose vectors do not, and
this is part of the score that E_s was trained for: scaled to length 1, or in a store that compares by cosine, sums rank
otherwise. Use ``metric="inner_product"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rarebit.arrays import Queries, Vectors, as_vectors
from rarebit.errors import DimensionError, InputError
from rarebit.extras import require
from rarebit.retrievers.situating.context_blocks import BLOCK, BlockEncoder, checked_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

UNLIMITED: Final = 10**9
"""Tokenizers that do not know how much their model reads say more than this."""


class TwoEncoders(BlockEncoder):
    """Embeds chunks as the sum of what two encoders say.

    The context stands behind the chunk, and the encoder cuts its input at the end: what does not fit is taken off the context.
    A chunk that is longer than a window alone is cut there, by both encoders, as they cut any text, and the second sees no
    context: keep chunks shorter than ``max_seq_length``.

    Args:
        chunk_encoder: reads the chunk alone.
        situated_encoder: reads the chunk and its context; of the same dimension. Prompts for documents and queries of both are
            used.
        separator: between chunk and context; the situated encoder's own separator, or its end token, if left out.
        block: chunks of a context.
        batch_size: texts that are encoded at once.

    Raises:
        InputError: what was passed is no encoder; it has no separator, cuts texts at their beginning, or does not say how much
            it reads.
        DimensionError: the encoders have different dimensions.
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(
        self,
        chunk_encoder: SentenceTransformer,
        situated_encoder: SentenceTransformer,
        *,
        separator: str | None = None,
        block: int = BLOCK,
        batch_size: int = 32,
    ) -> None:
        """Check that the two can be summed, and that the second takes a context."""
        require("sentence_transformers", "models")
        super().__init__(block=block, batch_size=batch_size)
        dims = [dimension_of(chunk_encoder), dimension_of(situated_encoder)]
        if dims[0] != dims[1]:
            raise DimensionError(
                f"got encoders of dimensions {dims[0]} and {dims[1]}, wanted two of one dimension: their vectors are summed"
            )
        self.dim: int = dims[0]
        check_reader(situated_encoder)
        self._chunk_encoder, self._situated_encoder = chunk_encoder, situated_encoder
        self.separator = separator_of(situated_encoder) if separator is None else separator

    @property
    def models(self) -> Sequence[Any]:
        """The encoder of chunks and that of chunks with their contexts."""
        return self._chunk_encoder, self._situated_encoder

    def embed_queries(self, texts: Sequence[str]) -> Queries:
        """Embed queries: both encoders read the query alone.

        Args:
            texts: q of them.

        Returns:
            (q, dim) float32, of differing lengths.

        Raises:
            InputError: what was passed is no sequence of texts.
        """
        queries = checked_texts(texts, "query")
        if not queries:
            return np.empty((0, self.dim), np.float32)
        settings: Any = {"batch_size": self.batch_size, "show_progress_bar": False}
        alone = as_vectors(self._chunk_encoder.encode_query(queries, **settings))
        summed: Queries = alone + as_vectors(self._situated_encoder.encode_query(queries, **settings))
        return summed

    def __repr__(self) -> str:
        """Name what decides about the vectors."""
        return f"TwoEncoders(dim={self.dim}, separator={self.separator!r}, block={self.block})"

    def _situated(self, chunks: list[str], contexts: list[str]) -> Vectors:
        if not chunks:
            return np.empty((0, self.dim), np.float32)
        settings: Any = {"batch_size": self.batch_size, "show_progress_bar": False}
        both = [self.separator.join(pair) for pair in zip(chunks, contexts, strict=True)]
        alone = as_vectors(self._chunk_encoder.encode_document(chunks, **settings))
        summed: Vectors = alone + as_vectors(self._situated_encoder.encode_document(both, **settings))
        return summed


def dimension_of(encoder: SentenceTransformer) -> int:
    """Say how many numbers an encoder's vectors have; sentence-transformers renamed it in version 6."""
    from sentence_transformers import SentenceTransformer

    if not isinstance(encoder, SentenceTransformer):
        raise InputError(
            f"got {type(encoder).__name__}, wanted a SentenceTransformer: load one with rarebit.encoders.load_encoder"
        )
    named: Any = getattr(encoder, "get_embedding_dimension", None) or encoder.get_sentence_embedding_dimension
    dim = named()
    return int(encoder.encode(["a"], show_progress_bar=False).shape[1]) if dim is None else int(dim)


def check_reader(encoder: SentenceTransformer) -> None:
    """Raise InputError unless an encoder cuts what is too long at its end, at a length that is known."""
    side = getattr(encoder.tokenizer, "truncation_side", "right")
    if side != "right":
        raise InputError(
            f"got a situated encoder that cuts long texts on the {side}, where the chunk stands, wanted one that cuts the "
            "context behind it: set encoder.tokenizer.truncation_side = 'right'"
        )
    reads = encoder.max_seq_length
    if not reads or reads > UNLIMITED:
        raise InputError(
            "got a situated encoder that does not say how many tokens it reads, wanted a number, because contexts are long: "
            "set encoder.max_seq_length"
        )


def separator_of(encoder: SentenceTransformer) -> str:
    """Give the token that an encoder's tokenizer has between texts, or that behind them."""
    tokenizer: Any = encoder.tokenizer
    separator = getattr(tokenizer, "sep_token", None) or getattr(tokenizer, "eos_token", None)
    if not separator:
        raise InputError("got a situated encoder whose tokenizer has neither a separator nor an end token: pass separator")
    return str(separator)
