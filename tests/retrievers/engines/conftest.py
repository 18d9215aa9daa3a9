from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.kinds import SERVERS, Server


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Server:
    return Server.of(request.param, request)


@pytest.fixture
def collection(postgres: str) -> Iterator[Any]:
    from support.postgres import connected

    with connected(postgres) as given:
        yield given


@pytest.fixture
def milvus_collection(milvus: str) -> Iterator[Any]:
    from support.milvus import connected

    with connected(milvus) as given:
        yield given


@pytest.fixture
def trainable(milvus: str) -> Iterator[Any]:
    """Give 450 rows in Milvus that the next training learns from."""
    from support.milvus import connected
    from support.servers import IDS, VECTORS

    with connected(milvus, training_minimum=400) as collection:
        collection.add(VECTORS[:450], ids=IDS[:450])
        yield collection
