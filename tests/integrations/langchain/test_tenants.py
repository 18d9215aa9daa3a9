"""Stores of several tenants over one file: each sees its own documents and what is shared, whatever is asked."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore

from rarebit import Collection
from rarebit.errors import CollectionNotFoundError, InputError
from rarebit.integrations.langchain import RarebitRetriever, RarebitVectorStore

DIRECTIONS = ["east", "north", "west"]


def texts_of(documents: list[Document]) -> list[str]:
    return sorted(document.metadata["by"] for document in documents)


def fill(store: RarebitVectorStore, by: str) -> None:
    """Add the same texts under the same ids as everybody, told apart by their metadata."""
    store.add_texts(DIRECTIONS, [{"by": by, "kind": text} for text in DIRECTIONS], ids=DIRECTIONS)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c.rarebit") as collection:
        yield collection


@pytest.fixture
def everybody(compass: Embeddings, opened: Collection) -> dict[str, RarebitVectorStore]:
    ours = RarebitVectorStore(compass, collection=opened)
    stores = {
        "ours": ours,
        "acme": RarebitVectorStore(compass, collection=opened, tenant="acme"),
        "bolt": ours.for_tenant("bolt"),
        "cog": RarebitVectorStore(compass, collection=opened.tenant("cog")),
    }
    for by, store in stores.items():
        fill(store, by)
    return stores


READS: dict[str, Callable[[RarebitVectorStore], Any]] = {
    "similarity": lambda store: store.similarity_search("east", k=20),
    "by vector": lambda store: store.similarity_search_by_vector([1.0, 0.0], k=20),
    "with score": lambda store: [found for found, _ in store.similarity_search_with_score("east", k=20)],
    "relevance": lambda store: [found for found, _ in store.similarity_search_with_relevance_scores("east", k=20)],
    "mmr": lambda store: store.max_marginal_relevance_search("east", k=20),
    "hybrid": lambda store: store.hybrid_search("east north west", k=20),
    "lexical": lambda store: store.lexical_search("east north west", k=20),
    "ids": lambda store: store.get_by_ids(DIRECTIONS),
    "a function": lambda store: store.similarity_search("east", k=20, filter=lambda document: "kind" in document.metadata),
    "a filter": lambda store: store.similarity_search("east", k=20, filter={"kind": {"$in": DIRECTIONS}}),
    "retriever": lambda store: store.as_retriever(search_kwargs={"k": 20}).invoke("east"),
    "mmr retriever": lambda store: store.as_retriever(search_type="mmr", search_kwargs={"k": 20}).invoke("east"),
    "hybrid retriever": lambda store: RarebitRetriever(store=store, search_type="hybrid", k=20).invoke("east"),
    "lexical retriever": lambda store: RarebitRetriever(store=store, search_type="lexical", k=20).invoke("east north west"),
}
READS_ASYNC: dict[str, Callable[[RarebitVectorStore], Any]] = {
    "similarity": lambda store: store.asimilarity_search("east", k=20),
    "by vector": lambda store: store.asimilarity_search_by_vector([1.0, 0.0], k=20),
    "mmr": lambda store: store.amax_marginal_relevance_search("east", k=20),
    "hybrid": lambda store: store.ahybrid_search("east north west", k=20),
    "lexical": lambda store: store.alexical_search("east north west", k=20),
    "ids": lambda store: store.aget_by_ids(DIRECTIONS),
    "retriever": lambda store: RarebitRetriever(store=store, k=20).ainvoke("east"),
}


@pytest.mark.parametrize("read", READS)
def test_every_read_is_bound(everybody: dict[str, RarebitVectorStore], read: str) -> None:
    for by, store in everybody.items():
        assert texts_of(READS[read](store)) == [by] * 3
    assert READS[read](everybody["ours"].for_tenant("nobody")) == []
    everybody["ours"].collection.share(["east"])
    everybody["acme"].delete(["east"])
    assert texts_of(READS[read](everybody["acme"])) == ["acme"] * 2
    assert texts_of(READS[read](everybody["bolt"])) == ["bolt"] * 3
    assert texts_of(READS[read](everybody["ours"].for_tenant("nobody"))) == ["ours"]


@pytest.mark.parametrize("read", READS_ASYNC)
async def test_every_asynchronous_read_is_bound(everybody: dict[str, RarebitVectorStore], read: str) -> None:
    for by, store in everybody.items():
        assert texts_of(await READS_ASYNC[read](store)) == [by] * 3


async def test_every_write_is_bound(everybody: dict[str, RarebitVectorStore]) -> None:
    acme = everybody["acme"]
    writes: list[Callable[[], Any]] = [
        lambda: acme.add_documents([Document("south", id="east", metadata={"by": "acme"})]),
        lambda: acme.delete(["north"]),
        lambda: acme.delete(filter={"kind": "west"}),
        lambda: acme.delete(filter=lambda document: document.id == "east"),
        lambda: acme.delete(delete_all=True),
    ]
    for write in writes:
        write()
        for by in ("ours", "bolt", "cog"):
            kept = everybody[by].get_by_ids(DIRECTIONS)
            assert [(found.page_content, found.metadata["by"]) for found in kept] == [(text, by) for text in DIRECTIONS]
    assert acme.get_by_ids(DIRECTIONS) == []
    await acme.aadd_texts(["east"], [{"by": "acme"}], ids=["east"])
    await everybody["bolt"].adelete(["east"])
    assert [found.id for found in acme.get_by_ids(DIRECTIONS)] == ["east"]
    assert [found.id for found in everybody["cog"].get_by_ids(DIRECTIONS)] == DIRECTIONS


def test_index_keeps_to_its_tenant(everybody: dict[str, RarebitVectorStore]) -> None:
    for by in ("acme", "bolt"):
        records = InMemoryRecordManager(by)
        records.create_schema()
        documents = [Document(text, metadata={"by": by, "source": text}) for text in ("east", "south")]
        for given, cleanup in ((documents, "full"), (documents[:1], "full"), (documents, "incremental"), ([], "full")):
            index(given, records, everybody[by], cleanup=cleanup, source_id_key="source", key_encoder="sha256")
    for by, store in everybody.items():
        assert texts_of(store.similarity_search("east", k=20)) == [by] * 3


def test_the_name_is_kept(compass: Embeddings, everybody: dict[str, RarebitVectorStore], opened: Collection) -> None:
    assert {by: store.tenant for by, store in everybody.items()} == {"ours": None, "acme": "acme", "bolt": "bolt", "cog": "cog"}
    assert all(store.collection.path == opened.path for store in everybody.values())
    assert everybody["acme"].for_tenant("cog").tenant == "cog"
    assert RarebitVectorStore(compass, collection=opened.tenant("cog"), tenant="cog").tenant == "cog"
    with pytest.raises(InputError, match=r"handle of tenant 'cog'.*tenant='acme'"):
        RarebitVectorStore(compass, collection=opened.tenant("cog"), tenant="acme")
    for name in ("", "\ud800", "x" * 2000):
        with pytest.raises(InputError):
            RarebitVectorStore(compass, collection=opened, tenant=name)
        with pytest.raises(InputError):
            everybody["ours"].for_tenant(name)


def test_a_name_that_is_none_makes_no_file(compass: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        RarebitVectorStore(compass, path=tmp_path / "new.rarebit", tenant="")
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_store_go_with_it(compass: Embeddings) -> None:
    with RarebitVectorStore(compass, score_key="score", ids_from_content=True) as store:
        acme = store.for_tenant("acme")
        acme.add_texts(["east"])
        acme.add_texts(["east"])
        (found,) = acme.similarity_search("east")
        assert found.metadata["score"] == pytest.approx(1.0)


def test_made_from_texts_stores_and_pickles(compass: Embeddings, tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with RarebitVectorStore.from_texts(["east"], compass, ids=["e"], path=path, tenant="acme") as acme:
        assert acme.tenant == "acme"
        assert acme.collection.count() == 0
        copied = pickle.loads(pickle.dumps(acme))
        assert (copied.tenant, [found.id for found in copied.similarity_search("east")]) == ("acme", ["e"])
        copied.close()
    old = InMemoryVectorStore(compass)
    old.add_texts(["north"], ids=["n"])
    with RarebitVectorStore.from_store(old, path=path, tenant="bolt") as bolt:
        assert [found.id for found in bolt.similarity_search("east")] == ["n"]
        assert bolt.collection.tenants() == ["acme", "bolt"]
    in_memory = RarebitVectorStore.from_texts(["east"], compass, ids=["e"], tenant="acme")
    assert pickle.loads(pickle.dumps(in_memory)).get_by_ids(["e"])[0].page_content == "east"


def test_closing_one_closes_all(everybody: dict[str, RarebitVectorStore], opened: Collection) -> None:
    everybody["cog"].close()
    with pytest.raises(Exception, match="closed"):
        opened.count()


def test_what_is_saved_of_a_tenant_is_its_own(
    everybody: dict[str, RarebitVectorStore], compass: Embeddings, tmp_path: Path
) -> None:
    everybody["acme"].collection.share(["west"])
    everybody["acme"].delete(["east"])
    everybody["acme"].save_local(tmp_path / "saved")
    with RarebitVectorStore.load_local(tmp_path / "saved", compass, tenant="acme") as loaded:
        assert texts_of(loaded.similarity_search("east", k=20)) == ["acme"] * 2
        assert loaded.for_tenant("bolt").similarity_search("east", k=20) == []
        assert loaded.collection.stats().count == 2
    assert b"bolt" not in (tmp_path / "saved" / "index.rarebit").read_bytes()
    everybody["ours"].save_local(tmp_path / "saved")
    with RarebitVectorStore.load_local(tmp_path / "saved", compass, tenant="bolt") as loaded:
        assert texts_of(loaded.similarity_search("east", k=20)) == ["bolt"] * 3
    with pytest.raises(CollectionNotFoundError):
        RarebitVectorStore.load_local(tmp_path / "nowhere", compass, tenant="acme")


def test_a_tenants_store_that_lives_there_is_saved_already(compass: Embeddings, tmp_path: Path) -> None:
    with RarebitVectorStore.from_texts(["east"], compass, path=tmp_path / "index.rarebit", tenant="acme") as acme:
        acme.for_tenant("bolt").add_texts(["west"])
        acme.save_local(tmp_path)
        assert len(acme.for_tenant("bolt").similarity_search("east")) == 1
