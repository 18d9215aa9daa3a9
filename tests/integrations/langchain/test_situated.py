"""Situated embeddings in LangChain: chunks are grouped by what their metadata says, and the store keeps the lengths."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from langchain_text_splitters import RecursiveCharacterTextSplitter
from support.heads import some_head

from rarebit import Collection
from rarebit.arrays import normalized
from rarebit.errors import FingerprintError, InputError, SettingsError
from rarebit.integrations.langchain import Indexed, RarebitVectorStore, SituatedEmbeddings, index_documents
from rarebit.retrievers.situating import LateChunking, NeighbourWindow, Plain, SituatingHead, TitleHeaders, TwoEncoders

DIM = 16
HEAD = some_head(DIM)


class Counting(Embeddings):
    """Says how many texts it embedded, and has a name."""

    def __init__(self, model_name: str = "counting") -> None:
        self.model_name = model_name
        self.inner = DeterministicFakeEmbedding(size=DIM)
        self.embedded = 0
        self.awaited = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return self.inner.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.inner.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.awaited += 1
        return self.embed_documents(texts)


class Made(SituatedEmbeddings):
    """With a constructor as the standard tests call it."""

    def __init__(self, size: int) -> None:
        super().__init__(DeterministicFakeEmbedding(size=size))


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Made

    @property
    def embedding_model_params(self) -> dict[str, int]:
        return {"size": 6}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return Made

    @property
    def embedding_model_params(self) -> dict[str, int]:
        return {"size": 6}


def chunks(name: str, count: int) -> list[Document]:
    return [
        Document(page_content=f"{name} {number}", metadata={"source": name, "start_index": 10 * number})
        for number in range(count)
    ]


def wanted(*documents: list[Document], head: SituatingHead = HEAD) -> dict[str, np.ndarray]:
    """Situate the chunks of documents by the head itself."""
    found = {}
    for document in documents:
        plain = normalized(np.array(Counting().embed_documents([chunk.page_content for chunk in document]), np.float32))
        texts = [chunk.page_content for chunk in document]
        found.update(zip(texts, head.situate(plain), strict=True))
    return found


def kept(store: RarebitVectorStore) -> dict[str, np.ndarray]:
    rows = list(store.collection)
    return {row.text: vector for row, vector in zip(rows, store.collection.vectors([row.id for row in rows]), strict=True)}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for text, vector in expected.items():
        assert np.allclose(found[text], vector, atol=1e-5), text


def test_a_store_situates_the_chunks_of_each_document_in_their_order() -> None:
    one, other = chunks("one", 7), chunks("other", 3)
    mixed = [*one, *other]
    random.Random(0).shuffle(mixed)
    model = Counting()
    store = RarebitVectorStore(SituatedEmbeddings(model, HEAD), batch_size=4)
    store.add_documents(mixed)
    assert_same(kept(store), wanted(one, other))
    assert model.embedded == 10
    assert store.collection.settings.metric == "inner_product"
    query = np.array(model.embed_query("what?"))
    found = store.similarity_search_with_score("what?", k=10)
    assert [score for _, score in found] == pytest.approx(
        sorted((wanted(one, other)[doc.page_content] @ query for doc, _ in found), reverse=True), abs=1e-4
    )


async def test_awaited_it_does_the_same() -> None:
    one, model = chunks("one", 5), Counting()
    embeddings = SituatedEmbeddings(model, HEAD)
    store = RarebitVectorStore(embeddings)
    await store.aadd_documents(one)
    assert model.awaited == 1
    assert_same(kept(store), wanted(one))
    assert np.allclose(await embeddings.aembed_chunks(one), embeddings.embed_chunks(one))
    assert np.allclose(await embeddings.aembed_documents(["a", "b"]), embeddings.embed_documents(["a", "b"]))
    assert await embeddings.aembed_query("a") == model.embed_query("a")


@pytest.mark.parametrize("counted_anew", [True, False])
def test_pages_of_a_document_come_one_after_the_other(*, counted_anew: bool) -> None:
    book = [
        Document(
            page_content=f"{page} {start}",
            metadata={"source": "book", "page": page, "start_index": start + 7 * page * (not counted_anew)},
        )
        for page in (0, 2, 11)
        for start in (0, 9, 30)
    ]
    mixed = random.Random(1).sample(book, len(book))
    found = SituatedEmbeddings(Counting(), HEAD).embed_chunks(mixed)
    texts = [chunk.page_content for chunk in mixed]
    assert_same(dict(zip(texts, np.array(found), strict=True)), wanted(book))


@pytest.mark.parametrize("places", [[0, -1, 40, -1], [0, 9, 0, 9], [True, False, True, False], [0, 5, "7", 8]])
def test_places_that_do_not_tell_the_order_are_passed_over(places: list[Any]) -> None:
    one = chunks("one", 4)
    for chunk, place in zip(one, places, strict=True):
        chunk.metadata["start_index"] = place
    assert np.allclose(SituatedEmbeddings(Counting(), HEAD).embed_chunks(one), list(wanted(one).values()), atol=1e-5)


@pytest.mark.unchecked
def test_one_key_of_places_is_put_into_a_list() -> None:
    with pytest.raises(InputError, match=r"order_keys='page'.*put it into a list"):
        SituatedEmbeddings(Counting(), HEAD, order_keys="page")


def test_a_model_with_long_vectors_is_ranked_by_direction() -> None:
    class Unequal(Counting):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[6.0, 6.0] if "off" in text else [1.0, 0.0] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [1.0, 0.0]

    for head in (None, SituatingHead(2)):
        store = RarebitVectorStore(SituatedEmbeddings(Unequal(), head))
        store.add_texts(["on topic", "off topic"], [{"source": "a"}, {"source": "b"}])
        assert store.similarity_search("?", k=1)[0].page_content == "on topic"


def test_without_numbers_chunks_are_in_the_order_given() -> None:
    named = [Document(page_content=chunk.page_content, metadata={"book": "one"}) for chunk in chunks("one", 6)]
    embeddings = SituatedEmbeddings(Counting(), HEAD, document_key="book")
    assert np.allclose(embeddings.embed_chunks(named), list(wanted(named).values()), atol=1e-5)
    named[2].metadata["start_index"] = 0  # one of them alone orders nothing
    assert np.allclose(embeddings.embed_chunks(named), list(wanted(named).values()), atol=1e-5)


def test_bare_texts_are_documents_of_one_chunk() -> None:
    embeddings = SituatedEmbeddings(Counting(), HEAD)
    found = embeddings.embed_documents(["a", "b", "a"])
    alone = wanted(*([Document(page_content=text)] for text in "ab"))
    assert np.allclose(found, [alone[text] for text in "aba"], atol=1e-5)
    assert embeddings.embed_documents([]) == []


def test_the_shipped_head_fits_any_dimension_and_is_the_default() -> None:
    one = chunks("one", 4)
    found = SituatedEmbeddings(Counting()).embed_chunks(one)
    shipped = SituatingHead.shipped(DIM)
    assert np.allclose(found, list(wanted(one, head=shipped).values()), atol=1e-5)
    assert not np.allclose(found, list(wanted(one, head=SituatingHead(DIM)).values()), atol=1e-3)


def test_a_chunk_that_names_no_document_is_refused_and_nothing_is_kept() -> None:
    model = Counting()
    store = RarebitVectorStore(SituatedEmbeddings(model, HEAD))
    with pytest.raises(InputError, match=r"chunk 1 has None under the metadata key 'source'.*document_key="):
        store.add_texts(["a", "b"], [{"source": "x"}, {}])
    assert (len(store.collection), model.embedded) == (0, 0)


def test_a_file_knows_that_it_is_situated(tmp_path: Path) -> None:
    path = tmp_path / "docs.rarebit"
    with RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD), path=path) as store:
        store.add_documents(chunks("one", 3))
    with RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD), path=path) as store:
        assert len(store.similarity_search("one 1", k=3)) == 3
    for embeddings in (Counting(), SituatedEmbeddings(Counting()), SituatedEmbeddings(Counting("another"), HEAD)):
        with pytest.raises(FingerprintError):
            RarebitVectorStore(embeddings, path=path)


def test_models_are_told_apart_whatever_the_method_is_called(tmp_path: Path) -> None:
    path, by = tmp_path / "docs.rarebit", TitleHeaders(("title", "section"), joiner=" / ")
    RarebitVectorStore(SituatedEmbeddings(Counting("owner/small"), by), path=path).close()
    with pytest.raises(FingerprintError, match="owner/small"):
        RarebitVectorStore(SituatedEmbeddings(Counting("owner/large"), by), path=path)
    RarebitVectorStore(SituatedEmbeddings(Counting("owner/small"), by), path=path).close()


def test_a_store_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "docs.rarebit"
    with pytest.raises(InputError, match="wanted 'inner_product'"):
        RarebitVectorStore(SituatedEmbeddings(Counting()), path=path, metric="cosine")
    assert not path.exists()
    with RarebitVectorStore(SituatedEmbeddings(Counting()), path=path, metric=None) as store:
        assert store.collection.settings.metric == "inner_product"


def test_a_collection_that_forgets_lengths_is_refused(tmp_path: Path) -> None:
    for make in (
        lambda embeddings: RarebitVectorStore(embeddings, metric="cosine"),
        lambda embeddings: RarebitVectorStore(embeddings, collection=Collection.open()),
    ):
        with pytest.raises(InputError, match="wanted 'inner_product'"):
            make(SituatedEmbeddings(Counting(), HEAD))
    path = tmp_path / "cosine.rarebit"
    RarebitVectorStore(Counting(), path=path).close()
    with pytest.raises(SettingsError):
        RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD), path=path)


def test_lengths_survive_compression() -> None:
    many = [chunk for number in range(80) for chunk in chunks(f"document {number}", 10)]
    store = RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD), codec="trellis", training_minimum=300)
    store.add_documents(many)
    assert store.collection.stats().codec != "float32"
    exact = wanted(*(many[start : start + 10] for start in range(0, 800, 10)))
    for text, vector in kept(store).items():
        assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(exact[text]), rel=0.02)


def test_what_others_do_about_context_is_an_option_of_the_same_component(tmp_path: Path) -> None:
    one = chunks("one", 4)
    for number, (by, read) in enumerate(
        [
            (Plain(), ["one 0", "one 1", "one 2", "one 3"]),
            (TitleHeaders(("source",)), ["one\none 0", "one\none 1", "one\none 2", "one\none 3"]),
            (NeighbourWindow(), ["one 0\none 1", "one 0\none 1\none 2", "one 1\none 2\none 3", "one 2\none 3"]),
        ]
    ):
        model, path = Counting(), tmp_path / f"{number}.rarebit"
        with RarebitVectorStore(SituatedEmbeddings(model, by), path=path) as store:
            assert store.collection.settings.metric == "cosine"
            store.add_documents(one[::-1])
            assert model.embedded == 4
            found = kept(store)
        for chunk, text in zip(one, read, strict=True):
            embedded = np.array(Counting().embed_documents([text])[0])
            assert np.allclose(found[chunk.page_content], embedded / np.linalg.norm(embedded), atol=1e-5)
        others = [Counting()] if number else [SituatedEmbeddings(Counting(), NeighbourWindow())]
        for other in others:
            with pytest.raises(FingerprintError):
                RarebitVectorStore(other, path=path)
    RarebitVectorStore(Counting(), path=tmp_path / "0.rarebit").close()  # plain vectors are the model's own


@pytest.mark.usefixtures("_one_thread")
async def test_encoders_that_read_chunks_in_context_need_no_other_model(folders: dict[str, Path]) -> None:
    tiny_encoders = pytest.importorskip("support.tiny_encoders", reason="encoders need the extra models")
    encoder = tiny_encoders.encoder(folders["bert"], normalize=True)
    book = [
        Document(page_content=text, metadata={"source": "book", "start_index": 9 * place})
        for place, text in enumerate(("bab beck", "dong deck", "full bab"))
    ]
    texts = [chunk.page_content for chunk in book]
    for by, wanted_vectors, metric in (
        (LateChunking(encoder), LateChunking(encoder).embed("\n".join(texts), texts), "cosine"),
        (TwoEncoders(encoder, encoder), TwoEncoders(encoder, encoder).embed_document(texts), "inner_product"),
    ):
        embeddings = SituatedEmbeddings(None, by)
        store = RarebitVectorStore(embeddings)
        assert store.collection.settings.metric == metric
        store.add_documents(book[::-1])
        assert_same(kept(store), dict(zip(texts, wanted_vectors, strict=True)))
        await store.aadd_documents(book)
        assert_same(kept(store), dict(zip(texts, wanted_vectors, strict=True)))
        query = by.embed_queries(["deck dong"])[0]
        assert np.allclose(embeddings.embed_query("deck dong"), query, atol=1e-5)
        assert np.allclose(await embeddings.aembed_query("deck dong"), query, atol=1e-5)
        best = texts[int(np.argmax(wanted_vectors @ query))]
        assert store.similarity_search("deck dong", k=1)[0].page_content == best
        assert np.allclose(
            embeddings.embed_documents(texts[:1]),
            by.embed_joined([texts[:1]])[0] if metric == "cosine" else by.embed_document(texts[:1]),
            atol=1e-5,
        )


def test_a_model_is_asked_for_where_it_is_needed_and_only_there(folders: dict[str, Path]) -> None:
    tiny_encoders = pytest.importorskip("support.tiny_encoders", reason="encoders need the extra models")
    with pytest.raises(InputError, match="got no embedding model"):
        SituatedEmbeddings(None)
    with pytest.raises(InputError, match=r"Counting together with LateChunking.*pass None"):
        SituatedEmbeddings(Counting(), LateChunking(tiny_encoders.encoder(folders["bert"])))


SPLITTER = RecursiveCharacterTextSplitter(chunk_size=20, chunk_overlap=0, add_start_index=True)


def document(name: str, *sentences: str) -> Document:
    return Document(page_content="\n\n".join(sentences), metadata={"source": name, "year": 2020})


def test_documents_are_indexed_whole_and_what_is_the_same_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.integrations.langchain.indexing.CHUNKS_AT_ONCE", 4)
    model = Counting()
    store = RarebitVectorStore(SituatedEmbeddings(model, HEAD))
    library = [document(name, *(f"{name} says {word}." for word in ("one", "two", "six", "ten"))) for name in "abc"]
    assert index_documents(store, iter(library), SPLITTER) == Indexed(3, 0, 0, 0)
    assert_same(kept(store), wanted(*(SPLITTER.split_documents([each]) for each in library)))
    before = model.embedded
    assert index_documents(store, library, SPLITTER) == Indexed(0, 0, 3, 0)
    assert model.embedded == before == 12
    library[1] = document("b", "b says two.", "b says six.", "b says new.", "b says ten.", "b says end.")
    assert index_documents(store, library, SPLITTER) == Indexed(0, 1, 2, 1)
    assert model.embedded == before + 5
    assert_same(kept(store), wanted(*(SPLITTER.split_documents([each]) for each in library)))
    library[0].metadata["year"] = 2021
    assert index_documents(store, library[:1], SPLITTER) == Indexed(0, 1, 0, 0)
    assert {row.metadata["year"] for row in store.collection if row.metadata["source"] == "a"} == {2021}
    assert index_documents(store, [document("b")], SPLITTER) == Indexed(0, 1, 0, 5)
    assert len(store.collection) == 8


def test_an_edited_chunk_that_nearly_duplicates_the_old_one_takes_its_place() -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=200, chunk_overlap=0)
    store = RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD), near_duplicates=0.8)
    text = "A kettle boils water for tea and for coffee, and whistles when it is done. Version"
    shared = document("b", f"{text} one.")
    assert index_documents(store, [document("a", f"{text} one."), shared], splitter) == Indexed(2, 0, 0, 0)
    assert index_documents(store, [document("a", f"{text} two."), shared], splitter) == Indexed(0, 1, 1, 1)
    assert {row.text for row in store.collection} == {f"{text} one.", f"{text} two."}


def test_metadata_that_json_writes_otherwise_are_no_change() -> None:
    store = RarebitVectorStore(Counting())
    tagged = document("a", "one sentence.", "two sentences.")
    tagged.metadata["tags"] = ("x", "y")
    assert index_documents(store, [tagged], SPLITTER) == Indexed(1, 0, 0, 0)
    assert index_documents(store, [tagged], SPLITTER) == Indexed(0, 0, 1, 0)


def test_what_came_before_a_document_that_is_refused_is_kept() -> None:
    store = RarebitVectorStore(Counting())
    with pytest.raises(InputError, match="which is none"):
        index_documents(store, [document("a", "one sentence."), Document(page_content="b"), document("c", "x")], SPLITTER)
    assert [row.text for row in store.collection] == ["one sentence."]


def test_the_same_text_twice_in_a_document_is_two_chunks() -> None:
    store = RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD))
    index_documents(store, [document("a", "the same words.", "the same words.", "other words.")], SPLITTER)
    assert [row.text for row in store.collection] == ["the same words.", "the same words.", "other words."]


def test_indexing_works_without_situating_and_for_tenants() -> None:
    store = RarebitVectorStore(Counting())
    for tenant in ("ann", "bob"):
        assert index_documents(store.for_tenant(tenant), [document("a", "one sentence.", "two sentences.")], SPLITTER).added
    assert index_documents(store.for_tenant("ann"), [document("a", "one sentence.")], SPLITTER) == Indexed(0, 1, 0, 1)
    assert [store.collection.tenant(name).count() for name in ("ann", "bob")] == [1, 2]


def test_documents_that_cannot_be_told_apart_are_refused() -> None:
    store = RarebitVectorStore(SituatedEmbeddings(Counting(), HEAD))
    with pytest.raises(InputError, match=r"called None .* which is none"):
        index_documents(store, [Document(page_content="a")], SPLITTER)
    with pytest.raises(InputError, match=r"called 'a' .* another one has too"):
        index_documents(store, [document("a", "x"), document("a", "y")], SPLITTER)
    assert index_documents(store, [], SPLITTER) == Indexed(0, 0, 0, 0)
