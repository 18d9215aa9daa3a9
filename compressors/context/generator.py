"""The generator: a causal language model that reads passages as tokens.

messages with references -> prompt (``prompts``), vectors (``passages``) -> input embeddings (``bridge``) -> answer
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from threading import RLock, Thread
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float, Int
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteriaList, TextIteratorStreamer

from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.budget import ContextBudget
from rarebit.compressors.context.costs import prefill_flops
from rarebit.compressors.context.fidelity import Given, given_within
from rarebit.compressors.context.generation import GREEDY, Generation, Sampling
from rarebit.compressors.context.passages import Passages
from rarebit.compressors.context.prompts import Message, Prompt, prompt_of, token_ids
from rarebit.compressors.context.stopping import Watch, before, until
from rarebit.errors import InputError


class OneTokenGenerator:
    """Answers from messages in which references stand for passages.

    Calls from many threads take turns.

    Args:
        model: a causal language model of Hugging Face, on any device, quantised or not.
        tokenizer: of the model.
        bridge: trained for the model and for the embedding model that filled the store.
        passages: what references are to; None to read texts alone.

    Raises:
        InputError: the bridge is for a model of another width, or for vectors of another kind than the store's.
    """

    def __init__(
        self, model: Any, tokenizer: Any, bridge: ModalityBridge | None = None, passages: Passages | None = None
    ) -> None:
        """Check that the parts fit."""
        if passages is not None and bridge is None:
            raise InputError("got passages without a bridge, wanted a bridge that makes tokens of them")
        self.model, self.tokenizer, self.passages = model.eval(), tokenizer, passages
        table = model.get_input_embeddings().weight
        self.bridge = None if bridge is None else bridge.to(table.device).eval()
        if bridge is not None and bridge.config.width != table.shape[1]:
            raise InputError(
                f"got a bridge to embeddings of width {bridge.config.width} and a model of width {table.shape[1]}, wanted the "
                f"same: this bridge is for {bridge.config.language_model or 'another model'}"
            )
        if bridge is not None and passages is not None:
            _check_fit(bridge.config, getattr(passages.source, "settings", None))
        self._turn = RLock()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        bridge: ModalityBridge | None = None,
        passages: Passages | None = None,
        **settings: Any,
    ) -> OneTokenGenerator:
        """Load a language model by name or folder; settings go to ``AutoModelForCausalLM`` and ``gguf_file`` to both."""
        gguf = {"gguf_file": settings["gguf_file"]} if "gguf_file" in settings else {}
        tokenizer = AutoTokenizer.from_pretrained(model, **gguf)
        return cls(AutoModelForCausalLM.from_pretrained(model, **settings), tokenizer, bridge, passages)

    @property
    def context_window(self) -> int:
        """How many positions the model has, for prompt and answer together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def prompt(self, messages: Sequence[Message] | str) -> Prompt:
        """Lay out messages; errors as in :func:`.prompts.prompt_of`."""
        return prompt_of(self.tokenizer, messages, self.passages)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(token_ids(self.tokenizer, text))

    def give(
        self,
        texts: Sequence[str],
        ids: Sequence[str | None],
        budget: ContextBudget,
        *,
        relevances: Sequence[float] | None = None,
        labels: Sequence[str] | None = None,
    ) -> list[Given]:
        """Give passages as texts or references within a budget; see :func:`.fidelity.given_within`.

        Raises:
            InputError: the generator has no passages, or one is not in the store with this text.
        """
        if self.passages is None:
            raise InputError(
                "got a generator without passages, wanted OneTokenGenerator(..., passages=Passages.of(collection))"
            )
        return given_within(
            budget,
            texts,
            ids,
            passages=self.passages,
            tokenizer=self.tokenizer,
            tokens_a_vector=self.tokens_a_vector,
            relevances=relevances,
            labels=labels,
        )

    @property
    def tokens_a_vector(self) -> int:
        """Input embeddings that a vector becomes."""
        return 1 if self.bridge is None else self.bridge.config.tokens

    def embeddings(self, prompt: Prompt) -> Float[torch.Tensor, "length width"]:
        """Give what the model reads for a prompt: its tokens' input embeddings, and the bridge's for passages."""
        table = self.model.get_input_embeddings()
        place = table.weight.device
        parts = []
        for part in prompt.parts:
            if isinstance(part, list):
                parts.append(table(torch.tensor(part, dtype=torch.long, device=place)))
            elif self.bridge is not None:
                projected = self.bridge(torch.from_numpy(part.vectors).to(place))
                parts.append(projected.flatten(0, 1).to(table.weight.dtype))
        return torch.cat(parts)

    def generate(self, conversations: Sequence[Sequence[Message] | str], sampling: Sampling = GREEDY) -> list[Generation]:
        """Answer many conversations, as one batch.

        Args:
            conversations: messages each, or a text, which is a user's message.
            sampling: how answers are written.

        Raises:
            InputError: a prompt leaves no room for an answer.
            MissingRowError: a reference to a passage that is not there any more.
        """
        if not conversations:
            return []
        start = perf_counter()
        prompts = [self.prompt(messages) for messages in conversations]
        with self._turn, torch.inference_mode():
            watch = Watch(self.tokenizer, sampling.stop)
            output = self._write(prompts, sampling, watch)
        seconds = (watch.first or perf_counter()) - start
        return [self._generation(prompt, ids, sampling, seconds) for prompt, ids in zip(prompts, output, strict=True)]

    def stream(self, messages: Sequence[Message] | str, sampling: Sampling = GREEDY) -> Generator[str, None, Generation]:
        """Answer one conversation piece by piece: together what :meth:`generate` gives. Closing the generator stops the model.

        Returns:
            What it took, as the value of ``yield from``.

        Raises:
            InputError, MissingRowError: as :meth:`generate`, when the first piece is asked for.
        """
        start = perf_counter()
        prompt = self.prompt(messages)
        streamer = TextIteratorStreamer(self.tokenizer, timeout=None, skip_special_tokens=True)
        watch = Watch(self.tokenizer, sampling.stop)
        written: list[Any] = []
        failed: list[BaseException] = []

        def write() -> None:
            try:
                with self._turn, torch.inference_mode():
                    written.extend(self._write([prompt], sampling, watch, streamer))
            except BaseException as error:  # noqa: BLE001 -- raised in the reader's thread
                failed.append(error)
                streamer.end()  # type: ignore[no-untyped-call]

        writer = Thread(target=write, name="rarebit-stream", daemon=True)
        writer.start()
        try:
            yield from before(streamer, sampling.stop)
        finally:
            watch.cancelled.set()
            writer.join()
        if failed:
            raise failed[0]
        return self._generation(prompt, written[0], sampling, (watch.first or perf_counter()) - start)

    def _write(
        self, prompts: Sequence[Prompt], sampling: Sampling, watch: Watch, streamer: Any = None
    ) -> Int[torch.Tensor, "n new"]:
        embedded = [self.embeddings(prompt) for prompt in prompts]
        longest = max(map(len, embedded))
        room = self.context_window - longest
        if room < 1:
            raise InputError(
                f"got a prompt of {longest} tokens, wanted fewer than the model's {self.context_window}: give fewer passages "
                "as text, with a ContextBudget"
            )
        inputs = embedded[0].new_zeros(len(embedded), longest, embedded[0].shape[1])
        mask = torch.zeros(len(embedded), longest, dtype=torch.long, device=inputs.device)
        for row, own in enumerate(embedded):
            inputs[row, longest - len(own) :], mask[row, longest - len(own) :] = own, 1
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": None}
        with torch.random.fork_rng(enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            output: torch.Tensor = self.model.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                max_new_tokens=min(sampling.max_new_tokens, room),
                pad_token_id=self._pad,
                stopping_criteria=StoppingCriteriaList([watch]),
                streamer=streamer,
                **drawn,
            )
        return output

    @property
    def _ends(self) -> set[int]:
        """Tokens at which the model ends its answer."""
        given = self.model.generation_config.eos_token_id
        ends = given if isinstance(given, list) else [given]
        return {end for end in ends if end is not None} or {self.tokenizer.eos_token_id}

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return min(self._ends) if pad is None else int(pad)

    def _generation(self, prompt: Prompt, ids: Int[torch.Tensor, new], sampling: Sampling, seconds: float) -> Generation:
        written: list[int] = ids.tolist()
        ends = [place for place, token in enumerate(written) if token in self._ends]
        count = ends[0] + 1 if ends else len(written)
        while not ends and count and written[count - 1] == self._pad:  # beside longer answers of the batch
            count -= 1
        text = self.tokenizer.decode(written[:count], skip_special_tokens=True)
        kept = until(text, sampling.stop)
        length = prompt.length(self.tokens_a_vector)
        return Generation(
            text=kept,
            prompt_tokens=length,
            passage_tokens=sum(len(passage.vectors) for passage in prompt.passages) * self.tokens_a_vector,
            new_tokens=count,
            stopped=bool(ends) or kept != text,
            first_token_seconds=seconds,
            prefill_flops=prefill_flops(self.model, length),
        )


def _check_fit(bridge: BridgeConfig, settings: Any) -> None:
    """Refuse a store that another embedding model filled, or that does not keep what the bridge takes.

    Raises:
        InputError: so it is.
    """
    if settings is None:
        return
    trained_on, filled_by = bridge.embedding_model, settings.fingerprint.name
    if trained_on and filled_by and not _short(filled_by).startswith(_short(trained_on)):
        raise InputError(
            f"got a bridge for vectors of {trained_on!r} and a store that {filled_by!r} filled, wanted the same: train a "
            "bridge for the model of the store"
        )
    if bridge.input_length is None and settings.metric == "cosine":
        raise InputError(
            "got a bridge for vectors of their own lengths and a store that keeps directions alone, wanted a store with "
            "metric='inner_product'"
        )


def _short(name: str) -> str:
    """Give a model's name without its owner; situated vectors have names that begin with their model's."""
    return name.rpartition("/")[2].lower()
