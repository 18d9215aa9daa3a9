"""The decoded vectors of small tenants: the second question of a tenant is answered from them, and nobody can tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection
from rarebit.retrievers.collection import tenant_vectors
from rarebit.retrievers.collection.explanation import EXACT_PLAN

DIM = 32
QUERY = clustered(1, DIM, seed=50)[0]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """A trained collection with two small tenants."""
    made = Collection.open(tmp_path / "c.rarebit", codec="trellis", training_minimum=300)
    made.add(clustered(400, DIM, seed=1), ids=[f"common {n}" for n in range(400)])
    made.tenant("ada").add(clustered(40, DIM, seed=2), ids=[f"{n}" for n in range(40)])
    made.tenant("bob").add(clustered(40, DIM, seed=3), ids=[f"{n}" for n in range(40)])
    assert made.stats().trained
    return made


def plan(collection: Collection, who: str = "ada") -> str:
    return collection.tenant(who).search(QUERY, 10, explain=True).plan


def ids(collection: Collection, who: str = "ada", k: int = 100) -> list[str]:
    """Ask twice, so that the second answer comes from memory; both must say the same."""
    tenant = collection.tenant(who)
    first = tenant.search(QUERY, k)
    again = tenant.search(QUERY, k)
    assert {hit.id for hit in first} == {hit.id for hit in again}
    assert sorted(hit.score for hit in first) == pytest.approx(sorted(hit.score for hit in again), abs=1e-5)
    assert plan(collection, who) == EXACT_PLAN
    return [hit.id for hit in again]


def test_the_second_question_is_answered_from_memory(collection: Collection) -> None:
    assert [plan(collection), plan(collection), plan(collection)] == ["scan of the tenant's rows", EXACT_PLAN, EXACT_PLAN]
    assert plan(collection, "bob") == "scan of the tenant's rows"
    vectors = collection.tenant("ada").vectors([f"{n}" for n in range(40)])
    best = np.argsort(-(vectors @ QUERY))[:10]
    assert ids(collection, k=10) == [str(place) for place in best]


def test_what_is_written_is_seen(collection: Collection) -> None:
    ada = collection.tenant("ada")
    assert len(ids(collection)) == 40
    ada.add([QUERY], ids=["new"])
    assert ids(collection)[0] == "new"
    ada.add([-QUERY], ids=["new"])
    assert ids(collection)[-1] == "new"
    ada.delete(["new", "3"])
    assert set(ids(collection)) == {f"{n}" for n in range(40)} - {"3"}
    assert len(ids(collection, "bob")) == 40
    collection.share(["common 5"], tenants=["ada"])
    assert "common 5" in ids(collection)
    assert "common 5" not in ids(collection, "bob")
    collection.unshare(["common 5"], tenants=["ada"])
    assert "common 5" not in ids(collection)


def test_what_is_written_through_another_handle_is_seen(collection: Collection, tmp_path: Path) -> None:
    ids(collection)
    with Collection.open(tmp_path / "c.rarebit") as other:
        other.tenant("ada").delete(["7"])
        other.delete_tenant("bob")
        other.tenant("bob").add([QUERY], ids=["only"])
    assert "7" not in ids(collection)
    assert ids(collection, "bob") == ["only"]


def test_other_codes_are_decoded_anew(collection: Collection) -> None:
    before = ids(collection)
    collection.recompress(codec="variance8", fine="int8")
    assert plan(collection) == "scan of the tenant's rows"
    assert set(ids(collection)) == set(before)
    collection.recompress(codec="sq8", fine="none")
    assert [plan(collection) for _ in range(3)] == ["scan of the tenant's rows"] * 3, "the codes are all there is"
    assert {hit.id for hit in collection.tenant("ada").search(QUERY, 100)} == set(before)


def test_one_question_and_many_get_the_same_scores(collection: Collection) -> None:
    queries = clustered(9, DIM, seed=60)
    ids(collection)
    tenant = collection.tenant("ada")
    many = tenant.search_many(queries, 5)
    assert many == [tenant.search(query, 5) for query in queries]
    assert [len(hits) for hits in tenant.search_many(queries, 0)] == [0] * 9


def test_memory_is_bounded_and_counted(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = collection._engine.known.tenant_vectors
    ids(collection)
    assert kept.nbytes == 40 * (8 + 4 * DIM)
    assert collection.stats().memory["filters"] >= kept.nbytes
    monkeypatch.setattr(tenant_vectors, "MOST_BYTES", kept.nbytes)
    ids(collection, "bob")
    assert kept.nbytes == 40 * (8 + 4 * DIM), "that of the tenant asked last"
    assert plan(collection) == "scan of the tenant's rows"
    monkeypatch.setattr(tenant_vectors, "MOST_ROWS", 39)
    assert [plan(collection, "bob") for _ in range(3)] == ["scan of the tenant's rows"] * 3


def test_no_questions_have_no_answers(collection: Collection) -> None:
    collection.delete([f"common {n}" for n in range(200)])
    for asked in (collection, collection.tenant("ada"), collection.tenant("nobody")):
        for _ in range(3):
            assert asked.search_many(np.empty((0, DIM)), 3) == []
