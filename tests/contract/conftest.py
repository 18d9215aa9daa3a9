from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.subjects import SUBJECTS, Subject

from rarebit import Collection


@pytest.fixture(params=["memory", "file"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(None if request.param == "memory" else tmp_path / "c.rarebit") as opened:
        yield opened


@pytest.fixture(params=list(SUBJECTS))
def subject(request: pytest.FixtureRequest, collection: Collection) -> Subject:
    return SUBJECTS[request.param](collection)
