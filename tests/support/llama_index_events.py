"""Listening to LlamaIndex's events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent


class Listener(BaseEventHandler):
    """Remembers events."""

    _wanted: Callable[[BaseEvent], bool] = PrivateAttr()
    _heard: list[Any] = PrivateAttr(default_factory=list)

    @property
    def heard(self) -> list[Any]:
        return self._heard

    @classmethod
    def class_name(cls) -> str:
        return "Listener"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if self._wanted(event):
            self._heard.append(event)


@contextmanager
def listening(wanted: Callable[[BaseEvent], bool]) -> Iterator[Listener]:
    """Listen to events of some kind."""
    root, made = get_dispatcher(), Listener()
    made._wanted = wanted
    root.add_event_handler(made)
    try:
        yield made
    finally:
        root.event_handlers.remove(made)
