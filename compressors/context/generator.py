"""The generator: a causal language model that reads passages as tokens.

messages with references -> prompt (``prompts``), vectors (``passages``) -> input embeddings (``bridge``) -> answer
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import PurePath
from threading import Event, RLock, Thread, current_thread
from time import perf_counter
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteriaList, TextIteratorStreamer

from rarebit.compressors.context.bridge import ModalityBridge
from rarebit.compressors.context.costs import prefill_flops
from rarebit.compressors.context.generation import GREEDY, Generation, Sampling
from rarebit.compressors.context.passages import Passages
from rarebit.compressors.context.prompt_reader import PromptReader
from rarebit.compressors.context.prompts import Message, Prompt
from rarebit.compressors.context.stopping import Watch, before, until

NewTokens: TypeAlias = Int[torch.Tensor, "new"]


class OneTokenGenerator(PromptReader):
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
        super().__init__(model.get_input_embeddings(), tokenizer, bridge, passages)
        self.model = model.eval()
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
    def name(self) -> str:
        """The language model's name, without folders; its class where that is unknown."""
        trained_for = None if self.bridge is None else self.bridge.config.language_model
        return trained_for or PurePath(self.model.config.name_or_path).name or type(self.model).__name__

    @property
    def context_window(self) -> int:
        """How many positions the model has, for prompt and answer together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, start: float | None = None) -> list[Generation]:
        """Answer prompts that are laid out already; see :class:`PromptReader`."""
        start = perf_counter() if start is None else start
        watch = Watch(self.tokenizer, sampling.stop)

        def write(some: Sequence[Prompt]) -> list[Generation]:
            output = self._write(some, sampling, watch)
            seconds = (watch.first or perf_counter()) - start
            return [self._generation(prompt, ids, sampling, seconds) for prompt, ids in zip(some, output, strict=True)]

        with self._turn, torch.inference_mode():
            return self._each_in_its_room(prompts, sampling, write)

    def stream(
        self,
        messages: Sequence[Message] | str,
        sampling: Sampling = GREEDY,
        template_kwargs: Mapping[str, Any] | None = None,
        cancelled: Event | None = None,
    ) -> Generator[str, None, Generation]:
        """Answer one conversation piece by piece; see :class:`PromptReader`."""
        start = perf_counter()
        prompt = self.prompt(messages, template_kwargs)
        streamer = TextIteratorStreamer(self.tokenizer, timeout=None, skip_special_tokens=True)
        watch = Watch(self.tokenizer, sampling.stop, cancelled)
        written: list[Any] = []
        failed: list[BaseException] = []

        def write() -> None:
            try:
                with self._turn, torch.inference_mode():
                    if watch.cancelled.is_set():  # while it waited for its turn
                        streamer.end()  # type: ignore[no-untyped-call]
                    else:
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
            if writer is not current_thread():  # which collects what others abandoned
                writer.join()
        if failed:
            raise failed[0]
        ids = written[0] if written else torch.empty(0, dtype=torch.long)
        return self._generation(prompt, ids, sampling, (watch.first or perf_counter()) - start)

    def _write(
        self, prompts: Sequence[Prompt], sampling: Sampling, watch: Watch, streamer: Any = None
    ) -> Int[torch.Tensor, "n new"]:
        room = self.room(prompts)
        embedded = [self.embeddings(prompt) for prompt in prompts]
        longest = max(map(len, embedded))
        inputs = embedded[0].new_zeros(len(embedded), longest, embedded[0].shape[1])
        mask = torch.zeros(len(embedded), longest, dtype=torch.long, device=inputs.device)
        for row, own in enumerate(embedded):
            inputs[row, longest - len(own) :], mask[row, longest - len(own) :] = own, 1
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        if sampling.temperature:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        with torch.random.fork_rng(enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            output: torch.Tensor = self.model.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                max_new_tokens=min(sampling.max_new_tokens, room),
                pad_token_id=self._pad,
                eos_token_id=sorted(self._ends) or None,
                stopping_criteria=StoppingCriteriaList([watch]),
                streamer=streamer,
                top_k=None,
                num_beams=1,
                **drawn,
            )
        return output

    @property
    def _ends(self) -> set[int]:
        """Tokens at which the model ends its answer."""
        given = self.model.generation_config.eos_token_id
        ends = given if isinstance(given, list) else [given]
        return ({*ends} - {None}) or ({self.tokenizer.eos_token_id} - {None})

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return min(self._ends, default=0) if pad is None else int(pad)

    def _generation(self, prompt: Prompt, ids: NewTokens, sampling: Sampling, seconds: float) -> Generation:
        written: list[int] = ids.tolist()
        ends = [place for place, token in enumerate(written) if token in self._ends]
        count = ends[0] + 1 if ends else len(written)
        padded = self.tokenizer.pad_token_id is not None or bool(self._ends)
        while padded and not ends and count and written[count - 1] == self._pad:  # beside longer answers of the batch
            count -= 1
        if ends and sampling.stop and self._cut(written[: count - 1], sampling)[1]:
            count -= 1  # it ended at a stop text: what looks like its end is padding
        kept, cut = self._cut(written[:count], sampling)
        length = self.length(prompt)
        return Generation(
            text=kept,
            prompt_tokens=length,
            passage_tokens=self.passage_length(prompt),
            new_tokens=count,
            stopped=bool(ends) or cut,
            first_token_seconds=seconds,
            prefill_flops=prefill_flops(self.model, length),
        )

    def _cut(self, written: Sequence[int], sampling: Sampling) -> tuple[str, bool]:
        """Give the text of tokens up to a stop text, and whether there was one."""
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        kept = until(text, sampling.stop)
        return kept, kept != text
