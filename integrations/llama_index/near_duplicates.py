"""The postprocessor: of nodes that are nearly the same, the best placed one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import Field, field_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rarebit.integrations.llama_index.nodes import with_hidden
from rarebit.integrations.near_duplicate_record import with_record
from rarebit.retrievers.near_duplicates import as_threshold, unique


class NearDuplicatePostprocessor(BaseNodePostprocessor):
    """Drops nodes whose text nearly duplicates that of one before them; order is kept, nothing is embedded.

    Texts are compared without their metadata. Nodes without text are kept. Nodes that were passed are never changed.

    .. code-block:: python

        index.as_query_engine(node_postprocessors=[NearDuplicatePostprocessor(threshold=0.9)])
    """

    threshold: float = Field(
        default=0.8,
        validate_default=True,
        description="Jaccard similarity of texts, in runs of 8 letters, from which they are near-duplicates; at most 1",
    )
    record: str | None = Field(
        default=None,
        description="Metadata key under which a node lists the ids of those that were dropped in its favour; "
        "neither models nor embeddings see it; None records nothing",
    )

    @field_validator("threshold", mode="before")
    @classmethod
    def _in_range(cls, given: Any) -> float:
        return as_threshold(given)

    @classmethod
    def class_name(cls) -> str:
        """Give the name that serialised components carry."""
        return "NearDuplicatePostprocessor"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        del query_bundle
        groups = unique([found.node.get_content(metadata_mode=MetadataMode.NONE) for found in nodes], self.threshold)
        return [self._recorded(nodes[first], [nodes[later] for later in rest]) for first, rest in groups.items()]

    def _recorded(self, found: NodeWithScore, dropped: Sequence[NodeWithScore]) -> NodeWithScore:
        if self.record is None or not dropped:
            return found
        node = found.node
        others = [(other.node.node_id, other.node.metadata) for other in dropped]
        recorded = with_hidden(node, self.record, with_record(node.metadata, self.record, others)[self.record])
        return NodeWithScore(node=recorded, score=found.score)
