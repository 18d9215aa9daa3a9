"""What a causal language model has read up to some tokens of a text: its last hidden states there. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import typing as npt
from transformers import PreTrainedModel

from rarebit.errors import InputError

Places: TypeAlias = Int64[npt.NDArray[np.int64], "n wanted"]
States: TypeAlias = Float32[npt.NDArray[np.float32], "n wanted hidden"]

FILLER: Final = 0
"""The token that rows are filled up with; any will do, since nothing looks at it."""


class CausalStates:
    """Reads rows of tokens and gives the states of those that are asked for.

    Args:
        model: of transformers, causal, with or without a head for the next token, which is not computed; or of peft, whose
            adapter lies in the layers.
        side: on which rows are filled up to the longest, "left" or "right". Every token keeps its position either way.

    Raises:
        InputError: it is no such model, or another side.
    """

    def __init__(self, model: Any, side: str) -> None:
        """Find the layers of the model."""
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(whole, PreTrainedModel):
            raise InputError(f"got {type(model).__name__}, wanted a model of transformers or peft: load one with AutoModel")
        if side not in {"left", "right"}:
            raise InputError(f"got a tokenizer that pads on the side {side!r}, wanted 'left' or 'right'")
        self._layers: Any = whole.base_model
        self._left = side == "left"
        config: Any = self._layers.config
        self.hidden = int(config.hidden_size)
        """Numbers of a state."""
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        """Tokens that the model has places for; None if it does not say."""

    def states(self, rows: Sequence[Sequence[int]], places: Places, batch_size: int) -> States:
        """Give states of tokens.

        Args:
            rows: the tokens of n texts.
            places: of the tokens wanted, (n, wanted), counted from the first of each text.
            batch_size: texts that are read at once; such of about one length.

        Returns:
            (n, wanted, hidden) float32.
        """
        found: States = np.empty((*places.shape, self.hidden), np.float32)
        by_length = sorted(range(len(rows)), key=lambda number: len(rows[number]), reverse=True)
        for first in range(0, len(rows), batch_size):
            batch = by_length[first : first + batch_size]
            found[batch] = self._read([rows[number] for number in batch], places[batch])
        return found

    def _read(self, rows: Sequence[Sequence[int]], places: Places) -> States:
        width = max(len(row) for row in rows)
        starts = np.array([width - len(row) if self._left else 0 for row in rows], np.int64)
        tokens, there = np.full((len(rows), width), FILLER, np.int64), np.zeros((len(rows), width), np.int64)
        for number, (row, start) in enumerate(zip(rows, starts.tolist(), strict=True)):
            tokens[number, start : start + len(row)], there[number, start : start + len(row)] = row, 1
        self._layers.eval()
        with torch.inference_mode():
            read = self._layers(
                input_ids=self._sent(tokens),
                attention_mask=self._sent(there),
                position_ids=self._sent(np.maximum(np.arange(width) - starts[:, np.newaxis], 0)),
                use_cache=False,
            ).last_hidden_state
            wanted = self._sent(places + starts[:, np.newaxis])
            states: States = read[torch.arange(len(rows), device=read.device)[:, None], wanted].float().cpu().numpy()
        return states

    def _sent(self, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self._layers.device)
