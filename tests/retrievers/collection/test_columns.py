"""Filters are answered from columns in memory: the same rows as by looking at each row."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarebit import And, Collection, Compare, Not, Or
from rarebit.retrievers.collection import columns
from rarebit.retrievers.collection.filters import Filter, matches

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64, 10**400, 0.1, 1.0, -0.0, 1e300]),
    st.sampled_from(["", "a", "ab", "b", "1", "null", "true", "long " * 80, "ü", "\x00", '"']),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(["x", "y"]), SCALARS, max_size=2))
METADATA = st.dictionaries(st.sampled_from(["f", "g", "g.x", "f.y"]), VALUES, max_size=3)
FIELDS = st.sampled_from(["f", "g", "g.x", "f.y", "absent"])


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    field, op = draw(FIELDS), draw(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "contains"]))
    if op in {"gt", "gte", "lt", "lte"}:
        value: Any = draw(SCALARS.filter(lambda scalar: isinstance(scalar, int | float | str)))
    elif op in {"in", "nin"}:
        value = draw(st.lists(SCALARS, max_size=3))
    elif op == "exists":
        value = draw(st.booleans())
    else:
        value = draw(VALUES)
    return Compare(field, op, value)


TEXT_OPERATORS = st.builds(
    Compare, FIELDS, st.sampled_from(["like", "text_match", "text_match_insensitive"]), st.sampled_from(["", "a", "%b", "_"])
)
LEAVES = st.one_of(
    comparisons(),
    TEXT_OPERATORS,
    st.builds(Compare, FIELDS, st.just("is_empty"), st.booleans()),
    st.builds(Compare, FIELDS, st.sampled_from(["any", "all"]), st.lists(SCALARS, max_size=2)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda children: And(*children)),
        st.lists(inner, max_size=3).map(lambda children: Or(*children)),
        inner.map(Not),
    ),
    max_leaves=4,
)


def found(collection: Collection, tree: Filter) -> set[str]:
    return {row.id for row in collection.get(filter=tree)}


def expected(collection: Collection, tree: Filter) -> set[str]:
    return {row.id for row in collection if matches(tree, row)}


@pytest.mark.unchecked  # the run-time shape checks draw random numbers, which Hypothesis refuses
@pytest.mark.parametrize("most_different", [2, columns.MOST_DIFFERENT])
@given(batches=st.lists(st.lists(METADATA, min_size=1, max_size=6), min_size=1, max_size=4), trees=st.lists(TREES, max_size=4))
@settings(max_examples=60)
def test_the_rows_that_match_one_by_one(most_different: int, batches: list[Any], trees: list[Filter]) -> None:
    with pytest.MonkeyPatch.context() as patch, Collection.open() as collection:
        patch.setattr(columns, "MOST_DIFFERENT", most_different)
        for number, metadatas in enumerate(batches):
            # Ids come again, so that rows are replaced between two questions.
            ids = [str((number + place) % 7) for place in range(len(metadatas))]
            collection.add(np.ones((len(metadatas), 2)), metadatas=metadatas, ids=ids)
            for tree in trees:
                assert found(collection, tree) == expected(collection, tree)
        collection.delete(["0", "3"])
        for tree in trees:
            assert found(collection, tree) == expected(collection, tree)
            assert collection.count(tree) == len(expected(collection, tree))


def test_many_different_strings_are_kept_as_hashes_and_found_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_DIFFERENT", 50)
    collection = Collection.open()
    values: list[Any] = [f"name {number % 150}" for number in range(300)]
    values[7], values[8], values[9] = 7, None, ["name 3"]
    collection.add(np.ones((300, 2)), metadatas=[{"f": value} for value in values], ids=[str(n) for n in range(300)])
    for tree in (
        Compare("f", "eq", "name 3"),
        Compare("f", "in", ["name 3", "name 149", 7, None]),
        Compare("f", "gt", "name 2"),
        Compare("f", "contains", "name 3"),
        Compare("f", "exists"),
        Compare("f", "is_empty"),
        Compare("f", "ne", "name 3"),
    ):
        assert found(collection, tree) == expected(collection, tree) != set()
    collection.add(np.ones((2, 2)), metadatas=[{"f": "name 3"}, {"f": "other"}], ids=["new", "newer"])
    assert found(collection, Compare("f", "eq", "name 3")) == {"3", "153", "new"}
    kept = collection._engine.known.columns._columns["f"]
    assert kept._hashes is not None
    assert len(kept._different) < 10


def test_whole_numbers_between_two_floats_compare_exactly() -> None:
    collection = Collection.open()
    numbers = [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, float(2**53), 1, 1.0, True]
    collection.add(np.ones((8, 2)), metadatas=[{"n": number} for number in numbers], ids=[str(place) for place in range(8)])
    for op in ("eq", "gt", "gte", "lt", "lte"):
        for bound in (2**53, 2**53 + 1, 2**53 + 2, 2**53 + 3, 10**400, -(10**400), 1, True, 0.5):
            tree = Compare("n", op, bound)  # type: ignore[arg-type]
            assert found(collection, tree) == expected(collection, tree), (op, bound)


def test_a_column_of_rows_that_are_mostly_gone_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ROWS_AT_ONCE", 10)
    collection = Collection.open()
    for turn in range(30):
        collection.add(np.ones((5, 2)), metadatas=[{"n": turn}] * 5, ids=list("abcde"))
        assert collection.count(Compare("n", "eq", turn)) == 5
    assert len(collection._engine.known.columns._columns["n"]) <= 2 * 5 + 10 + 5


def test_only_the_fields_that_are_asked_for_take_memory() -> None:
    collection = Collection.open()
    collection.add(np.ones((100, 2)), metadatas=[{"asked": n, "never": n} for n in range(100)])
    assert collection.stats().memory["filters"] == 0
    collection.count(Compare("asked", "lt", 50))
    assert list(collection._engine.known.columns._columns) == ["asked"]
    for number in range(2 * columns.MOST_COLUMNS):
        collection.count(Compare(f"field {number}", "eq", 1))
    assert len(collection._engine.known.columns._columns) == columns.MOST_COLUMNS


def test_a_write_adds_to_what_was_found_and_nothing_is_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection.open()
    collection.add(np.ones((1000, 2)), metadatas=[{"n": n % 10} for n in range(1000)])
    tree = And(Compare("n", "gte", 3), Not(Compare("n", "eq", 5)))
    assert collection.count(tree) == 600
    after = []
    asked = columns.Columns.where

    def noted(self: columns.Columns, *arguments: Any) -> Any:
        after.append(arguments[3])
        return asked(self, *arguments)

    monkeypatch.setattr(columns.Columns, "where", noted)
    assert collection.count(tree) == 600
    assert after == []
    collection.add(np.ones((3, 2)), metadatas=[{"n": 4}, {"n": 5}, {}], ids=["four", "five", "none"])
    assert collection.count(tree) == 601
    assert after
    assert set(after) == {1000}
    collection.delete(["four"])
    assert collection.count(tree) == 600


def test_threads_that_ask_while_others_write_see_one_commit_each() -> None:
    collection = Collection.open()
    collection.add(np.ones((50, 2)), metadatas=[{"n": 0, "side": "a"}] * 50, ids=[str(n) for n in range(50)])
    stop, wrong = threading.Event(), []

    def ask() -> None:
        rng = random.Random(threading.get_ident())
        while not stop.is_set():
            with collection._engine.snapshot() as snapshot:
                halves = [snapshot.matching(Compare("side", "eq", side)) for side in rng.sample("ab", 2)]
                every = snapshot.visible()
                if len(halves[0] | halves[1]) != len(every) or halves[0] & halves[1]:
                    wrong.append((len(halves[0]), len(halves[1]), len(every)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        ids = [str(number) for number in range(turn % 40, turn % 40 + 10)]
        collection.add(np.ones((10, 2)), metadatas=[{"n": turn, "side": "ab"[turn % 2]}] * 10, ids=ids)
        collection.delete([str((7 * turn) % 50)])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


OLDER = [
    *(Compare("side", "eq", "a"), Compare("side", "ne", "a"), Compare("side", "exists"), Compare("side", "like", "%b")),
    *(Compare("n", "lt", 50), Compare("n", "gte", 50)),
    And(Compare("n", "gt", 3), Compare("n", "lt", 7)),
    Or(Compare("side", "eq", "a"), Not(Compare("n", "in", [1, 2, 3]))),
]


@pytest.mark.parametrize("most_different", [2, columns.MOST_DIFFERENT])
@pytest.mark.parametrize("begun", [False, True])
def test_a_reader_of_an_older_commit_finds_what_lived_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_different: int, *, begun: bool
) -> None:
    """Others read a column from a later commit, in which some of its rows are gone."""
    monkeypatch.setattr(columns, "MOST_DIFFERENT", most_different)
    monkeypatch.setattr(columns, "ROWS_AT_ONCE", 16)
    with Collection.open(tmp_path / "c.rarebit") as collection:

        def add(ids: Sequence[int], turn: int) -> None:
            metadatas = [{"n": n + turn, "side": "ab"[(n + turn) % 2]} for n in ids]
            collection.add(np.ones((len(ids), 2)), metadatas=metadatas, ids=[str(n) for n in ids])

        def ask() -> list[int]:
            return [collection.count(tree) for tree in OLDER]

        add(range(40), 0)
        if begun:
            ask()
        add(range(40, 100), 0)
        with collection._engine.snapshot() as old:
            rows = list(collection)
            add(range(30, 60), 1)
            collection.delete(["7", "99"])
            ask()
            add(range(50, 120), 2)
            newer = ask()
            for tree in OLDER:
                assert {row.id for row in old.rows(old.matching(tree))} == {row.id for row in rows if matches(tree, row)}
        assert ask() == newer == [len(expected(collection, tree)) for tree in OLDER]


class Growing(dict[str, int]):
    """Grows while it is looked through, unless the lock keeps others from it."""

    lock: threading.Lock

    def __iter__(self) -> Iterator[str]:
        for key in super().__iter__():
            if self.lock.acquire(blocking=False):
                self[f"{key} grown"] = len(self)
                self.lock.release()
            yield key


def test_memory_is_counted_while_columns_grow() -> None:
    collection = Collection.open()
    collection.add(np.ones((5, 2)), metadatas=[{"f": str(n)} for n in range(5)])
    collection.count(Compare("f", "eq", "1"))
    column = collection._engine.known.columns._columns["f"]
    column._different = Growing(column._different)
    column._different.lock = column.lock
    assert collection.stats().memory["filters"] > 500
