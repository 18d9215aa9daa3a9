"""LlamaIndex with a tiny language model: a store, a generator that reads its passages, and a record of what the model read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import BaseNode, TextNode

from rarebit.compressors.context import OneTokenGenerator, Passages, Prompt
from rarebit.integrations.llama_index import RarebitVectorStore
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
