"""An encoder of sentence-transformers by its parts: tokens with their places, a vector for each, and what follows pooling.

Needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32
from numpy import typing as npt
from sentence_transformers import SentenceTransformer

from rarebit.arrays import Vectors
from rarebit.errors import InputError
from rarebit.retrievers.situating.windows import Numbers, TokenizedDocument

Pooled: TypeAlias = Float32[npt.NDArray[np.float32], "n hidden"]
WindowStates: TypeAlias = Float32[npt.NDArray[np.float32], "batch longest hidden"]

PROMPTS: Final = ("document", "passage", "corpus")
"""The names of prompts for documents, the first one first, as ``SentenceTransformer.encode_document`` looks for them."""

UNLIMITED: Final = 10**9
"""Tokenizers that do not know how much their model reads say more than this."""

FILLERS: Final = {"input_ids": "pad_token_id", "token_type_ids": "pad_token_type_id"}


class TokenEncoder:
    """What late chunking needs of an encoder.

    Args:
        encoder: a transformer over tokens with a fast tokenizer, a pooling, and whatever follows.

    Raises:
        InputError: it is none, or pools into something that is not as wide as a token's vector.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        """Take the encoder apart."""
        self._encoder = encoder
        self._before, pooling, self._after = _parts(encoder)
        self._prompt = next((encoder.prompts[name] for name in PROMPTS if name in encoder.prompts), None) or ""
        self.hidden = _width(pooling)
        """Numbers of a token's vector."""
        self.positions = _positions(self._before[0])
        """Tokens that the model has places for; None if it sets no bound."""
        limits = [limit for limit in (encoder.max_seq_length, self.positions) if limit and limit < UNLIMITED]
        self.reads: int | None = min(limits, default=None)
        """Tokens that the encoder reads of a text; None if it does not say."""

    def tokenized(self, document: str) -> TokenizedDocument:
        """Tokenize a document at once, behind the prompt, as the encoder itself would, whatever its length.

        Raises:
            InputError: it is no Unicode text.
        """
        try:
            document.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"got a document that is no Unicode text ({error}): leave it out or repair it") from error
        tokenizer: Any = self._encoder.tokenizer
        encoded = tokenizer(
            self._prompt + document,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,  # a warning that this is too long for the model would be wrong: windows follow
        )
        offsets = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2) - len(self._prompt)
        own = np.flatnonzero((np.array(encoded["special_tokens_mask"], np.int64) == 0) & (offsets[:, 1] > 0))
        head, stop = (int(own[0]), int(own[-1]) + 1) if len(own) else (len(offsets), len(offsets))
        names = [name for name in tokenizer.model_input_names if name in encoded]
        inputs: dict[str, Numbers] = {name: np.array(encoded[name], np.int64) for name in names}
        # The first may begin below 0, with the last space of the prompt.
        starts, stops = offsets[head:stop].T
        return TokenizedDocument(inputs, head, len(offsets) - stop, starts, stops)

    def states(self, rows: Sequence[dict[str, Numbers]]) -> WindowStates:
        """Encode windows side by side.

        They are filled up on the right, whichever side the tokenizer prefers: sides matter to pooling, which is not done here,
        and this one moves no token's position.
        """
        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        filled = {name: np.full(shape, self._filler(name), np.int64) for name in rows[0]}
        filled["attention_mask"] = np.zeros(shape, np.int64)
        for place, row in enumerate(rows):
            for name, numbers in row.items():
                filled[name][place, : len(numbers)] = numbers
            filled["attention_mask"][place, : len(row["input_ids"])] = 1
        self._encoder.eval()
        with torch.inference_mode():
            features: dict[str, Any] = {
                name: torch.from_numpy(array).to(self._encoder.device) for name, array in filled.items()
            }
            for module in self._before:
                features = module(features)
            states: WindowStates = features["token_embeddings"].float().cpu().numpy()
        return states

    def finished(self, pooled: Pooled) -> Vectors:
        """Do with pooled vectors what the encoder does after pooling."""
        with torch.inference_mode():
            features = {"sentence_embedding": torch.from_numpy(pooled).to(self._encoder.device)}
            for module in self._after:
                weight = next(module.parameters(), None)
                wanted = torch.float32 if weight is None else weight.dtype
                features = module({"sentence_embedding": features["sentence_embedding"].to(wanted)})
            vectors: Vectors = features["sentence_embedding"].float().cpu().numpy()
        return np.ascontiguousarray(vectors[:, : self._encoder.truncate_dim])

    def _filler(self, name: str) -> int:
        return getattr(self._encoder.tokenizer, FILLERS.get(name, ""), None) or 0


def _parts(encoder: SentenceTransformer) -> tuple[list[Any], Any, list[Any]]:
    """Take an encoder apart: what makes vectors of tokens, the pooling, and what follows it."""
    if not isinstance(encoder, SentenceTransformer):
        raise InputError(
            f"got {type(encoder).__name__}, wanted a SentenceTransformer: load one with rarebit.encoders.load_encoder"
        )
    modules: list[Any] = list(encoder)
    names = " -> ".join(type(module).__name__ for module in modules)
    transformer = modules[0] if modules else None
    if not hasattr(transformer, "auto_model") or getattr(transformer, "module_output_name", "") not in {"", "token_embeddings"}:
        raise InputError(
            f"got an encoder of {names}, wanted one that begins with a transformer over tokens: in others no token knows its "
            "surroundings, or they do not say what it knows"
        )
    if "message" in getattr(transformer, "modality_config", {}):
        raise InputError(
            "got an encoder that puts texts into a chat template, of which a window would have none: load it with a "
            "modality_config of text only, if it was trained without"
        )
    if not getattr(encoder.tokenizer, "is_fast", False):
        raise InputError(
            f"got an encoder whose tokenizer ({type(encoder.tokenizer).__name__}) does not say which characters a token stands "
            "for, wanted a fast one: load the encoder with processor_kwargs={'use_fast': True}, or choose another"
        )
    poolings = [place for place, module in enumerate(modules) if hasattr(module, "pooling_output_dimension")]
    if len(poolings) != 1 or modules[poolings[0]].pooling_output_dimension != _width(modules[poolings[0]]):
        raise InputError(
            f"got an encoder of {names}, wanted one that pools once and into a vector as wide as a token's: chunks are pooled "
            "by mean, so questions would have other vectors"
        )
    place = poolings[0]
    return modules[:place], modules[place], modules[place + 1 :]


def _width(pooling: Any) -> int:
    """Say how many numbers stand for a token; sentence-transformers renamed it in version 6."""
    width = getattr(pooling, "embedding_dimension", None)
    return int(pooling.word_embedding_dimension if width is None else width)


def _positions(transformer: Any) -> int | None:
    """Say how many tokens the model has places for; None if it sets no bound."""
    config = transformer.auto_model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    if not positions or positions < 1:
        return None
    for module in transformer.auto_model.modules():
        table, padding = getattr(module, "position_embeddings", None), getattr(module, "padding_idx", None)
        if isinstance(table, torch.nn.Embedding) and isinstance(padding, int):
            return int(positions) - padding - 1  # RoBERTa and its kin count from behind the padding's place
    return int(positions)
