"""Messages of LlamaIndex as the generator reads them, and its answers as LlamaIndex's responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock

from rarebit.compressors.context.generation import Generation
from rarebit.compressors.context.prompts import Message
from rarebit.errors import InputError
from rarebit.integrations.chat_roles import as_taken, role_of_tools

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
    messages: list[Message] = [{"role": _role(message, tokenizer), "content": _content(message)} for message in given]
    return as_taken(messages, tokenizer)


def _role(message: ChatMessage, tokenizer: Any) -> str:
    """Give a message's role as templates name it."""
    role = _ROLES.get(message.role, message.role.value)
    return role_of_tools(tokenizer, role) if message.role in _OF_TOOLS else role


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
