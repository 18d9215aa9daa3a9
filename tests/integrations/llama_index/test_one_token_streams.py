"""Streams of the language model: closed or cancelled they stop it, and the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

from support.one_token_llama_index import QUESTION, WINDOW, Recording, filled, listed, streaming_threads, text_of, user
from support.tiny_language_model import bridge, chat_tokenizer, language_model

from rarebit.compressors.context import Generation, Passages
from rarebit.integrations.llama_index import OneTokenLLM, RarebitVectorStore

pytestmark = pytest.mark.usefixtures("_one_thread")


class Held(Recording):
    """Answers when it may; gives up after a while, so that nothing hangs."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked, self.may = threading.Event(), threading.Event()

    def generate(self, *args: Any, **settings: Any) -> list[Generation]:
        self.hold()
        return super().generate(*args, **settings)

    def stream(self, *args: Any, **settings: Any) -> Generator[str, None, Generation]:
        self.hold()
        return (yield from super().stream(*args, **settings))

    def hold(self) -> None:
        self.asked.set()
        if not self.may.wait(20):
            raise TimeoutError


class TestStreams:
    @pytest.mark.parametrize("way", ["stream_complete", "stream_chat"])
    def test_closing_stops_the_model(self, generator: Recording, way: str) -> None:
        llm = OneTokenLLM(generator=generator, max_tokens=3000)
        stream = getattr(llm, way)(QUESTION if "complete" in way else user(QUESTION))
        assert streaming_threads() == []
        next(stream)
        assert len(streaming_threads()) == 1
        stream.close()
        assert streaming_threads() == []
        assert llm.complete("again", max_tokens=2).text  # the model is free

    @pytest.mark.parametrize("way", ["astream_complete", "astream_chat"])
    def test_closing_an_asynchronous_one(self, generator: Recording, way: str) -> None:
        llm = OneTokenLLM(generator=generator, max_tokens=3000)

        async def run() -> None:
            stream = await getattr(llm, way)(QUESTION if "complete" in way else user(QUESTION))
            await anext(stream)
            assert len(streaming_threads()) == 1
            await stream.aclose()
            del stream
            for _ in range(500):
                if not streaming_threads():
                    return
                await asyncio.sleep(0.01)
            pytest.fail("the model still writes")

        asyncio.run(run())

    @pytest.mark.parametrize("way", ["astream_complete", "astream_chat"])
    def test_cancelling_a_task_stops_the_model(self, generator: Recording, way: str) -> None:
        llm = OneTokenLLM(generator=generator, max_tokens=3000)
        seen: list[str] = []

        async def read(begun: asyncio.Event) -> None:
            async for response in await getattr(llm, way)(QUESTION if "complete" in way else user(QUESTION)):
                seen.append(response.delta)
                begun.set()

        async def run() -> None:
            begun = asyncio.Event()
            task = asyncio.create_task(read(begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        assert streaming_threads() == []
        assert "".join(seen)

    @pytest.mark.parametrize("way", ["astream_complete", "astream_chat"])
    def test_cancelling_stops_the_model_also_while_text_is_held_back(self, generator: Recording, way: str) -> None:
        llm = OneTokenLLM(generator=generator, max_tokens=3000, stop=["never written " * 3000])
        steps: list[int] = []
        plain = generator.model.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            steps.append(1)
            return plain(*args, **kwargs)

        generator.model.forward = counted

        async def read() -> None:
            async for _ in await getattr(llm, way)(QUESTION if "complete" in way else user(QUESTION)):
                pass

        async def run() -> None:
            task = asyncio.create_task(read())
            while len(steps) < 3:  # noqa: ASYNC110 -- the model computes in a thread, and knows no event
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        try:
            asyncio.run(run())
        finally:
            del generator.model.forward
        assert streaming_threads() == []
        assert len(steps) < 1500

    @pytest.mark.parametrize("way", ["astream_complete", "astream_chat"])
    def test_who_cancels_does_not_wait_for_the_turn_of_another(self, generator: Recording, way: str) -> None:
        llm = OneTokenLLM(generator=generator, max_tokens=4)

        async def read() -> None:
            async for _ in await getattr(llm, way)(QUESTION if "complete" in way else user(QUESTION)):
                pass

        async def run() -> None:
            with generator._turn:
                task = asyncio.create_task(read())
                while not streaming_threads():  # noqa: ASYNC110 -- it begins in a thread, and knows no event
                    await asyncio.sleep(0.01)
                task.cancel()
                await asyncio.wait({task}, timeout=10)
                assert task.cancelled()
                assert len(streaming_threads()) == 1

        asyncio.run(run())
        assert streaming_threads() == []

    def test_one_that_nobody_reads_starts_nothing(self, llm: OneTokenLLM) -> None:
        stream = llm.stream_complete(QUESTION)
        stream.close()

        async def run() -> None:
            await (await llm.astream_complete(QUESTION)).aclose()

        asyncio.run(run())
        assert streaming_threads() == []

    def test_many_at_once(self, llm: OneTokenLLM) -> None:
        expected = llm.complete(QUESTION).text

        async def run() -> list[str]:
            async def last() -> str:
                return (await listed(await llm.astream_chat(user(QUESTION))))[-1].message.content

            whole = [llm.acomplete(QUESTION) for _ in range(3)]
            texts = await asyncio.gather(*(last() for _ in range(3)))
            return [*texts, *(response.text for response in await asyncio.gather(*whole))]

        assert asyncio.run(run()) == [expected] * 6


class TestEventLoop:
    @pytest.mark.parametrize("way", ["acomplete", "achat", "astream_complete", "astream_chat"])
    def test_is_not_held_up(self, store: RarebitVectorStore, way: str) -> None:
        filled(store)
        model = language_model()
        model.config.max_position_embeddings = WINDOW
        generator = Held(model, chat_tokenizer(), bridge(input_length=3.0), Passages.of(store.client))
        llm = OneTokenLLM(generator=generator, max_tokens=4)

        async def ask() -> str:
            done = await getattr(llm, way)(QUESTION if "complete" in way else user(QUESTION))
            return text_of((await listed(done))[-1] if "stream" in way else done)

        async def run() -> str:
            task = asyncio.create_task(ask())
            assert await asyncio.to_thread(generator.asked.wait, 20)
            generator.may.set()
            return await task

        assert asyncio.run(run())
