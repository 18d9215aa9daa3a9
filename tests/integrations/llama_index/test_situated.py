"""Situated nodes in LlamaIndex: in pipelines with caches, upserts, threads and processes, and in indexes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from support.hashed_embedding import DIM, Hashed, Sentences
from support.heads import some_head

from rarebit.errors import FingerprintError, InputError
from rarebit.integrations.llama_index import RarebitVectorStore, SituatedEmbedding, SituateNodes
from rarebit.retrievers.situating import LateChunking, NeighbourWindow, Plain, SituatingHead, TitleHeaders

HEAD = some_head(DIM)


SPLITTER = SentenceSplitter(chunk_size=24, chunk_overlap=0)


def document(name: str, count: int = 5) -> Document:
    text = " ".join(f"Sentence {number} of {name} says this and nothing else at all." for number in range(count))
    return Document(text=text, id_=name, metadata={"topic": name})


DOCUMENTS = [document("cats"), document("bread", 3), document("stars", 7)]


def wanted(*documents: Document, head: SituatingHead = HEAD) -> dict[str, np.ndarray]:
    """Situate the chunks of documents by the head itself: text -> vector."""
    found, model = {}, Hashed()
    for each in documents:
        nodes = SPLITTER([each])
        plain = [model.get_text_embedding(node.get_content(metadata_mode=MetadataMode.EMBED)) for node in nodes]
        found.update(zip([node.get_content() for node in nodes], head.situate(plain), strict=True))
    assert len(found) > len(documents)
    return found


def of_nodes(nodes: Sequence[BaseNode]) -> dict[str, Any]:
    return {node.get_content(): node.embedding for node in nodes}


def of_store(store: RarebitVectorStore) -> dict[str, Any]:
    rows = list(store.client)
    return dict(zip([row.text for row in rows], store.client.vectors([row.id for row in rows]), strict=True))


def assert_same(found: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for text, vector in expected.items():
        assert np.allclose(found[text], vector, atol=1e-5), text


def test_nodes_are_grouped_by_their_document_and_put_in_order() -> None:
    model = Hashed()
    nodes = SPLITTER(DOCUMENTS)
    random.Random(1).shuffle(nodes)
    assert_same(of_nodes(SituateNodes(model, HEAD)(nodes)), wanted(*DOCUMENTS))
    assert model.embedded == len(nodes)


def test_without_places_nodes_are_in_the_order_given() -> None:
    nodes = SPLITTER([DOCUMENTS[0]])
    for node in nodes[1:]:
        node.start_char_idx = None
    assert_same(of_nodes(SituateNodes(Hashed(), HEAD)(nodes)), wanted(DOCUMENTS[0]))


def test_nodes_without_a_document_stand_alone() -> None:
    nodes = [TextNode(text="a"), TextNode(text="b"), TextNode(text="c", id_="x")]
    situated = SituateNodes(Hashed(), HEAD)(nodes)
    for node in situated:
        assert np.allclose(node.embedding, HEAD.situate([Hashed().get_text_embedding(node.get_content())])[0], atol=1e-5)
    assert SituateNodes(Hashed(), HEAD)([]) == []


def pipeline(model: Hashed, store: RarebitVectorStore, **settings: Any) -> IngestionPipeline:
    return IngestionPipeline(transformations=[SPLITTER, SituateNodes(model, HEAD)], vector_store=store, **settings)


def made() -> RarebitVectorStore:
    return RarebitVectorStore(metric="inner_product")


def test_a_pipeline_fills_a_store_and_its_cache_saves_the_work() -> None:
    store, model, cache = made(), Hashed(), IngestionCache()
    pipeline(model, store, cache=cache).run(documents=DOCUMENTS)
    assert_same(of_store(store), wanted(*DOCUMENTS))
    before, second = model.embedded, made()
    pipeline(model, second, cache=cache).run(documents=DOCUMENTS)
    assert model.embedded == before
    assert_same(of_store(second), wanted(*DOCUMENTS))


def test_a_cache_tells_heads_apart() -> None:
    cache, model = IngestionCache(), Hashed()
    for head in (HEAD, some_head(DIM, seed=1), None):
        run = IngestionPipeline(transformations=[SPLITTER, SituateNodes(model, head)], cache=cache)
        assert_same(of_nodes(run.run(documents=DOCUMENTS)), wanted(*DOCUMENTS, head=head or SituatingHead.shipped(DIM)))


async def test_an_awaited_pipeline() -> None:
    store, model = made(), Hashed()
    await pipeline(model, store).arun(documents=DOCUMENTS)
    assert model.awaited == len(store.client)
    assert_same(of_store(store), wanted(*DOCUMENTS))


def test_a_pipeline_with_workers(tmp_path: Path) -> None:
    store = RarebitVectorStore(tmp_path / "docs.rarebit", metric="inner_product")
    nodes = IngestionPipeline(transformations=[Sentences(), SituateNodes(Hashed(), HEAD)]).run(
        documents=DOCUMENTS, num_workers=2
    )
    store.add(list(nodes))
    assert_same(of_store(store), wanted(*DOCUMENTS))


def test_an_upsert_situates_the_changed_document_alone() -> None:
    store, model = made(), Hashed()
    run = pipeline(model, store, docstore=SimpleDocumentStore(), docstore_strategy=DocstoreStrategy.UPSERTS)
    run.run(documents=DOCUMENTS)
    before, changed = model.embedded, document("bread", 4)
    run.run(documents=[DOCUMENTS[0], changed, DOCUMENTS[2]])
    assert model.embedded - before == len(SPLITTER([changed]))
    assert_same(of_store(store), wanted(DOCUMENTS[0], changed, DOCUMENTS[2]))


def test_an_index_over_situated_nodes() -> None:
    store, model = made(), Hashed()
    nodes = SituateNodes(model, HEAD)(SPLITTER(DOCUMENTS))
    embedded = model.embedded
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=SituatedEmbedding(model, HEAD))
    assert model.embedded == embedded  # what has an embedding is not embedded again
    found = index.as_retriever(similarity_top_k=4).retrieve("what?")
    query = np.array(Hashed().get_query_embedding("what?"))
    scores = {text: float(vector @ query) for text, vector in wanted(*DOCUMENTS).items()}
    best = sorted(scores, key=lambda text: -scores[text])[:4]
    assert [node.get_content() for node in found] == best
    assert [node.score for node in found] == pytest.approx([scores[text] for text in best], abs=1e-4)


def test_a_store_that_forgets_lengths_is_refused_and_a_collection_knows_what_filled_it() -> None:
    nodes = list(SituateNodes(Hashed(model_name="hashed"), HEAD)(SPLITTER(DOCUMENTS)))
    cosine = RarebitVectorStore()
    with pytest.raises(InputError, match="wanted 'inner_product'"):
        cosine.add(nodes)
    assert len(cosine.client) == 0
    store = made()
    store.add(nodes)
    assert store.client.settings.fingerprint.name == f"hashed situated by {HEAD.fingerprint}"
    assert [node.metadata for node in store.get_nodes([nodes[0].node_id])] == [{"topic": "cats"}]
    with pytest.raises(FingerprintError):
        store.add(list(SituateNodes(Hashed(model_name="another"), HEAD)(SPLITTER(DOCUMENTS))))
    shown = nodes[0].get_content(metadata_mode=MetadataMode.LLM) + nodes[0].get_content(metadata_mode=MetadataMode.EMBED)
    assert "situated" not in shown
    RarebitVectorStore().add(list(SituateNodes(Hashed(), Plain())(SPLITTER(DOCUMENTS))))


def test_pickled_components_situate_as_before() -> None:
    nodes = SPLITTER(DOCUMENTS)
    for by in (HEAD, Plain(), NeighbourWindow(2)):
        step, model = (
            pickle.loads(pickle.dumps(part)) for part in (SituateNodes(Hashed(), by), SituatedEmbedding(Hashed(), by))
        )
        found = of_nodes(step([node.model_copy(deep=True) for node in nodes]))
        assert_same(found, of_nodes(SituateNodes(Hashed(), by)(nodes)))
        assert np.allclose(model.get_text_embedding("a"), SituatedEmbedding(Hashed(), by).get_text_embedding("a"))


async def test_the_embedding_model_of_an_index() -> None:
    model, plain = SituatedEmbedding(Hashed(model_name="hashed"), HEAD), Hashed()
    assert model.get_query_embedding("a") == plain.get_query_embedding("a") == await model.aget_query_embedding("a")
    alone = HEAD.situate([plain.get_text_embedding("a")])[0]
    for found in (
        model.get_text_embedding("a"),
        model.get_text_embedding_batch(["b", "a"])[1],
        await model.aget_text_embedding("a"),
        (await model.aget_text_embedding_batch(["b", "a"]))[1],
    ):
        assert np.allclose(found, alone, atol=1e-5)
    assert model.model_name == f"hashed situated by {HEAD.fingerprint}"
    assert SituatedEmbedding(Hashed()).model_name == "unknown"


def test_a_saved_component_knows_its_head() -> None:
    saved = SituateNodes(Hashed(), HEAD).to_dict()
    assert saved["class_name"] == "SituateNodes"
    assert saved["situated_by"] == HEAD.fingerprint
    with pytest.raises(InputError, match=f"wanted '{HEAD.fingerprint}'.*by="):
        SituateNodes(Hashed(), situated_by=saved["situated_by"])
    assert SituateNodes(Hashed(), HEAD, situated_by=saved["situated_by"]).situated_by == HEAD.fingerprint


def test_what_others_do_about_context_is_an_option_of_the_same_component() -> None:
    plain, cache = Hashed(), IngestionCache()
    texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in SPLITTER(DOCUMENTS[:1])]
    last = len(texts) - 1
    for by, read in (
        (Plain(), texts),
        (TitleHeaders(("topic",)), [f"cats\n{text}" for text in texts]),
        (NeighbourWindow(), ["\n".join(texts[max(0, place - 1) : place + 2]) for place in range(last + 1)]),
    ):
        run = IngestionPipeline(transformations=[SPLITTER, SituateNodes(Hashed(), by)], cache=cache)
        nodes = run.run(documents=DOCUMENTS[:1])
        assert np.allclose([node.embedding for node in nodes], plain.get_text_embedding_batch(read), atol=1e-6)


@pytest.mark.usefixtures("_one_thread")
async def test_an_encoder_that_reads_nodes_in_context_needs_no_other_model(folders: dict[str, Path]) -> None:
    tiny_encoders = pytest.importorskip("support.tiny_encoders", reason="encoders need the extra models")
    late = LateChunking(tiny_encoders.encoder(folders["bert"], normalize=True))
    nodes = SPLITTER([Document(text=DOCUMENTS[0].text, id_="cats")])
    texts = [node.get_content() for node in nodes]
    wanted_vectors = late.embed_joined([texts])[0]
    for found in (SituateNodes(None, late)(list(nodes)), await SituateNodes(None, late).acall(list(nodes))):
        assert np.allclose([node.embedding for node in found], wanted_vectors, atol=1e-5)
    model = SituatedEmbedding(None, late)
    query = late.embed_queries(["what?"])[0]
    assert np.allclose(model.get_query_embedding("what?"), query, atol=1e-5)
    assert np.allclose(await model.aget_query_embedding("what?"), query, atol=1e-5)
    with pytest.raises(InputError, match=r"Hashed together with LateChunking.*pass None"):
        SituatedEmbedding(Hashed(), late)
    with pytest.raises(InputError, match="got no embedding model"):
        SituateNodes(None)
