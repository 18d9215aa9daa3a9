"""The same generator with a served language model: a vLLM server's completions endpoint takes ``prompt_embeds``.

Tokens and passages are embedded here, with the model's table of input embeddings and the bridge; the server does the rest.
Start it with ``vllm serve MODEL --enable-prompt-embeds``.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any, Final

import httpx
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer

from rarebit.compressors.context.bridge import ModalityBridge
from rarebit.compressors.context.generation import GREEDY, Generation, Sampling
from rarebit.compressors.context.passages import Passages
from rarebit.compressors.context.prompt_reader import PromptReader
from rarebit.compressors.context.prompts import Message, Prompt
from rarebit.errors import EndpointError, InputError

TIMEOUT: Final = 120.0
"""Seconds to wait for the server."""

TABLES: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
"""Ends of the names that models give their input embeddings."""

_DATA: Final = "data:"
_DONE: Final = "[DONE]"


class ServedGenerator(PromptReader):
    """Answers with a language model that a server runs, from messages in which references stand for passages.

    Args:
        url: of the server's API, such as ``"http://localhost:8000/v1"``.
        model: its name, as the server knows it.
        bridge: as for :class:`.generator.OneTokenGenerator`, and so the others.
        passages: what references are to.
        table: the model's input embeddings: a module that takes token ids, or (vocabulary, width) numbers as the model reads
            them, which are not what weights hold where a model scales them, such as Gemma.
        tokenizer: of the model.
        context_window: positions of the model, for prompt and answer together.
        api_key: if the server wants one.
        timeout: seconds to wait for each answer of the server.
        client: of httpx, if it is to be shared; it is not closed here.

    Raises:
        InputError: the parts do not fit.
    """

    def __init__(
        self,
        url: str,
        model: str,
        bridge: ModalityBridge | None = None,
        passages: Passages | None = None,
        *,
        table: torch.nn.Module | Float[torch.Tensor, "vocabulary width"],
        tokenizer: Any,
        context_window: int,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        client: httpx.Client | None = None,
    ) -> None:
        """Check that the parts fit; nothing is asked of the server yet."""
        own = table if isinstance(table, torch.nn.Module) else _plain(table)
        super().__init__(own, tokenizer, bridge, passages)
        self.url = f"{url.rstrip('/')}/completions"
        self._name, self._window = model, context_window
        self._client, self._own = client or httpx.Client(timeout=timeout), client is None
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    @classmethod
    def from_pretrained(
        cls,
        url: str,
        folder: str | os.PathLike[str],
        bridge: ModalityBridge | None = None,
        passages: Passages | None = None,
        *,
        model: str | None = None,
        **settings: Any,
    ) -> ServedGenerator:
        """Read tokenizer and input embeddings out of the model's folder, and nothing else of it.

        Args:
            url: of the server's API.
            folder: with the model's ``config.json``, tokenizer and safetensors.
            bridge: trained for the model.
            passages: what references are to.
            model: its name, as the server knows it; the folder's if left out.
            settings: as in the constructor.

        Raises:
            InputError: the folder holds no input embeddings, or some of a kind that transformers does not know.
        """
        config = AutoConfig.from_pretrained(folder).get_text_config()
        settings.setdefault("context_window", int(config.max_position_embeddings))
        name = os.fspath(folder) if model is None else model
        table, tokenizer = _read_by(config, _table_in(Path(folder))), AutoTokenizer.from_pretrained(folder)
        return cls(url, name, bridge, passages, table=table, tokenizer=tokenizer, **settings)

    @property
    def name(self) -> str:
        """The language model's name, as the server knows it."""
        return self._name

    @property
    def context_window(self) -> int:
        """How many positions the model has, for prompt and answer together."""
        return self._window

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, start: float | None = None) -> list[Generation]:
        """Answer prompts that are laid out already; see :class:`PromptReader`.

        Raises:
            EndpointError: the server cannot be reached, or refuses.
        """
        start = perf_counter() if start is None else start

        def write(some: Sequence[Prompt]) -> list[Generation]:
            response = self._client.post(self.url, json=self._request(some, sampling), headers=self._headers)
            response.raise_for_status()
            told = response.json()
            choices = sorted(told["choices"], key=lambda choice: int(choice["index"]))
            count = _count(told.get("usage") or {}, len(some))
            seconds = perf_counter() - start
            return [
                self._generation(prompt, choice["text"], choice["finish_reason"], count, seconds)
                for prompt, choice in zip(some, choices, strict=True)
            ]

        with _spoken_of(self.url):
            return self._each_in_its_room(prompts, sampling, write)

    def stream(
        self,
        messages: Sequence[Message] | str,
        sampling: Sampling = GREEDY,
        template_kwargs: Mapping[str, Any] | None = None,
        cancelled: Event | None = None,
    ) -> Generator[str, None, Generation]:
        """Answer one conversation piece by piece; see :class:`PromptReader`. Closing the generator ends the request.

        Raises:
            EndpointError: as :meth:`answer`.
        """
        start, first = perf_counter(), None
        prompt = self.prompt(messages, template_kwargs)
        request = {**self._request([prompt], sampling), "stream": True, "stream_options": {"include_usage": True}}
        written: list[str] = []
        reason: str | None = None
        usage: Mapping[str, Any] = {}
        with _spoken_of(self.url), self._client.stream("POST", self.url, json=request, headers=self._headers) as response:
            if response.is_error:
                response.read()
            response.raise_for_status()
            for event in _events(response.iter_lines()):
                if cancelled is not None and cancelled.is_set():
                    break
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    reason = choice.get("finish_reason") or reason
                    if choice["text"]:
                        first = first or perf_counter()
                        written.append(choice["text"])
                        yield choice["text"]
        seconds = (first or perf_counter()) - start
        return self._generation(prompt, "".join(written), reason, _count(usage, 1), seconds)

    def close(self) -> None:
        """Close the connections, unless they are a shared client's."""
        if self._own:
            self._client.close()

    def _request(self, prompts: Sequence[Prompt], sampling: Sampling) -> dict[str, Any]:
        room = self.room(prompts)
        with torch.inference_mode():
            embedded = [_packed(self.embeddings(prompt)) for prompt in prompts]
        asked = {
            "model": self.name,
            "prompt": "",
            "prompt_embeds": embedded[0] if len(embedded) == 1 else embedded,
            "max_tokens": min(sampling.max_new_tokens, room),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "seed": sampling.seed,
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _generation(self, prompt: Prompt, text: str, reason: str | None, count: int | None, seconds: float) -> Generation:
        return Generation(
            text=text,
            prompt_tokens=self.length(prompt),
            passage_tokens=self.passage_length(prompt),
            new_tokens=self.count_tokens(text) if count is None else count,
            stopped=reason == "stop",
            first_token_seconds=seconds,
            prefill_flops=None,
        )


def _packed(embedded: Float[torch.Tensor, "length width"]) -> str:
    """Give embeddings as the endpoint takes them: a tensor that torch saved, in base64."""
    buffer = io.BytesIO()
    torch.save(embedded.detach().cpu().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Read server-sent events."""
    for line in lines:
        given = line.removeprefix(_DATA).strip() if line.startswith(_DATA) else ""
        if given == _DONE:
            return
        if given:
            event: dict[str, Any] = json.loads(given)
            if "choices" not in event:
                raise EndpointError(f"the server broke off: {event.get('error', event)}")
            yield event


def _count(usage: Mapping[str, Any], answers: int) -> int | None:
    """Give how many tokens an answer has, where the server says so of one alone."""
    count = usage.get("completion_tokens")
    return int(count) if answers == 1 and count is not None else None


@contextmanager
def _spoken_of(url: str) -> Iterator[None]:
    """Say what went wrong with the server in words of ours."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        reason = " ".join(error.response.text.split())[:300]
        raise EndpointError(
            f"{url} answered {error.response.status_code} ({reason}), wanted a completion: look at the model's name, and start "
            "the server with --enable-prompt-embeds"
        ) from error
    except httpx.HTTPError as error:
        raise EndpointError(f"{url} cannot be asked ({error!r}), wanted a vLLM server there: check the address") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise EndpointError(f"{url} answered something else than completions ({error!r})") from error


def _table_in(folder: Path) -> Float[torch.Tensor, "vocabulary width"]:
    """Read a model's input embeddings out of its safetensors."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                names = [name for name in opened.keys() if name.endswith(TABLES)]  # noqa: SIM118 -- it is no dictionary
                if names:
                    table: torch.Tensor = opened.get_tensor(names[0])
                    return table
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file} cannot be read ({error}): download it again") from error
    raise InputError(f"got {folder}, wanted a folder with safetensors that hold input embeddings (…{TABLES[0]}): pass table=")


def _plain(table: Float[torch.Tensor, "vocabulary width"]) -> torch.nn.Module:
    embed: Any = torch.nn.Embedding
    module: torch.nn.Module = embed.from_pretrained(table, freeze=True)
    return module


def _read_by(config: Any, table: Float[torch.Tensor, "vocabulary width"]) -> torch.nn.Module:
    """Give input embeddings as a module of the model's own kind, which may scale what its weight holds."""
    try:
        with torch.device("meta"):  # without the weights
            model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise InputError(f"got a model that transformers does not know ({error}): pass table=") from error
    module = model.get_input_embeddings()
    if type(module) is torch.nn.Embedding:
        return _plain(table)
    buffers = {name: torch.full_like(given, math.nan, device="cpu") for name, given in module.named_buffers(recurse=False)}
    for name, buffer in buffers.items():
        setattr(module, name, buffer)
    model._init_weights(module)
    if any(buffer.isnan().any() for buffer in buffers.values()):
        raise InputError(
            f"got a model with a {type(module).__name__}, whose numbers are not known without the model: pass table="
        )
    module.weight = torch.nn.Parameter(table, requires_grad=False)
    embedding: torch.nn.Module = module
    return embedding
