"""Inverted lists: learned in a write that brings enough rows, and nobody can tell but by the time that a search takes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rarebit import Collection, Compare
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import inverted_lists, segment

ROWS = 4000


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Make (count, 64) unit vectors around random centres, near enough to them that lists are worth their while."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1234).standard_normal((200, 64))
    vectors = centres[rng.integers(len(centres), size=count)] + 0.4 * rng.standard_normal((count, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


QUERIES = clustered(60, seed=77)


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted_lists, "LISTS_FROM", 3000)
    monkeypatch.setattr(segment, "SEGMENT_FROM", 1000)


def filled(path: Path | None = None, *, order: np.ndarray | None = None, **settings: object) -> tuple[Collection, np.ndarray]:
    vectors = clustered(ROWS)
    order = np.arange(ROWS) if order is None else order
    collection = Collection.open(path, **settings)  # type: ignore[arg-type]
    collection.add(
        vectors[order],
        texts=[f"text {n}" for n in order],
        metadatas=[{"n": int(n) % 10} for n in order],
        ids=[str(n) for n in order],
    )
    return collection, vectors


def recall(collection: Collection, vectors: np.ndarray, k: int = 10, queries: np.ndarray = QUERIES) -> float:
    found = [{int(hit.id) for hit in hits} for hits in collection.search_many(queries, k)]
    true = np.argsort(-queries @ vectors.T, axis=1)[:, :k]
    return float(np.mean([len(ids & set(row.tolist())) / k for ids, row in zip(found, true, strict=True)]))


def test_they_are_learned_when_there_are_enough_rows_and_searched_in_part() -> None:
    collection, vectors = filled()
    explained = collection.search(QUERIES[0], 10, explain=True)
    assert explained.plan == "scan of the nearest lists"
    assert 0 < explained.scanned < ROWS
    assert recall(collection, vectors) > 0.97
    assert collection.check() == []


def test_fewer_rows_are_scanned_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted_lists, "LISTS_FROM", ROWS + 1)
    collection, _ = filled()
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of every row"
    collection.add(clustered(1, seed=4))
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of the nearest lists"


def test_the_order_of_insertion_does_not_decide_recall() -> None:
    vectors = clustered(ROWS)
    by_direction = np.argsort(vectors @ QUERIES[0])
    for order in (by_direction, by_direction[::-1]):
        collection, _ = filled(order=order)
        assert recall(collection, vectors) > 0.97


def test_what_came_later_of_another_kind_is_found_too() -> None:
    collection, vectors = filled()
    others = clustered(13_000, seed=5)
    collection.add(others, ids=[str(ROWS + n) for n in range(len(others))])
    assert recall(collection, np.concatenate([vectors, others])) > 0.97
    view = collection._engine.index._view
    assert view is not None
    assert view.lists is not None
    assert view.lists.row_count > 2 * ROWS, "learned again"


def test_every_hit_that_can_be_is_found_however_many_are_wanted() -> None:
    collection, _ = filled()
    collection.delete([str(n) for n in range(0, ROWS, 3)])
    left = collection.count()
    for k in (1, 500, left, left + 10):
        assert len(collection.search(QUERIES[0], k)) == min(k, left)


def test_filters_find_the_nearest_matches_whatever_lists_they_lie_in() -> None:
    collection, vectors = filled()
    for tree, allowed in (
        (Compare("n", "lt", 5), np.arange(ROWS) % 10 < 5),
        (Compare("n", "eq", 3), np.arange(ROWS) % 10 == 3),
    ):
        good = []
        for query in QUERIES:
            hits = collection.search(query, 10, filter=tree)
            scores = np.sort((vectors @ query)[allowed])[::-1][:10]
            assert len(hits) == 10
            good.append(np.mean([hit.score >= scores[-1] - 0.01 for hit in hits]))
        assert np.mean(good) >= 0.98
        assert np.min(good) >= 0.8


def by_place(collection: Collection, matching: np.ndarray, query: np.ndarray, vectors: np.ndarray) -> tuple[float, int]:
    """Mark rows, search among them, and give the share of good hits and how many codes were looked at."""
    collection.delete_all()
    collection.add(vectors, metadatas=[{"in": bool(mark)} for mark in matching], ids=[str(n) for n in range(len(vectors))])
    explained = collection.search(query, 10, filter=Compare("in", "eq", True), explain=True)
    tenth = np.sort(vectors[matching] @ query)[-10]
    return float(np.mean([hit.score >= tenth - 0.01 for hit in explained.hits])), explained.scanned


def test_a_filter_looks_at_more_lists_the_fewer_rows_it_finds_but_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    collection, _ = filled()
    looked = [collection.search(QUERIES[0], 10, filter=Compare("n", "lt", n), explain=True).scanned for n in (10, 5, 2)]
    plain = collection.search(QUERIES[0], 10, explain=True).scanned
    assert plain < looked[0] < looked[1] < looked[2] < ROWS
    monkeypatch.setattr(inverted_lists, "FILTERED", 1e9)
    assert collection.search(QUERIES[0], 10, filter=Compare("n", "lt", 5), explain=True).scanned == ROWS


@pytest.mark.parametrize("share", [0.5, 0.2])
@pytest.mark.parametrize("side", ["near", "far"])
def test_half_the_rows_on_one_side_of_the_query(share: float, side: str) -> None:
    vectors, found = clustered(ROWS), []
    collection = Collection.open()
    for query in QUERIES[:4]:
        rank = np.argsort(np.argsort((vectors @ query) * (-1 if side == "near" else 1)))
        found.append(by_place(collection, rank < share * ROWS, query, vectors)[0])
    assert np.mean(found) >= 0.97


def test_a_filter_that_has_to_do_with_the_query_is_searched_in_every_list_with_a_match() -> None:
    vectors = clustered(ROWS)
    collection = Collection.open()
    for query in QUERIES[:6]:
        nearness = np.argsort(np.argsort(vectors @ query))
        farthest = nearness < 700
        found, scanned = by_place(collection, farthest, query, vectors)
        assert found >= 0.9
        assert scanned < ROWS, "lists without a match are passed over"


def test_k_rows_are_found_whatever_share_of_the_lists_is_looked_at() -> None:
    collection, _ = filled()
    for tree, matching in ((Compare("n", "lt", 9), 3600), (Compare("n", "eq", 3), 400)):
        for k in (1, 390, 400, 3600, ROWS):
            hits = collection.search(QUERIES[0], k, filter=tree)
            assert len({hit.id for hit in hits}) == len(hits) == min(k, matching)


def test_they_follow_and_survive_opening_again_and_other_codes(tmp_path: Path) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    other = Collection.open(tmp_path / "c.rarebit")
    collection.add(clustered(5, seed=6), ids=[f"new {n}" for n in range(5)])
    assert [hit.id for hit in other.search(clustered(5, seed=6)[2], 1)] == ["new 2"]
    collection.delete([f"new {n}" for n in range(5)])
    assert recall(other, vectors) > 0.97
    other.close()
    collection.recompress(codec="trellis16")
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of the nearest lists"
    assert recall(collection, vectors) > 0.95
    collection.recompress(codec="sq8")
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of every row", "its scanner has no lists"
    assert recall(collection, vectors) > 0.97
    assert collection.check() == []
    collection.delete_all()
    collection.add(vectors[:10])
    assert len(collection.search(QUERIES[0], 10)) == 10


@pytest.mark.parametrize("below", [9, 2])
def test_a_tenant_finds_what_is_shared_with_it_in_whatever_list_it_lies(below: int) -> None:
    collection, vectors = filled()
    collection.share(filter=Compare("n", "lt", 9), tenants=["t"])
    allowed = np.arange(ROWS) % 10 < below
    for query in QUERIES[:10]:
        hits = collection.tenant("t").search(query, 10, filter=Compare("n", "lt", below))
        tenth = np.sort((vectors @ query)[allowed])[-10]
        assert len(hits) == 10
        assert np.mean([hit.score >= tenth - 0.01 for hit in hits]) >= 0.9


@pytest.mark.parametrize("shortest", [0.9, 10.0])
def test_inner_products_are_found_whatever_the_length_of_the_query(shortest: float) -> None:
    lengths = np.random.default_rng(3).uniform(shortest, max(1.4, shortest), (2 * ROWS, 1))
    vectors = (clustered(2 * ROWS) * lengths).astype(np.float32)
    collection = Collection.open(metric="inner_product")
    collection.add(vectors, ids=[str(n) for n in range(2 * ROWS)])
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of the nearest lists"
    for length in (64.0, 1.0, 2.0**-7):
        assert recall(collection, vectors, queries=QUERIES * np.float32(length)) > 0.97


def test_a_tenant_without_rows_changes_nothing() -> None:
    collection, _ = filled()
    before = collection.search_many(QUERIES, 10)
    collection.share(["1"], tenants=["t"])
    collection.unshare(["1"], tenants=["typo"])
    assert collection.tenants() == ["t"]
    assert collection.search_many(QUERIES, 10) == before
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of the nearest lists"
    assert [hit.id for hit in collection.tenant("t").search(QUERIES[0], 10)] == ["1"]


def test_they_are_learned_beside_a_tenant_without_rows() -> None:
    collection = Collection.open()
    collection.add(clustered(1, seed=9), ids=["shared"])
    collection.share(tenants=["t"])
    collection.tenant("gone").add(clustered(5, seed=8))
    collection.tenant("gone").delete_all()
    collection.add(clustered(ROWS))
    assert collection.search(QUERIES[0], 10, explain=True).plan == "scan of the nearest lists"


@pytest.mark.parametrize("followed", [True, False])
def test_what_came_before_the_rows_of_tenants_stays_in_lists(tmp_path: Path, *, followed: bool) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    if followed:
        collection.search(QUERIES[0], 10)
    tenant = collection.tenant("t")
    tenant.add(clustered(300, seed=8), ids=[f"t {n}" for n in range(300)])
    explained = collection.search(QUERIES[0], 10, explain=True)
    assert (explained.plan, explained.scanned < ROWS) == ("scan of the nearest lists", True)
    assert recall(collection, vectors) > 0.97
    assert len(collection.search(QUERIES[0], ROWS + 300)) == ROWS
    assert {hit.id[0] for hit in tenant.search(QUERIES[0], ROWS)} == {"t"}
    assert tenant.search(QUERIES[0], 10, explain=True).scanned == 300
    with Collection.open(tmp_path / "c.rarebit") as again:
        assert again.search_many(QUERIES, 10) == collection.search_many(QUERIES, 10)
    collection.delete_tenant("t")
    assert recall(collection, vectors) > 0.97


def test_with_tenants_lists_are_theirs() -> None:
    collection, vectors = filled()
    collection.tenant("t").add(vectors[:1500], ids=[str(n) for n in range(1500)])
    assert recall(collection, vectors) > 0.97
    assert len(collection.tenant("t").search(QUERIES[0], 20)) == 20
    explained = collection.tenant("t").search(QUERIES[0], 10, explain=True)
    assert (explained.plan, explained.scanned) == ("scan of the tenant's rows", 1500)


@pytest.mark.parametrize(
    "damage", ["UPDATE lists SET probes = 1", "UPDATE codes SET list = list + 1 WHERE row_id = 5", "DELETE FROM lists"]
)
def test_lists_that_are_not_what_was_stored_are_refused(tmp_path: Path, damage: str) -> None:
    collection, _ = filled(tmp_path / "c.rarebit")
    collection.close()
    with sqlite3.connect(tmp_path / "c.rarebit") as raw:
        raw.execute(damage)
    raw.close()
    with Collection.open(tmp_path / "c.rarebit") as opened:
        if damage != "DELETE FROM lists":  # without them every code is scanned
            with pytest.raises(DamagedFileError, match="backup"):
                opened.search(QUERIES[0], 10)
        assert opened.check()
