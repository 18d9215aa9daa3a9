"""A splitter and an embedding model of LlamaIndex; in a module of their own, so that other processes can load them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import BaseNode, NodeRelationship, TextNode, TransformComponent

DIM = 16


class Hashed(BaseEmbedding):
    """Any text has a direction of its own; counts what it embedded."""

    _embedded: int = PrivateAttr(default=0)
    _awaited: int = PrivateAttr(default=0)

    @property
    def embedded(self) -> int:
        return self._embedded

    @property
    def awaited(self) -> int:
        return self._awaited

    def _get_text_embedding(self, text: str) -> list[float]:
        self._embedded += 1
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        vector = np.random.default_rng(seed).standard_normal(DIM)
        return (vector / np.linalg.norm(vector)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(f"asked: {query}")

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        self._awaited += 1
        return self._get_text_embedding(text)


class Sentences(TransformComponent):
    """Cuts documents into sentences; LlamaIndex's own splitter cannot be sent to another process."""

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        return [
            TextNode(
                text=f"{sentence}.",
                metadata=document.metadata,
                relationships={NodeRelationship.SOURCE: document.as_related_node_info()},
            )
            for document in nodes
            for sentence in document.get_content().rstrip(".").split(". ")
        ]
