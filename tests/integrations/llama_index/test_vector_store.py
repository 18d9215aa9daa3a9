"""The vector store by itself: what it opens, adds, finds, gives back, deletes and persists."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode

from rarebit.errors import (
    CollectionNotFoundError,
    DimensionError,
    ForeignFileError,
    InputError,
    ReadOnlyError,
    SettingsError,
    VectorError,
)
from rarebit.integrations.llama_index import RarebitVectorStore
from rarebit.retrievers.collection import Collection, EmbeddingFingerprint

Mode = VectorStoreQueryMode
TEXTS = {
    "apple": ("the apple is red", [1.0, 0.0, 0.0]),
    "apples": ("apples are red and round", [0.98, 0.2, 0.0]),
    "pear": ("a pear is green", [0.6, 0.8, 0.0]),
    "sky": ("the sky is blue", [0.0, 0.0, 1.0]),
    "sea": ("the sea is blue and green", [-0.1, 0.1, 0.9]),
}
SOURCES = {"apple": "fruit", "apples": "fruit", "pear": "fruit", "sky": "nature"}
GREEN = MetadataFilters(filters=[MetadataFilter(key="green", value=1)])


def node(name: str, **changes: Any) -> TextNode:
    text, embedding = TEXTS[name]
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=SOURCES[name])} if name in SOURCES else {}
    metadata = {"green": int("green" in text), "length": len(text)}
    return TextNode(
        **{"id_": name, "text": text, "embedding": embedding, "relationships": source, "metadata": metadata, **changes}
    )


def nodes() -> list[TextNode]:
    return [node(name) for name in TEXTS]


@pytest.fixture
def store() -> RarebitVectorStore:
    filled = RarebitVectorStore()
    filled.add(nodes())
    return filled


def asked(store: RarebitVectorStore, mode: str = "default", k: int = 3, **changes: Any) -> list[str]:
    query = {"query_embedding": [1.0, 0.1, 0.0], "query_str": "green pears", **changes}
    return list(store.query(VectorStoreQuery(similarity_top_k=k, mode=Mode(mode), **query)).ids or [])


def remaining(store: RarebitVectorStore) -> list[str]:
    return [found.node_id for found in store.get_nodes()]


# What it is


def test_it_says_what_llama_index_asks_of_a_store(store: RarebitVectorStore):
    assert isinstance(store, BasePydanticVectorStore)
    assert (store.stores_text, store.is_embedding_query, store.flat_metadata) == (True, True, False)
    assert store.class_name() == "RarebitVectorStore"
    assert isinstance(store.client, Collection)
    assert store.client.count() == len(TEXTS)


def test_settings_are_public_fields_and_those_of_the_collection(tmp_path: Path):
    path = tmp_path / "a.rarebit"
    made = RarebitVectorStore(
        path, codec="sq8", metric="inner_product", fine="none", tokenizer="trigram", fingerprint="model-a"
    )
    again = RarebitVectorStore(path)
    for store in (made, again, RarebitVectorStore(collection=again.client)):
        fields = store.to_dict()
        assert (fields["path"], fields["codec"], fields["metric"]) == (str(path), "sq8", "inner_product")
        assert (fields["fine"], fields["tokenizer"], fields["fingerprint"]["name"]) == ("none", "trigram", "model-a")
    with pytest.raises(SettingsError, match="codec"):
        RarebitVectorStore(path, codec="sq4")


def test_to_dict_is_enough_to_open_it_again(tmp_path: Path):
    made = RarebitVectorStore(
        tmp_path / "a", codec="sq8", include_embeddings=True, batch_size=2, dim=3, fingerprint=EmbeddingFingerprint("m", "r")
    )
    made.add(nodes())
    again = RarebitVectorStore.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict()
    assert remaining(again) == list(TEXTS)
    assert again.client.settings == made.client.settings


def test_a_codec_is_chosen_for_a_budget_and_named_when_it_is_opened_again(tmp_path: Path):
    store = RarebitVectorStore(tmp_path / "c.rarebit", memory_per_vector=16, training_minimum=300)
    vectors = np.random.default_rng(0).standard_normal((400, 64)) * np.linspace(2, 0.1, 64)
    store.add([TextNode(id_=f"{place}", text="", embedding=vector.tolist()) for place, vector in enumerate(vectors)])
    stats = store.client.stats()
    assert stats.choice is not None
    assert stats.choice["chosen"]["code_size"] <= 8
    assert stats.codec == stats.choice["chosen"]["codec"]
    found = store.query(VectorStoreQuery(query_embedding=vectors[7].tolist(), similarity_top_k=1))
    assert found.ids == ["7"]
    again = RarebitVectorStore.from_dict(store.to_dict())
    assert again.client.stats().choice == stats.choice
    assert again.memory_per_vector == 16


def test_a_description_from_before_another_codec_still_opens_the_file(tmp_path: Path):
    store = RarebitVectorStore(tmp_path / "c.rarebit")
    store.add([TextNode(id_="a", text="", embedding=[1.0, 0.0])])
    described = store.to_dict()
    store.client.recompress(codec="sq8")
    assert RarebitVectorStore.from_dict(described).client.stats().codec == "sq8"
    with pytest.raises(SettingsError, match="codec"):
        RarebitVectorStore(tmp_path / "c.rarebit", codec="sq4")


def test_a_misspelt_keyword_is_an_error():
    with pytest.raises(TypeError, match="codce"):
        RarebitVectorStore(codce="sq8")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "also", [{"path": "x"}, {"codec": "sq8"}, {"dim": 3}, {"fingerprint": "m"}, {"read_only": True}, {"lock_timeout": 1.0}]
)
def test_a_collection_comes_alone(also: dict[str, Any]):
    with pytest.raises(InputError, match=next(iter(also))):
        RarebitVectorStore(collection=Collection.open(), **also)


def test_read_only(tmp_path: Path):
    path = tmp_path / "a"
    with pytest.raises(CollectionNotFoundError):
        RarebitVectorStore(path, read_only=True)
    RarebitVectorStore(path).add(nodes())
    store = RarebitVectorStore(path, read_only=True)
    assert asked(store, k=1) == ["apple"]
    with pytest.raises(ReadOnlyError):
        store.add(nodes())


# Adding


def test_add_returns_the_node_ids(store: RarebitVectorStore):
    assert RarebitVectorStore(batch_size=2).add(nodes()) == list(TEXTS)
    assert store.add([]) == []


def test_the_same_id_again_replaces(store: RarebitVectorStore):
    store.add([node("sky", text="a grey sky", embedding=[0.0, 1.0, 0.0], metadata={"new": True})])
    (found,) = store.get_nodes(["sky"])
    assert (found.get_content(), found.metadata) == ("a grey sky", {"new": True})
    assert store.client.count() == len(TEXTS)
    assert asked(store, query_embedding=[0.0, 1.0, 0.0], k=1) == ["sky"]
    assert asked(store, mode="text_search", query_str="grey") == ["sky"]
    assert asked(store, mode="text_search", query_str="blue") == ["sea"]


def test_the_last_of_two_with_one_id_is_kept():
    store = RarebitVectorStore()
    assert store.add([node("sky", text="first"), node("sea"), node("sky", text="last")]) == ["sky", "sea", "sky"]
    assert {found.node_id: found.get_content() for found in store.get_nodes()} == {"sky": "last", "sea": TEXTS["sea"][0]}


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        ({"embedding": None}, InputError, r"'sky' has no embedding"),
        ({"embedding": [1.0]}, VectorError, "matrix"),
        ({"embedding": [float("nan"), 0.0, 0.0]}, VectorError, "NaN"),
    ],
)
def test_all_or_none_are_added(bad: dict[str, Any], error: type[Exception], said: str):
    store = RarebitVectorStore()
    with pytest.raises(error, match=said):
        store.add([node("apple"), node("sky", **bad)])
    assert remaining(store) == []


def test_another_dimension_is_refused(store: RarebitVectorStore):
    with pytest.raises(DimensionError):
        store.add([node("sky", embedding=[1.0, 2.0])])
    with pytest.raises(DimensionError):
        asked(store, query_embedding=[1.0])


# Querying


def test_similarities_are_cosines(store: RarebitVectorStore):
    result = store.query(VectorStoreQuery([2.0, 0.2, 0.0], similarity_top_k=5))
    query = np.array([2.0, 0.2, 0.0])
    cosines = {n.node_id: np.dot(n.embedding, query) / np.linalg.norm(n.embedding) / np.linalg.norm(query) for n in nodes()}
    expected = sorted(cosines, key=lambda name: -cosines[name])
    assert result.ids == expected
    assert [found.node_id for found in result.nodes] == expected
    assert result.similarities == pytest.approx([cosines[name] for name in expected], abs=1e-5)


def test_similarity_top_k(store: RarebitVectorStore):
    assert [len(asked(store, k=k)) for k in (0, 1, 2, 5, 99)] == [0, 1, 2, 5, 5]


@pytest.mark.parametrize("mode", ["default", "mmr", "text_search", "sparse", "hybrid"])
def test_an_empty_store_finds_nothing(mode: str):
    result = RarebitVectorStore().query(VectorStoreQuery([1.0, 0.0], query_str="words", mode=Mode(mode), filters=GREEN))
    assert (result.nodes, result.similarities, result.ids) == ([], [], [])


@pytest.mark.parametrize("mode", ["default", "mmr", "text_search", "sparse", "hybrid"])
def test_every_mode_keeps_to_filters_ids_and_documents(store: RarebitVectorStore, mode: str):
    words = {"query_str": "green red blue"}
    assert set(asked(store, mode, k=9, filters=GREEN, **words)) == {"pear", "sea"}
    assert asked(store, mode, k=9, filters=GREEN, doc_ids=["fruit"], **words) == ["pear"]
    assert asked(store, mode, k=9, filters=GREEN, node_ids=["sea", "sky"], **words) == ["sea"]
    assert asked(store, mode, k=9, doc_ids=["nature"], node_ids=["sea"], **words) == []
    assert set(asked(store, mode, k=9, doc_ids=[], node_ids=[], **words)) == set(TEXTS)


@pytest.mark.parametrize("mode", ["svm", "logistic_regression", "linear_regression", "semantic_hybrid"])
def test_other_modes_are_errors(store: RarebitVectorStore, mode: str):
    with pytest.raises(InputError, match=rf"mode='{mode}'.*'text_search'"):
        asked(store, mode)


def test_a_mode_may_be_spelled_as_text(store: RarebitVectorStore):
    query = VectorStoreQuery(query_str="blue", similarity_top_k=9)
    query.mode = "text_search"  # type: ignore[assignment]
    assert set(store.query(query).ids) == {"sky", "sea"}
    query.mode = "nonsense"  # type: ignore[assignment]
    with pytest.raises(InputError, match="nonsense"):
        store.query(query)


@pytest.mark.parametrize(
    ("mode", "missing"),
    [(mode, "query_embedding") for mode in ("default", "mmr", "hybrid")]
    + [(mode, "query_str") for mode in ("text_search", "sparse", "hybrid")],
)
def test_what_a_mode_needs_is_named(store: RarebitVectorStore, mode: str, missing: str):
    with pytest.raises(InputError, match=rf"without {missing}.*{mode}"):
        asked(store, mode, **{missing: None})


def test_an_unknown_query_keyword_is_an_error(store: RarebitVectorStore):
    with pytest.raises(InputError, match="mmr_treshold"):
        store.query(VectorStoreQuery([1.0, 0.0, 0.0]), mmr_treshold=0.1)


@pytest.mark.parametrize("mode", ["text_search", "sparse"])
def test_words(store: RarebitVectorStore, mode: str):
    result = store.query(VectorStoreQuery(query_str="green pears", mode=Mode(mode), similarity_top_k=5))
    assert result.ids == ["pear", "sea"]
    assert result.similarities[0] > result.similarities[1]
    assert asked(store, mode, k=5, sparse_top_k=1) == ["pear"]
    assert asked(store, mode, query_str="") == []


def test_mmr_threshold(store: RarebitVectorStore):
    near = ["apple", "apples", "pear"]
    query = {"query_embedding": [1.0, 0.0, 0.0], "k": 3, "mode": "mmr"}
    assert asked(store, mmr_threshold=1.0, **query) == near
    diverse = asked(store, mmr_threshold=0.0, **query)
    assert diverse[0] == "apple"
    assert "apples" not in diverse
    result = store.query(VectorStoreQuery([1.0, 0.0, 0.0], similarity_top_k=3, mode=Mode.MMR), mmr_threshold=0.0)
    assert result.ids == diverse
    both = VectorStoreQuery([1.0, 0.0, 0.0], 3, mode=Mode.MMR, mmr_threshold=1.0)
    assert store.query(both, mmr_threshold=0.0).ids == near
    few = VectorStoreQuery([1.0, 0.0, 0.0], 3, mode=Mode.MMR, mmr_threshold=0.0)
    assert set(store.query(few, mmr_prefetch_k=3).ids) == set(near)
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="mmr_threshold"):
            asked(store, mmr_threshold=wrong, **query)


def test_a_query_embedding_may_be_an_array(store: RarebitVectorStore):
    assert asked(store, query_embedding=np.array([0.0, 0.0, 1.0]), k=1) == ["sky"]


def test_mmr_has_a_choice_also_among_many():
    store = RarebitVectorStore()
    generator = np.random.default_rng(0)
    store.add([TextNode(id_=str(i), text="t", embedding=generator.normal(size=4).tolist()) for i in range(400)])
    query = [1.0, 0.0, 0.0, 0.0]
    near = store.query(VectorStoreQuery(query, similarity_top_k=60)).ids
    diverse = store.query(VectorStoreQuery(query, similarity_top_k=60, mode=Mode.MMR, mmr_threshold=0.1)).ids
    assert set(near) != set(diverse)


def test_hybrid(store: RarebitVectorStore):
    query = {"query_embedding": [1.0, 0.0, 0.0], "query_str": "blue", "k": 2, "mode": "hybrid"}
    assert asked(store, alpha=1.0, **query) == ["apple", "apples"]
    assert asked(store, alpha=0.0, **query)[0] == "sky"
    fused = store.query(VectorStoreQuery([1.0, 0.0, 0.0], 5, query_str="red apples", mode=Mode.HYBRID))
    assert fused.ids[0] == "apple"
    assert fused.similarities[0] == pytest.approx(2 / 61, abs=0.001)  # first, or nearly, in both rankings
    assert len(asked(store, hybrid_top_k=4, **query)) == 4
    assert len(asked(store, hybrid_top_k=1, **query)) == 1
    with pytest.raises(InputError, match="alpha"):
        asked(store, alpha=1.5, **query)


@pytest.mark.parametrize("mode", ["default", "mmr", "text_search", "sparse", "hybrid"])
def test_embeddings_come_back_when_asked_for(store: RarebitVectorStore, mode: str):
    query = VectorStoreQuery([1.0, 0.1, 0.0], 5, query_str="red green blue", mode=Mode(mode))
    assert all(found.embedding is None for found in store.query(query).nodes)
    result = RarebitVectorStore(collection=store.client, include_embeddings=True).query(query)
    assert len(result.nodes) == 5
    for found in result.nodes:
        wanted = np.array(TEXTS[found.node_id][1])
        assert found.embedding == pytest.approx((wanted / np.linalg.norm(wanted)).tolist(), abs=0.01)


# Getting and deleting


def test_get_nodes(store: RarebitVectorStore):
    assert [found.node_id for found in store.get_nodes(["sky", "nobody", "apple"])] == ["sky", "apple"]
    assert store.get_nodes([]) == []
    assert store.get_nodes([], GREEN) == []
    assert remaining(store) == list(TEXTS)
    assert [found.node_id for found in store.get_nodes(filters=GREEN)] == ["pear", "sea"]
    assert [found.node_id for found in store.get_nodes(["sea", "sky"], GREEN)] == ["sea"]
    assert store.get_nodes(["sky"]) == [node("sky", embedding=None)]


def test_delete_takes_the_nodes_of_a_document(store: RarebitVectorStore):
    store.delete("nobody")
    store.delete("sea")  # a node's id is no document's
    store.delete(None)
    assert remaining(store) == list(TEXTS)
    store.delete("fruit")
    assert remaining(store) == ["sky", "sea"]


def test_delete_takes_a_document_stored_whole(store: RarebitVectorStore):
    store.add([Document(id_="whole", text="all of it", embedding=[1.0, 1.0, 1.0])])
    assert asked(store, doc_ids=["whole"]) == ["whole"]
    store.delete("whole")
    assert remaining(store) == list(TEXTS)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({}, "apple apples pear sky sea"),
        ({"node_ids": []}, "apple apples pear sky sea"),
        ({"node_ids": [], "filters": GREEN}, "apple apples pear sky sea"),
        ({"filters": MetadataFilters(filters=[])}, "apple apples pear sky sea"),
        ({"node_ids": ["sky", "nobody"]}, "apple apples pear sea"),
        ({"filters": GREEN}, "apple apples sky"),
        ({"node_ids": ["sky", "sea"], "filters": GREEN}, "apple apples pear sky"),
        ({"node_ids": ["sky"], "filters": MetadataFilters(filters=[])}, "apple apples pear sea"),
    ],
)
def test_delete_nodes(store: RarebitVectorStore, arguments: dict[str, Any], left: str):
    store.delete_nodes(**arguments)
    assert remaining(store) == left.split()


def test_clear(store: RarebitVectorStore):
    store.clear()
    assert remaining(store) == asked(store) == []
    store.add([node("sky")])
    assert asked(store) == ["sky"]


# Asynchronous twins


async def test_the_async_twins_do_the_same(store: RarebitVectorStore):
    other = RarebitVectorStore()
    assert await other.async_add(nodes()) == list(TEXTS)
    for mode in ("default", "mmr", "text_search", "hybrid"):
        query = VectorStoreQuery([1.0, 0.1, 0.0], 3, query_str="green", mode=Mode(mode), filters=GREEN)
        assert await other.aquery(query, mmr_threshold=0.3) == store.query(query, mmr_threshold=0.3)
    assert await other.aget_nodes() == store.get_nodes()
    assert await other.aget_nodes(["sea", "sky"], GREEN) == store.get_nodes(["sea", "sky"], GREEN)
    await other.adelete("nature")
    assert remaining(other) == ["apple", "apples", "pear", "sea"]
    await other.adelete_nodes(["apple"])
    await other.adelete_nodes(filters=GREEN)
    await other.adelete_nodes()
    assert remaining(other) == ["apples"]
    await other.aclear()
    assert remaining(other) == []


async def test_the_async_twins_leave_the_event_loop_free(store: RarebitVectorStore, monkeypatch: pytest.MonkeyPatch):
    seen = []
    method = Collection.search
    monkeypatch.setattr(Collection, "search", lambda *a, **k: (seen.append(threading.get_ident()), method(*a, **k))[1])
    await asyncio.gather(*(store.aquery(VectorStoreQuery([1.0, 0.0, 0.0])) for _ in range(4)))
    assert len(seen) == 4
    assert threading.get_ident() not in seen


# Pickling and persisting


def test_pickle_in_memory(store: RarebitVectorStore):
    copied = pickle.loads(pickle.dumps(RarebitVectorStore(collection=store.client, include_embeddings=True, batch_size=7)))
    assert (copied.include_embeddings, copied.batch_size) == (True, 7)
    assert remaining(copied) == list(TEXTS)
    copied.clear()
    assert remaining(store) == list(TEXTS)


def test_pickle_of_a_file(tmp_path: Path):
    store = RarebitVectorStore(tmp_path / "a", codec="sq8")
    copied = pickle.loads(pickle.dumps(store))
    store.add(nodes())
    assert remaining(copied) == list(TEXTS)
    assert copied.to_dict() == store.to_dict()


def test_deepcopy(store: RarebitVectorStore):
    copied = copy.deepcopy(store)
    copied.clear()
    assert asked(store, k=1) == ["apple"]


def test_persist_keeps_away_from_the_json_path(store: RarebitVectorStore, tmp_path: Path):
    path = tmp_path / "deep" / "default__vector_store.json"
    store.persist(str(path))
    assert [found.name for found in path.parent.iterdir()] == ["default__vector_store.rarebit"]
    loaded = RarebitVectorStore.from_persist_path(str(path), include_embeddings=True)
    assert loaded.client.path == path.with_suffix(".rarebit")
    assert loaded.include_embeddings
    assert store.get_nodes() == RarebitVectorStore.from_persist_dir(path.parent).get_nodes()
    store.delete("fruit")
    assert remaining(loaded) == list(TEXTS)


def test_persist_to_any_other_path(store: RarebitVectorStore, tmp_path: Path):
    for name in ("v1.2", "v1.3", "plain", "x.rarebit"):
        store.persist(tmp_path / name)
        assert remaining(RarebitVectorStore.from_persist_path(tmp_path / name)) == list(TEXTS)


def test_persist_again_replaces(store: RarebitVectorStore, tmp_path: Path):
    store.persist(tmp_path / "a.json")
    store.delete("fruit")
    store.persist(tmp_path / "a.json")
    assert remaining(RarebitVectorStore.from_persist_path(tmp_path / "a.json")) == ["sky", "sea"]


def test_persist_where_the_store_lives_does_nothing(tmp_path: Path):
    store = RarebitVectorStore(tmp_path / "default__vector_store.rarebit")
    store.add(nodes())
    before = (tmp_path / "default__vector_store.rarebit").stat().st_ino
    store.persist(tmp_path / "default__vector_store.json")
    assert (tmp_path / "default__vector_store.rarebit").stat().st_ino == before
    store.persist(tmp_path / "elsewhere.json")
    assert remaining(RarebitVectorStore.from_persist_path(tmp_path / "elsewhere.json")) == list(TEXTS)


def test_namespaces(store: RarebitVectorStore, tmp_path: Path):
    store.persist(tmp_path / "other__vector_store.json")
    assert remaining(RarebitVectorStore.from_persist_dir(str(tmp_path), namespace="other")) == list(TEXTS)
    with pytest.raises(CollectionNotFoundError, match="default__vector_store"):
        RarebitVectorStore.from_persist_dir(str(tmp_path))
    assert not (tmp_path / "default__vector_store.rarebit").exists()


def test_other_file_systems(store: RarebitVectorStore):
    fs = fsspec.filesystem("memory")
    store.persist("/bucket/default__vector_store.json", fs)
    assert fs.find("/bucket") == ["/bucket/default__vector_store.rarebit"]
    loaded = RarebitVectorStore.from_persist_dir("/bucket", fs=fs)
    assert loaded.client.path is None
    assert loaded.get_nodes() == store.get_nodes()
    assert loaded.query(VectorStoreQuery([1.0, 0.1, 0.0], 3)) == store.query(VectorStoreQuery([1.0, 0.1, 0.0], 3))
    loaded.add([node("sky", text="changed")])
    assert [found.get_content() for found in RarebitVectorStore.from_persist_dir("/bucket", fs=fs).get_nodes(["sky"])] != [
        "changed"
    ]
    with pytest.raises(CollectionNotFoundError, match="nowhere"):
        RarebitVectorStore.from_persist_dir("/nowhere", fs=fs)
    fs.pipe("/bucket/bad.rarebit", b"no collection" * 100)
    with pytest.raises(ForeignFileError, match=r"/bucket/bad\.rarebit"):
        RarebitVectorStore.from_persist_path("/bucket/bad.json", fs=fs)
    with pytest.raises(InputError, match="codec"):
        RarebitVectorStore.from_persist_dir("/bucket", fs=fs, codec="sq8")


def test_the_local_file_system_of_fsspec(store: RarebitVectorStore, tmp_path: Path):
    fs = fsspec.filesystem("file")
    store.persist(f"file://{tmp_path}/a.json", fs)
    loaded = RarebitVectorStore.from_persist_path(f"file://{tmp_path}/a.json", fs)
    assert loaded.client.path == tmp_path / "a.rarebit"
    assert remaining(loaded) == list(TEXTS)
