"""Whatever cannot be kept: a clear error, and the collection is as it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rarebit import Collection, Compare
from rarebit.errors import (
    DimensionError,
    DuplicateIdError,
    FilterError,
    InputError,
    MetadataError,
    MissingRowError,
    VectorError,
)
from rarebit.retrievers.collection import And, Not

GOOD = [[1.0, 2.0], [3.0, 4.0]]


@pytest.fixture
def collection() -> Collection:
    opened = Collection.open()
    opened.add([[1.0, 0.0], [0.0, 1.0]], texts=["x", "y"], metadatas=[{"n": 1}, {"n": 2}], ids=["a", "b"])
    return opened


def content(collection: Collection) -> list[Any]:
    return [[(row.id, row.text, row.metadata) for row in collection], [hit.score for hit in collection.search([1.0, 0.5])]]


Cases = dict[str, tuple[Callable[[Collection], object], type[Exception], str]]
WRITES: Cases = {
    "wrong dimension": (lambda c: c.add([[1.0, 2.0, 3.0]]), DimensionError, "dimension 3, wanted 2"),
    "no dimension": (lambda c: c.add([[], []]), DimensionError, "dimension 0"),
    "one vector": (lambda c: c.add([1.0, 2.0]), VectorError, "one row a vector"),
    "three axes": (lambda c: c.add(np.zeros((2, 2, 2))), VectorError, r"\(2, 2, 2\)"),
    "NaN": (lambda c: c.add([[1.0, 2.0], [np.nan, 1.0]]), VectorError, "1 of 2 vectors .* number 1"),
    "infinity": (lambda c: c.add([[np.inf, 1.0]]), VectorError, "infinity"),
    "beyond float32": (lambda c: c.add([[1e300, 1.0]]), VectorError, "beyond float32"),
    "ragged": (lambda c: c.add([[1.0, 2.0], [1.0]]), VectorError, "no matrix"),
    "no numbers": (lambda c: c.add([["a", "b"]]), VectorError, "no matrix"),
    "nothing": (lambda c: c.add(None), VectorError, "wanted a matrix|no matrix"),
    "fewer texts": (lambda c: c.add(GOOD, texts=["one"]), InputError, "2 vectors and 1 texts"),
    "more ids": (lambda c: c.add(GOOD, ids=["1", "2", "3"]), InputError, "2 vectors and 3 ids"),
    "one string as texts": (lambda c: c.add(GOOD, texts="ab"), InputError, "put it into a list"),
    "text that is none": (lambda c: c.add(GOOD, texts=["a", 1]), InputError, "int"),
    "number as id": (lambda c: c.add(GOOD, ids=["c", 7]), InputError, r"7 \(int\)"),
    "id twice": (lambda c: c.add(GOOD, ids=["c", "c"]), DuplicateIdError, "'c'"),
    "broken unicode id": (lambda c: c.add(GOOD, ids=["c", "\ud800"]), InputError, "Unicode"),
    "broken unicode text": (lambda c: c.add(GOOD, texts=["c", "\ud800"]), InputError, "Unicode"),
    "broken unicode metadata": (lambda c: c.add(GOOD, metadatas=[{}, {"a": "\ud800"}]), MetadataError, "JSON"),
    "date in metadata": (
        lambda c: c.add(GOOD, metadatas=[{}, {"d": dt.date(2020, 1, 1)}], ids=["c", "d"]),
        MetadataError,
        "'d'",
    ),
    "NaN in metadata": (lambda c: c.add(GOOD, metadatas=[{}, {"d": float("nan")}]), MetadataError, "finite"),
    "set in metadata": (lambda c: c.add(GOOD, metadatas=[{}, {"d": {1}}]), MetadataError, "JSON"),
    "bytes in metadata": (lambda c: c.add(GOOD, metadatas=[{}, {"d": b"x"}]), MetadataError, "JSON"),
    "number as key": (lambda c: c.add(GOOD, metadatas=[{}, {1: "x"}]), MetadataError, "key 1"),
    "inner number as key": (lambda c: c.add(GOOD, metadatas=[{}, {"a": [{1: "x"}]}]), MetadataError, "key 1"),
    "list as metadata": (lambda c: c.add(GOOD, metadatas=[{}, ["x"]]), MetadataError, "list"),
    "no batches": (lambda c: c.add(GOOD, batch_size=0), InputError, "batch_size=0"),
    "delete everything by mistake": (lambda c: c.delete(), InputError, "delete_all"),
    "delete one string": (lambda c: c.delete("ab"), InputError, r"wanted a list of ids, such as \['ab'\]"),
    "delete by no filter": (lambda c: c.delete(filter={"n": 1}), FilterError, "wanted And"),
}
READS: Cases = {
    "query of another dimension": (lambda c: c.search([1.0]), DimensionError, "dimension 1, wanted 2"),
    "queries as a query": (lambda c: c.search([[1.0, 2.0]]), VectorError, "one vector"),
    "a query as queries": (lambda c: c.search_many([1.0, 2.0]), VectorError, "matrix"),
    "get one string": (lambda c: c.get("ab"), InputError, "list of ids"),
    "NaN query": (lambda c: c.search([np.nan, 1.0]), VectorError, "NaN"),
    "negative k": (lambda c: c.search([1.0, 2.0], k=-1), InputError, "k=-1"),
    "k that is no number": (lambda c: c.search([1.0, 2.0], k="3"), InputError, "k='3'"),
    "a dictionary as filter": (lambda c: c.search([1.0, 2.0], filter={"n": 1}), FilterError, "wanted And"),
    "lambda": (lambda c: c.search_mmr([1.0, 2.0], lambda_mult=1.5), InputError, "lambda_mult"),
    "alpha": (lambda c: c.search_hybrid([1.0, 2.0], "x", alpha=-1), InputError, "alpha"),
    "fusion": (lambda c: c.search_hybrid([1.0, 2.0], "x", fusion="sum"), InputError, "fusion"),
    "vectors of a missing id": (lambda c: c.vectors(["a", "zz"]), MissingRowError, "'zz'"),
}
FILTERS: Cases = {
    "operator": (lambda _: Compare("n", "equals", 1), FilterError, "'equals'"),
    "in without list": (lambda _: Compare("n", "in", "abc"), FilterError, "a list"),
    "text operator on a number": (lambda _: Compare("n", "like", 1), FilterError, "a string"),
    "order of lists": (lambda _: Compare("n", "gt", [1]), FilterError, "a number or a string"),
    "flag": (lambda _: Compare("n", "exists", 1), FilterError, "True or False"),
    "date": (lambda _: Compare("n", "eq", dt.date(2020, 1, 1)), FilterError, "JSON"),
    "NaN": (lambda _: Compare("n", "eq", float("nan")), FilterError, "JSON"),
    "broken unicode": (lambda _: Compare("n", "eq", "\ud800"), FilterError, "JSON"),
    "field": (lambda _: Compare(1, "eq", 1), FilterError, "metadata key"),
    "child": (lambda _: And({"n": 1}), FilterError, "inside a filter"),
    "negated child": (lambda _: Not(None), FilterError, "inside a filter"),
}


@pytest.mark.unchecked
@pytest.mark.parametrize("case", [*WRITES, *READS])
def test_refused_and_unchanged(collection: Collection, case: str) -> None:
    call, error, message = {**WRITES, **READS}[case]
    before = content(collection)
    with pytest.raises(error, match=message):
        call(collection)
    assert content(collection) == before


@pytest.mark.unchecked
@pytest.mark.parametrize("case", FILTERS)
def test_filters_that_cannot_be_understood(collection: Collection, case: str) -> None:
    call, error, message = FILTERS[case]
    with pytest.raises(error, match=message):
        call(collection)


def test_a_bad_row_late_in_a_big_call_undoes_the_whole_call(collection: Collection) -> None:
    before = content(collection)
    metadatas: list[dict[str, Any]] = [{} for _ in range(5000)]
    metadatas[4321] = {"bad": object()}
    with pytest.raises(MetadataError):
        collection.add(np.linspace([1, 2], [2, 1], 5000), metadatas=metadatas, batch_size=100)
    assert content(collection) == before
    collection.add([[5.0, 5.0]], ids=["later"])
    assert collection.count() == 3


def test_nothing_to_add_is_fine(collection: Collection) -> None:
    assert collection.add([]) == []
    assert collection.add(np.empty((0, 2)), texts=[], ids=[]) == []
    assert collection.count() == 2


def test_the_callers_arrays_and_dictionaries_are_not_touched(collection: Collection) -> None:
    vectors, metadata = np.array([[3.0, 4.0]]), {"tags": ("x", "y")}
    collection.add(vectors, metadatas=[metadata], ids=["c"])
    assert vectors.tolist() == [[3.0, 4.0]]
    assert metadata == {"tags": ("x", "y")}
    assert collection.get(["c"])[0].metadata == {"tags": ["x", "y"]}


def test_a_vector_of_zeros_has_no_direction_and_scores_zero(collection: Collection) -> None:
    collection.add([[0.0, 0.0]], ids=["zero"])
    scores = {hit.id: hit.score for hit in collection.search([1.0, 0.0])}
    assert scores == {"a": pytest.approx(1.0), "b": pytest.approx(0.0), "zero": 0.0}
    assert {hit.score for hit in collection.search([0.0, 0.0])} == {0.0}


def test_more_than_there_can_be_is_all_there_is(collection: Collection) -> None:
    most = 10**400
    assert len(collection.search([1.0, 0.5], k=most, candidates=most)) == 2
    assert len(collection.search_mmr([1.0, 0.5], k=most, fetch_k=most)) == 2
    assert len(collection.search_hybrid([1.0, 0.5], "x", k=most, fetch_k=most)) == 2
    assert len(collection.search_lexical("x", k=most)) == 1
    assert len(list(collection.iterate(batch_size=most))) == 2
    assert len(list(collection.tenant("t").iterate(batch_size=most))) == 0
    collection.add(GOOD, batch_size=most)
    assert len(collection) == 4


def test_what_cannot_be_an_id_is_in_no_collection(collection: Collection) -> None:
    assert "a" in collection
    assert "\ud800" not in collection
