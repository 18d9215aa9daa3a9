"""Messages of LlamaIndex as the generator reads them, and its answers as LlamaIndex's responses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock

from rarebit.compressors.context.generation import Generation
from rarebit.compressors.context.prompts import Message, prompt_of
from rarebit.errors import InputError

_ROLES: Final = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}
_OF_TOOLS: Final = {MessageRole.TOOL, MessageRole.FUNCTION}


@dataclass(frozen=True)
class Step:
    """An answer, or what there is of it yet."""

    text: str
    delta: str | None
    usage: dict[str, Any]

    @property
    def raw(self) -> dict[str, Any] | None:
        """As LlamaIndex's TokenCountingHandler reads it."""
        return {"usage": self.usage} if self.usage else None


def messages_of(given: Sequence[ChatMessage], tokenizer: Any) -> list[Message]:
    """Give messages as the model's template takes them.

    What tools say is a user's message where the template knows no tools. LlamaIndex's engines write a system's message; where
    the template refuses it, it stands at the head of the user's next.

    Raises:
        InputError: there is more than text in one.
    """
    template = str(getattr(tokenizer, "chat_template", None) or "")
    messages: list[Message] = [{"role": _role(message, template), "content": _content(message)} for message in given]
    of_system = any(message["role"] == "system" for message in messages)
    return messages if not of_system or _takes_system(tokenizer) else _without_system(messages)


def _takes_system(tokenizer: Any) -> bool:
    try:
        prompt_of(tokenizer, [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    except InputError:
        return False
    return True


def _without_system(messages: Sequence[Message]) -> list[Message]:
    others: list[Message] = []
    said: list[str] = []
    for message in messages:
        if message["role"] == "system":
            said.append(message["content"])
        elif message["role"] == "user":
            others.append({"role": "user", "content": "\n\n".join([*said, message["content"]])})
            said = []
        else:
            others.append(message)
    return [*others, {"role": "user", "content": "\n\n".join(said)}] if said else others


def _role(message: ChatMessage, template: str) -> str:
    """Give a message's role as templates name it."""
    role = _ROLES.get(message.role, message.role.value)
    known = message.role not in _OF_TOOLS or re.search(f"[\"']{role}[\"']", template)
    return role if known else "user"


def _content(message: ChatMessage) -> str:
    """Give the text of a message.

    Raises:
        InputError: there is more than text in it.
    """
    other = [block for block in message.blocks if not isinstance(block, TextBlock)]
    if other:
        raise InputError(
            f"got a {type(other[0]).__name__} in a message of the {message.role.value}, wanted text alone, in a TextBlock: the "
            "model reads text and references"
        )
    return message.content or ""


def usage_of(generation: Generation) -> dict[str, Any]:
    """Say what an answer took, under the names that LlamaIndex reads, and ours."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.new_tokens,
        "total_tokens": generation.prompt_tokens + generation.new_tokens,
        "passage_tokens": generation.passage_tokens,
        "first_token_seconds": generation.first_token_seconds,
        "prefill_flops": generation.prefill_flops,
    }


def completion_of(step: Step) -> CompletionResponse:
    """Give an answer as that to a prompt."""
    return CompletionResponse(text=step.text, delta=step.delta, raw=step.raw, additional_kwargs=step.usage)


def reply_of(step: Step) -> ChatResponse:
    """Give an answer as that to messages."""
    message = ChatMessage(role=MessageRole.ASSISTANT, content=step.text)
    return ChatResponse(message=message, delta=step.delta, raw=step.raw, additional_kwargs=step.usage)
