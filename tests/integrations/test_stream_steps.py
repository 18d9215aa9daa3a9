"""Streams in threads: each step is awaited, and whoever leaves ends them without waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextvars import ContextVar

import pytest

from rarebit.integrations.stream_steps import in_threads

ASKED: ContextVar[str] = ContextVar("asked", default="")


class Counting:
    """Counts, and keeps where it ran and how it ended; from a number on it waits until it may go on."""

    def __init__(self, most: int, waits_at: int = -1) -> None:
        self.most, self.waits_at = most, waits_at
        self.cancelled, self.waiting, self.may, self.closed = (threading.Event() for _ in range(4))
        self.threads: set[threading.Thread] = set()
        self.contexts: set[str] = set()

    def steps(self) -> Generator[int, None, None]:
        try:
            for number in range(self.most):
                self.threads.add(threading.current_thread())
                self.contexts.add(ASKED.get())
                if number == self.waits_at:
                    self.waiting.set()
                    assert self.may.wait(20)
                yield number
        finally:
            self.closed.set()


async def test_all_steps_are_given_from_threads() -> None:
    counting = Counting(3)
    ASKED.set("here")
    assert [step async for step in in_threads(counting.steps(), counting.cancelled)] == [0, 1, 2]
    assert threading.current_thread() not in counting.threads
    assert counting.contexts == {"here"}
    assert counting.closed.is_set()


async def test_errors_reach_the_reader() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise RuntimeError("broken")

    cancelled = threading.Event()
    stream = in_threads(failing(), cancelled)
    assert await anext(stream) == 1
    with pytest.raises(RuntimeError, match="broken"):
        await anext(stream)
    assert cancelled.is_set()


async def test_closing_ends_the_generator() -> None:
    counting = Counting(9)
    stream = in_threads(counting.steps(), counting.cancelled)
    assert await anext(stream) == 0
    await stream.aclose()
    assert counting.cancelled.is_set()
    assert await asyncio.to_thread(counting.closed.wait, 20)


async def test_who_cancels_does_not_wait_for_a_step() -> None:
    counting = Counting(9, waits_at=1)

    async def read() -> None:
        async for _ in in_threads(counting.steps(), counting.cancelled):
            pass

    task = asyncio.create_task(read())
    assert await asyncio.to_thread(counting.waiting.wait, 20)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()
    assert counting.cancelled.is_set()
    assert not counting.closed.is_set()
    counting.may.set()
    assert await asyncio.to_thread(counting.closed.wait, 20)
