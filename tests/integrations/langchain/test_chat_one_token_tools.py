"""The chat model calls tools where its chat template has a place for them, also in an agent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("transformers", reason="one-token contexts need the extra models")

from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.tools import create_retriever_tool, tool
from support.one_token import ANSWER, TEXTS, Scripted, agathered, gathered, turn

from rarebit.errors import InputError
from rarebit.integrations.langchain import ChatOneToken, ContextualRetriever, OneTokenCompressor, RarebitVectorStore

pytestmark = pytest.mark.usefixtures("_one_thread")


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"rain in {city}"


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bergen"}}\n</tool_call>'


class TestTools:
    def test_a_template_without_tools(self, chat: ChatOneToken) -> None:
        with pytest.raises(InputError, match="LlamaForCausalLM, whose chat template has no place for them"):
            chat.bind_tools([weather])
        with pytest.raises(InputError, match="chat template"):
            chat.invoke("hello", tools=[{"name": "weather"}])
        with pytest.raises(InputError, match="chat template"):
            chat.with_structured_output({"title": "Answer", "type": "object", "properties": {}})

    def test_a_call_cannot_be_demanded(self, notes: RarebitVectorStore) -> None:
        chat = ChatOneToken(generator=Scripted(notes.collection, []))
        for choice in ("any", "weather", "none"):
            with pytest.raises(InputError, match=f"tool_choice='{choice}'"):
                chat.bind_tools([weather], tool_choice=choice)

    def test_the_model_reads_them(self, notes: RarebitVectorStore) -> None:
        generator = Scripted(notes.collection, ["fine"] * 4)
        chat = ChatOneToken(generator=generator)
        bound = chat.bind_tools([weather], tool_choice="auto")
        assert bound.invoke("hello").content == "fine"
        assert gathered(bound.stream("hello")).content == "fine"
        chat.invoke("hello")
        for place in (0, 1):
            assert '"name": "weather"' in generator.read(place)
            assert generator.read(place).endswith(turn("user", "hello") + ANSWER)
        assert generator.read(2) == turn("user", "hello") + ANSWER

    @pytest.mark.parametrize(
        ("said", "content", "called"),
        [
            (CALL, "", [("weather", {"city": "Bergen"})]),
            (f"I look.\n{CALL}\n{CALL}", "I look.\n", [("weather", {"city": "Bergen"})] * 2),
            ('<tool_call>{"name": "now"}</tool_call> done', "done", [("now", {})]),
            ('<tool_call>{"name": "now", "arguments": {"at": "Kärnten"}}', "", [("now", {"at": "Kärnten"})]),
            ("<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>", []),
            ("<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
            ('<tool_call>{"name": "now", "arguments": 1}', '<tool_call>{"name": "now", "arguments": 1}', []),
            ("a < b <tool", "a < b <tool", []),
            ("", "", []),
        ],
    )
    def test_calls_are_read(
        self, notes: RarebitVectorStore, said: str, content: str, called: list[tuple[str, dict[str, Any]]]
    ) -> None:
        chat = ChatOneToken(generator=Scripted(notes.collection, [said] * 5))
        bound = chat.bind_tools([weather])
        answers = [bound.invoke("hello"), gathered(bound.stream("hello")), asyncio.run(bound.ainvoke("hello"))]
        for answer in [*answers, asyncio.run(agathered(bound, "hello"))]:
            assert answer.content == content
            assert [(call["name"], call["args"]) for call in answer.tool_calls] == called
            assert not answer.invalid_tool_calls
            assert len({call["id"] for call in answer.tool_calls} - {None}) == len(called)
        assert chat.invoke("hello").content == said

    def test_what_is_said_before_is_streamed(self, notes: RarebitVectorStore) -> None:
        bound = ChatOneToken(generator=Scripted(notes.collection, [f"so 1 < 2, and {CALL}"])).bind_tools([weather])
        pieces = [chunk.content for chunk in bound.stream("hello")]
        assert len([piece for piece in pieces if piece]) > 3
        assert "".join(pieces) == "so 1 < 2, and "

    @pytest.mark.parametrize("streamed", [False, True])
    def test_an_agent(self, notes: RarebitVectorStore, streamed: bool) -> None:
        agents = pytest.importorskip("langchain.agents")
        call = {"name": "notes", "arguments": {"query": TEXTS["passage 4"]}}
        generator = Scripted(notes.collection, [f"<tool_call>\n{json.dumps(call)}\n</tool_call>", "It rains."])
        within = ContextualRetriever(
            base_retriever=notes.as_retriever(search_kwargs={"k": 2}),
            base_compressor=OneTokenCompressor(generator=generator),
        )
        agent = agents.create_agent(
            ChatOneToken(generator=generator), [create_retriever_tool(within, "notes", "Searches the notes.")]
        )
        asked = {"messages": [HumanMessage("what?")]}
        if streamed:
            *_, (_, done) = agent.stream(asked, stream_mode=["messages", "values"])
        else:
            done = asyncio.run(agent.ainvoke(asked))
        assert [type(message) for message in done["messages"]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
        assert done["messages"][-1].content == "It rains."
        assert generator.asked[1].passages[0].text == TEXTS["passage 4"]
        assert generator.read(1).endswith(
            turn("user", "what?")
            + turn("assistant", f"<tool_call>\n{json.dumps(call)}\n</tool_call>")
            + turn("user", "<passage>\n\n<passage>")
            + ANSWER
        )
