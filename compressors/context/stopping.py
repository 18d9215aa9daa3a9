"""Where answers end: at stop texts, whole or streamed, and when nobody reads them any more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event
from time import perf_counter
from typing import Any

import torch
from transformers import StoppingCriteria


class Watch(StoppingCriteria):
    """Notes when the first token came; ends answers at stop texts, and when nobody reads them any more."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], cancelled: Event | None = None) -> None:
        """Begin to watch."""
        self.first: float | None = None
        self.cancelled = cancelled or Event()
        self._tokenizer, self._stop = tokenizer, stop

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Say which answers end here."""
        del scores, kwargs
        if self.first is None:
            self.first = perf_counter()
        ended = [self.cancelled.is_set() or self._has_stop(written) for written in input_ids.tolist()]
        return torch.tensor(ended, device=input_ids.device)

    def _has_stop(self, written: list[int]) -> bool:
        if not self._stop:
            return False
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return any(stop in text for stop in self._stop)


def until(text: str, stop: Sequence[str]) -> str:
    """Cut a text before the first of the stop texts."""
    return text[: min([place for place in map(text.find, stop) if place >= 0], default=len(text))]


def before(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """Give pieces up to a stop text, holding back what may be the beginning of one."""
    held = ""
    longest = max(map(len, stop), default=1) - 1
    for piece in pieces:
        held += piece
        found = until(held, stop) != held  # then little follows; in it a longer stop text may end, which began before
        if len(held) > longest and not found:
            yield held[: len(held) - longest]
            held = held[len(held) - longest :]
    if held := until(held, stop):
        yield held
