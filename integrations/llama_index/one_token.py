"""The postprocessor of a budget: nodes go on as text, or as references, which a language model reads as tokens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Final

from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from rarebit.compressors.context.budget import ContextBudget
from rarebit.compressors.context.fidelity import Given
from rarebit.errors import InputError
from rarebit.integrations.llama_index.nodes import with_hidden
from rarebit.integrations.one_token_generator import check_generator

LABEL_WORDS: Final = 6
"""How many of a text's first words label its reference."""

_NO_BREAK_SPACE: Final = "\u00a0"


class OneTokenPostprocessor(BaseNodePostprocessor):
    """Gives nodes within a budget of tokens: as text, or as a reference, which a :class:`OneTokenLLM` reads as one token.

    A node becomes a copy with its id, its score, and its metadata, which gets three keys that neither models nor embeddings
    see: ``fidelity`` ("text" or "token"), ``context_tokens`` (what it takes) and ``text_tokens`` (what its text would take).
    Nodes that the budget has no room for are dropped, the order is kept, nodes without text go on as they are. Nodes have to
    come from the store that the generator's passages are of, with their texts unchanged: this postprocessor is the last one.

    .. code-block:: python

        generator = OneTokenGenerator(model, tokenizer, bridge, Passages.of(store.client))
        one_token = OneTokenPostprocessor(generator=generator, budget=ContextBudget(max_tokens=500, text_top=1))
        index.as_query_engine(llm=OneTokenLLM(generator=generator), similarity_top_k=50, node_postprocessors=[one_token])
    """

    generator: Any = Field(
        exclude=True, description="The OneTokenGenerator or ServedGenerator that reads references, with the store's passages."
    )
    budget: ContextBudget = Field(
        default=ContextBudget(text_top=0),
        description="How many tokens all nodes of a query may take, and how many of the surest may be text.",
    )
    relevance_key: str | None = Field(
        default="relevance",
        description="Metadata key under which nodes have their relevance, from 0 to 1; where one has none, the order given is "
        "that of certainty.",
    )
    label_key: str | None = Field(
        default=None, description="Metadata key whose value labels a reference, for people; else the first words do."
    )
    text_key: str | None = Field(
        default=None,
        description="Metadata key under which a node keeps its text, for citations; neither models nor embeddings see it.",
    )
    keep_metadata: bool = Field(
        default=False,
        description="Leave the language model the metadata that it would see; the budget does not count it, and it often takes "
        "more tokens than the node.",
    )

    @classmethod
    def class_name(cls) -> str:
        """Give the name that serialised components carry."""
        return "OneTokenPostprocessor"

    def model_post_init(self, context: Any, /) -> None:
        """Check what gives passages.

        Raises:
            InputError: it is no generator, or one without passages.
        """
        super().model_post_init(context)
        check_generator(self.generator)
        if self.generator.passages is None:
            raise InputError("got a generator without passages, wanted one with passages=Passages.of(store.client)")

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        del query_bundle
        # What a store's row holds, and what its vector was made of; not what a language model would be shown.
        texts = [found.node.get_content(metadata_mode=MetadataMode.NONE) for found in nodes]
        with_text = [place for place, text in enumerate(texts) if text.strip()]
        chosen = [nodes[place].node for place in with_text]
        given = self.generator.give(
            [texts[place] for place in with_text],
            [node.node_id for node in chosen],
            self.budget,
            relevances=self._relevances(chosen),
            labels=[self._label(nodes[place].node, texts[place]) for place in with_text],
        )
        changed = {with_text[own.place]: self._as(nodes[with_text[own.place]], own) for own in given}
        return [changed.get(place, found) for place, found in enumerate(nodes) if place in changed or place not in with_text]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def _relevances(self, nodes: Sequence[BaseNode]) -> list[float] | None:
        """Give the relevances of nodes if all have one."""
        if self.relevance_key is None:
            return None
        found = [_number(node.metadata.get(self.relevance_key)) for node in nodes]
        known = [number for number in found if number is not None]
        return known if len(known) == len(nodes) else None

    def _label(self, node: BaseNode, text: str) -> str:
        own = "" if self.label_key is None else str(node.metadata.get(self.label_key) or "")
        return own.strip() or " ".join(text.split(maxsplit=LABEL_WORDS)[:LABEL_WORDS])

    def _as(self, found: NodeWithScore, given: Given) -> NodeWithScore:
        node, text = found.node, found.node.get_content(metadata_mode=MetadataMode.NONE)
        hidden: dict[str, Any] = {"fidelity": given.fidelity, "context_tokens": given.tokens, "text_tokens": given.text_tokens}
        if self.text_key is not None:
            hidden[self.text_key] = text
        for key, value in hidden.items():
            node = with_hidden(node, key, value)
        if not self.keep_metadata:
            node = node.model_copy(update={"excluded_llm_metadata_keys": [*node.metadata]})
        if given.text != text:
            # LlamaIndex cuts long contexts at spaces first; a reference that was cut would be text like any other.
            node.set_content(given.text.replace(" ", _NO_BREAK_SPACE) if given.fidelity == "token" else given.text)
        return NodeWithScore(node=node, score=found.score)


def _number(value: Any) -> float | None:
    is_one = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_one else None
