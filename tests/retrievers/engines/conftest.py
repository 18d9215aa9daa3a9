from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.postgres import connected


@pytest.fixture
def collection(postgres: str) -> Iterator[Any]:
    with connected(postgres) as given:
        yield given
