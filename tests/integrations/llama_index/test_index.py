"""The store inside LlamaIndex: index, retrievers, query engine, pipeline, storage context."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import IndexNode, TextNode, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from rarebit.integrations.llama_index import RarebitVectorStore

DIM = 32


class WordEmbedding(BaseEmbedding):
    """A bag of words: each word has its own direction, so texts that share words are near."""

    def _get_text_embedding(self, text: str) -> list[float]:
        words = text.lower().replace(".", "").split()
        return np.sum([_direction(word) for word in words] or [np.ones(DIM)], axis=0).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class OneChunk(TransformComponent):
    """Cuts each document into one chunk."""

    def __call__(self, nodes: Any, **kwargs: Any) -> Any:
        return [
            TextNode(text=n.get_content(), metadata=n.metadata, relationships={"1": n.as_related_node_info()}) for n in nodes
        ]


def _direction(word: str) -> Any:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=DIM)


EMBEDDING = WordEmbedding()
TEXTS = {"cats": "Cats chase mice at night.", "bread": "Bread needs flour and water.", "stars": "Stars shine at night."}


def documents() -> list[Document]:
    return [Document(text=text, id_=name, metadata={"topic": name}) for name, text in TEXTS.items()]


def index_over(store: RarebitVectorStore) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex.from_documents(documents(), storage_context=context, embed_model=EMBEDDING)


def topics(found: Any) -> list[str]:
    return [each.node.metadata["topic"] for each in found]


@pytest.fixture
def store() -> RarebitVectorStore:
    return RarebitVectorStore()


@pytest.fixture
def index(store: RarebitVectorStore) -> VectorStoreIndex:
    return index_over(store)


def test_the_store_keeps_the_nodes_and_the_index_does_not(index: VectorStoreIndex, store: RarebitVectorStore):
    assert len(store.get_nodes()) == 3
    assert index.docstore.docs == {}
    assert {node.ref_doc_id for node in store.get_nodes()} == set(TEXTS)


def test_retriever(index: VectorStoreIndex):
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("flour and bread")
    assert found.node.get_content() == TEXTS["bread"]
    assert 0 < found.score <= 1
    assert found.node.ref_doc_id == "bread"


async def test_async_retriever(index: VectorStoreIndex):
    retriever = index.as_retriever(similarity_top_k=3)
    assert await retriever.aretrieve("mice at night") == retriever.retrieve("mice at night")
    assert topics(await retriever.aretrieve("mice at night"))[0] == "cats"


@pytest.mark.parametrize("mode", ["default", "mmr", "text_search", "sparse", "hybrid"])
async def test_every_mode_through_a_retriever(index: VectorStoreIndex, mode: str):
    filters = MetadataFilters(filters=[MetadataFilter(key="topic", operator="!=", value="cats")])
    options = {"similarity_top_k": 1, "vector_store_query_mode": mode, "vector_store_kwargs": {"mmr_threshold": 0.9}}
    retriever = index.as_retriever(filters=filters, **options)
    assert topics(retriever.retrieve("at night")) == ["stars"]
    assert topics(await retriever.aretrieve("at night")) == ["stars"]
    assert topics(index.as_retriever(doc_ids=["bread"], **options).retrieve("flour at night")) == ["bread"]


def test_a_retriever_of_given_nodes(index: VectorStoreIndex, store: RarebitVectorStore):
    (wanted,) = [node.node_id for node in store.get_nodes() if node.metadata["topic"] == "bread"]
    assert topics(VectorIndexRetriever(index, node_ids=[wanted]).retrieve("cats")) == ["bread"]


def test_query_engine(index: VectorStoreIndex):
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=2)
    answer = engine.query("stars at night")
    assert TEXTS["stars"] in str(answer)
    assert topics(answer.source_nodes)[0] == "stars"
    assert "_node_content" not in str(answer)


async def test_async_index_and_query_engine(store: RarebitVectorStore):
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=EMBEDDING)
    await index.ainsert_nodes([TextNode(text=text, metadata={"topic": name}) for name, text in TEXTS.items()])
    answer = await index.as_query_engine(llm=MockLLM(), similarity_top_k=1).aquery("bread")
    assert topics(answer.source_nodes) == ["bread"]
    await index.adelete_nodes([answer.source_nodes[0].node_id])
    assert len(store.get_nodes()) == 2


def test_an_empty_index_answers_with_nothing(store: RarebitVectorStore):
    index = VectorStoreIndex.from_vector_store(store, embed_model=EMBEDDING)
    assert index.as_retriever().retrieve("anything") == []
    assert str(index.as_query_engine(llm=MockLLM()).query("anything")) == "Empty Response"


def test_insert_update_and_delete_by_document(index: VectorStoreIndex, store: RarebitVectorStore):
    index.insert(Document(text="Rain falls.", id_="rain", metadata={"topic": "rain"}))
    assert topics(index.as_retriever(similarity_top_k=1).retrieve("rain falls")) == ["rain"]
    index.update_ref_doc(Document(text="Snow falls.", id_="rain", metadata={"topic": "snow"}))
    assert {node.metadata["topic"] for node in store.get_nodes()} == {*TEXTS, "snow"}
    index.delete_ref_doc("rain")
    assert {node.metadata["topic"] for node in store.get_nodes()} == set(TEXTS)
    index.delete_nodes([node.node_id for node in store.get_nodes() if node.metadata["topic"] == "cats"])
    assert {node.metadata["topic"] for node in store.get_nodes()} == {"bread", "stars"}


def test_refresh(store: RarebitVectorStore):
    context = StorageContext.from_defaults(vector_store=store)
    options = {"storage_context": context, "embed_model": EMBEDDING, "store_nodes_override": True}
    index = VectorStoreIndex.from_documents(documents(), **options)
    changed = [*documents()[:2], Document(text="Stars are far away.", id_="stars", metadata={"topic": "stars"})]
    assert index.refresh_ref_docs(changed) == [False, False, True]
    assert sorted(node.get_content() for node in store.get_nodes()) == sorted(doc.text for doc in changed)


@pytest.mark.parametrize(
    "splitter", [[SentenceSplitter()], [OneChunk()], []], ids=["sentences", "one chunk", "whole documents"]
)
@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
def test_pipeline_upserts(store: RarebitVectorStore, splitter: list[TransformComponent], strategy: DocstoreStrategy):
    pipeline = IngestionPipeline(
        transformations=[*splitter, EMBEDDING],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=strategy,
    )
    assert len(pipeline.run(documents=documents())) == 3
    assert pipeline.run(documents=documents()) == []
    changed = [*documents()[:1], Document(text="Stars are far away.", id_="stars", metadata={"topic": "stars"})]
    pipeline.run(documents=changed)
    kept = {node.metadata["topic"]: node.get_content() for node in store.get_nodes()}
    unmentioned = {} if strategy is DocstoreStrategy.UPSERTS_AND_DELETE else {"bread": TEXTS["bread"]}
    assert kept == {"cats": TEXTS["cats"], "stars": "Stars are far away.", **unmentioned}
    assert store.client.count() == len(kept)


async def test_async_pipeline(store: RarebitVectorStore):
    pipeline = IngestionPipeline(transformations=[OneChunk(), EMBEDDING], vector_store=store, docstore=SimpleDocumentStore())
    await pipeline.arun(documents=documents())
    await pipeline.arun(documents=[Document(text="Cats sleep.", id_="cats", metadata={"topic": "cats"})])
    assert {node.get_content() for node in store.get_nodes()} == {"Cats sleep.", TEXTS["bread"], TEXTS["stars"]}


def test_pickled_pipeline(store: RarebitVectorStore):
    pipeline = IngestionPipeline(transformations=[OneChunk(), EMBEDDING], vector_store=store)
    pipeline.run(documents=documents())
    assert len(pickle.loads(pickle.dumps(store)).get_nodes()) == 3


def test_persist_and_load(index: VectorStoreIndex, tmp_path: Path):
    index.storage_context.persist(tmp_path)
    assert not (tmp_path / "default__vector_store.json").exists()
    loaded_store = RarebitVectorStore.from_persist_dir(str(tmp_path))
    context = StorageContext.from_defaults(persist_dir=str(tmp_path), vector_store=loaded_store)
    loaded = load_index_from_storage(context, embed_model=EMBEDDING)
    query = "mice at night"
    expected = index.as_retriever(similarity_top_k=3).retrieve(query)
    assert loaded.as_retriever(similarity_top_k=3).retrieve(query) == expected
    again = VectorStoreIndex.from_vector_store(RarebitVectorStore.from_persist_dir(str(tmp_path)), embed_model=EMBEDDING)
    assert again.as_retriever(similarity_top_k=3).retrieve(query) == expected
    loaded.insert(Document(text="Rain falls.", metadata={"topic": "rain"}))
    loaded.storage_context.persist(tmp_path)
    assert len(RarebitVectorStore.from_persist_dir(str(tmp_path)).get_nodes()) == 4


def test_loading_without_the_store_is_no_silent_empty_index(index: VectorStoreIndex, tmp_path: Path):
    index.storage_context.persist(tmp_path)
    context = StorageContext.from_defaults(persist_dir=str(tmp_path))
    with pytest.raises(KeyError, match="default"):
        load_index_from_storage(context, embed_model=EMBEDDING)


def test_a_file_needs_no_persist(tmp_path: Path):
    index_over(RarebitVectorStore(tmp_path / "docs.rarebit"))
    index = VectorStoreIndex.from_vector_store(RarebitVectorStore(tmp_path / "docs.rarebit"), embed_model=EMBEDDING)
    assert topics(index.as_retriever(similarity_top_k=1).retrieve("flour")) == ["bread"]


def test_index_nodes_lead_to_their_objects(store: RarebitVectorStore):
    target = TextNode(text="the whole story", metadata={"topic": "story"})
    context = StorageContext.from_defaults(vector_store=store)
    pointer = IndexNode(text="a summary", index_id="story", obj=target)
    VectorStoreIndex([], storage_context=context, embed_model=EMBEDDING).insert_nodes([pointer])
    fresh = VectorStoreIndex.from_vector_store(store, embed_model=EMBEDDING)
    (found,) = fresh.as_retriever(similarity_top_k=1).retrieve("summary")
    assert found.node == target


def test_all_kinds_of_nodes_are_searched_by_a_retriever_of_its_own(store: RarebitVectorStore):
    """``as_retriever`` asks for the index and image nodes alone where there are any; the class docstring says so."""
    index = index_over(store)
    index.insert_nodes([IndexNode(text="bread", index_id="i", metadata={"topic": "pointer"})])
    assert topics(index.as_retriever(similarity_top_k=9).retrieve("bread")) == ["pointer"]
    assert set(topics(VectorIndexRetriever(index, similarity_top_k=9).retrieve("bread"))) == {*TEXTS, "pointer"}
