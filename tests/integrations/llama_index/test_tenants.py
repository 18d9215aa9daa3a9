"""Stores of several tenants over one file: each sees its own nodes and what is shared, whatever is asked."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from rarebit import Collection
from rarebit.errors import ClosedError, InputError
from rarebit.integrations.llama_index import RarebitVectorStore

IDS = ["a", "b", "c"]
VECTORS = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]}


def nodes_by(by: str) -> list[TextNode]:
    """Give nodes of the same ids, texts and document as everybody's, told apart by their metadata."""
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="document")}
    return [
        TextNode(id_=key, text=f"word {key}", embedding=VECTORS[key], metadata={"by": by, "key": key}, relationships=source)
        for key in IDS
    ]


def by_of(nodes: Any) -> list[str]:
    return sorted(node.metadata["by"] for node in nodes)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c.rarebit") as collection:
        yield collection


@pytest.fixture
def everybody(opened: Collection) -> dict[str, RarebitVectorStore]:
    ours = RarebitVectorStore(collection=opened)
    stores = {
        "ours": ours,
        "acme": RarebitVectorStore(collection=opened, tenant="acme"),
        "bolt": ours.for_tenant("bolt"),
        "cog": RarebitVectorStore(collection=opened.tenant("cog"), include_embeddings=True),
    }
    for by, store in stores.items():
        store.add(nodes_by(by))
    return stores


def queried(store: RarebitVectorStore, mode: str = "default", **changes: Any) -> Any:
    query = VectorStoreQuery(
        query_embedding=[1.0, 0.1], query_str="word", similarity_top_k=20, mode=VectorStoreQueryMode(mode), **changes
    )
    return store.query(query).nodes


KEYED = MetadataFilters(filters=[MetadataFilter(key="key", value=IDS, operator="in")])
READS: dict[str, Callable[[RarebitVectorStore], Any]] = {
    **{mode: (lambda store, m=mode: queried(store, m)) for mode in ("default", "mmr", "text_search", "sparse", "hybrid")},
    "filters": lambda store: queried(store, filters=KEYED),
    "node ids": lambda store: queried(store, node_ids=IDS),
    "doc ids": lambda store: queried(store, doc_ids=["document"]),
    "get": lambda store: store.get_nodes(IDS),
    "get by filters": lambda store: store.get_nodes(filters=KEYED),
    "get all": lambda store: store.get_nodes(),
    "index": lambda store: [
        found.node
        for found in VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(2))
        .as_retriever(similarity_top_k=20)
        .retrieve("word")
    ],
}


@pytest.mark.parametrize("read", READS)
def test_every_read_is_bound(everybody: dict[str, RarebitVectorStore], read: str) -> None:
    for by, store in everybody.items():
        assert by_of(READS[read](store)) == [by] * 3
    assert READS[read](everybody["ours"].for_tenant("nobody")) == []
    everybody["ours"].client.share(["a"])
    everybody["acme"].delete_nodes(["a"])
    assert by_of(READS[read](everybody["acme"])) == ["acme"] * 2
    assert by_of(READS[read](everybody["bolt"])) == ["bolt"] * 3
    assert by_of(READS[read](everybody["ours"].for_tenant("nobody"))) == ["ours"]


WRITES: dict[str, Callable[[RarebitVectorStore], Any]] = {
    "add": lambda store: store.add([TextNode(id_="a", text="changed", embedding=[1.0, 1.0], metadata={"by": "acme"})]),
    "delete": lambda store: store.delete("document"),
    "delete nodes": lambda store: store.delete_nodes(IDS),
    "delete by filters": lambda store: store.delete_nodes(filters=KEYED),
    "clear": lambda store: store.clear(),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_bound(everybody: dict[str, RarebitVectorStore], write: str) -> None:
    WRITES[write](everybody["acme"])
    assert len(everybody["acme"].get_nodes()) == (3 if write == "add" else 0)
    for by in ("ours", "bolt", "cog"):
        kept = everybody[by].get_nodes(IDS)
        assert [(node.node_id, node.get_content(), node.metadata["by"]) for node in kept] == [
            (key, f"word {key}", by) for key in IDS
        ]


async def test_every_asynchronous_twin_is_bound(everybody: dict[str, RarebitVectorStore]) -> None:
    acme, bolt = everybody["acme"], everybody["bolt"]
    query = VectorStoreQuery(query_embedding=[1.0, 0.1], similarity_top_k=20)
    assert by_of((await acme.aquery(query)).nodes) == ["acme"] * 3
    assert by_of(await bolt.aget_nodes(IDS)) == ["bolt"] * 3
    await acme.adelete_nodes(["a"])
    await acme.adelete("document")
    await acme.async_add(nodes_by("acme")[:1])
    await bolt.aclear()
    assert [node.node_id for node in acme.get_nodes()] == ["a"]
    assert by_of(everybody["cog"].get_nodes()) == ["cog"] * 3


def test_an_index_refreshes_and_deletes_within_its_tenant(everybody: dict[str, RarebitVectorStore]) -> None:
    indexes = {}
    for by in ("acme", "bolt"):
        everybody[by].clear()
        storage = StorageContext.from_defaults(vector_store=everybody[by])
        indexes[by] = VectorStoreIndex([], storage_context=storage, embed_model=MockEmbedding(2))
        indexes[by].insert(Document(text=f"of {by}", doc_id="same", metadata={"by": by}))
    indexes["acme"].delete_ref_doc("same")
    assert everybody["acme"].get_nodes() == []
    assert by_of(everybody["bolt"].get_nodes()) == ["bolt"]


def test_the_name_is_kept(everybody: dict[str, RarebitVectorStore], opened: Collection) -> None:
    assert {by: store.tenant for by, store in everybody.items()} == {"ours": None, "acme": "acme", "bolt": "bolt", "cog": "cog"}
    assert everybody["cog"].for_tenant("acme").include_embeddings
    with pytest.raises(InputError, match=r"handle of tenant 'cog'.*tenant='acme'"):
        RarebitVectorStore(collection=opened.tenant("cog"), tenant="acme")
    with pytest.raises(InputError, match=r"either|one or the other"):
        RarebitVectorStore(collection=opened.tenant("cog"), codec="sq8")
    for name in ("", "\ud800", "x" * 2000):
        with pytest.raises(InputError):
            RarebitVectorStore(collection=opened, tenant=name)
    assert everybody["acme"].client.count() == 3


def test_a_name_that_is_none_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        RarebitVectorStore(tmp_path / "new.rarebit", tenant="")
    assert list(tmp_path.iterdir()) == []


def test_described_and_pickled_it_is_the_same_tenants(everybody: dict[str, RarebitVectorStore]) -> None:
    acme = everybody["acme"]
    for again in (RarebitVectorStore.from_dict(acme.to_dict()), pickle.loads(pickle.dumps(acme))):
        assert again.tenant == "acme"
        assert by_of(again.get_nodes()) == ["acme"] * 3
        again.close()
    of_handle = RarebitVectorStore.from_dict(everybody["cog"].to_dict())
    assert by_of(of_handle.get_nodes()) == ["cog"] * 3
    in_memory = RarebitVectorStore(tenant="acme")
    in_memory.add(nodes_by("acme"))
    assert by_of(pickle.loads(pickle.dumps(in_memory)).get_nodes()) == ["acme"] * 3


def test_made_from_another_store(tmp_path: Path) -> None:
    context = StorageContext.from_defaults(vector_store=SimpleVectorStore())
    VectorStoreIndex(nodes_by("old"), storage_context=context, embed_model=MockEmbedding(2))
    with RarebitVectorStore.from_store(context, path=tmp_path / "c.rarebit", tenant="acme") as acme:
        assert by_of(acme.get_nodes()) == ["old"] * 3
        assert acme.client.count() == 0


def test_what_is_persisted_of_a_tenant_is_its_own(everybody: dict[str, RarebitVectorStore], tmp_path: Path) -> None:
    everybody["ours"].client.share(["a"])
    everybody["acme"].delete_nodes(["c"])
    storage = StorageContext.from_defaults(vector_store=everybody["acme"])
    storage.persist(tmp_path / "storage")
    with RarebitVectorStore.from_persist_dir(tmp_path / "storage", tenant="acme") as loaded:
        assert by_of(loaded.get_nodes()) == ["acme"] * 2
        assert loaded.client.stats().count == 2
        assert loaded.for_tenant("bolt").get_nodes() == []
    assert all(b"bolt" not in path.read_bytes() for path in (tmp_path / "storage").iterdir())
    memory = fsspec.filesystem("memory")
    everybody["acme"].persist("/tenants/acme.rarebit", memory)
    assert (
        by_of(RarebitVectorStore.from_persist_path("/tenants/acme.rarebit", memory, tenant="acme").get_nodes()) == ["acme"] * 2
    )


def test_closing_one_closes_all(everybody: dict[str, RarebitVectorStore], opened: Collection) -> None:
    everybody["cog"].close()
    with pytest.raises(ClosedError):
        opened.count()
