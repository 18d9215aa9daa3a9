"""Metadata as Milvus compares them: numbers in slots, and JSON of rows that have more of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

import numpy as np
from support.milvus import connected
from support.oracle import ALSO, METADATAS, OPERATORS

from rarebit import And, Compare, Filter, Not, Or
from rarebit.retrievers.collection.filters import matches
from rarebit.retrievers.engines.milvus import forms
from rarebit.retrievers.engines.milvus.expressions import Condition
from rarebit.retrievers.engines.milvus.forms import SLOTS, compared_form, field_of, stored_forms, value_of

OTHERS = {f"other {number}": number for number in range(len(SLOTS))}
EVERY: list[dict[str, Any]] = [
    each
    for own in METADATAS
    for each in (own, OTHERS | own, own | OTHERS, {"nested": {"f": own.get("f")}}, {"a.b": own, "a": {"b": 1}})
]
NUMBERS = [
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    1e-300,
    0.1 + 0.2,
    0.3,
    1 / 3,
    1e15 + 0.5,
    2**53 - 1,
    1 - 2**53,
    2**53,
    1.5e300,
    True,
    -7,
]


def filled(milvus: str, metadatas: list[dict[str, Any]]) -> Any:
    given = connected(milvus)
    given.add(np.eye(len(metadatas), dtype=np.float32), metadatas=metadatas)
    return given


@pytest.fixture(scope="module")
def every(milvus: str) -> Iterator[Any]:
    with filled(milvus, EVERY) as given:
        yield given


def assert_same(collection: Any, *trees: Filter) -> None:
    """Look whether what is found and counted is what matches in Python."""
    rows = list(collection)
    query = [1.0] * len(rows)
    for tree in trees:
        wanted = {row.id for row in rows if matches(tree, row)}
        assert {row.id for row in collection.get(filter=tree)} == wanted, tree
        assert {hit.id for hit in collection.search(query, len(rows), filter=tree)} == wanted, tree
        assert collection.count(tree) == len(wanted), tree


class TestSlots:
    @pytest.mark.parametrize("operator", OPERATORS)
    def test_each_operator_where_rows_are_crowded(self, every: Any, operator: Any) -> None:
        for value in [*OPERATORS[operator], *ALSO.get(operator, ())]:
            assert_same(every, Compare("f", operator, value), Compare("nested.f", operator, value))

    def test_combinations(self, every: Any) -> None:
        half = Compare("other 3", "lt", 5)
        assert_same(
            every,
            And(half, Compare("f", "gt", 0)),
            Or(Compare("f", "eq", "a"), Compare("other 9", "eq", 9)),
            And(Compare("f", "in", ["a", 2.5, 'quo"te']), Not(half)),
            Compare("other 9", "in", [9, "9", 10**30]),
        )

    def test_numbers_are_compared_as_python_does(self, milvus: str) -> None:
        with filled(milvus, [{"f": number} for number in NUMBERS]) as collection:
            for number in NUMBERS:
                assert_same(collection, *(Compare("f", name, number) for name in ("eq", "gt", "gte", "lt", "lte")))
            assert_same(collection, Compare("f", "in", NUMBERS), Compare("f", "in", NUMBERS[3:7]))

    def test_strings_that_share_a_digest(self, milvus: str, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = forms.digest_of
        monkeypatch.setattr(forms, "digest_of", lambda *parts, bits: 7 if bits == 53 else plain(*parts, bits=bits))
        strings = ["a", "b", "7", 'quo"te', "other", "x" * 600, "y" * 600, "", 7]
        with filled(milvus, [{"f": each} for each in strings]) as collection:
            assert value_of("a") == value_of("b") == 7.0
            assert_same(collection, *(Compare("f", "eq", each) for each in strings))
            assert_same(collection, *(Compare("f", "in", [each, *strings[2:4], 5]) for each in strings))

    def test_where_a_row_keeps_what(self) -> None:
        fields = stored_forms(
            {"n": True, "s": "é", "t": 'quo"te', "l": [1], "m": [None], "b": 10**30, "d": {"e": 2}, "x": None}
        )
        pairs = [(fields[field], fields[value]) for field, value in SLOTS]
        assert pairs[:7] == [
            (field_of("n", "number"), 1.0),
            (field_of("s", "string"), value_of("é")),
            (field_of("t", "text"), value_of('quo"te')),
            (field_of("l", "list"), 0.0),
            (field_of("m", "mixed"), 0.0),
            (field_of("b", "big"), 0.0),
            (field_of("d.e", "number"), 2.0),
        ]
        assert set(pairs[7:]) == {(0, 0.0)}
        assert (fields["crowded"], fields["odd"]) == (False, False)
        assert stored_forms(OTHERS)["crowded"] is False
        assert stored_forms(OTHERS | {"f": 1})["crowded"] is True
        odd = stored_forms({"a.b": 1, "a": {"b": 2}})
        assert (odd["odd"], odd["crowded"], {odd[name] for pair in SLOTS for name in pair}) == (True, False, {0})

    def test_numbers_that_stand_for_fields_and_strings_fit(self) -> None:
        assert len({field_of(name, kind) for name in ("f", "g", "number") for kind in ("number", "string", "text")}) == 9
        for number in range(1000):
            assert 0 < field_of(str(number), "number") < 2**63
            assert 0 <= value_of(str(number)) < 2**53
            assert value_of(str(number)).is_integer()


class TestExpressions:
    def test_json_is_looked_at_behind_slots_alone(self) -> None:
        for tree in (Compare("f", "eq", 1), Compare("f", "gte", 1), Compare("f", "in", [1, "a"]), Compare("f", "like", "a%")):
            before, crowded, _ = str(Condition("t", tree).text).partition("crowded == true")
            assert crowded
            assert "metadata" not in before

    def test_the_form_that_is_compared(self) -> None:
        form, is_odd = compared_form({"a": True, "b": {"c": 2.0, "d": None}, "e": "x", "f": [1, None], "g": 2**60, "q\n": 1})
        assert not is_odd
        assert form == {
            "*": ["a", "b", "b.c", "b.d", "e", "f", "g"],
            "$": ["e"],
            "a": 1,
            "b": True,
            "b.c": 2,
            "e": "x",
            "f": True,
            "g": True,
        }
        assert compared_form({"a.b": 1, "a": {"b": 2}}) == ({}, True)
