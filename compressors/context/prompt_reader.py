"""What a language model reads, wherever it runs: messages, with passages in them, as input embeddings."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from threading import Event
from time import perf_counter
from typing import Any, Final

import torch
from jaxtyping import Float

from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.budget import ContextBudget
from rarebit.compressors.context.fidelity import Given, given_within
from rarebit.compressors.context.generation import GREEDY, Generation, Sampling
from rarebit.compressors.context.passages import Passages
from rarebit.compressors.context.prompts import Message, Prompt, prompt_of, token_ids
from rarebit.errors import InputError

SITUATED: Final = " situated by "
"""Stands behind a model's name in that of its vectors where something situated them."""


class PromptReader(ABC):
    """Reads messages in which references stand for passages, and answers them.

    Args:
        table: the language model's input embeddings, a module that takes token ids.
        tokenizer: of the model.
        bridge: trained for the model and for the embedding model that filled the store.
        passages: what references are to; None to read texts alone.

    Raises:
        InputError: the bridge is for a model of another width, or for vectors of another kind than the store's.
    """

    def __init__(
        self, table: Any, tokenizer: Any, bridge: ModalityBridge | None = None, passages: Passages | None = None
    ) -> None:
        """Check that the parts fit."""
        if passages is not None and bridge is None:
            raise InputError("got passages without a bridge, wanted a bridge that makes tokens of them")
        self.table, self.tokenizer, self.passages = table, tokenizer, passages
        weight = table.weight
        self.bridge = None if bridge is None else copy.deepcopy(bridge).to(weight.device).eval()
        if bridge is not None and bridge.config.width != weight.shape[1]:
            raise InputError(
                f"got a bridge to embeddings of width {bridge.config.width} and a model of width {weight.shape[1]}, wanted the "
                f"same: this bridge is for {bridge.config.language_model or 'another model'}"
            )
        if bridge is not None and passages is not None:
            _check_fit(bridge.config, getattr(passages.source, "settings", None))

    @property
    @abstractmethod
    def name(self) -> str:
        """The language model's name."""

    @property
    @abstractmethod
    def context_window(self) -> int:
        """How many positions the model has, for prompt and answer together."""

    @abstractmethod
    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, start: float | None = None) -> list[Generation]:
        """Answer prompts that are laid out already, as one batch.

        Args:
            prompts: of :meth:`prompt`.
            sampling: how answers are written.
            start: the reading of ``perf_counter`` from which the time to the first token counts; now if left out.

        Raises:
            InputError: a prompt leaves no room for an answer.
        """

    @abstractmethod
    def stream(
        self,
        messages: Sequence[Message] | str,
        sampling: Sampling = GREEDY,
        template_kwargs: Mapping[str, Any] | None = None,
        cancelled: Event | None = None,
    ) -> Generator[str, None, Generation]:
        """Answer one conversation piece by piece: together what :meth:`generate` gives. Closing the generator stops the model.

        Args:
            messages: of the conversation, or a text, which is a user's message.
            sampling: how the answer is written.
            template_kwargs: what else the chat template is given.
            cancelled: set from another thread, stops the model also while a piece is waited for.

        Returns:
            What it took, as the value of ``yield from``.

        Raises:
            InputError, MissingRowError: as :meth:`generate`, when the first piece is asked for.
        """

    def generate(
        self,
        conversations: Sequence[Sequence[Message] | str],
        sampling: Sampling = GREEDY,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Generation]:
        """Answer many conversations, as one batch.

        Args:
            conversations: messages each, or a text, which is a user's message.
            sampling: how answers are written; one that the room of a longer prompt cut short is written again without it.
            template_kwargs: what else the chat template is given, such as ``tools``.

        Raises:
            InputError: a prompt leaves no room for an answer.
            MissingRowError: a reference to a passage that is not there any more.
        """
        start = perf_counter()
        return self.answer([self.prompt(messages, template_kwargs) for messages in conversations], sampling, start)

    def prompt(self, messages: Sequence[Message] | str, template_kwargs: Mapping[str, Any] | None = None) -> Prompt:
        """Lay out messages; arguments and errors as in :func:`.prompts.prompt_of`."""
        return prompt_of(self.tokenizer, messages, self.passages, template_kwargs=template_kwargs)

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
            raise InputError("got a generator without passages, wanted one with passages=Passages.of(collection)")
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
        table, bridge = self.table, self.bridge
        place = table.weight.device
        parts = []
        for part in prompt.parts:
            if isinstance(part, list):
                parts.append(table(torch.tensor(part, dtype=torch.long, device=place)))
            elif bridge is not None:
                projected = bridge(torch.from_numpy(part.vectors).to(place))
                parts.append(projected.flatten(0, 1).to(table.weight.dtype))
        return torch.cat(parts)

    def length(self, prompt: Prompt) -> int:
        """Count the input positions of a prompt."""
        return prompt.length(self.tokens_a_vector)

    def passage_length(self, prompt: Prompt) -> int:
        """Count the input positions of passages that are read as tokens."""
        return sum(len(passage.vectors) for passage in prompt.passages) * self.tokens_a_vector

    def room(self, prompts: Sequence[Prompt]) -> int:
        """Count the positions that are left for an answer to the longest of some prompts.

        Raises:
            InputError: there are none.
        """
        longest = max(map(self.length, prompts))
        if longest >= self.context_window:
            raise InputError(
                f"got a prompt of {longest} tokens, wanted fewer than the model's {self.context_window}: give fewer passages "
                "as text, with a ContextBudget"
            )
        return self.context_window - longest

    def _each_in_its_room(
        self, prompts: Sequence[Prompt], sampling: Sampling, write: Callable[[Sequence[Prompt]], Sequence[Generation]]
    ) -> list[Generation]:
        """Answer prompts as one batch, in which all have the room of the longest; and again those that this cut short."""
        own = [min(sampling.max_new_tokens, self.room([prompt])) for prompt in prompts]
        answers: dict[int, Generation] = {}
        while left := [place for place in range(len(prompts)) if place not in answers]:
            shared = min(own[place] for place in left)
            written = zip(left, write([prompts[place] for place in left]), strict=True)
            answers |= {place: answer for place, answer in written if answer.stopped or own[place] == shared}
        return [answers[place] for place in range(len(prompts))]


def _check_fit(bridge: BridgeConfig, settings: Any) -> None:
    """Refuse a store that another embedding model filled, or that does not keep what the bridge takes.

    Raises:
        InputError: so it is.
    """
    if settings is None:
        return
    trained_on, filled_by = bridge.embedding_model, settings.fingerprint.name
    if trained_on and filled_by and not _is_of(_short(trained_on), _short(filled_by)):
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
    """Give a model's name without its owner."""
    return name.rpartition("/")[2].lower()


def _is_of(model: str, filled_by: str) -> bool:
    """Say whether vectors are a model's, as they are or situated."""
    return filled_by == model or filled_by.startswith(f"{model}{SITUATED}")
