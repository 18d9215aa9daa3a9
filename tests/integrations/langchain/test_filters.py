from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery

from rarebit import And, Compare, Not, Or, errors
from rarebit.integrations.langchain import RarebitTranslator, RarebitVectorStore
from rarebit.integrations.langchain.filters import COMPARISONS, as_filter
from rarebit.retrievers.collection import Ids

YEAR = Compare("year", "gt", 2000)

TRANSLATIONS: list[tuple[dict[str, Any], Any]] = [
    ({"lang": "en"}, Compare("lang", "eq", "en")),
    ({"lang": None}, Compare("lang", "eq", None)),
    ({"tags": ["a", "b"]}, Compare("tags", "eq", ["a", "b"])),
    ({"nested": {"eq": 1}}, Compare("nested", "eq", {"eq": 1})),
    ({"nested": {}}, Compare("nested", "eq", {})),
    ({"year": {"$gt": 2000}}, YEAR),
    ({"year": {"$gt": 2000, "$lte": 2010}}, And(YEAR, Compare("year", "lte", 2010))),
    ({"year": {"$gt": 2000}, "lang": "en"}, And(YEAR, Compare("lang", "eq", "en"))),
    ({"$and": [{"year": {"$gt": 2000}}, {"lang": "en"}]}, And(YEAR, Compare("lang", "eq", "en"))),
    ({"$or": [{"year": {"$gt": 2000}}, {}]}, Or(YEAR, And())),
    ({"$or": [YEAR, Ids(("a",))]}, Or(YEAR, Ids(("a",)))),
    ({"$not": {"year": {"$gt": 2000}}}, Not(YEAR)),
    ({"$not": YEAR}, Not(YEAR)),
    ({"year": {"$not": {"$gt": 2000}}}, Not(YEAR)),
    ({"year": {"$not": 2000}}, Not(Compare("year", "eq", 2000))),
    ({"year": {"$in": (1, 2)}}, Compare("year", "in", [1, 2])),
    ({"year": {"$exists": False}}, Compare("year", "exists", False)),
]


@pytest.mark.parametrize(("given", "tree"), TRANSLATIONS, ids=[str(given) for given, _ in TRANSLATIONS])
def test_dictionaries_become_trees(given: dict[str, Any], tree: Any) -> None:
    assert as_filter(given) == tree


def test_trees_pass_through_and_nothing_is_no_filter() -> None:
    assert as_filter(YEAR) is YEAR
    assert as_filter(None) is None
    assert as_filter({}) is None


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"year": {"$above": 1}}, r"\$above.*\$gt"),
        ({"$gt": 1}, r"\$gt.*\$and"),
        ({"$nor": [{"a": 1}]}, r"\$nor"),
        ({"year": {"$gt": 1, "lt": 2}}, "year"),
        ({"$and": {"a": 1}}, r"\$and"),
        ({"$or": []}, r"\$or"),
        ({"$and": ["a"]}, "str"),
        ({"$not": None}, "NoneType"),
        ({"year": {"$in": 5}}, "a list"),
        ({"year": {"$gt": None}}, "a number or a string"),
        ({"day": object()}, "JSON"),
        ({1: 2}, "metadata key"),
        ("year > 2000", "str"),
        ([("a", 1)], "list"),
    ],
)
def test_what_cannot_be_understood_is_an_error(given: Any, named: str) -> None:
    with pytest.raises(errors.FilterError, match=named):
        as_filter(given)


@pytest.fixture
def library(compass: Embeddings) -> RarebitVectorStore:
    books = [
        ("a", {"year": 1999, "tags": ["red", "new"], "title": "The Kettle"}),
        ("b", {"year": 2005, "tags": ["red"], "title": "A teapot"}),
        ("c", {"year": 2012, "title": "The cup"}),
        ("d", {"tags": [], "title": None}),
    ]
    store = RarebitVectorStore(compass)
    store.add_texts(["east"] * 4, [metadata for _, metadata in books], ids=[key for key, _ in books])
    return store


FOUND: list[tuple[Any, str]] = [
    ({"year": 2005}, "b"),
    ({"year": {"$eq": 2005}}, "b"),
    ({"year": {"$ne": 2005}}, "acd"),
    ({"year": {"$gt": 2005}}, "c"),
    ({"year": {"$gte": 2005}}, "bc"),
    ({"year": {"$lt": 2005}}, "a"),
    ({"year": {"$lte": 2005}}, "ab"),
    ({"year": {"$in": [1999, 2012]}}, "ac"),
    ({"year": {"$nin": [1999, 2012]}}, "bd"),
    ({"year": {"$exists": True}}, "abc"),
    ({"title": {"$like": "The %"}}, "ac"),
    ({"tags": {"$contains": "red"}}, "ab"),
    ({"tags": {"$any": ["new", "old"]}}, "a"),
    ({"tags": {"$all": ["new", "red"]}}, "a"),
    ({"title": {"$text_match": "ea"}}, "b"),
    ({"title": {"$text_match_insensitive": "TEA"}}, "b"),
    ({"tags": {"$is_empty": True}}, "cd"),
    ({"year": {"$gt": 1999}, "tags": {"$contains": "red"}}, "b"),
    ({"$or": [{"year": 1999}, lambda document: document.id == "d"]}, "ad"),
    ({"$not": {"$or": [{"year": 1999}, {"tags": {"$exists": False}}]}}, "bd"),
    (lambda document: document.metadata.get("year", 0) > 2000, "bc"),
    (Or(Ids(("d",)), Compare("year", "lt", 2000)), "ad"),
    ({}, "abcd"),
]


@pytest.mark.parametrize(("given", "expected"), FOUND, ids=[str(given) for given, _ in FOUND])
def test_each_kind_finds_its_documents(library: RarebitVectorStore, given: Any, expected: str) -> None:
    found = library.similarity_search("east", k=9, filter=given)
    assert sorted(str(document.id) for document in found) == list(expected)


def test_every_operator_of_the_tree_has_been_tried() -> None:
    assert set(COMPARISONS) <= {name for given, _ in FOUND if isinstance(given, dict) for name in str(given).split("'")}


def test_a_function_is_given_whole_documents(library: RarebitVectorStore) -> None:
    seen: list[Document] = []
    library.similarity_search("east", filter=lambda document: bool(seen.append(document)))
    assert [(document.id, document.page_content) for document in seen] == [(key, "east") for key in "abcd"]


@pytest.mark.parametrize("comparator", list(Comparator))
def test_the_translator_knows_every_comparator(comparator: Comparator) -> None:
    value: Any = ["a"] if comparator in (Comparator.IN, Comparator.NIN) else "a"
    tree = RarebitTranslator().visit_comparison(Comparison(comparator, "field", value))
    op = "contains" if comparator is Comparator.CONTAIN else comparator.value
    assert tree == Compare("field", op, value)  # type: ignore[arg-type]


def test_structured_queries_become_search_keywords(library: RarebitVectorStore) -> None:
    late = Comparison(Comparator.GT, "year", 2000)
    red = Comparison(Comparator.CONTAIN, "tags", "red")
    either = Operation(Operator.OR, [Operation(Operator.NOT, [late]), Operation(Operator.AND, [late, red])])
    query, keywords = StructuredQuery("east", either).accept(RarebitTranslator())
    assert (query, keywords) == (
        "east",
        {"filter": Or(Not(YEAR), And(YEAR, Compare("tags", "contains", "red")))},
    )
    assert sorted(str(document.id) for document in library.search(query, "similarity", **keywords)) == ["a", "b", "d"]
    assert StructuredQuery("east", None).accept(RarebitTranslator()) == ("east", {})


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"date": "2024-05-01", "type": "date"}, "2024-05-01"),
        ({"datetime": "2024-05-01T10:00:00", "type": "datetime"}, "2024-05-01T10:00:00"),
    ],
)
def test_dates_are_compared_as_strings(value: Any, plain: str) -> None:
    translator = RarebitTranslator()
    assert translator.visit_comparison(Comparison(Comparator.GTE, "day", value)) == Compare("day", "gte", plain)
    assert translator.visit_comparison(Comparison(Comparator.IN, "day", [value])) == Compare("day", "in", [plain])


def test_in_takes_a_single_value_and_not_a_single_argument() -> None:
    translator = RarebitTranslator()
    assert translator.visit_comparison(Comparison(Comparator.IN, "genre", "comedy")) == Compare("genre", "in", ["comedy"])
    with pytest.raises(errors.FilterError, match="2 arguments"):
        translator.visit_operation(Operation(Operator.NOT, [Comparison(Comparator.EQ, "a", 1)] * 2))


def test_a_self_query_retriever_uses_the_translator(library: RarebitVectorStore) -> None:
    self_query = pytest.importorskip("langchain_classic.retrievers.self_query.base")
    runnables = pytest.importorskip("langchain_core.runnables")
    structured = StructuredQuery("east", Comparison(Comparator.GTE, "year", 2005), limit=1)
    retriever = self_query.SelfQueryRetriever(
        query_constructor=runnables.RunnableLambda(lambda _: structured),
        vectorstore=library,
        structured_query_translator=RarebitTranslator(),
        search_kwargs={"k": 3},
    )
    assert [document.id for document in retriever.invoke("books since 2005")] == ["b"]
