"""LlamaIndex with a tiny language model: a store, a generator that reads its passages, and a record of what the model read."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, TextNode

from rarebit.compressors.context import OneTokenGenerator, Passages, Prompt
from rarebit.integrations.llama_index import OneTokenLLM, OneTokenPostprocessor, RarebitVectorStore
from support.tiny_language_model import bridge, chat_tokenizer, embed, language_model

WINDOW = 4096

TEXTS = ["The kettle is on.", "Cats chase mice.", "Bread needs flour.", "Stars shine at night.", "The sea is wide."]


class Directed(BaseEmbedding):
    """Any text has a direction of its own."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return embed([text])[0].tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(f"asked: {query}")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


class Recording(OneTokenGenerator):
    """Remembers the prompts that its model read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prompts: list[Prompt] = []

    def prompt(self, *args: Any, **settings: Any) -> Prompt:
        self.prompts.append(super().prompt(*args, **settings))
        return self.prompts[-1]

    @property
    def passages_read(self) -> list[list[str]]:
        """Texts of the passages that were tokens of each prompt, in order."""
        return [[passage.text for passage in prompt.passages] for prompt in self.prompts]

    def written_out(self, place: int = -1) -> str:
        """Give a prompt as text, with a mark where a passage stands."""
        parts = self.prompts[place].parts
        return "".join(self.tokenizer.decode(part) if isinstance(part, list) else "<passage>" for part in parts)


def filled(store: RarebitVectorStore, nodes: Sequence[BaseNode] | None = None) -> list[BaseNode]:
    """Add nodes to a store; give them as they were added."""
    own = nodes or [TextNode(id_=f"n{place}", text=text, metadata={"page": place}) for place, text in enumerate(TEXTS)]
    store.add([node.model_copy(update={"embedding": embed([node.get_content()])[0].tolist()}) for node in own])
    return list(own)


def generator_of(rows: Any = None, *, window: int = WINDOW, tokens: int = 1, **settings: Any) -> Recording:
    """Give a generator for a collection or a tenant, or without passages."""
    model = language_model()
    model.config.max_position_embeddings = window
    if rows is None:
        return Recording(model, chat_tokenizer())
    return Recording(model, chat_tokenizer(), bridge(tokens, input_length=3.0), Passages.of(rows, **settings))


def with_template(generator: Recording, part: str, by: str) -> Recording:
    """Change the chat template of a generator, whose tokenizer is then its own."""
    template = str(generator.tokenizer.chat_template)
    assert part in template
    generator.tokenizer = copy.deepcopy(generator.tokenizer)
    generator.tokenizer.chat_template = template.replace(part, by)
    return generator


def vectors_of(prompt: Prompt) -> np.ndarray:
    """Give the vectors that stand in a prompt, (n, dim)."""
    return np.concatenate([passage.vectors for passage in prompt.passages])


USAGE = ["completion_tokens", "first_token_seconds", "passage_tokens", "prefill_flops", "prompt_tokens", "total_tokens"]
QUESTION = "Question: what is on?"


def reference_to(generator: Recording, text: str, key: str) -> str:
    """Give what the postprocessor writes for a passage."""
    made = OneTokenPostprocessor(generator=generator)
    (kept,) = made.postprocess_nodes([NodeWithScore(node=TextNode(id_=key, text=text, metadata={"page": 1}))])
    return kept.node.get_content(metadata_mode=MetadataMode.LLM)


def user(content: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=content)]


def streaming_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rarebit-stream"]


async def listed(responses: AsyncIterator[Any]) -> list[Any]:
    return [response async for response in responses]


def called(method: Callable[..., Any], *args: Any) -> Any:
    """Call what may be asynchronous."""
    made = method(*args)
    return asyncio.run(made) if asyncio.iscoroutine(made) else made


def streamed(llm: OneTokenLLM, way: str, content: str, **kwargs: Any) -> list[Any]:
    """Give all responses of a stream."""

    async def awaited(method: Any, asked: Any) -> list[Any]:
        return await listed(await method(asked, **kwargs))

    asked = content if "complete" in way else user(content)
    method = getattr(llm, way)
    return asyncio.run(awaited(method, asked)) if way.startswith("a") else list(method(asked, **kwargs))


def answered(llm: OneTokenLLM, way: str, content: str, **kwargs: Any) -> Any:
    """Give the response of a call, or the last of a stream."""
    if "stream" in way:
        return streamed(llm, way, content, **kwargs)[-1]
    asked = content if "complete" in way else user(content)
    done = getattr(llm, way)(asked, **kwargs)
    return asyncio.run(done) if way.startswith("a") else done


def text_of(response: Any) -> str:
    return response.text if hasattr(response, "text") else response.message.content


STREAMS = ["stream_complete", "stream_chat", "astream_complete", "astream_chat"]
WAYS = ["complete", "chat", "acomplete", "achat", *STREAMS]
