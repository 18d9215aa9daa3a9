"""A language model of LlamaIndex that reads references to passages as tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from threading import Event
from typing import Any, Final, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from rarebit.compressors.context.generation import LONGEST_ANSWER, Generation, Sampling
from rarebit.compressors.context.prompts import Message, token_ids
from rarebit.compressors.context.references import Reference
from rarebit.errors import InputError
from rarebit.integrations.llama_index.one_token_messages import Step, completion_of, messages_of, reply_of, usage_of
from rarebit.integrations.one_token_generator import check_generator
from rarebit.integrations.stream_steps import in_threads

_A_PASSAGE: Final = -1
"""Stands for a token that is a passage's, not the tokenizer's."""
_CHANGEABLE: Final = ("max_tokens", "temperature", "top_p", "stop", "seed")
"""What a call may change."""

Response = TypeVar("Response")


class OneTokenLLM(CustomLLM):
    """Answers from prompts in which references stand for passages, each of which the model reads as one token or few.

    References are those of a :class:`OneTokenPostprocessor` with the same generator; what looks like one and is not is text.
    Calls take ``max_tokens``, ``temperature``, ``top_p``, ``stop`` and ``seed`` in the place of the fields. Asynchronous calls
    run in threads. A stream that is closed early stops the model.

    Responses have in ``additional_kwargs``, and as ``raw["usage"]``: ``prompt_tokens``, ``completion_tokens``,
    ``total_tokens``, ``passage_tokens``, ``first_token_seconds`` and ``prefill_flops``; streams have them in their last one.

    LlamaIndex takes a reference for the hundred letters that it is, and may ask the model twice where once would do. All its
    engines count right after

    .. code-block:: python

        Settings.prompt_helper = PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokens)

    Raises:
        InputError: no generator, a number out of range, an argument that is not known, a message with more than text, a prompt
            that leaves no room for an answer. (LlamaIndex's engines that refine log it, and answer "Empty Response".)
        MissingRowError: a reference to a passage that is not there any more.
    """

    generator: Any = Field(exclude=True, description="The OneTokenGenerator or ServedGenerator that answers.")
    max_tokens: int = Field(default=LONGEST_ANSWER, description="New tokens of an answer, at most.")
    temperature: float = Field(default=0.0, description="0 for the likeliest token each time.")
    top_p: float = Field(
        default=1.0, description="With a temperature, the share of the probability that tokens are drawn from."
    )
    stop: tuple[str, ...] = Field(default=(), description="Texts before which an answer ends.")
    seed: int | None = Field(default=None, description="Of what is drawn; None draws anew each time.")
    model_name: str = Field(default="", description="As events show it; by default the model's own.")

    @classmethod
    def class_name(cls) -> str:
        """Give the name that serialised components carry."""
        return "OneTokenLLM"

    def model_post_init(self, context: Any, /) -> None:
        """Check the generator and the numbers."""
        super().model_post_init(context)
        check_generator(self.generator)
        self._sampling({})
        if not self.model_name:
            self.model_name = self.generator.name

    @property
    def metadata(self) -> LLMMetadata:
        """How long prompts and answers may be."""
        return LLMMetadata(
            context_window=self.generator.context_window,
            num_output=self.max_tokens,
            is_chat_model=True,
            model_name=self.model_name,
        )

    def tokens(self, text: str) -> list[int]:
        """Give the tokens that the model reads for a text, with -1 for those of passages (of each as if it were one piece)."""
        passages = self.generator.passages
        parts = [text] if passages is None else passages.read(text)
        return [token for part in parts for token in self._tokens_of(part)]

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, as a user's message."""
        return completion_of(self._answer(self._asked(prompt, formatted=formatted), self._sampling(kwargs)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Generator[CompletionResponse, None, None]:
        """Answer a prompt piece by piece."""
        return self._stream(self._asked(prompt, formatted=formatted), self._sampling(kwargs), completion_of)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer messages."""
        return reply_of(self._answer(messages_of(messages, self.generator.tokenizer), self._sampling(kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        """Answer messages piece by piece."""
        return self._stream(messages_of(messages, self.generator.tokenizer), self._sampling(kwargs), reply_of)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Do as :meth:`complete` in a thread."""
        asked = self._asked(prompt, formatted=formatted)
        return completion_of(await asyncio.to_thread(self._answer, asked, self._sampling(kwargs)))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Do as :meth:`stream_complete` in threads."""
        asked, cancelled = self._asked(prompt, formatted=formatted), Event()
        return in_threads(self._stream(asked, self._sampling(kwargs), completion_of, cancelled), cancelled)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Do as :meth:`chat` in a thread."""
        return reply_of(
            await asyncio.to_thread(self._answer, messages_of(messages, self.generator.tokenizer), self._sampling(kwargs))
        )

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        """Do as :meth:`stream_chat` in threads."""
        asked, cancelled = messages_of(messages, self.generator.tokenizer), Event()
        return in_threads(self._stream(asked, self._sampling(kwargs), reply_of, cancelled), cancelled)

    def _sampling(self, changes: Mapping[str, Any]) -> Sampling:
        """Say how an answer is written: as the fields say, but for what a call changes."""
        own: dict[str, Any] = {name: getattr(self, name) for name in _CHANGEABLE}
        unknown = sorted(changes.keys() - own.keys())
        if unknown:
            raise InputError(f"got the arguments {unknown}, wanted some of {[*own]}")
        own |= {name: value for name, value in changes.items() if value is not None}
        stop = (own["stop"],) if isinstance(own["stop"], str) else tuple(own["stop"])
        return Sampling(own["max_tokens"], own["temperature"], own["top_p"], stop, own["seed"])

    def _asked(self, prompt: str, *, formatted: bool) -> list[Message]:
        if not formatted and self.completion_to_prompt is not None:
            prompt = self.completion_to_prompt(prompt)
        return [{"role": "user", "content": prompt}]

    def _answer(self, messages: list[Message], sampling: Sampling) -> Step:
        (generation,) = self.generator.generate([messages], sampling)
        return Step(generation.text, None, usage_of(generation))

    def _stream(
        self,
        messages: list[Message],
        sampling: Sampling,
        shown: Callable[[Step], Response],
        cancelled: Event | None = None,
    ) -> Generator[Response, None, None]:
        pieces, text = self.generator.stream(messages, sampling, cancelled=cancelled), ""
        try:
            while True:
                piece = next(pieces)
                text += piece
                yield shown(Step(text, piece, {}))
        except StopIteration as end:
            generation: Generation = end.value
        finally:
            pieces.close()
        yield shown(Step(generation.text, "", usage_of(generation)))

    def _tokens_of(self, part: str | Reference) -> list[int]:
        if isinstance(part, Reference):
            return [_A_PASSAGE] * int(self.generator.tokens_a_vector)
        return token_ids(self.generator.tokenizer, part)
