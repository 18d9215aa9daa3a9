"""Stores of LlamaIndex come over as they are: their rows are those of nodes that were added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import BaseNode, Document, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery
from llama_index.core.vector_stores.utils import node_to_metadata_dict
from support.vectors import clustered

from rarebit.errors import InputError
from rarebit.integrations.llama_index import RarebitVectorStore
from rarebit.integrations.llama_index.importing import source_of
from rarebit.retrievers.importing import LlamaIndexSource

COUNT, DIM = 300, 16
VECTORS = clustered(COUNT, DIM)


class NoEmbedding(BaseEmbedding):
    """Every node has its embedding: whoever asks for another is wrong."""

    def _get_text_embedding(self, text: str) -> list[float]:
        raise AssertionError(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        raise AssertionError(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        raise AssertionError(query)


def special() -> list[BaseNode]:
    source = RelatedNodeInfo(node_id="doc", metadata={"a": [1, None]}, hash="h")
    relations: dict[NodeRelationship, Any] = {
        NodeRelationship.SOURCE: source,
        NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
    }
    return [
        TextNode(text="Ünïcode 文字", id_="full", metadata={"page": 1, "deep": {"a": [1.5]}}, relationships=relations),
        TextNode(text="short", id_="odd", text_template="{content}!", excluded_llm_metadata_keys=["page"], start_char_idx=0),
        IndexNode(text="see there", index_id="other", id_="index"),
        Document(text="a whole document", id_="document", metadata={"year": 2020}),
    ]


def nodes() -> list[BaseNode]:
    made = [*special(), *(TextNode(text=f"text {row}", id_=f"node {row}", metadata={"row": row}) for row in range(4, COUNT))]
    for node, vector in zip(made, VECTORS, strict=True):
        node.embedding = vector.tolist()
    return made


@pytest.fixture
def index() -> VectorStoreIndex:
    return VectorStoreIndex(nodes=nodes(), embed_model=NoEmbedding())


def rows(store: RarebitVectorStore) -> list[tuple[str, str, dict[str, Any]]]:
    return [(row.id, row.text, row.metadata) for row in store.client]


def added() -> RarebitVectorStore:
    store = RarebitVectorStore()
    store.add(nodes())
    return store


def found(store: Any) -> list[list[str]]:
    queries = clustered(20, DIM, seed=3).tolist()
    return [list(store.query(VectorStoreQuery(query_embedding=query, similarity_top_k=5)).ids) for query in queries]


def test_an_index_comes_over_as_if_its_nodes_were_added(index: VectorStoreIndex, tmp_path: Path) -> None:
    context = index.storage_context
    wanted = added()
    for source in (index, context):
        store = RarebitVectorStore.from_store(source)
        assert rows(store) == rows(wanted)
        assert np.allclose(store.client.vectors(["node 7"]), wanted.client.vectors(["node 7"]))
    with RarebitVectorStore.from_store(
        context.vector_store, docstore=context.docstore, path=tmp_path / "s.rarebit", codec="sq8", include_embeddings=True
    ) as store:
        assert rows(store) == rows(wanted)
        assert store.codec == "sq8"
        same = [
            len(set(mine) & set(theirs)) / 5 for mine, theirs in zip(found(store), found(context.vector_store), strict=True)
        ]
        assert np.mean(same) >= 0.97
        store.delete("doc")
        assert "full" not in store.client


def test_what_was_persisted_comes_over_as_the_same_nodes(index: VectorStoreIndex, tmp_path: Path) -> None:
    index.storage_context.persist(tmp_path)
    store, wanted = RarebitVectorStore.from_store(tmp_path), added()
    assert store.get_nodes() == wanted.get_nodes()
    assert [row for row in rows(store) if row[0] != "document"] == [row for row in rows(wanted) if row[0] != "document"]
    assert store.client.get(["document"])[0].metadata["_ref_doc_id"] == "document"


def test_a_node_in_chroma_is_the_same_node(tmp_path: Path) -> None:
    """LlamaIndex's ChromaVectorStore writes flat metadata with the node inside."""

    class Inner:
        name, configuration, metadata = "mine", None, {"hnsw:space": "cosine"}

        def get(self, ids: list[str] | None = None, include: list[str] | None = None) -> dict[str, Any]:
            kept = {node.node_id: node for node in special()}
            chosen = [kept[key] for key in (ids or kept)]
            return {
                "ids": [node.node_id for node in chosen],
                "embeddings": VECTORS[: len(chosen)],
                "documents": [node.get_content() for node in chosen],
                "metadatas": [node_to_metadata_dict(node, remove_text=True, flat_metadata=False) for node in chosen],
            }

    Inner.__module__ = "chromadb.api.models.Collection"

    class ChromaVectorStore:
        client = Inner()

    store = RarebitVectorStore.from_store(ChromaVectorStore())
    assert store.get_nodes() == special()


def test_a_store_without_its_nodes_is_refused(index: VectorStoreIndex) -> None:
    store = index.vector_store
    with pytest.raises(InputError, match=r"keeps no texts, without the docstore.*docstore="):
        RarebitVectorStore.from_store(store)
    half = SimpleDocumentStore()
    half.add_documents(nodes()[:100])
    with pytest.raises(InputError, match=r"200 of the 300 vectors have no node in the docstore \(first: 'node 100'\)"):
        RarebitVectorStore.from_store(store, docstore=half)
    with pytest.raises(InputError, match="got a MockStore"):
        RarebitVectorStore.from_store(type("MockStore", (), {})())


def test_an_import_that_was_cut_off_goes_on(index: VectorStoreIndex, tmp_path: Path) -> None:
    class CutOff:
        name, count, ranked_by = "cut off", COUNT, None

        def batches(self, size: int) -> Any:
            yield next(source_of(index).batches(100))
            raise KeyboardInterrupt

    path = tmp_path / "s.rarebit"
    with pytest.raises(KeyboardInterrupt):
        RarebitVectorStore.from_store(CutOff(), path=path)
    with RarebitVectorStore(path) as store:
        assert store.client.count() == 100
    with RarebitVectorStore.from_store(index, path=path) as store:
        assert rows(store) == rows(added())


def test_an_empty_store_and_one_of_another_dimension(index: VectorStoreIndex) -> None:
    empty = StorageContext.from_defaults()
    assert RarebitVectorStore.from_store(empty).client.count() == 0
    store = RarebitVectorStore()
    store.add([TextNode(text="t", embedding=[1.0, 2.0])])
    with pytest.raises(InputError, match="dimension 16, wanted 2"):
        RarebitVectorStore.from_store(index, collection=store.client)
    assert store.client.count() == 1


def test_the_json_source_reads_what_this_version_writes(index: VectorStoreIndex, tmp_path: Path) -> None:
    index.storage_context.persist(tmp_path)
    simple = SimpleVectorStore.from_persist_dir(str(tmp_path))
    assert LlamaIndexSource(tmp_path).count == len(simple.data.embedding_dict) == COUNT
