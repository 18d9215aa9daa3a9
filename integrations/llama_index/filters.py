"""LlamaIndex's metadata filters, node ids and document ids as the collection's one filter tree.

What an operator means is the tree's business (:mod:`rarebit.retrievers.collection.filters`); here it gets its other name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from rarebit.errors import FilterError
from rarebit.integrations.llama_index.nodes import REF_DOC_ID
from rarebit.retrievers.collection import And, Compare, Filter, Ids, Not, Or
from rarebit.retrievers.collection.filters import Operator

OPERATORS: Mapping[FilterOperator, Operator] = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.ANY: "any",
    FilterOperator.ALL: "all",
    FilterOperator.CONTAINS: "contains",
    FilterOperator.TEXT_MATCH: "text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "text_match_insensitive",
    FilterOperator.IS_EMPTY: "is_empty",
}


def translated(filters: MetadataFilters | MetadataFilter) -> Filter:
    """Translate filters, nested to any depth; an empty list of them matches everything.

    Raises:
        FilterError: not a filter of LlamaIndex, or a value that its operator cannot take.
    """
    if isinstance(filters, MetadataFilter):
        return _compared(filters)
    if not isinstance(filters, MetadataFilters):
        raise FilterError(f"got filters={filters!r} ({type(filters).__name__}), wanted MetadataFilters(filters=[...])")
    if not filters.filters:
        return And()
    children = [translated(child) for child in filters.filters]
    match filters.condition:
        case FilterCondition.AND | None:
            return And(*children)
        case FilterCondition.OR:
            return Or(*children)
        case FilterCondition.NOT:
            return Not(Or(*children))
    raise FilterError(f"got condition={filters.condition!r}, wanted one of {[known.value for known in FilterCondition]}")


def restricted(
    filters: MetadataFilters | None = None,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
) -> Filter | None:
    """Join what restricts a query: every part that is given must hold; None if nothing restricts it.

    An empty list of ids restricts nothing: retrievers pass one when the user gave none.
    """
    parts: list[Filter] = []
    if node_ids:
        parts.append(Ids(tuple(node_ids)))
    if doc_ids:
        parts.append(Compare(REF_DOC_ID, "in", list(doc_ids)))
    if filters is not None and restricts(filters):
        parts.append(translated(filters))
    return And(*parts) if parts else None


def restricts(filters: MetadataFilters | None) -> bool:
    """Whether filters say anything; what is no filter at all counts, so that translating it complains."""
    return filters is not None and bool(getattr(filters, "filters", True))


def _compared(leaf: MetadataFilter) -> Compare:
    if leaf.operator not in OPERATORS:
        raise FilterError(f"got operator={leaf.operator!r} on key {leaf.key!r}, wanted one of {[op.value for op in OPERATORS]}")
    # IS_EMPTY has no operand: LlamaIndex ignores its value, and so do we.
    value = True if leaf.operator is FilterOperator.IS_EMPTY else leaf.value
    return Compare(leaf.key, OPERATORS[leaf.operator], value)
