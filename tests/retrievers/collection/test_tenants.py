"""Any sequence of operations of several tenants and of the collection behaves as a dictionary a tenant does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tenants import COLLECTION, Kept, World, cosine

from rarebit import And, Collection, Compare, Filter, Ids, Not, Or, Row, Where
from rarebit.retrievers.collection import matches

TENANTS = ("ada", "bob", "cyd", "dan")
KEYS = [*(f"k{number}" for number in range(8)), "", "é"]
STEPS = 100


class Play:
    """Does the same to a collection in a file, used through two objects by turns, and to dictionaries."""

    def __init__(self, path: Path, seed: int, training_minimum: int, tolerance: float) -> None:
        self.path = path
        self.rng = random.Random(seed)
        self.training_minimum = training_minimum
        self.tolerance = tolerance
        self.world = World()
        self.serial = 0
        self.opened = [self.open(), self.open()]

    def open(self) -> Collection:
        return Collection.open(self.path, training_minimum=self.training_minimum)

    def close(self) -> None:
        for collection in self.opened:
            collection.close()

    def step(self) -> None:
        acts: dict[Callable[[], None], int] = {
            self.add: 8,
            self.delete: 3,
            self.delete_all: 1,
            self.delete_tenant: 1,
            self.share: 5,
            self.reopen: 1,
            self.read: 4,
            self.search: 4,
            self.search_words: 3,
            self.ask_a_function: 3,
            self.recompress: 1,
        }
        self.rng.choices(list(acts), list(acts.values()))[0]()
        self.everybody_has_what_is_his()

    def told(self, what: str, *given: Any) -> None:
        """Print what is done: pytest shows it where a step fails."""
        print(self.serial, what, *map(repr, given))  # noqa: T201

    def who(self) -> str:
        return self.rng.choice((COLLECTION, COLLECTION, *TENANTS))

    def keys(self) -> list[str]:
        return self.rng.sample(KEYS, self.rng.randint(0, 5))

    def vector(self) -> list[float]:
        return [self.rng.randint(-4, 4) + 0.25 for _ in range(3)]

    def tree(self, depth: int = 2) -> Filter:
        kind = self.rng.choice(["a", "b", "ids", "not", "and", "or"] if depth else ["a", "b", "ids"])
        match kind:
            case "a":
                return Compare("a", self.rng.choice(["eq", "ne", "gt"]), self.rng.randint(-2, 2))  # type: ignore[arg-type]
            case "b":
                return Compare("b", self.rng.choice(["eq", "ne"]), self.rng.choice("xy"))  # type: ignore[arg-type]
            case "ids":
                return Ids(tuple(self.keys()))
            case "not":
                return Not(self.tree(depth - 1))
        children = [self.tree(depth - 1) for _ in range(self.rng.randint(1, 2))]
        return And(*children) if kind == "and" else Or(*children)

    def some_tree(self) -> Filter | None:
        return self.rng.choice([None, self.tree()])

    def handle(self, who: str) -> Any:
        """Give a handle through the one object and the other by turns."""
        self.serial += 1
        collection = self.opened[self.serial % 2]
        return collection if who == COLLECTION else collection.tenant(who)

    def matching(self, who: str, tree: Filter | None) -> list[Kept]:
        return [kept for kept in self.world.visible(who) if tree is None or matches(tree, Row(*kept.shown))]

    def add(self) -> None:
        who, keys = self.who(), self.keys()
        self.told("add", who, keys)
        texts = [f"word of {who or 'all'} {self.serial} {number}" for number in range(len(keys))]
        metadatas = [{"a": self.rng.randint(-2, 2), "b": self.rng.choice(["x", "y", None])} for _ in keys]
        vectors = [self.vector() for _ in keys]
        assert self.handle(who).add(vectors, texts, metadatas, keys, batch_size=3) == keys
        self.world.add(who, zip(keys, vectors, texts, metadatas, strict=True))

    def delete(self) -> None:
        who, ids = self.who(), self.rng.choice([None, self.keys()])
        tree = self.tree() if ids is None else self.some_tree()
        self.told("delete", who, ids, tree)
        wanted = {kept.id for kept in self.matching(who, tree) if ids is None or kept.id in ids}
        assert self.handle(who).delete(ids, filter=tree) == self.world.delete(who, lambda kept: kept.id in wanted)

    def delete_all(self) -> None:
        who = self.who()
        self.told("delete all", who)
        assert self.handle(who).delete_all() == self.world.delete(who, lambda _: True)

    def delete_tenant(self) -> None:
        who = self.rng.choice(TENANTS)
        self.told("delete tenant", who)
        assert self.handle(COLLECTION).delete_tenant(who) == self.world.delete_tenant(who)

    def share(self) -> None:
        ids, tree, seen = self.rng.choice([None, self.keys()]), self.some_tree(), self.rng.random() < 0.7
        names = self.rng.choice([None, self.rng.sample(TENANTS, self.rng.randint(0, 3))])
        self.told("share" if seen else "unshare", ids, tree, names)
        keys = [kept.id for kept in self.matching(COLLECTION, tree) if ids is None or kept.id in ids]
        collection = self.handle(COLLECTION)
        act = collection.share if seen else collection.unshare
        assert act(ids, filter=tree, tenants=names) == len(keys)
        if names is None:
            self.world.tell_everyone(keys, seen=seen)
        else:
            self.world.tell(keys, names, seen=seen)

    def reopen(self) -> None:
        self.told("reopen")
        self.opened[self.serial % 2].close()
        self.opened[self.serial % 2] = self.open()

    def recompress(self) -> None:
        collection = self.handle(COLLECTION)
        if self.training_minimum < STEPS and collection.stats().count:
            self.told("recompress")
            collection.recompress()

    def read(self) -> None:
        who, keys, tree = self.who(), self.keys(), self.some_tree()
        self.told("read", who, keys, tree)
        handle, visible = self.handle(who), {kept.id: kept for kept in self.world.visible(who)}
        matching = {kept.id: kept for kept in self.matching(who, tree)}
        assert [shown(row) for row in handle.get(filter=tree)] == [kept.shown for kept in matching.values()]
        assert [shown(row) for row in handle.get(keys, filter=tree)] == [matching[key].shown for key in keys if key in matching]
        assert [shown(row) for row in handle.iterate(tree, batch_size=3)] == [kept.shown for kept in matching.values()]
        assert handle.count(tree) == len(matching)
        assert [key in handle for key in keys] == [key in visible for key in keys]
        there = [key for key in keys if key in visible]
        directions = [np.array(visible[key].vector) / np.linalg.norm(visible[key].vector) for key in there]
        if there:
            assert np.allclose(handle.vectors(there), directions, atol=self.tolerance)

    def search(self) -> None:
        who, query, tree, k = self.who(), self.vector(), self.some_tree(), self.rng.randint(0, 20)
        self.told("search", who, query, k, tree)
        handle, matching = self.handle(who), self.matching(who, tree)
        found = handle.search(query, k, filter=tree)
        self.check_hits(found, matching, query)
        best = sorted((cosine(query, kept.vector) for kept in matching), reverse=True)[:k]
        assert len(found) == len(best)
        assert np.allclose([hit.score for hit in found], best, atol=self.tolerance)
        assert [hit.id for hit in handle.search_many([query, query], k, filter=tree)[1]] == [hit.id for hit in found]
        diverse = handle.search_mmr(query, k, fetch_k=k, lambda_mult=1.0, filter=tree)
        assert np.allclose([hit.score for hit in diverse], [hit.score for hit in found], atol=self.tolerance)
        self.check_hits(diverse, matching, query)
        explained = handle.search(query, k, filter=tree, explain=True)
        assert (explained.rows, explained.matches) == (len(self.world.visible(who)), len(matching))

    def search_words(self) -> None:
        who, query, tree, k = self.who(), self.vector(), self.some_tree(), self.rng.randint(1, 20)
        word = self.rng.choice(["word", "all", *TENANTS])
        self.told("search words", who, word, k, tree)
        handle, matching = self.handle(who), self.matching(who, tree)
        holding = [kept for kept in matching if word in kept.text.split()]
        found = handle.search_lexical(word, k, filter=tree)
        self.check_hits(found, holding)
        assert len(found) == min(k, len(holding))
        for fusion in ("rrf", "weighted"):
            both = handle.search_hybrid(query, word, k, fusion=fusion, filter=tree, include_vectors=True)
            self.check_hits(both, matching)
            assert len(both) == min(k, len(matching))

    def ask_a_function(self) -> None:
        """Filter by a function, which must be shown what the tenant sees and nothing else; delete what it chooses."""
        who, query, tree, value = self.who(), self.vector(), self.some_tree(), self.rng.randint(-2, 2)
        self.told("ask a function", who, value, tree)
        visible, asked = [kept.shown for kept in self.world.visible(who)], []

        def holds(row: Row) -> bool:
            asked.append(shown(row))
            return bool(row.metadata.get("a") == value)

        handle, given = self.handle(who), And(Where(holds), *([] if tree is None else [tree]))
        matching = [kept for kept in self.matching(who, tree) if kept.metadata.get("a") == value]
        found = handle.search(query, 30, filter=given)
        self.check_hits(found, matching, query)
        assert len(found) == len(matching)
        assert handle.count(Not(given)) == len(visible) - len(matching)
        assert [shown(row) for row in handle.iterate(given)] == [kept.shown for kept in matching]
        assert len(handle.search_lexical("word", 30, filter=given)) == len(matching)
        wanted = {kept.id for kept in matching}
        assert handle.delete(filter=given) == self.world.delete(who, lambda kept: kept.id in wanted)
        assert all(row in visible for row in asked)

    def check_hits(self, hits: list[Any], matching: list[Kept], query: list[float] | None = None) -> None:
        by_id = {kept.id: kept for kept in matching}
        assert len({hit.id for hit in hits}) == len(hits)
        for hit in hits:
            assert shown(hit) == by_id[hit.id].shown
            if query is not None:
                assert abs(hit.score - cosine(query, by_id[hit.id].vector)) <= self.tolerance

    def everybody_has_what_is_his(self) -> None:
        assert self.handle(COLLECTION).tenants() == self.world.names
        for who in (COLLECTION, *TENANTS):
            handle, visible = self.handle(who), [kept.shown for kept in self.world.visible(who)]
            assert [shown(row) for row in handle] == visible
            assert handle.count() == len(visible)


def shown(row: Any) -> tuple[str, str, dict[str, Any]]:
    return row.id, row.text, row.metadata


@pytest.fixture(params=[(1_000_000, 1e-5), (3, 0.02)], ids=["exact", "trained"])
def plays(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], Play]]:
    """Give plays whose codec is never trained, and such whose codec is trained at the third row."""
    made: list[Play] = []

    def play(seed: int) -> Play:
        made.append(Play(tmp_path / "c.rarebit", seed, *request.param))
        return made[-1]

    yield play
    for each in made:
        each.close()


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
def test_tenants_are_dictionaries(plays: Callable[[int], Play], seed: int) -> None:
    play = plays(seed)
    for _ in range(STEPS):
        play.step()
    assert play.world.names


def test_unsharing_makes_a_tenant_only_where_it_hides_a_row_from_it() -> None:
    collection = Collection.open()
    collection.add([[1.0, 0.0], [0.0, 1.0]], ids=["a", "b"])
    collection.share(["a"])
    collection.share(["missing"], tenants=["typo"])
    collection.unshare(["b", "missing"], tenants=["typo"])
    assert collection.tenants() == []
    collection.unshare(tenants=["x"])
    assert collection.tenants() == ["x"]
    assert "a" not in collection.tenant("x")
    assert "a" in collection.tenant("y")
