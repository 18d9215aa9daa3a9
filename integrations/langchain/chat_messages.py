"""LangChain's messages as a chat template takes them, and tool calls as models write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import ToolCallChunk, tool_call, tool_call_chunk

from rarebit.compressors.context.prompts import Message
from rarebit.errors import InputError
from rarebit.integrations.chat_roles import as_taken, role_of_tools, template_of

OPEN, CLOSE = "<tool_call>", "</tool_call>"
"""What models write around a tool call (Hermes, Qwen, and those after them)."""

_CALL = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}\s*|\Z)", re.DOTALL)
_ROLE = re.compile(r"[A-Za-z0-9_-]+")
_CALLS_IN_CONTENT = {"tool_call", "tool_use"}
"""Blocks of an answer's content that say again what its ``tool_calls`` say."""


def takes_tools(tokenizer: Any) -> bool:
    """Tell whether the chat template has a place for tools."""
    return "tools" in template_of(tokenizer, tools=True)


def conversation(messages: Sequence[BaseMessage], tokenizer: Any, tools: Sequence[Any] | None) -> list[Message]:
    """Translate messages to roles and texts.

    What tools answered is a user's message where the template has no role for them; where it refuses a system's message, that
    stands at the head of the user's next.

    Nothing else goes to the template, no names and no ids: what it is given beside contents could spell special tokens.

    Args:
        messages: system, human, AI, tool and chat messages; contents are texts or lists of text blocks.
        tokenizer: whose template says which roles there are.
        tools: that the template is given; None for none.

    Raises:
        InputError: another kind of message, or a content that is no text.
    """
    tool = role_of_tools(tokenizer, tools=bool(tools))
    return as_taken([{"role": _role(message, tool), "content": _text(message)} for message in messages], tokenizer, tools)


def where_a_call_may_begin(text: str) -> int:
    """Find the place from which an unfinished text is, or may become, a tool call; its length if there is none."""
    found = text.find(OPEN)
    if found >= 0:
        return found
    begun = (length for length in range(min(len(OPEN) - 1, len(text)), 0, -1) if text.endswith(OPEN[:length]))
    return len(text) - next(begun, 0)


def parsed(text: str) -> tuple[str, list[ToolCall]]:
    """Part an answer into what it says and the tools it calls; a call that cannot be read stays where it is, as text."""
    calls = []

    def taken(found: re.Match[str]) -> str:
        call = _call(found[1])
        if call is None:
            return found[0]
        calls.append(call)
        return ""

    return _CALL.sub(taken, text), calls


def as_chunks(calls: Sequence[ToolCall]) -> list[ToolCallChunk]:
    """Give tool calls as the end of a stream has them."""
    return [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"], ensure_ascii=False), id=call["id"], index=place)
        for place, call in enumerate(calls)
    ]


def _call(written: str) -> ToolCall | None:
    try:
        given = json.loads(written)
    except ValueError:
        return None
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        return None
    arguments = given.get("arguments", {})
    return tool_call(name=given["name"], args=arguments, id=f"call_{uuid4().hex}") if isinstance(arguments, dict) else None


def _role(message: BaseMessage, tool: str) -> str:
    match message:
        case ChatMessage() if _ROLE.fullmatch(message.role):
            return message.role
        case ChatMessage():
            raise InputError(f"got a message of the role {message.role!r}, wanted a role of letters, digits, '_' and '-'")
        case SystemMessage():
            return "system"
        case HumanMessage():
            return "user"
        case AIMessage():
            return "assistant"
        case ToolMessage():
            return tool
    raise InputError(f"got a {type(message).__name__}, wanted a system, human, AI, tool or chat message")


def _text(message: BaseMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    if not isinstance(message, AIMessage):
        return "".join(map(_block, blocks))
    said = [_block(block) for block in blocks if isinstance(block, str) or block.get("type") not in _CALLS_IN_CONTENT]
    return "\n".join(part for part in ["".join(said), *map(_written, message.tool_calls)] if part)


def _block(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    raise InputError(f"got a content block of type {block.get('type')!r}, wanted text: the model reads nothing else")


def _written(call: ToolCall) -> str:
    """Write a tool call as the model itself does; as content, so that nothing in it is a special token."""
    return f"{OPEN}\n{json.dumps({'name': call['name'], 'arguments': call['args']}, ensure_ascii=False)}\n{CLOSE}"
