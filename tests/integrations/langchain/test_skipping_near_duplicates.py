"""Near-duplicates that are not stored: what is answered for them, and that they are not embedded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index

from rarebit.errors import SettingsError
from rarebit.integrations.langchain import RarebitVectorStore

KETTLE = "The kettle is on the stove, and the water in it will boil in a quarter of an hour."
CAT = "The cat is out in the garden, and will not come back before the birds have gone to sleep."


class Model(DeterministicFakeEmbedding):
    """Remembers what it was given."""

    seen: list[str] = []  # noqa: RUF012 -- pydantic copies it

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.seen.extend(texts)
        return super().embed_documents(texts)


@pytest.fixture
def model() -> Model:
    return Model(size=8)


@pytest.fixture
def store(model: Model) -> Iterator[RarebitVectorStore]:
    with RarebitVectorStore(model, near_duplicates=0.8) as made:
        yield made


def stored(store: RarebitVectorStore) -> dict[str, str]:
    return {row.id: row.text for row in store.collection}


def test_the_id_of_the_one_that_stands_for_it_comes_back(store: RarebitVectorStore, model: Model) -> None:
    assert store.add_texts([KETTLE, CAT, KETTLE + "!"], ids=["k", "c", "1"]) == ["k", "c", "k"]
    assert store.add_documents([Document(CAT.upper(), id="2"), Document(CAT[:30], id="3")]) == ["c", "3"]
    assert store.add_texts([KETTLE, CAT]) == ["k", "c"]
    assert stored(store) == {"k": KETTLE, "c": CAT, "3": CAT[:30]}
    assert model.seen == [KETTLE, CAT, CAT[:30]]
    assert store.add_texts([CAT], ids=["k"]) == ["k"]
    assert model.seen[3:] == [CAT]


async def test_asynchronously(store: RarebitVectorStore, model: Model) -> None:
    assert await store.aadd_texts([KETTLE, CAT, KETTLE + "!"], ids=["k", "c", "1"]) == ["k", "c", "k"]
    assert await store.aadd_texts([KETTLE, CAT], ids=["2", "3"], near_duplicates="keep") == ["2", "3"]
    assert model.seen == [KETTLE, CAT, KETTLE, CAT]


def test_ids_from_content(model: Model) -> None:
    with RarebitVectorStore(model, near_duplicates=0.8, ids_from_content=True) as store:
        first, again, edited, other = store.add_texts([KETTLE, KETTLE, KETTLE + "!", CAT])
        assert first == again == edited != other
        assert store.add_texts([CAT + "."]) == [other]
        assert list(stored(store)) == [first, other]


def test_keeping_and_skipping_by_the_call(store: RarebitVectorStore, model: Model) -> None:
    store.add_texts([KETTLE, KETTLE], ids=["1", "2"], near_duplicates="keep")
    assert list(stored(store)) == ["1", "2"]
    with RarebitVectorStore(model) as plain, pytest.raises(SettingsError, match="near_duplicates='skip'"):
        plain.add_texts([KETTLE], near_duplicates="skip")


def test_what_another_writer_adds_meanwhile_counts(store: RarebitVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question and the writing, a model embeds: in that time somebody else may have stored the text."""
    embed = Model.embed_documents

    def slow(model: Model, texts: list[str]) -> list[list[float]]:
        store.collection.add([[1.0] * 8], [KETTLE], ids=["other"])
        return embed(model, texts)

    monkeypatch.setattr(Model, "embed_documents", slow)
    assert store.add_texts([KETTLE, CAT, KETTLE + "!"], ids=["1", "2", "3"]) == ["other", "2", "other"]
    assert list(stored(store)) == ["other", "2"]


def test_indexing_edited_documents_keeps_the_new_edition(store: RarebitVectorStore) -> None:
    """``index`` deletes the old edition after it has added the new one, so it must not stand for it."""
    manager = InMemoryRecordManager("test")
    manager.create_schema()
    for text in (KETTLE, KETTLE + " Soon."):
        documents = [Document(text, metadata={"source": "a"})]
        keep = {"near_duplicates": "keep"}
        index(
            documents, manager, store, cleanup="incremental", source_id_key="source", key_encoder="sha256", upsert_kwargs=keep
        )
        assert list(stored(store).values()) == [text]


def test_from_texts_and_opened_again(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with RarebitVectorStore.from_texts([KETTLE, CAT, KETTLE], model, path=path, near_duplicates=0.9) as store:
        assert len(store.collection) == 2
    with RarebitVectorStore(model, path=path) as store:
        assert store.collection.settings.near_duplicates == 0.9
    with pytest.raises(SettingsError, match="near_duplicates"):
        RarebitVectorStore(model, path=path, near_duplicates=0.5)
