"""The postprocessor of a budget: what nodes become, and what they stay."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from pydantic import ValidationError

pytest.importorskip("transformers", reason="language models need the extra models")

from support.one_token_llama_index import TEXTS, Recording, filled, generator_of, vectors_of
from support.tiny_language_model import CountingEmbed, embed

from rarebit.compressors.context import ContextBudget
from rarebit.errors import InputError
from rarebit.integrations.llama_index import CosineAdapterPostprocessor, OneTokenPostprocessor, RarebitVectorStore
from rarebit.retrievers.relevance import CosineAdapter

pytestmark = pytest.mark.usefixtures("_one_thread")

KEYS = ["fidelity", "context_tokens", "text_tokens"]
ALL_AS_TEXT = ContextBudget(text_top=None)


@pytest.fixture
def nodes(store: RarebitVectorStore) -> list[NodeWithScore]:
    return scored(filled(store))


@pytest.fixture
def generator(nodes: list[NodeWithScore], store: RarebitVectorStore) -> Recording:
    return generator_of(store.client)


@pytest.fixture
def plain(generator: Recording) -> OneTokenPostprocessor:
    return OneTokenPostprocessor(generator=generator)


def scored(nodes: Sequence[BaseNode]) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=0.9 - place / 10) for place, node in enumerate(nodes)]


def seen(found: NodeWithScore) -> str:
    """Give what a synthesizer shows to the language model."""
    return found.node.get_content(metadata_mode=MetadataMode.LLM)


def read(generator: Recording, nodes: Sequence[NodeWithScore]) -> list[str]:
    """Give the texts of the passages that references in nodes lead to."""
    return [passage.text for passage in generator.prompt("\n\n".join(map(seen, nodes))).passages]


def fidelities(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [found.node.metadata["fidelity"] for found in nodes]


class TestReferences:
    def test_each_node_becomes_a_reference_to_itself(
        self, plain: OneTokenPostprocessor, generator: Recording, nodes: list[NodeWithScore], store: RarebitVectorStore
    ) -> None:
        kept = plain.postprocess_nodes(nodes, query_str="tea")
        assert read(generator, kept) == TEXTS
        assert np.array_equal(vectors_of(generator.prompts[-1]), store.client.vectors([f"n{place}" for place in range(5)]))
        assert fidelities(kept) == ["token"] * 5
        assert [found.node.node_id for found in kept] == [f"n{place}" for place in range(5)]
        assert [found.score for found in kept] == [found.score for found in nodes]
        assert all(seen(found).startswith("[[rarebit:") and seen(found).endswith("]]") for found in kept)

    def test_the_model_sees_nothing_but_the_reference(
        self, plain: OneTokenPostprocessor, generator: Recording, nodes: list[NodeWithScore]
    ) -> None:
        for found in plain.postprocess_nodes(nodes):
            assert seen(found) == found.node.get_content(metadata_mode=MetadataMode.NONE)
            prompt = generator.prompt(seen(found))
            assert prompt.length(1) == generator.prompt("").length(1) + 1

    def test_a_reference_has_no_space_at_which_it_would_be_cut(
        self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]
    ) -> None:
        assert all(
            len(seen(found).split(" ")) == 1 == len(seen(found).splitlines()) for found in plain.postprocess_nodes(nodes)
        )

    def test_metadata_is_kept(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        for place, found in enumerate(plain.postprocess_nodes(nodes)):
            assert list(found.node.metadata) == ["page", *KEYS]
            assert found.node.metadata["page"] == place
            assert found.node.excluded_embed_metadata_keys == KEYS
            assert found.node.metadata["context_tokens"] < found.node.metadata["text_tokens"]

    def test_metadata_may_be_shown(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        made = OneTokenPostprocessor(generator=generator, keep_metadata=True)
        for place, found in enumerate(made.postprocess_nodes(nodes)):
            assert seen(found).startswith(f"page: {place}\n\n[[rarebit:")
            assert not any(key in seen(found) for key in KEYS)
        assert read(generator, made.postprocess_nodes(nodes)) == TEXTS

    def test_what_the_user_hid_stays_hidden(self, generator: Recording, store: RarebitVectorStore) -> None:
        node = TextNode(id_="x", text="Tea.", metadata={"a": 1, "b": 2}, excluded_llm_metadata_keys=["b", "not there"])
        filled(store, [node])
        for keep in (True, False):
            made = OneTokenPostprocessor(generator=generator, keep_metadata=keep)
            (found,) = made.postprocess_nodes(scored([node]))
            assert ("a: 1" in seen(found)) is keep
            assert "b: 2" not in seen(found)

    def test_the_text_may_be_kept_for_citations(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        made = OneTokenPostprocessor(generator=generator, text_key="passage", keep_metadata=True)
        for place, found in enumerate(made.postprocess_nodes(nodes)):
            assert found.node.metadata["passage"] == TEXTS[place]
            assert TEXTS[place] not in seen(found)
            assert TEXTS[place] not in found.node.get_content(metadata_mode=MetadataMode.EMBED)

    def test_labels(self, generator: Recording, store: RarebitVectorStore) -> None:
        long = TextNode(
            id_="long", text="one two three four five six seven [eight]", metadata={"title": "A [short] title\nof it"}
        )
        bare = TextNode(id_="bare", text="  two\n words ", metadata={"title": None})
        filled(store, [long, bare])
        found = OneTokenPostprocessor(generator=generator).postprocess_nodes(scored([long, bare]))
        assert [seen(each).replace("\u00a0", " ").rpartition("|")[2] for each in found] == [
            "one two three four five six]]",
            "two words]]",
        ]
        made = OneTokenPostprocessor(generator=generator, label_key="title")
        found = made.postprocess_nodes(scored([long, bare]))
        assert [seen(each).replace("\u00a0", " ").rpartition("|")[2] for each in found] == [
            "A (short) title of it]]",
            "two words]]",
        ]
        assert read(generator, found) == [long.text, bare.text]


class TestBudget:
    def test_the_surest_are_text(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=2))
        kept = made.postprocess_nodes(nodes)
        assert fidelities(kept) == ["text", "text", "token", "token", "token"]
        assert [seen(found) for found in kept[:2]] == TEXTS[:2]
        assert read(generator, kept) == TEXTS[2:]

    def test_relevances_say_which_are_the_surest(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        for place, found in enumerate(nodes):
            found.node.metadata["relevance"] = [0.1, 0.7, 0.3, 0.9, 0.2][place]
            found.node.metadata["place"] = place / 10
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=2, text_relevance=0.8))
        assert fidelities(made.postprocess_nodes(nodes)) == ["token", "token", "token", "text", "token"]
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=2), relevance_key=None)
        assert fidelities(made.postprocess_nodes(nodes)) == ["text", "text", "token", "token", "token"]
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=1), relevance_key="place")
        assert fidelities(made.postprocess_nodes(nodes)) == ["token", "token", "token", "token", "text"]

    @pytest.mark.parametrize("value", [None, True, "0.9", float("nan"), float("inf"), "absent"])
    def test_relevances_count_where_all_have_one(self, generator: Recording, nodes: list[NodeWithScore], value: Any) -> None:
        for place, found in enumerate(nodes):
            found.node.metadata["relevance"] = place / 10
        nodes[2].node.metadata["relevance"] = value
        if value == "absent":
            del nodes[2].node.metadata["relevance"]
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=1))
        assert fidelities(made.postprocess_nodes(nodes)) == ["text", "token", "token", "token", "token"]

    def test_numbers_of_numpy_are_relevances(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        for place, found in enumerate(nodes):
            found.node.metadata["relevance"] = np.float32(place / 10)
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=1))
        assert fidelities(made.postprocess_nodes(nodes)) == ["token", "token", "token", "token", "text"]

    def test_behind_the_relevance(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        judging = CosineAdapterPostprocessor(adapter=CosineAdapter(12).with_threshold(0))
        judged = judging.postprocess_nodes(nodes[::-1], query_bundle=QueryBundle("tea", embedding=[1.0] * 12))
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(text_top=1))
        kept = made.postprocess_nodes(judged)
        assert fidelities(kept) == ["token", "token", "token", "token", "text"]
        assert list(kept[0].node.metadata) == ["page", "relevance", *KEYS]

    def test_what_there_is_no_room_for_is_dropped(self, generator: Recording, nodes: list[NodeWithScore]) -> None:
        one = generator.give(TEXTS[:1], ["n0"], ContextBudget(text_top=0))[0].tokens
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(max_tokens=3 * one, text_top=0))
        kept = made.postprocess_nodes(nodes)
        assert read(generator, kept) == TEXTS[:3]
        assert sum(found.node.metadata["context_tokens"] for found in kept) == 3 * one
        assert OneTokenPostprocessor(generator=generator, budget=ContextBudget(max_tokens=0)).postprocess_nodes(nodes) == []

    def test_a_text_may_be_cut(self, generator: Recording, store: RarebitVectorStore) -> None:
        text = " ".join(f"word{number}" for number in range(40))
        node = TextNode(id_="long", text=text)
        filled(store, [node])
        made = OneTokenPostprocessor(
            generator=generator, budget=ContextBudget(max_tokens=40, text_top=1, least_cut=8), text_key="whole"
        )
        (kept,) = made.postprocess_nodes(scored([node]))
        assert text.startswith(seen(kept))
        assert 0 < len(seen(kept)) < len(text)
        assert kept.node.metadata["fidelity"] == "text"
        assert kept.node.metadata["context_tokens"] <= 40 < kept.node.metadata["text_tokens"]
        assert kept.node.metadata["whole"] == text

    @given(
        most=st.none() | st.integers(0, 120),
        top=st.none() | st.integers(0, 6),
        order=st.permutations(range(5)),
        count=st.integers(0, 5),
    )
    def test_any_budget_holds(self, most: int | None, top: int | None, order: list[int], count: int) -> None:
        generator, nodes = shared()
        some = [nodes[place] for place in order[:count]]
        before = [found.model_dump_json() for found in some]
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(max_tokens=most, text_top=top))
        kept = made.postprocess_nodes(some)
        assert [found.model_dump_json() for found in some] == before
        assert sum(found.node.metadata["context_tokens"] for found in kept) <= (10**9 if most is None else most)
        assert fidelities(kept).count("text") <= (10**9 if top is None else top)
        ids = [found.node.node_id for found in some]
        assert [found.node.node_id for found in kept] == [key for key in ids if key in {each.node.node_id for each in kept}]


_SHARED: list[Any] = []


def shared() -> tuple[Recording, list[NodeWithScore]]:
    """Give one generator to all examples of a property."""
    if not _SHARED:
        store = RarebitVectorStore()
        nodes = scored(filled(store))
        _SHARED.extend([generator_of(store.client), nodes])
    return _SHARED[0], _SHARED[1]


class TestNodes:
    KINDS: tuple[BaseNode, ...] = (
        TextNode(id_="text", text="A text.", start_char_idx=3, end_char_idx=10),
        IndexNode(id_="index", text="An index.", index_id="others"),
        ImageNode(id_="image", text="An image.", image="aW1hZ2U="),
        Document(id_="document", text="A document.", metadata={"file": "a.txt"}),
        Node(id_="node", text_resource=MediaResource(text="A node."), image_resource=MediaResource(data=b"aW1hZ2U=")),
    )

    def test_of_any_kind(self, generator: Recording, store: RarebitVectorStore) -> None:
        filled(store, self.KINDS)
        nodes = scored(self.KINDS)
        before = [found.model_dump_json() for found in nodes]
        for budget, fidelity in ((ContextBudget(text_top=0), "token"), (ALL_AS_TEXT, "text")):
            kept = OneTokenPostprocessor(generator=generator, budget=budget).postprocess_nodes(nodes)
            assert [type(found.node) for found in kept] == [type(node) for node in self.KINDS]
            assert fidelities(kept) == [fidelity] * 5
            texts = [node.get_content() for node in self.KINDS]
            assert ([seen(found) for found in kept] if fidelity == "text" else read(generator, kept)) == texts
        assert [found.model_dump_json() for found in nodes] == before
        (image,) = [found.node for found in kept if isinstance(found.node, ImageNode)]
        assert image.image == "aW1hZ2U="

    def test_those_of_the_retriever_are_not_changed(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        before = [found.model_dump_json() for found in nodes]
        for kept in (plain.postprocess_nodes(nodes), asyncio.run(plain.apostprocess_nodes(nodes))):
            assert not {id(found) for found in kept} & {id(found) for found in nodes}
            kept[0].node.metadata["page"] = "changed"
        assert [found.model_dump_json() for found in nodes] == before

    def test_what_else_a_node_has_is_kept(self, generator: Recording, store: RarebitVectorStore) -> None:
        source = RelatedNodeInfo(node_id="doc")
        node = TextNode(
            id_="x", text="Tea.", relationships={NodeRelationship.SOURCE: source}, embedding=[1.0], start_char_idx=4
        )
        filled(store, [node])
        (found,) = OneTokenPostprocessor(generator=generator).postprocess_nodes(scored([node]))
        assert found.node.ref_doc_id == "doc"
        assert found.node.embedding == [1.0]
        assert found.node.get_node_info() == {"start": 4, "end": None}

    def test_those_without_text_go_on_as_they_are(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        bare = [NodeWithScore(node=ImageNode(id_="i", image="aW1hZ2U=")), NodeWithScore(node=TextNode(id_="e", text=" \n"))]
        mixed = [bare[0], nodes[0], bare[1], nodes[1]]
        kept = plain.postprocess_nodes(mixed)
        assert kept[0] is bare[0]
        assert kept[2] is bare[1]
        assert fidelities([kept[1], kept[3]]) == ["token", "token"]
        assert plain.postprocess_nodes(bare) == bare

    def test_no_nodes(self, plain: OneTokenPostprocessor) -> None:
        assert plain.postprocess_nodes([]) == []
        assert asyncio.run(plain.apostprocess_nodes([])) == []

    def test_the_same_in_a_thread(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        there = asyncio.run(plain.apostprocess_nodes(nodes, query_str="tea"))
        assert [seen(found) for found in there] == [seen(found) for found in plain.postprocess_nodes(nodes)]

    def test_a_score_may_be_missing(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        (kept,) = plain.postprocess_nodes([NodeWithScore(node=nodes[0].node)])
        assert kept.score is None

    def test_twice_is_an_error(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        with pytest.raises(InputError, match="its text unchanged"):
            plain.postprocess_nodes(plain.postprocess_nodes(nodes))


class TestWhatIsNotInTheStore:
    def test_is_an_error(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        with pytest.raises(InputError, match="does not hold with this text"):
            plain.postprocess_nodes([*nodes, NodeWithScore(node=TextNode(text="Of another store."))])
        with pytest.raises(InputError, match="does not hold with this text"):
            asyncio.run(plain.apostprocess_nodes([NodeWithScore(node=TextNode(id_="n0", text="Changed on the way."))]))

    def test_may_be_text(self, generator: Recording) -> None:
        made = OneTokenPostprocessor(generator=generator, budget=ALL_AS_TEXT)
        (kept,) = made.postprocess_nodes([NodeWithScore(node=TextNode(text="Of another store."))])
        assert seen(kept) == "Of another store."

    def test_is_embedded_where_that_can_be(self, store: RarebitVectorStore) -> None:
        model = CountingEmbed()
        filled(store)
        generator = generator_of(store.client, embed=model)
        made = OneTokenPostprocessor(generator=generator)
        other = NodeWithScore(node=TextNode(text="Of another store."))
        assert read(generator, made.postprocess_nodes([other])) == ["Of another store."]
        assert model.calls == [["Of another store."]]
        assert np.array_equal(vectors_of(generator.prompts[-1]), embed(["Of another store."]))

    def test_tenants(self, store: RarebitVectorStore) -> None:
        for name in ("acme", "bolt"):
            filled(store.for_tenant(name), [TextNode(id_="same", text=f"{name}'s own.")])
        own = {name: generator_of(store.client.tenant(name)) for name in ("acme", "bolt")}
        acme = OneTokenPostprocessor(generator=own["acme"])
        node = NodeWithScore(node=TextNode(id_="same", text="acme's own."))
        kept = acme.postprocess_nodes([node])
        assert read(own["acme"], kept) == ["acme's own."]
        assert read(own["bolt"], kept) == []
        with pytest.raises(InputError, match="does not hold"):
            OneTokenPostprocessor(generator=own["bolt"]).postprocess_nodes([node])


class TestSettings:
    @pytest.mark.unchecked
    @pytest.mark.parametrize("wrong", [None, "generator", object])
    def test_what_is_no_generator(self, wrong: Any) -> None:
        with pytest.raises(ValidationError, match="wanted a OneTokenGenerator"):
            OneTokenPostprocessor(generator=wrong)

    def test_a_generator_without_passages(self) -> None:
        with pytest.raises(ValidationError, match=r"Passages.of\(store.client\)"):
            OneTokenPostprocessor(generator=generator_of())

    @pytest.mark.unchecked
    def test_a_budget_that_is_none(self, generator: Recording) -> None:
        for wrong in (5, {"text_top": -1}):
            with pytest.raises(ValidationError):
                OneTokenPostprocessor(generator=generator, budget=wrong)

    def test_as_a_component(self, plain: OneTokenPostprocessor, generator: Recording) -> None:
        made = OneTokenPostprocessor(generator=generator, budget=ContextBudget(max_tokens=9, text_top=None), label_key="title")
        saved = json.loads(made.to_json())
        assert "generator" not in saved
        assert saved["class_name"] == "OneTokenPostprocessor"
        again = OneTokenPostprocessor.from_dict(saved, generator=generator)
        assert again.to_dict() == made.to_dict()
        assert again.budget == made.budget
        assert again.generator is generator

    def test_budgets_are_not_shared_by_chance(self, plain: OneTokenPostprocessor, generator: Recording) -> None:
        assert plain.budget == ContextBudget(text_top=0) == OneTokenPostprocessor(generator=generator).budget

    def test_given_nodes_can_be_sent_elsewhere(self, plain: OneTokenPostprocessor, nodes: list[NodeWithScore]) -> None:
        kept = plain.postprocess_nodes(nodes)
        assert pickle.loads(pickle.dumps(kept)) == kept
        assert [TextNode.from_dict(found.node.to_dict()) for found in kept] == [found.node for found in kept]
