"""Filters and names as Milvus gets them: never more than values, and never less than what matches."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

from support.servers import VECTORS

from rarebit import And, Compare, Filter, Ids, Not, Or
from rarebit.retrievers.collection.filters import matches
from rarebit.retrievers.engines.milvus.expressions import Condition
from rarebit.retrievers.engines.milvus.names import Names, key_of

HOSTILE = ['"', "\\", '\\"', "'", "\n", '" or true or "', 'x") or (row_id > 0', "é", "日本語", "\u2028", "{}%s", "a" * 600, ""]


class TestExpressions:
    @pytest.mark.parametrize("value", HOSTILE)
    def test_values_and_names_are_never_expressions(self, milvus_collection: Any, value: str) -> None:
        milvus_collection.add(
            [[1.0, 2.0], [2.0, 1.0]], ids=["a", "b"], metadatas=[{"k": value, value: 1}, {"k": "else", "l": [value]}]
        )
        for tree, found in (
            (Compare("k", "eq", value), ["a"]),
            (Compare("k", "in", [value, 5]), ["a"]),
            (Compare(value, "eq", 1), ["a"]),
            (Compare("l", "contains", value), ["b"]),
            (Compare("k", "text_match", value), ["a"] if value else ["a", "b"]),
            (Compare("k", "ne", value), ["b"]),
        ):
            assert [row.id for row in milvus_collection.get(filter=tree)] == found
            assert sorted(hit.id for hit in milvus_collection.search([1.0, 1.0], 5, filter=tree)) == found
            assert milvus_collection.count(tree) == len(found)
        acme = milvus_collection.tenant(value or "acme")
        acme.add([[1.0, 2.0]], ids=[value])
        assert [row.id for row in acme.get([value])] == [value]
        assert milvus_collection.tenants() == [value or "acme"]
        assert acme.delete_all() == 1
        assert milvus_collection.count() == 2

    def test_paths_mean_what_they_mean_in_python(self, milvus_collection: Any) -> None:
        metadatas: list[dict[str, Any]] = [
            {"a": {"b": {"c": 1}}},
            {"a.b": {"c": 1}},
            {"a": {"b.c": 1}},
            {"a.b.c": 1},
            {"a.b.c": 2, "a": {"b": {"c": 1}}},
            {"a": {"b": 1}},
            {"a": {"b": {"c": True}}},
            {"a": {"b": {"c": [1, True, 1.0]}}},
            {f"k{number}": "x" * 400 for number in range(200)} | {"a": {"b": {"c": 1}}},
        ]
        milvus_collection.add(VECTORS[: len(metadatas)], metadatas=metadatas)
        for tree in (
            Compare("a.b.c", "eq", 1),
            Compare("a.b.c", "exists"),
            Compare("a.b.c", "contains", 1),
            Compare("a.b", "eq", {"c": 1}),
            Compare("a.b.c", "lt", 2),
            Not(Compare("a.b.c", "eq", 2)),
        ):
            wanted = [row for row in milvus_collection if matches(tree, row)]
            assert wanted
            assert milvus_collection.get(filter=tree) == wanted
            assert milvus_collection.count(tree) == len(wanted)

    def test_what_is_exact_is_counted_by_milvus(self) -> None:
        exact: list[Filter | None] = [None, And(), Ids(("a", "b")), Or(Ids(("a",)), Ids(("b",)))]
        assert all(Condition("t", tree).is_exact for tree in exact)
        assert Condition("t", Compare("f", "eq", 1)).unsure is not None
        assert Condition("t", Compare("f", "ne", 1)).unsure is None


class TestNames:
    def test_no_two_are_the_same(self) -> None:
        names = ["a", "A", "a b", "a_20_b", "a__rows_1", "日本", "_", "__", "a_", "step_1", "a:step_1"]
        every = [each for name in names for each in (Names(name).learned, Names(name).step(1), Names(name).rows("1"))]
        assert len(set(every)) == len(every)
        assert all(each.isascii() and each.replace("_", "").isalnum() for each in every)
        assert max(len(Names("日" * 13).rows("0" * 16)), len(Names("_" * 40).rows("0" * 16))) < 255

    def test_keys_tell_tenant_and_id_apart(self) -> None:
        assert len({key_of("a", "bc"), key_of("ab", "c"), key_of("", "abc"), key_of("abc", "")}) == 4
