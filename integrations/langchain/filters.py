"""LangChain's ways to say a filter, translated into the one filter tree that the collection understands.

A filter is a tree of :mod:`rarebit`, a dictionary, or a function of a Document; the three may be mixed inside ``$and``,
``$or`` and ``$not``. A dictionary reads as elsewhere in LangChain: several fields, or several operators on one field, must
all hold, and a bare value means ``$eq``. Every operator of the tree has its name here with a ``$`` before it; what each
means is defined in :mod:`rarebit.retrievers.collection.filters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.documents import Document
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery, Visitor

from rarebit.errors import FilterError
from rarebit.integrations.langchain.documents import document_of
from rarebit.retrievers.collection import And, Compare, Filter, Not, Or, Row, Where
from rarebit.retrievers.collection import filters as core

FilterLike: TypeAlias = Filter | Mapping[str, Any] | Callable[[Document], bool]
"""What a user may pass as ``filter=``."""

COMPARISONS: Mapping[str, core.Operator] = {f"${name}": name for name in core.OPERATORS}
JOINS: Mapping[str, type[And | Or]] = {"$and": And, "$or": Or}
NOT = "$not"

_COMPARATORS: Mapping[Comparator, core.Operator] = {
    Comparator.EQ: "eq",
    Comparator.NE: "ne",
    Comparator.GT: "gt",
    Comparator.GTE: "gte",
    Comparator.LT: "lt",
    Comparator.LTE: "lte",
    Comparator.CONTAIN: "contains",
    Comparator.LIKE: "like",
    Comparator.IN: "in",
    Comparator.NIN: "nin",
}
_DATES = ("date", "datetime")


def as_filter(given: FilterLike | None) -> Filter | None:
    """Translate what a user passed as ``filter=``.

    Args:
        given: a filter tree, a dictionary, a function that says whether a Document matches, or None.

    Returns:
        The tree; None, which matches everything, for None and the empty dictionary.

    Raises:
        FilterError: it cannot be understood; nothing is ever ignored.
    """
    if given is None or (isinstance(given, Mapping) and not given):
        return None
    return _tree(given)


def _tree(given: object) -> Filter:
    if isinstance(given, Filter):
        return given
    if isinstance(given, Mapping):
        return _all_of([_entry(key, value) for key, value in given.items()])
    if callable(given):
        return _where(given)
    raise FilterError(
        f"got {given!r} ({type(given).__name__}) as a filter, wanted a dictionary such as {{'year': {{'$gte': 2020}}}}, "
        "a function of a Document, or a tree of rarebit's And, Or, Not and Compare"
    )


def _entry(key: str, value: Any) -> Filter:
    """Translate one item of a dictionary: a field, or a logical operator over filters."""
    if key in JOINS:
        return JOINS[key](*map(_tree, _listed(key, value)))
    if key == NOT:
        return Not(_tree(value))
    if isinstance(key, str) and key.startswith("$"):
        raise FilterError(
            f"got {key!r} where a field was wanted; known there are {[*JOINS, NOT]}: "
            "an operator on a field stands inside it, as in {'year': {'$gte': 2020}}"
        )
    return _condition(key, value)


def _condition(field: str, value: Any) -> Filter:
    """Translate what must hold of one field."""
    if not _has_operators(field, value):
        return Compare(field, "eq", value)
    return _all_of([_operation(field, name, operand) for name, operand in value.items()])


def _operation(field: str, name: str, operand: Any) -> Filter:
    if name == NOT:
        return Not(_condition(field, operand))
    if name not in COMPARISONS:
        raise FilterError(f"got operator {name!r} on field {field!r}, wanted one of {[*COMPARISONS, NOT]}")
    return Compare(field, COMPARISONS[name], operand)


def _has_operators(field: str, value: Any) -> bool:
    """Whether a field's value is a dictionary of operators; one of plain keys is a value as any other."""
    if not isinstance(value, Mapping):
        return False
    marked = [isinstance(key, str) and key.startswith("$") for key in value]
    if any(marked) and not all(marked):
        raise FilterError(f"got {value!r} for field {field!r}, wanted either operators, which begin with '$', or a plain value")
    return any(marked)


def _listed(key: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise FilterError(f"got {value!r} for {key!r}, wanted a list of at least one filter")
    return value


def _all_of(parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(*parts)


def _where(predicate: Callable[[Document], object]) -> Where:
    def holds(row: Row) -> bool:
        return bool(predicate(document_of(row)))

    return Where(holds)


class RarebitTranslator(Visitor):
    """Translates structured queries, for LangChain's ``SelfQueryRetriever``.

    Pass it as ``structured_query_translator=RarebitTranslator()``. Dates are compared as the ISO 8601 strings that they are
    in metadata.
    """

    allowed_comparators: Sequence[Comparator] | None = tuple(_COMPARATORS)
    allowed_operators: Sequence[Operator] | None = tuple(Operator)

    def visit_operation(self, operation: Operation) -> Filter:
        """Translate and, or, not.

        Raises:
            FilterError: not without exactly one argument.
        """
        parts: list[Filter] = [argument.accept(self) for argument in operation.arguments]
        if operation.operator is Operator.AND:
            return And(*parts)
        if operation.operator is Operator.OR:
            return Or(*parts)
        if len(parts) != 1:
            raise FilterError(f"got {len(parts)} arguments for 'not', wanted one: join them with 'and' or 'or' first")
        return Not(parts[0])

    def visit_comparison(self, comparison: Comparison) -> Compare:
        """Translate the comparison of a field with a value.

        Raises:
            FilterError: the operator cannot take the value.
        """
        value = _plain(comparison.value)
        if comparison.comparator in (Comparator.IN, Comparator.NIN) and not isinstance(value, list):
            value = [value]  # language models write in("genre", "comedy")
        return Compare(comparison.attribute, _COMPARATORS[comparison.comparator], value)

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """Translate a query.

        Returns:
            The text to search for, and the keywords for the store's search: ``filter``, or none.
        """
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}


def _plain(value: Any) -> Any:
    """Take dates out of the dictionaries that LangChain's query parser wraps them in."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and value.get("type") in _DATES:
        return value.get(value["type"], value)
    return value
