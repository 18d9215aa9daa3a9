from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from langchain_core.embeddings import Embeddings
from support.relevance import Counting

from rarebit.integrations.langchain import ChatOneToken, RarebitVectorStore
from rarebit.retrievers.relevance import CosineAdapter

if TYPE_CHECKING:
    from rarebit.compressors.context import OneTokenGenerator

COMPASS = {
    "east": (1.0, 0.0),
    "east by north": (0.96, 0.28),
    "north-east": (0.6, 0.8),
    "north": (0.0, 1.0),
    "west": (-1.0, 0.0),
    "south": (0.0, -1.0),
}


class Compass(Embeddings):
    """Each text is its direction in the plane; remembers how it was asked."""

    def __init__(self, model_name: str | None = None) -> None:
        self.model_name = model_name
        self.batches: list[int] = []
        self.awaited = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(len(texts))
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return list(COMPASS.get(text, (0.5, 0.5)))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.awaited += 1
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        self.awaited += 1
        return self.embed_query(text)


@pytest.fixture
def compass() -> Compass:
    return Compass()


@pytest.fixture
def store(compass: Compass) -> Iterator[RarebitVectorStore]:
    """The compass, each direction under its own name, with its position in the table."""
    made = RarebitVectorStore(compass)
    made.add_texts(COMPASS, [{"place": place} for place in range(len(COMPASS))], ids=list(COMPASS))
    with made.collection:
        yield made


@pytest.fixture
def counting(compass: Embeddings) -> Counting:
    return Counting(compass)


@pytest.fixture
def filled(store: RarebitVectorStore, counting: Counting) -> Iterator[RarebitVectorStore]:
    """The compass of the fixture ``store`` over a model that counts, with scores."""
    made = RarebitVectorStore(counting, score_key="score", collection=store.collection)
    counting.calls.clear()
    return made


@pytest.fixture
def plain() -> CosineAdapter:
    return CosineAdapter(2)


@pytest.fixture
def notes() -> Iterator[RarebitVectorStore]:
    """Six passages, for models that read them as tokens."""
    from support.one_token import filled

    made = filled()
    with made.collection:
        yield made


@pytest.fixture
def generator(notes: RarebitVectorStore) -> OneTokenGenerator:
    from support.one_token import generator_of

    return generator_of(notes.collection)


@pytest.fixture
def chat(generator: OneTokenGenerator) -> ChatOneToken:
    return ChatOneToken(generator=generator, max_tokens=12)
