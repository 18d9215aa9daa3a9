"""LangChain's index() keeps a store in step with a source, in every cleanup mode."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from rarebit.integrations.langchain import RarebitVectorStore

MODES = [None, "incremental", "full", "scoped_full"]
CHANGED = {"incremental": 1, "full": 2, "scoped_full": 1}
"""Mode -> documents deleted when one of two sources has changed and the other is not given again."""


def document(text: str, source: str) -> Document:
    return Document(text, metadata={"source": source})


FIRST = [document("east", "a"), document("west", "a"), document("north", "b")]
SECOND = [document("east", "a"), document("south", "a")]


class Indexing:
    """The same call, awaited or not."""

    def __init__(self, store: RarebitVectorStore, *, awaited: bool) -> None:
        self._store = store
        self._records = InMemoryRecordManager("test")
        self._records.create_schema()
        self._awaited = awaited

    async def __call__(self, documents: list[Document], **kwargs: Any) -> tuple[int, int, int, int]:
        arguments: dict[str, Any] = {"source_id_key": "source", "key_encoder": "sha256", **kwargs}
        if self._awaited:
            result = await aindex(documents, self._records, self._store, **arguments)
        else:
            result = index(documents, self._records, self._store, **arguments)
        return result["num_added"], result["num_updated"], result["num_skipped"], result["num_deleted"]


@pytest.fixture(params=[False, True], ids=["index", "aindex"])
def indexing(request: pytest.FixtureRequest, empty: RarebitVectorStore) -> Indexing:
    return Indexing(empty, awaited=request.param)


@pytest.fixture
def empty(compass: Embeddings) -> RarebitVectorStore:
    return RarebitVectorStore(compass)


def texts_in(store: RarebitVectorStore) -> list[str]:
    return sorted(row.text for row in store.collection)


@pytest.mark.parametrize("cleanup", MODES)
async def test_the_same_again_changes_nothing(indexing: Indexing, empty: RarebitVectorStore, cleanup: Any) -> None:
    assert await indexing(FIRST, cleanup=cleanup) == (3, 0, 0, 0)
    before = {row.id for row in empty.collection}
    assert await indexing(FIRST, cleanup=cleanup) == (0, 0, 3, 0)
    assert {row.id for row in empty.collection} == before
    assert all(len(key) == 64 for key in before)


@pytest.mark.parametrize("cleanup", MODES)
async def test_what_changed_is_replaced(indexing: Indexing, empty: RarebitVectorStore, cleanup: Any) -> None:
    await indexing(FIRST, cleanup=cleanup, batch_size=2)
    assert await indexing(SECOND, cleanup=cleanup) == (1, 0, 1, CHANGED.get(cleanup, 0))
    expected = {
        None: ["east", "north", "south", "west"],
        "incremental": ["east", "north", "south"],
        "full": ["east", "south"],
        "scoped_full": ["east", "north", "south"],
    }
    assert texts_in(empty) == expected[cleanup]
    assert empty.similarity_search("south", k=1)[0].page_content == "south"


@pytest.mark.parametrize("cleanup", MODES)
async def test_force_update_embeds_again(indexing: Indexing, empty: RarebitVectorStore, compass: Any, cleanup: Any) -> None:
    await indexing(FIRST, cleanup=cleanup)
    assert await indexing(FIRST, cleanup=cleanup, force_update=True) == (0, 3, 0, 0)
    assert sum(compass.batches) == 6
    assert texts_in(empty) == ["east", "north", "west"]


async def test_duplicates_are_indexed_once(indexing: Indexing, empty: RarebitVectorStore) -> None:
    assert await indexing([*FIRST, *FIRST], cleanup="full") == (3, 0, 3, 0)
    assert len(empty.collection) == 3


async def test_an_emptied_source_empties_the_store(indexing: Indexing, empty: RarebitVectorStore) -> None:
    await indexing(FIRST, cleanup="full")
    assert await indexing([], cleanup="full") == (0, 0, 0, 3)
    assert texts_in(empty) == []


async def test_inputs_are_not_changed(indexing: Indexing) -> None:
    documents = [document("east", "a")]
    await indexing(documents, cleanup="incremental")
    assert documents == [document("east", "a")]
