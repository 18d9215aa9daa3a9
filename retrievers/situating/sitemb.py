"""One causal encoder that reads a chunk and then its context: SitEmb v1.5 (2508.01959).

It reads ``chunk <|endoftext|> instruction context <|endoftext|>``. The model is causal, so its state at the first end token has
seen the chunk only: that is the chunk-only vector c. The state at the second has seen both: the situated vector s. Both are
scaled to length 1, and the score of a query is ``q.s + residual * q.c``, which is the inner product of q with the one stored
vector ``v = s + residual * c``. So v keeps its length, which says how well s and c agree: scaled to length 1, or in a store
that compares by cosine, it ranks otherwise. Use ``metric="inner_product"``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Queries, Vectors, normalized
from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.situating.context_blocks import (
    BLOCK,
    BlockEncoder,
    block_contexts,
    checked_texts,
    spread,
    with_text,
)

if TYPE_CHECKING:
    import torch

Pairs: TypeAlias = Float32[npt.NDArray[np.float32], "n 2 dim"]

END: Final = "<|endoftext|>"
"""The token at which vectors are read."""

INSTRUCTION: Final = (
    "The context in which the chunk is situated is given below. "
    "Please encode the chunk by being aware of the context. Context:\n"
)
"""What stands before a context, unless an adapter's card has other words."""

QUERY_INSTRUCTION: Final = (
    "Instruct: Given a search query, retrieve relevant chunks from fictions that answer the query\nQuery: "
)
"""What stands before a query: the format of Qwen3-Embedding, with SitEmb's task."""


class SitEmb(BlockEncoder):
    """Embeds chunks with their contexts by one causal model.

    Args:
        model: of transformers or peft, causal, such as Qwen3-Embedding with an adapter; one that was not trained for this does
            worse with a context than without.
        tokenizer: the model's, with the token ``<|endoftext|>``; batches are filled up on its ``padding_side``.
        residual: the share of the chunk-only vector; 0.5 in the released card.
        max_length: tokens of a sequence at most, fewer where the model has fewer positions. What does not fit is taken off the
            end of the context.
        instruction: text before the context. An adapter wants the one that it was trained with: compare with its card.
        query_instruction: text before a query, to the letter; compare likewise, and name your own task in it.
        block: chunks of a context.
        batch_size: sequences that are read at once; memory grows with it times their length.

    Raises:
        InputError: what was passed is no such model or tokenizer, or numbers that cannot be.
        MissingExtraError: torch or transformers are not installed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        residual: float = 0.5,
        max_length: int = 8192,
        instruction: str = INSTRUCTION,
        query_instruction: str = QUERY_INSTRUCTION,
        block: int = BLOCK,
        batch_size: int = 4,
    ) -> None:
        """Check that the model can do it."""
        require("torch", "models")
        require("transformers", "models")
        from rarebit.retrievers.situating.causal_states import CausalStates

        super().__init__(block=block, batch_size=batch_size)
        self.model, self.tokenizer = model, tokenizer
        self._states = CausalStates(model, getattr(tokenizer, "padding_side", "left"))
        self.dim: int = self._states.hidden
        end: int | None = tokenizer.get_vocab().get(END)
        if end is None:
            raise InputError(
                f"got a tokenizer without the token {END!r}, at which vectors are read: pass that of Qwen3-Embedding"
            )
        if not np.isfinite(residual) or max_length < 3:
            raise InputError(f"got residual={residual}, max_length={max_length}, wanted a finite number, and at least 3 tokens")
        self._end, self.residual = end, residual
        self.max_length = min(max_length, self._states.positions or max_length)
        self.instruction, self.query_instruction = instruction, query_instruction

    @classmethod
    def from_pretrained(
        cls,
        adapter: str | os.PathLike[str],
        base: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **settings: Any,
    ) -> SitEmb:
        """Load a published adapter, such as ``SituatedEmbedding/SitEmb-v1.5-Qwen3``, on its base model.

        The adapter stays beside the weights of the base and is not merged into them: merged in half precision it would be
        rounded to their steps. Only safetensors are read, nothing is unpickled, and no code of a repository is run.

        Args:
            adapter: a folder, or the name of a repository on the hub, with ``adapter_config.json`` and
                ``adapter_model.safetensors`` of a LoRA adapter. Its rank and its targets are read there.
            base: a folder or name of the base model and its tokenizer; the one that the adapter names if left out:
                Qwen/Qwen3-Embedding-8B, 16 GB.
            device: to compute on; an accelerator if there is one.
            dtype: of the weights; as they were saved if left out.
            settings: of :class:`SitEmb`.

        Raises:
            InputError: there is no such adapter or base, the adapter is pickled, no LoRA, or made for another model.
            MissingExtraError: peft is not installed.
        """
        require("peft", "sitemb")
        require("transformers", "models")
        from rarebit.retrievers.situating.adapters import adapted

        return cls(*adapted(adapter, base, device=device, dtype=dtype), **settings)

    @property
    def models(self) -> Sequence[Any]:
        """The causal model, with its adapter."""
        return (self.model,)

    def embed_queries(self, texts: Sequence[str]) -> Queries:
        """Embed queries: the state at the end token behind instruction and query.

        Args:
            texts: q of them. The end of one that is longer than ``max_length`` is taken off.

        Returns:
            (q, dim) float32 of length 1.

        Raises:
            InputError: what was passed is no sequence of texts.
        """
        queries = checked_texts(texts, "query")
        tokens = self._tokenized([self.query_instruction + query for query in queries])
        rows = [[*own[: self.max_length - 1], self._end] for own in tokens]
        places = np.array([len(row) - 1 for row in rows], np.int64)[:, np.newaxis]
        return normalized(self._states.states(rows, places, self.batch_size)[:, 0])

    def embed_apart(self, chunks: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Embed the chunks of one document, and give what :meth:`embed_document` sums.

        Args:
            chunks: n texts in their order.

        Returns:
            The chunk-only and the situated vectors, each (n, dim) float32 of length 1, or zeros for a chunk without text.
        """
        there = with_text(chunks)
        contexts = block_contexts(chunks, block=self.block)
        kept = [place for place, has_text in enumerate(there) if has_text]
        alone, situated = self._apart([chunks[place] for place in kept], [contexts[place] for place in kept])
        return spread(alone, there), spread(situated, there)

    def __repr__(self) -> str:
        """Name what decides about the vectors."""
        return (
            f"SitEmb(dim={self.dim}, residual={self.residual}, max_length={self.max_length}, block={self.block}, "
            f"instruction={self.instruction!r}, query_instruction={self.query_instruction!r})"
        )

    def _situated(self, chunks: list[str], contexts: list[str]) -> Vectors:
        alone, situated = self._apart(chunks, contexts)
        summed: Vectors = np.add(situated, self.residual * alone, dtype=np.float32)
        return summed

    def _apart(self, chunks: list[str], contexts: list[str]) -> tuple[Vectors, Vectors]:
        distinct = list(dict.fromkeys(contexts))
        behind = dict(zip(distinct, self._tokenized([self.instruction + context for context in distinct]), strict=True))
        tokens = self._tokenized(chunks)
        for number, own in enumerate(tokens):
            if len(own) + 2 > self.max_length:
                beginning = " ".join(chunks[number].split())[:60]
                raise InputError(
                    f"got a chunk of {len(own)} tokens, which begins {beginning!r}, wanted {self.max_length - 2} at most, "
                    "since chunks are never cut: split it, or choose a larger max_length if the model has more positions"
                )
        rows = [
            [*own, self._end, *behind[context][: self.max_length - len(own) - 2], self._end]
            for own, context in zip(tokens, contexts, strict=True)
        ]
        places = np.array([(len(own), len(row) - 1) for own, row in zip(tokens, rows, strict=True)], np.int64).reshape(-1, 2)
        states: Pairs = self._states.states(rows, places, self.batch_size)
        return normalized(states[:, 0]), normalized(states[:, 1])

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        """Give the tokens of texts; an end token that a text spells out is text, or vectors would be read at it."""
        if not texts:
            return []
        tokens: list[list[int]] = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,  # a warning that this is too long for the model would be wrong: it is cut
        )["input_ids"]
        return tokens
