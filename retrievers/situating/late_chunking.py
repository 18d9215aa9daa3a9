"""Late chunking (2409.04701): a document is encoded whole, and a chunk is the mean of its own tokens, which have seen the rest.

No training, and any encoder of sentence-transformers that reads its tokens with a transformer; one that pools by mean and reads
thousands of tokens gains most. Documents longer than the window are encoded in overlapping windows, the paper's long late
chunking, and nothing is cut off. Tokens that the model or a prompt adds are part of every window and of no chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rarebit.arrays import Queries, Vectors, as_vectors, normalized
from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.situating.context_blocks import checked_texts
from rarebit.retrievers.situating.spans import Span, joined, locate
from rarebit.retrievers.situating.windows import ChunkMeans, TokenizedDocument, windows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class LateChunking:
    """Embeds the chunks of documents so that each vector knows what stands around its chunk.

    Questions are embedded as ever, by ``encoder.encode_query``. Chunks are pooled by mean, also where the encoder pools its
    first or last token; what it does after pooling (a dense layer, normalisation, truncation) is done to each chunk. In a
    causal model a chunk knows what stands before it only.

    Args:
        encoder: of sentence-transformers, with a fast tokenizer; its prompt for documents is used.
        window: tokens that the model reads at once, its own and the prompt's included; if left out what the encoder reads,
            ``max_seq_length``. Memory grows with it times ``batch_size``.
        overlap: tokens that neighbouring windows share at least; if left out a quarter of the window.
        batch_size: windows that are encoded at once.
        normalize: scale vectors to length 1; an encoder that normalises does so in any case.

    Raises:
        InputError: an encoder without token vectors, or without places of tokens; a window larger than the model's, or with no
            more room than the overlap.
        MissingExtraError: sentence-transformers is not installed.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        *,
        window: int | None = None,
        overlap: int | None = None,
        batch_size: int = 8,
        normalize: bool = True,
    ) -> None:
        """Check that the encoder can do it."""
        require("sentence_transformers", "models")
        from rarebit.retrievers.situating.token_encoder import TokenEncoder

        self.encoder = encoder
        self._encoder = TokenEncoder(encoder)
        limit, reads = self._encoder.positions, self._encoder.reads
        if window is None and reads is None:
            raise InputError("got an encoder that does not say how many tokens it reads, wanted a number: pass window")
        if window is not None and limit is not None and window > limit:
            raise InputError(
                f"got a window of {window} tokens, wanted {limit} at most, which is what the model was made for: leave window "
                "out; a longer document is encoded in several"
            )
        self.window = (reads or 0) if window is None else window
        self.overlap = self.window // 4 if overlap is None else overlap
        self.batch_size, self.normalize = batch_size, normalize
        if min(self.window, batch_size) < 1 or self.overlap < 0:
            raise InputError(
                f"got window={self.window}, overlap={self.overlap}, batch_size={batch_size}, wanted at least 1, 0 and 1"
            )
        self._room(self._encoder.tokenized("a"))

    @property
    def models(self) -> Sequence[Any]:
        """The encoder, which its vectors depend on."""
        return (self.encoder,)

    def embed(self, document: str, chunks: Sequence[str]) -> Vectors:
        """Embed the chunks of one document.

        Args:
            document: its whole text.
            chunks: n chunks in their order, which may overlap; whitespace may differ from the document's (:func:`.locate`).

        Returns:
            (n, dim) float32. A chunk without any token, of whitespace or nothing, gets a vector of zeros.

        Raises:
            InputError: a chunk does not occur in the document; the document is no Unicode text.
        """
        return self.embed_spans(document, locate(document, chunks))

    def embed_many(self, documents: Sequence[str], chunks: Sequence[Sequence[str]]) -> list[Vectors]:
        """Embed the chunks of several documents; short ones are encoded side by side, which :meth:`embed` cannot do.

        Args:
            documents: m texts.
            chunks: for each its chunks, as in :meth:`embed`.

        Returns:
            For each the (n, dim) vectors of its chunks.
        """
        if len(documents) != len(chunks):
            raise InputError(f"got {len(documents)} documents and the chunks of {len(chunks)}, wanted them of each")
        spans = []
        for number, (document, own) in enumerate(zip(documents, chunks, strict=True)):
            try:
                spans.append(locate(document, own))
            except InputError as error:
                raise InputError(f"document {number}: {error}") from error
        return self._embedded(documents, spans)

    def embed_joined(self, chunks: Sequence[Sequence[str]]) -> list[Vectors]:
        """Embed the chunks of documents that are not at hand: each is put together from its chunks again.

        Args:
            chunks: for each document its chunks in their order, which may overlap.

        Returns:
            For each the (n, dim) vectors of its chunks, as :meth:`embed`.
        """
        parts = [joined(checked_texts(own, "chunk")) for own in chunks]
        return self._embedded([text for text, _ in parts], [spans for _, spans in parts])

    def embed_queries(self, texts: Sequence[str]) -> Queries:
        """Embed queries, as the encoder does.

        Args:
            texts: q of them.

        Returns:
            (q, dim) float32.
        """
        queries = checked_texts(texts, "query")
        if not queries:
            return self._encoder.finished(np.empty((0, self._encoder.hidden), np.float32))
        found = as_vectors(self.encoder.encode_query(queries, show_progress_bar=False))
        return normalized(found) if self.normalize else found

    def embed_spans(self, document: str, spans: Sequence[Span]) -> Vectors:
        """Embed parts of one document that are given by their characters.

        Args:
            document: its whole text.
            spans: n of them, in any order: the first character and the one after the last.

        Returns:
            (n, dim) float32, as :meth:`embed`.
        """
        for number, (start, stop) in enumerate(spans):
            if not 0 <= start <= stop <= len(document):
                raise InputError(
                    f"got span {number} from {start} to {stop} of a document of {len(document)} characters, wanted a start "
                    "and a stop that is no smaller, within it"
                )
        return self._embedded([document], [spans])[0]

    def __repr__(self) -> str:
        """Name what decides about the vectors."""
        return f"LateChunking(window={self.window}, overlap={self.overlap}, normalize={self.normalize})"

    def _embedded(self, documents: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Vectors]:
        tokenized = [self._encoder.tokenized(document) for document in documents]
        means = [
            ChunkMeans(text, tokens, own, self._encoder.hidden)
            for text, tokens, own in zip(documents, tokenized, spans, strict=True)
        ]
        work = [
            (number, window)
            for number, tokens in enumerate(tokenized)
            if len(spans[number])
            for window in windows(len(tokens), self._room(tokens), self.overlap)
        ]
        # Windows of one length side by side need no padding.
        work.sort(key=lambda item: item[1].stop - item[1].start, reverse=True)
        for first in range(0, len(work), self.batch_size):
            batch = work[first : first + self.batch_size]
            states = self._encoder.states([tokenized[number].inputs_of(window) for number, window in batch])
            for (number, window), rows in zip(batch, states, strict=True):
                shift = tokenized[number].head - window.start
                means[number].add(window, rows[shift + window.own_start : shift + window.own_stop])
        return [self._finished(own) for own in means]

    def _finished(self, chunks: ChunkMeans) -> Vectors:
        """Give every chunk its vector, also those without tokens."""
        found = self._encoder.finished(chunks.means())
        vectors: Vectors = np.zeros((len(chunks.there), found.shape[1]), np.float32)
        vectors[chunks.there] = normalized(found) if self.normalize else found
        return vectors

    def _room(self, tokens: TokenizedDocument) -> int:
        """Say how many of the document's own tokens a window holds."""
        added = tokens.head + tokens.tail
        if self.window - added <= self.overlap:
            raise InputError(
                f"got a window of {self.window} tokens with an overlap of {self.overlap}, wanted room for more than the "
                f"overlap beside the {added} tokens of the model and the prompt: choose a larger window or a smaller overlap"
            )
        return self.window - added
