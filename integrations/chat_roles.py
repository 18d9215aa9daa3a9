"""Roles of messages as a model's chat template knows them, for both frameworks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rarebit.compressors.context.prompts import Message, prompt_of
from rarebit.errors import InputError


def template_of(tokenizer: Any, *, tools: bool = False) -> str:
    """Give the text of a tokenizer's chat template, of many that which transformers takes; nothing where it has none."""
    given = getattr(tokenizer, "chat_template", None) or ""
    if isinstance(given, dict):
        return str(given.get("tool_use" if tools and "tool_use" in given else "default", ""))
    return str(given)


def role_of_tools(tokenizer: Any, role: str = "tool", *, tools: bool = False) -> str:
    """Give the role of what tools say: their own where the template knows it, else a user's."""
    return role if re.search(f"[\"']{role}[\"']", template_of(tokenizer, tools=tools)) else "user"


def as_taken(messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] | None = None) -> list[Message]:
    """Give messages as the template takes them, with what it is given of tools.

    A system's message, where it refuses such, stands at the head of the user's next.
    """
    of_system = any(message["role"] == "system" for message in messages)
    return list(messages) if not of_system or _takes_system(tokenizer, tools) else _without_system(messages)


def _takes_system(tokenizer: Any, tools: Sequence[Any] | None) -> bool:
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    try:
        prompt_of(tokenizer, asked, template_kwargs={"tools": tools} if tools else {})
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
