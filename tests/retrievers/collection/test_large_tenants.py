"""Trained collections in which tenants of every size lie beside each other, some with lists of their own, some rows deleted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection, Where
from rarebit.retrievers.collection import tenant_vectors
from rarebit.retrievers.collection.explanation import EXACT_PLAN
from rarebit.retrievers.collection.segment import LIST_ROWS

LARGE = 3 * LIST_ROWS
SIZES = {"a": LARGE, "b": 5, "c": 100, "d": LIST_ROWS, "e": LIST_ROWS - 1, "f": 2 * LARGE, "g": 2}


@pytest.fixture(autouse=True, params=["scanned", "decoded"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tenants are scanned at their first question, and their vectors are in memory at the next."""
    if request.param == "scanned":
        monkeypatch.setattr(tenant_vectors, "MOST_ROWS", 0)


@pytest.fixture(scope="module", params=["trellis", "variance24", "sq8", "rabitq", "float32"])
def filled(request: pytest.FixtureRequest) -> tuple[Collection, dict[str, np.ndarray]]:
    """Everybody writes in turns, so that the rows of a tenant lie apart; a sixth is deleted again."""
    collection = Collection.open(codec=request.param, training_minimum=1000)
    vectors = {who: clustered(size, 48, seed=number) for number, (who, size) in enumerate(SIZES.items())}
    for start in range(0, 2 * LARGE, 200):
        for who, every in vectors.items():
            part = every[start : start + 200]
            ids = [str(place) for place in range(start, start + len(part))]
            collection.tenant(who).add(part, [f"{who} {key}" for key in ids], ids=ids)
    collection.add(clustered(50, 48, seed=99), [f"ours {key}" for key in range(50)], ids=[str(key) for key in range(50)])
    collection.search(np.ones(48), 1)
    for who, size in SIZES.items():
        collection.tenant(who).delete([str(place) for place in range(0, size, 6)])
    collection.search(np.ones(48), 1)
    assert collection.stats().trained
    view = collection._engine.index._view
    assert view is not None
    assert any(segment.alive is not None for segment in view.segments)
    if request.param in {"trellis", "variance24"}:
        assert max(segment.scanner.list_count for segment in view.segments) > 3
    return collection, vectors


@pytest.mark.parametrize("who", SIZES)
def test_all_rows_of_a_tenant_are_found_and_no_others(filled: tuple[Collection, Any], who: str) -> None:
    collection, vectors = filled
    left = {str(place) for place in range(SIZES[who]) if place % 6}
    tenant = collection.tenant(who)
    for query in clustered(3, 48, seed=7):
        hits = tenant.search(query, len(left) + 10)
        assert {hit.id for hit in hits} == left
        assert len(hits) == len(left)
        assert all(hit.text == f"{who} {hit.id}" for hit in hits)
        cosines = {hit.id: float(vectors[who][int(hit.id)] @ query) for hit in hits}
        assert all(abs(hit.score - cosines[hit.id]) < 0.02 for hit in hits)
    assert {row.id for row in tenant} == left
    assert tenant.count() == len(left)


@pytest.mark.parametrize("who", SIZES)
def test_filters_of_a_tenant_choose_among_its_rows(filled: tuple[Collection, Any], who: str) -> None:
    collection, _ = filled
    tenant, size = collection.tenant(who), SIZES[who]
    left = [str(place) for place in range(size) if place % 6]
    for modulus in (2, 50):
        wanted = {key for key in left if int(key) % modulus == 1}
        hits = tenant.search(clustered(1, 48, seed=8)[0], size, filter=Where(lambda row, m=modulus: int(row.id) % m == 1))
        assert {hit.id for hit in hits} == wanted
        assert all(hit.text == f"{who} {hit.id}" for hit in hits)


@pytest.mark.parametrize("who", ["a", "d", "f"])
def test_a_tenant_finds_what_a_collection_of_its_own_finds(filled: tuple[Collection, Any], who: str) -> None:
    collection, vectors = filled
    queries = clustered(30, 48, seed=9)
    left = [place for place in range(SIZES[who]) if place % 6]
    exact = [{str(left[place]) for place in np.argsort(-(vectors[who][left] @ query))[:10]} for query in queries]
    found = [{hit.id for hit in hits} for hits in collection.tenant(who).search_many(queries, 10)]
    recall = np.mean([len(one & other) / 10 for one, other in zip(exact, found, strict=True)])
    with Collection.open(codec=collection.settings.codec, training_minimum=100) as own:
        own.add(vectors[who][left], ids=[str(place) for place in left])
        of_own = [{hit.id for hit in hits} for hits in own.search_many(queries, 10)]
    of_own_recall = np.mean([len(one & other) / 10 for one, other in zip(exact, of_own, strict=True)])
    assert recall > 0.95
    assert recall > of_own_recall - 0.03


def test_a_plan_names_what_it_scans(filled: tuple[Collection, Any]) -> None:
    collection, _ = filled
    for who, size in SIZES.items():
        explained = collection.tenant(who).search(np.ones(48), 3, explain=True)
        assert explained.plan in {"scan of the tenant's rows", *([EXACT_PLAN] if tenant_vectors.MOST_ROWS else [])}
        assert explained.scanned <= size
        assert explained.rows == explained.matches == sum(place % 6 > 0 for place in range(size))


def test_shared_rows_beside_a_list(filled: tuple[Collection, Any]) -> None:
    collection, _ = filled
    collection.share()
    try:
        for who, size in SIZES.items():
            own = {str(place) for place in range(size) if place % 6}
            hits = collection.tenant(who).search(np.ones(48), 3 * LARGE)
            wanted = {(key, f"{who} {key}") for key in own} | {
                (str(key), f"ours {key}") for key in range(50) if str(key) not in own
            }
            assert {(hit.id, hit.text) for hit in hits} == wanted
            assert len(hits) == len(wanted)
    finally:
        collection.unshare()
