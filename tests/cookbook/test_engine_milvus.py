"""The stores of the benchmark of engines on Milvus, filled and asked with a few passages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")
pytest.importorskip("langchain_milvus", reason="the rival is in the dependency group bench")

from rarebit.cookbook.benchmarks import engine_milvus
from rarebit.cookbook.benchmarks.embedded import Passage
from rarebit.cookbook.benchmarks.engine_store import NAME
from rarebit.cookbook.benchmarks.store_data import KINDS, Prepared, prepare, prepare_passages


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    vectors = np.random.default_rng(0).standard_normal((2100, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    passages = [Passage(str(row), "", f"passage number {row}", {"page": row}) for row in range(2100)]
    prepare_passages(tmp_path, passages, vectors, 100)
    return prepare(tmp_path / "2000", 2000)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    from milvus_lite.server_manager import server_manager_instance

    yield f"milvus://{tmp_path}"
    for name in ("rarebit.db", "floats.db", "flat.db"):
        server_manager_instance.release_server(str(tmp_path / name))


@pytest.mark.filterwarnings("ignore:.*ORM-style PyMilvus API")  # the rival's business
@pytest.mark.parametrize("kind", engine_milvus.STORES)
def test_each_finds_what_it_should(prepared: Prepared, folder: str, kind: Any) -> None:
    store = kind(Path(), prepared)
    store.connect(folder)
    store.create()
    for batch in prepared.batches():
        store.add(batch)
    store.finish()
    if kind is engine_milvus.LangChainMilvusFlat:
        assert store.store.client.describe_index(NAME, "vector")["index_type"] == "FLAT"
    found = [store.rows(store.search(query)) for query in prepared.queries[:20].tolist()]
    assert np.mean([prepared.recall(number, rows) for number, rows in enumerate(found)]) > 0.9
    trials = prepared.trials(KINDS[0], 0.1)[:10]
    found = [store.rows(store.search(prepared.queries[trial.query].tolist(), trial.where)) for trial in trials]
    assert [len(rows) for rows in found] == [10] * 10
    assert np.mean([prepared.recall_of(trial, rows) for trial, rows in zip(trials, found, strict=True)]) > 0.9
    sizes = store.sizes()
    assert sizes["index"] == 2000 * (6 if kind is engine_milvus.RarebitOnMilvus else 64)
    assert sizes["tables"] > 0
    store.close()
