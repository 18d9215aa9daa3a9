"""Streams of the language model, stepped through in threads, for both frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from threading import Event, Lock
from typing import TypeVar

Step = TypeVar("Step")


async def in_threads(steps: Generator[Step, None, None], cancelled: Event) -> AsyncGenerator[Step, None]:
    """Give what a generator gives, each step awaited in a thread; when nobody wants more, set the event and close it."""
    turn = Lock()  # a task may be cancelled while a thread still waits for a step, and a running generator cannot be closed

    def following() -> Step | None:
        with turn:
            return next(steps, None)

    def end() -> None:
        with turn:
            steps.close()

    try:
        while (step := await asyncio.to_thread(following)) is not None:
            yield step
    finally:
        # Not awaited: who cancels need not wait until the model has seen it, at its next token, or until it has its turn.
        cancelled.set()
        asyncio.get_running_loop().run_in_executor(None, end)
