"""Streams of the chat model that are closed, left or cancelled stop the model, and many go on at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

pytest.importorskip("transformers", reason="one-token contexts need the extra models")

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from support.one_token import agathered

from rarebit.compressors.context import OneTokenGenerator
from rarebit.integrations.langchain import ChatOneToken

pytestmark = pytest.mark.usefixtures("_one_thread")

LONG = 3000
"""Tokens of an answer that is to be interrupted."""


class TestInterruptedStreams:
    @pytest.fixture
    def steps(self, generator: OneTokenGenerator) -> list[float]:
        """When the model computed."""
        times: list[float] = []
        generator.model.register_forward_hook(lambda *_: times.append(time.perf_counter()))
        return times

    def test_closing(self, chat: ChatOneToken, steps: list[float]) -> None:
        stream = chat.stream("hello", max_tokens=LONG)
        for _ in range(3):
            next(stream)
        stream.close()
        _stopped(steps)

    def test_leaving_a_chain(self, chat: ChatOneToken, steps: list[float]) -> None:
        # Without a parser behind the model: closed, LangChain's parsers read their input to its end, to trace it.
        for _ in (ChatPromptTemplate.from_template("{said}") | chat.bind(max_tokens=LONG)).stream({"said": "hello"}):
            break
        _stopped(steps)

    def test_closing_asynchronously(self, chat: ChatOneToken, steps: list[float]) -> None:
        async def some() -> None:
            stream = chat.astream("hello", max_tokens=LONG)
            async for _ in stream:
                break
            await stream.aclose()

        asyncio.run(some())
        _stopped(steps)

    @pytest.mark.parametrize("method", ["ainvoke", "astream", "astream_events"])
    @pytest.mark.parametrize("parsed", [False, True])
    @pytest.mark.parametrize("stop", [None, ["never written " * LONG]], ids=["shown", "held back"])
    def test_cancelling(
        self, chat: ChatOneToken, steps: list[float], method: str, parsed: bool, stop: list[str] | None
    ) -> None:
        long: Any = chat.bind(max_tokens=LONG, stop=stop)
        asked = long | StrOutputParser() if parsed else long

        async def ask() -> None:
            if method == "ainvoke":
                await asked.ainvoke("hello")
            async for _ in getattr(asked, method)("hello"):
                pass

        async def main() -> None:
            task = asyncio.create_task(ask())
            while len(steps) < 3:  # noqa: ASYNC110 -- the model computes in a thread, and knows no event
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        _stopped(steps)

    def test_the_event_loop_goes_on(self, chat: ChatOneToken) -> None:
        async def main() -> int:
            beats = 0
            task = asyncio.create_task(agathered(chat, "hello", max_tokens=100))
            invoked = asyncio.create_task(chat.ainvoke("hello", max_tokens=100))
            while not (task.done() and invoked.done()):
                await asyncio.sleep(0.001)
                beats += 1
            assert (await task).content == (await invoked).content
            return beats

        assert asyncio.run(main()) > 10

    def test_after_it_the_next_is_answered(self, chat: ChatOneToken) -> None:
        expected = chat.invoke("hello").content
        for _ in range(3):
            for _ in chat.stream("hello", max_tokens=LONG):
                break
            assert chat.invoke("hello").content == expected

    def test_many_at_once(self, chat: ChatOneToken) -> None:
        async def main() -> list[Any]:
            return await asyncio.gather(*(agathered(chat, f"hello {number % 4}") for number in range(16)))

        answers = [answer.content for answer in asyncio.run(main())]
        assert answers[:4] * 4 == answers
        assert answers[:4] == [chat.invoke(f"hello {number}").content for number in range(4)]


def _stopped(steps: list[float]) -> None:
    """Check that the model does not go on."""
    deadline = time.perf_counter() + 5
    while any(thread.name == "rarebit-stream" for thread in threading.enumerate()):
        assert time.perf_counter() < deadline
        time.sleep(0.01)
    assert 0 < len(steps) < LONG // 2
