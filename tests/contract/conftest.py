from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kinds import opened
from support.subjects import SUBJECTS, Subject

KINDS = ("memory", "file", "postgresql", "milvus")


@pytest.fixture(params=KINDS)
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with opened(request.param, tmp_path, request) as given:
        yield given


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest, collection: Any) -> Subject:
    return SUBJECTS[request.param](collection)
