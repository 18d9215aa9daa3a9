"""Stores of LangChain come over as they are: the same documents, found for the same questions."""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from support.vectors import clustered

from rarebit import Collection
from rarebit.errors import FingerprintError, InputError, SettingsError, TransferWarning, VectorError
from rarebit.integrations.langchain import RarebitVectorStore
from rarebit.integrations.langchain.importing import source_of
from rarebit.retrievers.importing import NumpySource, Rows

COUNT, DIM, QUERIES = 400, 16, 20
VECTORS, ASKED = clustered(COUNT, DIM), clustered(QUERIES, DIM, seed=7)
TEXTS = [f"text {row}" for row in range(COUNT)]
METADATAS = [{"row": row} for row in range(COUNT)]


class Numbered(Embeddings):
    """Knows its texts and questions by their number; counts what it is asked."""

    def __init__(self, model_name: str | None = "numbered") -> None:
        self.model_name = model_name
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return [VECTORS[int(text.split()[1])].tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return ASKED[int(text.split()[1])].tolist()


class Docstore:
    """As langchain-community's InMemoryDocstore: a missing document is answered with a message."""

    def __init__(self) -> None:
        self._dict: dict[str, Document] = {}

    def search(self, search: str) -> str | Document:
        return self._dict.get(search, f"ID {search} not found.")


class FAISS:
    """What langchain-community's FAISS has and does, as far as an import and a comparison need it."""

    def __init__(self, embedding: Embeddings, index: Any, *, normalize: bool = False) -> None:
        self.embeddings, self.index, self._normalize_L2 = embedding, index, normalize
        self.docstore, self.index_to_docstore_id = Docstore(), dict[int, str]()

    def add(self, texts: list[str], metadatas: list[dict[str, Any]], vectors: np.ndarray = VECTORS) -> FAISS:
        vectors = np.array(vectors, dtype=np.float32)
        if self._normalize_L2:
            faiss.normalize_L2(vectors)
        self.index.add(vectors)
        for place, (text, metadata) in enumerate(zip(texts, metadatas, strict=True)):
            self.index_to_docstore_id[place] = f"id {place}"
            self.docstore._dict[f"id {place}"] = Document(text, metadata=metadata)
        return self

    def delete(self, places: list[int]) -> None:
        self.index.remove_ids(np.array(places, dtype=np.int64))
        kept = [key for place, key in sorted(self.index_to_docstore_id.items()) if place not in places]
        self.index_to_docstore_id = dict(enumerate(kept))

    def found(self, question: str, k: int) -> list[str]:
        _, places = self.index.search(np.array([self.embeddings.embed_query(question)], dtype=np.float32), k)
        return [self.docstore._dict[self.index_to_docstore_id[place]].page_content for place in places[0]]


def shared(found: list[list[str]], wanted: list[list[str]]) -> float:
    return float(np.mean([len(set(mine) & set(theirs)) / len(theirs) for mine, theirs in zip(found, wanted, strict=True)]))


def answers(store: Any, k: int = 5) -> list[list[str]]:
    return [[each.page_content for each in store.similarity_search(f"question {n}", k=k)] for n in range(QUERIES)]


@pytest.fixture
def in_memory() -> InMemoryVectorStore:
    store = InMemoryVectorStore(Numbered())
    store.add_texts(TEXTS, METADATAS, ids=[f"id {row}" for row in range(COUNT)])
    return store


def test_an_in_memory_store_comes_over(in_memory: InMemoryVectorStore, tmp_path: Path) -> None:
    model: Any = in_memory.embedding
    with RarebitVectorStore.from_store(in_memory, path=tmp_path / "s.rarebit", codec="sq8") as store:
        assert model.embedded == COUNT
        assert store.embeddings is model
        assert store.collection.settings.codec == "sq8"
        assert store.collection.settings.fingerprint.name == "numbered"
        assert store.get_by_ids(["id 3", "id 399"]) == in_memory.get_by_ids(["id 3", "id 399"])
        assert store.collection.count() == COUNT
        assert shared(answers(store), answers(in_memory)) >= 0.97
    with RarebitVectorStore.from_store(in_memory, path=tmp_path / "s.rarebit") as store:
        assert store.collection.count() == COUNT
        assert store.collection.stats().disk


def index_of(spelling: str, metric: int = faiss.METRIC_L2) -> Any:
    index = faiss.index_factory(DIM, spelling, metric)
    if not index.is_trained:
        index.train(VECTORS)
    if spelling.startswith("IVF"):
        index.nprobe = 8
    return index


@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT], ids=["l2", "inner product"])
@pytest.mark.parametrize("spelling", ["Flat", "IVF8,Flat", "HNSW16,Flat", "SQfp16"])
def test_a_faiss_store_comes_over(spelling: str, metric: int) -> None:
    faiss_store = FAISS(Numbered(), index_of(spelling, metric)).add(TEXTS, METADATAS)
    store = RarebitVectorStore.from_store(faiss_store)
    assert [(row.id, row.text, row.metadata) for row in store.collection] == [
        (f"id {row}", f"text {row}", {"row": row}) for row in range(COUNT)
    ]
    cosines = (store.collection.vectors([f"id {row}" for row in range(COUNT)]) * VECTORS).sum(axis=1)
    assert cosines.min() > 0.999
    assert shared(answers(store), [faiss_store.found(f"question {n}", 5) for n in range(QUERIES)]) >= 0.95


def test_an_inverted_file_is_left_as_it_was() -> None:
    index = index_of("IVF8,Flat")
    store = FAISS(Numbered(), index).add(TEXTS, METADATAS)
    RarebitVectorStore.from_store(store)
    assert index.direct_map.type == 0
    index.make_direct_map()
    kept = index.direct_map.type
    assert RarebitVectorStore.from_store(store).collection.count() == COUNT
    assert index.direct_map.type == kept != 0


def test_after_deletions_texts_and_vectors_still_belong_together() -> None:
    faiss_store = FAISS(Numbered(), index_of("Flat")).add(TEXTS, METADATAS)
    faiss_store.delete(list(range(10, 200)))
    store = RarebitVectorStore.from_store(faiss_store)
    ids = [row.id for row in store.collection]
    assert ids == [f"id {row}" for row in (*range(10), *range(200, COUNT))]
    rows = [int(key.split()[1]) for key in ids]
    assert (store.collection.vectors(ids) * VECTORS[rows]).sum(axis=1).min() > 0.999


def test_l2_over_vectors_of_several_lengths_is_warned_of() -> None:
    lengths = np.linspace(1, 3, COUNT)[:, np.newaxis]
    plain = FAISS(Numbered(), index_of("Flat")).add(TEXTS, METADATAS, VECTORS * lengths)
    with pytest.warns(TransferWarning, match=r"FAISS ranks by l2, and its vectors differ in length"):
        RarebitVectorStore.from_store(plain)
    normal = FAISS(Numbered(), index_of("Flat"), normalize=True).add(TEXTS, METADATAS, VECTORS * lengths)
    inner = FAISS(Numbered(), index_of("Flat", faiss.METRIC_INNER_PRODUCT)).add(TEXTS, METADATAS, VECTORS * lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RarebitVectorStore.from_store(normal)
        store = RarebitVectorStore.from_store(inner, metric="inner_product")
    assert shared(answers(store), [inner.found(f"question {n}", 5) for n in range(QUERIES)]) >= 0.95


def without_ids(store: FAISS) -> None:
    del store.index_to_docstore_id[0]


def without_document(store: FAISS) -> None:
    del store.docstore._dict["id 7"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [(without_ids, "400 vectors and 399 ids"), (without_document, "the docstore has no document 'id 7'")],
)
def test_a_faiss_store_that_contradicts_itself(harm: Any, message: str) -> None:
    store = FAISS(Numbered(), index_of("Flat")).add(TEXTS, METADATAS)
    harm(store)
    with pytest.raises(InputError, match=message):
        RarebitVectorStore.from_store(store)


def test_an_index_that_gives_no_vectors_back() -> None:
    inner = faiss.IndexFlatL2(DIM)
    index = faiss.IndexIDMap(inner)
    index.add_with_ids(VECTORS, np.arange(COUNT))
    store = FAISS(Numbered(), faiss.IndexFlatL2(DIM)).add(TEXTS, METADATAS)
    store.index = index
    with pytest.raises(InputError, match=r"FAISS index \(IndexIDMap\) does not give its vectors back"):
        RarebitVectorStore.from_store(store)
    store.index = faiss.IndexBinaryFlat(DIM)
    with pytest.raises(InputError, match="IndexBinaryFlat"):
        RarebitVectorStore.from_store(store)


class Chroma:
    """As langchain-chroma's: the collection behind an underscore."""

    def __init__(self, collection: Any) -> None:
        self._collection, self.embeddings = collection, Numbered()


class ChromaCollection:
    name, configuration, metadata = "mine", None, {"hnsw:space": "cosine"}

    def get(self, ids: list[str] | None = None, include: list[str] | None = None) -> dict[str, Any]:
        return {
            "ids": TEXTS if ids is None else ids,
            "embeddings": [VECTORS[int(key.split()[1])] for key in ids or []],
            "documents": ids,
            "metadatas": [None] * len(ids or []),
        }


ChromaCollection.__module__ = "chromadb.api.models.Collection"


def test_a_chroma_store_comes_over() -> None:
    store = RarebitVectorStore.from_store(Chroma(ChromaCollection()))
    assert [row.text for row in store.collection] == TEXTS
    assert store.similarity_search_by_vector(VECTORS[5].tolist(), k=1)[0].id == "text 5"


def test_an_import_that_was_cut_off_goes_on(tmp_path: Path, in_memory: InMemoryVectorStore) -> None:
    class CutOff:
        name, count, ranked_by = "cut off", COUNT, None

        def batches(self, size: int) -> Any:
            yield next(source_of(in_memory).batches(150))
            raise KeyboardInterrupt

    path = tmp_path / "s.rarebit"
    with pytest.raises(KeyboardInterrupt):
        RarebitVectorStore.from_store(CutOff(), Numbered(), path=path)
    with Collection.open(path, read_only=True) as collection:
        assert collection.count() == 150
    with RarebitVectorStore.from_store(in_memory, path=path) as store:
        assert store.collection.count() == COUNT


def test_what_is_there_is_kept_unless_it_is_to_be_overwritten(in_memory: InMemoryVectorStore) -> None:
    collection = Collection.open()
    collection.add(VECTORS[:1], texts=["mine"], ids=["id 0"])
    with pytest.warns(TransferWarning, match="1 of 400 rows"):
        RarebitVectorStore.from_store(in_memory, collection=collection)
    assert collection.get(["id 0"])[0].text == "mine"
    RarebitVectorStore.from_store(in_memory, collection=collection, overwrite=True)
    assert collection.get(["id 0"])[0].text == "text 0"


def test_dates_come_over_as_iso_and_a_bad_row_is_named() -> None:
    source = InMemoryVectorStore(Numbered())
    source.add_texts(["text 1"], [{"day": dt.date(2020, 1, 2), "score": np.float32(0.5)}], ids=["a"])
    store = RarebitVectorStore.from_store(source)
    assert store.get_by_ids(["a"])[0].metadata == {"day": "2020-01-02", "score": 0.5}
    source.add_texts(["text 2"], [{"raw": b"bytes"}], ids=["b"])
    with pytest.raises(InputError, match=r"InMemoryVectorStore: row 'b' has the metadata 'raw'"):
        RarebitVectorStore.from_store(source)
    source.store["b"]["vector"] = []
    with pytest.raises(VectorError):
        RarebitVectorStore.from_store(source)


def test_the_model_must_be_the_one_that_filled_the_source(in_memory: InMemoryVectorStore, tmp_path: Path) -> None:
    with pytest.raises(FingerprintError, match=r"name: 'other' instead of 'numbered'"):
        RarebitVectorStore.from_store(in_memory, Numbered("other"))
    mine = Numbered(None)
    assert RarebitVectorStore.from_store(in_memory, mine).embeddings is mine
    bare = NumpySource(VECTORS, TEXTS)
    with pytest.raises(InputError, match=r"got no embedding, and the NumpySource has none"):
        RarebitVectorStore.from_store(bare)
    assert RarebitVectorStore.from_store(bare, mine).collection.count() == COUNT
    RarebitVectorStore.from_store(in_memory, path=tmp_path / "s.rarebit").close()
    with pytest.raises(SettingsError):
        RarebitVectorStore.from_store(in_memory, path=tmp_path / "s.rarebit", metric="inner_product")


def test_what_is_no_store() -> None:
    with pytest.raises(InputError, match="got a dict"):
        RarebitVectorStore.from_store({}, Numbered())
    with pytest.raises(InputError, match="got a RarebitVectorStore"):
        RarebitVectorStore.from_store(RarebitVectorStore(Numbered()))


def test_the_progress_bar(in_memory: InMemoryVectorStore, capsys: pytest.CaptureFixture[str]) -> None:
    RarebitVectorStore.from_store(in_memory, progress=True)
    assert "importing InMemoryVectorStore" in capsys.readouterr().err
    assert isinstance(next(source_of(in_memory).batches(3)), Rows)
