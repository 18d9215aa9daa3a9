"""LlamaIndex's filters, compared with LlamaIndex's own reference and with plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from rarebit.errors import FilterError
from rarebit.integrations.llama_index import RarebitVectorStore
from rarebit.integrations.llama_index.filters import OPERATORS, restricted, translated
from rarebit.retrievers.collection import And, Compare, Ids, Not, Or

METADATAS: dict[str, dict[str, Any]] = {
    "one": {"n": 1, "s": "Apple pie", "tags": ["a", "b"], "doc_id": "mine"},
    "two": {"n": 2, "s": "apple", "tags": ["b", "c"]},
    "half": {"n": 0.5, "s": "", "tags": []},
    "words": {"n": "2", "s": "pie", "tags": "abc"},
    "none": {"n": None, "s": None, "tags": None},
    "true": {"n": True, "s": 5, "tags": [1, 2.5]},
    "missing": {},
}
DOCUMENTS = {"one": "d1", "two": "d1", "half": "d2", "words": "d2", "none": "d3"}

E, C = FilterOperator, FilterCondition
LEAVES = [
    *[
        MetadataFilter(key="n", operator=op, value=value)
        for op in (E.EQ, E.NE, E.GT, E.GTE, E.LT, E.LTE)
        for value in (1, 1.5, "2")
    ],
    *[MetadataFilter(key="s", operator=op, value=value) for op in (E.EQ, E.NE, E.GT, E.LTE) for value in ("apple", "pie", "")],
    *[MetadataFilter(key="n", operator=op, value=value) for op in (E.IN, E.NIN) for value in ([1, 3], [0.5], ["2"], [])],
    *[MetadataFilter(key="s", operator=op, value=["pie", "apple"]) for op in (E.IN, E.NIN, E.ANY, E.ALL)],
    *[
        MetadataFilter(key="tags", operator=op, value=value)
        for op in (E.ANY, E.ALL)
        for value in (["a", "b"], ["b"], [1, 2], [])
    ],
    *[MetadataFilter(key="tags", operator=E.CONTAINS, value=value) for value in ("b", "z", 2, 2.5)],
    *[MetadataFilter(key="s", operator=op, value="app") for op in (E.TEXT_MATCH, E.TEXT_MATCH_INSENSITIVE, E.CONTAINS)],
    *[MetadataFilter(key=key, operator=E.IS_EMPTY, value=None) for key in ("n", "s", "tags", "never")],
    *[MetadataFilter(key="never", operator=op, value=1) for op in (E.EQ, E.NE, E.GT, E.LTE, E.CONTAINS)],
    *[MetadataFilter(key="tags", operator=op, value=["a", "b"]) for op in (E.EQ, E.NE)],
]
NESTED = [MetadataFilters(filters=LEAVES[:2], condition=condition) for condition in (*C, None)] + [
    MetadataFilters(
        filters=[
            MetadataFilters(filters=[LEAVES[0], LEAVES[20]], condition=C.OR),
            MetadataFilters(filters=[MetadataFilters(filters=[LEAVES[30], LEAVES[2]], condition=C.NOT)], condition=C.NOT),
            LEAVES[44],
        ],
        condition=outer,
    )
    for outer in C
]


def node(name: str) -> TextNode:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=DOCUMENTS[name])} if name in DOCUMENTS else {}
    return TextNode(id_=name, text=name, metadata=METADATAS[name], relationships=source, embedding=[1.0, 0.0])


@pytest.fixture(scope="module")
def store() -> RarebitVectorStore:
    filled = RarebitVectorStore()
    filled.add([node(name) for name in METADATAS])
    return filled


def found(store: RarebitVectorStore, **asked: Any) -> set[str]:
    return set(store.query(VectorStoreQuery([1.0, 0.0], similarity_top_k=100, **asked)).ids or [])


def holds(given: MetadataFilters | MetadataFilter, metadata: Mapping[str, Any]) -> bool:
    """LlamaIndex's reference, one comparison at a time; where it raises for unlike types, false."""
    if isinstance(given, MetadataFilters):
        held = [holds(child, metadata) for child in given.filters]
        return not held or {C.AND: all(held), None: all(held), C.OR: any(held), C.NOT: not any(held)}[given.condition]
    try:
        return build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[given]))("")
    except TypeError:
        return False


def described(given: MetadataFilters | MetadataFilter) -> str:
    if isinstance(given, MetadataFilter):
        return f"{given.key} {given.operator.value} {given.value!r}"
    return f"{given.condition and given.condition.value}({', '.join(map(described, given.filters))})"


def test_every_operator_of_llama_index_is_known_and_tried():
    assert set(OPERATORS) == set(FilterOperator)
    assert {leaf.operator for leaf in LEAVES} == set(FilterOperator)


@pytest.mark.parametrize("leaf", LEAVES, ids=described)
def test_each_comparison_agrees_with_the_reference(store: RarebitVectorStore, leaf: MetadataFilter):
    expected = {name for name, metadata in METADATAS.items() if holds(leaf, metadata)}
    filters = MetadataFilters(filters=[leaf])
    assert found(store, filters=filters) == expected
    assert {match.node_id for match in store.get_nodes(filters=filters)} == expected


@pytest.mark.parametrize("filters", NESTED, ids=described)
def test_each_nesting_agrees_with_the_reference(store: RarebitVectorStore, filters: MetadataFilters):
    assert found(store, filters=filters) == {name for name, metadata in METADATAS.items() if holds(filters, metadata)}


def test_missing_keys(store: RarebitVectorStore):
    missing = {"none", "missing"}
    for operator in (E.NE, E.NIN):
        assert missing <= found(store, filters=MetadataFilters(filters=[MetadataFilter(key="n", operator=operator, value=[9])]))
    others = MetadataFilters(filters=[MetadataFilter(key="n", operator=E.LT, value=9)])
    assert found(store, filters=others) == {"one", "two", "half", "true"}


@pytest.mark.parametrize("condition", [*C, None])
def test_an_empty_list_restricts_nothing(store: RarebitVectorStore, condition: FilterCondition | None):
    empty = MetadataFilters(filters=[], condition=condition)
    assert found(store, filters=empty) == set(METADATAS)
    assert found(store, filters=MetadataFilters(filters=[empty], condition=C.OR)) == set(METADATAS)
    assert found(store, filters=MetadataFilters(filters=[empty], condition=C.NOT)) == set()


N_LESS = MetadataFilters(filters=[MetadataFilter(key="n", operator=E.LTE, value=1)])
N_LESS_OR_MISSING = MetadataFilters(
    filters=[*N_LESS.filters, MetadataFilter(key="n", operator=E.IS_EMPTY, value=None)], condition=C.OR
)


@pytest.mark.parametrize("filters", [None, MetadataFilters(filters=[]), N_LESS, N_LESS_OR_MISSING])
@pytest.mark.parametrize("doc_ids", [None, [], ["d1"], ["d1", "d3"], ["nowhere"]])
@pytest.mark.parametrize("node_ids", [None, [], ["one"], ["one", "none", "missing", "unheard of"]])
def test_ids_documents_and_filters_must_all_hold(store: RarebitVectorStore, node_ids: Any, doc_ids: Any, filters: Any):
    expected = {
        name
        for name, metadata in METADATAS.items()
        if (not node_ids or name in node_ids)
        and (not doc_ids or DOCUMENTS.get(name) in doc_ids)
        and (filters is None or holds(filters, metadata))
    }
    assert found(store, node_ids=node_ids, doc_ids=doc_ids, filters=filters) == expected
    by_id = store.get_nodes(node_ids, filters)
    assert {match.node_id for match in by_id} == {
        name
        for name, metadata in METADATAS.items()
        if (node_ids is None or name in node_ids) and (filters is None or holds(filters, metadata))
    }


def test_the_tree():
    one, two = MetadataFilter(key="a", value=1), MetadataFilter(key="b", operator=E.IN, value=["x"])
    first, second = Compare("a", "eq", 1), Compare("b", "in", ["x"])
    assert translated(MetadataFilters(filters=[one, two])) == And(first, second)
    assert translated(MetadataFilters(filters=[one, two], condition=C.OR)) == Or(first, second)
    assert translated(MetadataFilters(filters=[one, two], condition=C.NOT)) == Not(Or(first, second))
    assert restricted() is None
    assert restricted(MetadataFilters(filters=[]), [], []) is None
    assert restricted(MetadataFilters(filters=[one]), ["i"], ["d"]) == And(
        Ids(("i",)), Compare("_ref_doc_id", "in", ["d"]), And(first)
    )


@pytest.mark.parametrize("operator", [E.ANY, E.ALL, E.IN, E.NIN])
@pytest.mark.parametrize("value", ["abc", 3, None])
def test_a_single_value_where_a_list_is_wanted(store: RarebitVectorStore, operator: FilterOperator, value: Any):
    with pytest.raises(FilterError, match="wanted a list"):
        found(store, filters=MetadataFilters(filters=[MetadataFilter(key="s", operator=operator, value=value)]))


@pytest.mark.parametrize(
    ("operator", "value"), [(E.GT, ["a"]), (E.LT, None), (E.TEXT_MATCH, 3), (E.TEXT_MATCH_INSENSITIVE, ["a"])]
)
def test_a_value_that_the_operator_cannot_take(store: RarebitVectorStore, operator: FilterOperator, value: Any):
    with pytest.raises(FilterError, match="wanted a"):
        store.get_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="s", operator=operator, value=value)]))


def test_an_unknown_operator_or_condition():
    leaf = MetadataFilter(key="a", value=1)
    with pytest.raises(FilterError, match="operator"):
        translated(leaf.model_copy(update={"operator": "~="}))
    with pytest.raises(FilterError, match="condition"):
        translated(MetadataFilters(filters=[leaf]).model_copy(update={"condition": "xor"}))
