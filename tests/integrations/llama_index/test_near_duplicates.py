"""The postprocessor of near-duplicates where LlamaIndex puts it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import ImageNode, IndexNode, MetadataMode, NodeWithScore, TextNode

from rarebit.integrations.llama_index import NearDuplicatePostprocessor
from rarebit.retrievers.near_duplicates import unique

KETTLE = "The kettle is on the stove, and the water in it will boil in a quarter of an hour."
CAT = "The cat is out in the garden, and will not come back before the birds have gone to sleep."


def found() -> list[NodeWithScore]:
    nodes = [
        TextNode(id_="k1", text=KETTLE, metadata={"page": 1}, excluded_llm_metadata_keys=["page"]),
        IndexNode(id_="c1", text=CAT, index_id="cats", obj={"age": 9}),
        TextNode(id_="k2", text=KETTLE + "..", metadata={"page": 2, "source": "another file with a long name"}),
        ImageNode(id_="i1", image="aW1hZ2U="),
        TextNode(id_="c2", text=CAT.upper()),
        ImageNode(id_="i2", image="aW1hZ2U="),
    ]
    return [NodeWithScore(node=node, score=1 - place / 10) for place, node in enumerate(nodes)]


KEPT = ["k1", "c1", "i1", "i2"]


def ids_of(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.node_id for node in nodes]


class TestNearDuplicatePostprocessor:
    def test_the_first_of_each_stays_in_order(self) -> None:
        given, dropping = found(), NearDuplicatePostprocessor()
        for kept in (
            dropping.postprocess_nodes(given),
            dropping.postprocess_nodes(given, query_str="tea"),
            asyncio.run(dropping.apostprocess_nodes(given, query_str="tea")),
        ):
            assert ids_of(kept) == KEPT
            assert all(any(node is one for one in given) for node in kept)

    def test_nothing_stays_nothing(self) -> None:
        assert NearDuplicatePostprocessor(record="also").postprocess_nodes([]) == []

    def test_the_threshold_decides(self) -> None:
        near = [NodeWithScore(node=TextNode(text=text)) for text in (KETTLE, KETTLE.replace("water", "milk"))]
        assert len(NearDuplicatePostprocessor(threshold=0.6).postprocess_nodes(near)) == 1
        assert len(NearDuplicatePostprocessor(threshold=0.9).postprocess_nodes(near)) == 2

    def test_what_was_dropped_is_recorded(self) -> None:
        given = found()
        kept = NearDuplicatePostprocessor(record="also").postprocess_nodes(given)
        assert [node.node.metadata for node in kept] == [{"page": 1, "also": ["k2"]}, {"also": ["c2"]}, {}, {}]
        assert [node.score for node in kept] == [1.0, 0.9, 0.7, 0.5]
        assert ids_of(kept) == KEPT
        assert [type(node.node) for node in kept] == [TextNode, IndexNode, ImageNode, ImageNode]
        assert [node.to_dict() for node in given] == [node.to_dict() for node in found()]

    def test_records_go_on_through_further_postprocessors(self) -> None:
        strict, loose = (NearDuplicatePostprocessor(threshold=threshold, record="also") for threshold in (0.95, 0.5))
        milk = KETTLE.replace("water", "milk")
        texts = {"a": KETTLE, "b": KETTLE, "c": milk, "d": milk}
        nodes = [NodeWithScore(node=TextNode(id_=key, text=text)) for key, text in texts.items()]
        (kept,) = loose.postprocess_nodes(strict.postprocess_nodes(nodes))
        assert kept.node.metadata == {"also": ["b", "c", "d"]}
        assert kept.node.excluded_llm_metadata_keys == kept.node.excluded_embed_metadata_keys == ["also"]

    def test_models_do_not_see_the_record(self) -> None:
        (kept, *_) = NearDuplicatePostprocessor(record="also").postprocess_nodes(found())
        assert kept.node.get_content(MetadataMode.LLM) == KETTLE
        assert kept.node.get_content(MetadataMode.EMBED) == f"page: 1\n\n{KETTLE}"
        assert kept.node.excluded_llm_metadata_keys == ["page", "also"]

    @given(st.lists(st.sampled_from([KETTLE, KETTLE + "!", CAT, "", "tea", "Tea"]), max_size=8))
    def test_it_keeps_what_the_core_keeps(self, texts: list[str]) -> None:
        nodes = [NodeWithScore(node=TextNode(id_=str(place), text=text)) for place, text in enumerate(texts)]
        kept = NearDuplicatePostprocessor(record="also").postprocess_nodes(nodes)
        groups = {str(first): [str(later) for later in rest] for first, rest in unique(texts).items()}
        assert {node.node.node_id: node.node.metadata.get("also", []) for node in kept} == groups

    @pytest.mark.unchecked
    @pytest.mark.parametrize("wrong", [0, 1.5, "high", None])
    def test_what_cannot_be_meant_is_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="threshold"):
            NearDuplicatePostprocessor(threshold=wrong)

    def test_its_settings_survive_a_round_trip(self) -> None:
        made = NearDuplicatePostprocessor(threshold=0.9, record="also")
        assert made.to_dict()["class_name"] == "NearDuplicatePostprocessor"
        for again in (
            NearDuplicatePostprocessor.from_dict(made.to_dict()),
            NearDuplicatePostprocessor.from_json(made.to_json()),
        ):
            assert (again.threshold, again.record) == (0.9, "also")

    def test_in_a_query_engine(self) -> None:
        nodes = [node.node for node in found() if type(node.node) is TextNode]
        index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=8))
        engine = index.as_query_engine(
            llm=MockLLM(), similarity_top_k=3, node_postprocessors=[NearDuplicatePostprocessor(record="also")]
        )
        for answer in (engine.query("tea"), asyncio.run(engine.aquery("tea"))):
            kept = {node.node.node_id: node.node.metadata.get("also", []) for node in answer.source_nodes}
            assert len(kept) == 2
            assert {*kept, *(other for others in kept.values() for other in others)} == {"k1", "k2", "c2"}


def test_both_paths_give_the_same_class() -> None:
    from llama_index.postprocessor import rarebit as namespaced

    assert namespaced.NearDuplicatePostprocessor is NearDuplicatePostprocessor
    assert "NearDuplicatePostprocessor" in namespaced.__all__
