from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from rarebit.integrations.llama_index import OneTokenLLM, RarebitVectorStore

if TYPE_CHECKING:
    from support.one_token_llama_index import Recording


@pytest.fixture
def store() -> Iterator[RarebitVectorStore]:
    made = RarebitVectorStore()
    yield made
    made.client.close()


@pytest.fixture
def generator(store: RarebitVectorStore) -> Recording:
    """Reads the passages of the store as tokens, with a tiny model."""
    from support.one_token_llama_index import filled, generator_of

    filled(store)
    return generator_of(store.client)


@pytest.fixture
def llm(generator: Recording) -> OneTokenLLM:
    return OneTokenLLM(generator=generator, max_tokens=12)
