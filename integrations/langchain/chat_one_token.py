"""A chat model that reads references to passages as their vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from threading import Event
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, field_validator, model_validator

from rarebit.compressors.context.generation import LONGEST_ANSWER, Generation, Sampling
from rarebit.compressors.context.prompts import Message
from rarebit.compressors.context.references import digest_of
from rarebit.errors import InputError
from rarebit.integrations.langchain.chat_messages import as_chunks, conversation, parsed, takes_tools, where_a_call_may_begin
from rarebit.integrations.one_token_generator import check_generator
from rarebit.integrations.stream_steps import in_threads

_OF_A_CALL = ("max_tokens", "temperature", "top_p", "seed")
"""What one call may say otherwise, beside ``stop`` and ``tools``."""
_FOR_LANGCHAIN = ("stream",)
"""What LangChain itself reads, and passes on."""


class ChatOneToken(BaseChatModel):
    """A local language model that reads references of :class:`OneTokenCompressor` as one token each.

    References are read wherever they stand: in prompts, in histories, in what tools answered. Those that the generator's own
    passages did not write are text like any other.

    Every call may have its own ``stop``, ``max_tokens``, ``temperature``, ``top_p`` and ``seed``. Answers carry
    ``usage_metadata``, and in ``response_metadata`` ``model_name``, ``finish_reason`` (``"stop"`` or ``"length"``),
    ``passage_tokens``, ``prefill_flops`` and ``first_token_seconds``. A stream that is closed or cancelled stops the model.

    Tools can be bound where the model's chat template takes them; calls are read from ``<tool_call>`` in answers.

    .. code-block:: python

        chain = prompt | ChatOneToken(generator=generator, max_tokens=100) | StrOutputParser()
    """

    generator: Any = Field(exclude=True)
    """A :class:`~rarebit.compressors.context.OneTokenGenerator`, the same that the compressor has."""

    max_tokens: int = LONGEST_ANSWER
    """Of an answer, at most."""

    temperature: float = 0.0
    """0 for the likeliest token each time."""

    top_p: float = 1.0
    """With a temperature, the share of the probability from which tokens are drawn."""

    stop: list[str] | None = None
    """Texts before which answers end, unless a call has its own."""

    seed: int | None = None
    """Of what is drawn; None draws anew each time."""

    model_name: str = ""
    """For traces and usage; the name of the generator's model if left out."""

    @field_validator("generator")
    @classmethod
    def _is_generator(cls, given: Any) -> Any:
        check_generator(given)
        return given

    @model_validator(mode="after")
    def _complete(self) -> ChatOneToken:
        self._sampling(None, {})
        self.model_name = self.model_name or self.generator.name
        return self

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: whatever ``convert_to_openai_tool`` takes.
            tool_choice: None or ``"auto"``: the model cannot be made to call one.
            kwargs: for every call.

        Raises:
            InputError: the model's chat template takes no tools, or a call is demanded.
        """
        self._check_takes_tools()
        if tool_choice not in {None, "auto"}:
            raise InputError(f"got tool_choice={tool_choice!r}, wanted None or 'auto': the model cannot be made to call a tool")
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        tools, asked = self._asked(messages, kwargs)
        answer = self.generator.generate([asked], self._sampling(stop, kwargs), template_kwargs=tools)[0]
        text, calls = parsed(answer.text) if tools else (answer.text, [])
        message = AIMessage(
            content=text, tool_calls=calls, usage_metadata=_usage(answer), response_metadata=self._response_metadata(answer)
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Generator[ChatGenerationChunk, None, None]:
        del run_manager  # LangChain tells callbacks of each chunk that it is given
        yield from self._chunks(messages, stop, kwargs)

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], cancelled: Event | None = None
    ) -> Generator[ChatGenerationChunk, None, None]:
        tools, asked = self._asked(messages, kwargs)
        held = ""
        answer = self.generator.stream(asked, self._sampling(stop, kwargs), template_kwargs=tools, cancelled=cancelled)
        with closing(answer) as pieces:
            while isinstance(piece := _next(pieces), str):
                held += piece
                ready = where_a_call_may_begin(held) if tools else len(held)
                if ready:
                    yield ChatGenerationChunk(message=AIMessageChunk(content=held[:ready]))
                held = held[ready:]
        text, calls = parsed(held) if tools else (held, [])
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content=text,
                tool_call_chunks=as_chunks(calls),
                usage_metadata=_usage(piece),
                response_metadata=self._response_metadata(piece),
                chunk_position="last",
            )
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        return await agenerate_from_stream(self._astream(messages, stop, **kwargs))  # so that cancelling stops the model

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        del run_manager
        cancelled = Event()
        steps = in_threads(self._chunks(messages, stop, kwargs, cancelled), cancelled)
        async with aclosing(steps) as chunks:
            async for chunk in chunks:
                yield chunk

    def _asked(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[Message]]:
        """Take the tools out of a call, and give them and the messages as the chat template takes them."""
        tools = kwargs.pop("tools", None)
        if tools:
            self._check_takes_tools()
        return {"tools": tools} if tools else {}, conversation(messages, self.generator.tokenizer, tools)

    def _check_takes_tools(self) -> None:
        if not takes_tools(self.generator.tokenizer):
            raise InputError(
                f"got tools for {self.model_name}, whose chat template has no place for them, wanted a model that was trained "
                "to call tools, or a chain in which the retriever stands before the model"
            )

    def _sampling(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Sampling:
        unknown = kwargs.keys() - {*_OF_A_CALL, *_FOR_LANGCHAIN}
        if unknown:
            raise InputError(f"got {', '.join(sorted(unknown))} for a call, wanted none but stop, {', '.join(_OF_A_CALL)}")
        own = {name: getattr(self, name) if kwargs.get(name) is None else kwargs[name] for name in _OF_A_CALL}
        ends = self.stop if stop is None else stop
        return Sampling(
            max_new_tokens=own["max_tokens"],
            temperature=own["temperature"],
            top_p=own["top_p"],
            stop=(ends,) if isinstance(ends, str) else tuple(ends or ()),
            seed=own["seed"],
        )

    def _response_metadata(self, answer: Generation) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "finish_reason": "stop" if answer.stopped else "length",
            "passage_tokens": answer.passage_tokens,
            "prefill_flops": answer.prefill_flops,
            "first_token_seconds": answer.first_token_seconds,
        }

    @property
    def _llm_type(self) -> str:
        return "rarebit-one-token"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Name what an answer depends on; LangChain's cache keeps answers by it, so that tenants do not get each other's."""
        return {"model_name": self.model_name, **self._digests, **{name: getattr(self, name) for name in (*_OF_A_CALL, "stop")}}

    @property
    def _digests(self) -> dict[str, str | None]:
        bridge, passages = self.generator.bridge, self.generator.passages
        return {
            "bridge": None if bridge is None else bridge.fingerprint,
            "passages": None if passages is None else digest_of(repr(passages.references)),
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop=stop or self.stop, **kwargs) | LangSmithParams(ls_provider="rarebit")


def _next(pieces: Generator[str, None, Generation]) -> str | Generation:
    """Give the next piece, or at the end what the answer took."""
    try:
        return next(pieces)
    except StopIteration as end:
        answer: Generation = end.value
        return answer


def _usage(answer: Generation) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=answer.prompt_tokens,
        output_tokens=answer.new_tokens,
        total_tokens=answer.prompt_tokens + answer.new_tokens,
    )
