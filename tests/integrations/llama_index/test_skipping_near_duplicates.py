"""Near-duplicates that are not stored: what is answered for them, and what the index and its docstore make of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode

from rarebit.errors import SettingsError
from rarebit.integrations.llama_index import RarebitVectorStore

KETTLE = "The kettle is on the stove, and the water in it will boil in a quarter of an hour."
CAT = "The cat is out in the garden, and will not come back before the birds have gone to sleep."


def node(key: str, text: str) -> TextNode:
    return TextNode(id_=key, text=text, embedding=[1.0, 0.0])


def stored(store: RarebitVectorStore) -> list[str]:
    return [found.node_id for found in store.get_nodes()]


def test_skipped_nodes_keep_their_own_ids_in_the_answer() -> None:
    store = RarebitVectorStore(near_duplicates=0.8)
    assert store.add([node("k", KETTLE), node("c", CAT), node("1", KETTLE + "!")]) == ["k", "c", "1"]
    assert stored(store) == ["k", "c"]
    assert store.client.stand_ins([CAT.upper()], ["2"]) == ["c"]
    assert store.add([node("2", CAT), node("3", CAT)], near_duplicates="keep") == ["2", "3"]
    assert stored(store) == ["k", "c", "2", "3"]


@pytest.mark.parametrize("override", [False, True])
def test_an_index_finds_and_deletes_as_before(override: bool) -> None:
    """With a docstore of its own, an index files every node under the id that the store answered."""
    store = RarebitVectorStore(near_duplicates=0.8)
    index = VectorStoreIndex(
        [TextNode(id_="k", text=KETTLE), TextNode(id_="c", text=CAT)],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MockEmbedding(embed_dim=4),
        store_nodes_override=override,
    )
    index.insert_nodes([TextNode(id_="1", text=KETTLE + "!")])
    assert stored(store) == ["k", "c"]
    found = index.as_retriever(similarity_top_k=3).retrieve("kettle")
    assert {each.node_id: each.text for each in found} == {"k": KETTLE, "c": CAT}
    if override:
        assert index.index_struct.nodes_dict == {"k": "k", "c": "c", "1": "1"}
    index.delete_nodes(["1", "c"], delete_from_docstore=True)
    assert stored(store) == ["k"]


def test_the_setting_survives(tmp_path: Path) -> None:
    made = RarebitVectorStore(tmp_path / "a", near_duplicates=0.9, dim=2)
    made.add([node("k", KETTLE)])
    for again in (
        RarebitVectorStore.from_dict(made.to_dict()),
        RarebitVectorStore(tmp_path / "a"),
        RarebitVectorStore(collection=made.client),
        pickle.loads(pickle.dumps(made)),
    ):
        assert again.near_duplicates == 0.9
        assert again.to_dict() == made.to_dict()
        again.add([node("1", KETTLE)])
        assert stored(again) == ["k"]
    in_memory = RarebitVectorStore.from_dict(RarebitVectorStore(near_duplicates=0.7).to_dict())
    assert in_memory.client.settings.near_duplicates == 0.7
    with pytest.raises(SettingsError, match="near_duplicates"):
        RarebitVectorStore(tmp_path / "a", near_duplicates=0.8)
