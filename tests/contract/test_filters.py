"""Every operator on every kind of value, and random trees of them, through each way in, against a Python predicate."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.kinds import opened
from support.oracle import ALSO, METADATAS, OPERATORS, matches, random_expression
from support.subjects import SUBJECTS, Passage, Subject, core_filter

from rarebit import Row
from rarebit.retrievers.collection import matches as core_matches

PASSAGES = [
    Passage(str(number), [float(number + 1), 1.0, 0.5], f"text {number}", metadata) for number, metadata in enumerate(METADATAS)
]


@pytest.fixture(scope="module", params=["memory", "postgresql", "milvus"])
def shared_collection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened(request.param, tmp_path_factory.getbasetemp(), request) as given:
        yield given


@pytest.fixture(scope="module", params=list(SUBJECTS))
def filled(request: pytest.FixtureRequest, shared_collection: Any) -> Subject:
    subject = SUBJECTS[request.param](shared_collection)
    subject.add(PASSAGES)
    return subject


def assert_same(subject: Subject, expression: tuple[Any, ...]) -> None:
    wanted = {passage.id for passage in PASSAGES if matches(expression, passage.metadata)}
    found = {key for key, _ in subject.search([1.0, 1.0, 1.0], len(PASSAGES), expression)}
    wrong = [(key, METADATAS[int(key)]) for key in sorted(found ^ wanted)]
    assert not wrong, f"{expression}: found {sorted(found - wanted)} too many, missed {sorted(wanted - found)}: {wrong}"


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_on_each_value(filled: Subject, operator: str) -> None:
    if operator not in filled.operators:
        pytest.skip("this framework's filters do not have the operator")
    for value in OPERATORS[operator]:
        assert_same(filled, ("is", "f", operator, value))
        assert_same(filled, ("not", ("is", "f", operator, value)))


@pytest.mark.parametrize("operator", ALSO)
def test_each_operator_on_any_json(filled: Subject, operator: str) -> None:
    if operator not in filled.operators or not filled.carries_any_json:
        pytest.skip("this framework's filters do not carry such values")
    for value in ALSO[operator]:
        assert_same(filled, ("is", "f", operator, value))


@pytest.mark.parametrize("seed", range(8))
def test_random_trees(filled: Subject, seed: int) -> None:
    rng = random.Random(seed)
    operators = {name: values for name, values in OPERATORS.items() if name in filled.operators}
    for _ in range(25):
        assert_same(filled, random_expression(rng, 4, operators))


def test_two_bounds_on_one_field(filled: Subject) -> None:
    bounds = [(operator, value) for operator in ("gt", "gte", "lt", "lte") for value in OPERATORS[operator]]
    rng = random.Random(5)
    for (one, low), (other, high) in rng.sample(list(itertools.product(bounds, bounds)), 150):
        assert_same(filled, ("and", ("is", "f", one, low), ("is", "g", "gt", 1), ("is", "f", other, high)))
        assert_same(filled, ("and", ("is", "f", one, low), ("is", "f", other, high)))


def test_looking_at_one_row_means_the_same_as_asking_the_index() -> None:
    rng = random.Random(99)
    for _ in range(300):
        expression = random_expression(rng, 4, OPERATORS)
        tree = core_filter(expression)
        for passage in PASSAGES:
            row = Row(passage.id, passage.text, passage.metadata)
            assert core_matches(tree, row) == matches(expression, passage.metadata), (expression, passage.metadata)


def test_k_results_whenever_k_rows_match(filled: Subject) -> None:
    expression = ("is", "f", "exists", True) if "exists" in filled.operators else ("is", "g", "is_empty", True)
    matching = sum(matches(expression, metadata) for metadata in METADATAS)
    for k in (1, 5, matching, matching + 10):
        assert len(filled.search([1.0, 2.0, 3.0], k, expression)) == min(k, matching)


def test_filters_follow_writes(subject: Subject) -> None:
    expression = ("is", "kind", "eq", "new")
    subject.add([Passage("a", [1.0, 0.0], metadata={"kind": "old"})])
    assert subject.search([1.0, 0.0], 5, expression) == []
    subject.add([Passage("a", [1.0, 0.0], metadata={"kind": "new"}), Passage("b", [0.0, 1.0], metadata={"kind": "new"})])
    assert [key for key, _ in subject.search([1.0, 0.0], 5, expression)] == ["a", "b"]
    subject.delete(["a"])
    assert [key for key, _ in subject.search([1.0, 0.0], 5, expression)] == ["b"]
