r"""The one filter language: a small tree of And, Or, Not and Compare over metadata.

Both frameworks' filters are translated into it. What each operator means is defined here, once, in :meth:`Compare.holds`;
:mod:`.columns` finds the same rows in arrays.

Meaning:
    - A field is a metadata key; ``"a.b"`` is the key ``"a.b"`` or the key ``b`` inside the dictionary under ``a``.
    - A row without the field, or with ``null`` in it, fails every operator except ``ne``, ``nin``, ``is_empty`` and
      ``exists`` (``null`` does exist); ``eq None``, and ``in`` with a None in its list, ask for such rows.
    - Numbers compare with numbers (a boolean counts as 0 or 1, as in Python), strings with strings by code point; a comparison
      of unlike types is false, never an error. ``ne`` and ``nin`` are the negations of ``eq`` and ``in``.
    - ``contains``: the list holds the value, or the string holds the substring; ``any`` and ``all``: of several such values.
    - ``like``: SQL's pattern over the whole string, case-sensitive, ``%`` any run, ``_`` one character, ``\`` escapes.
    - ``text_match`` and ``text_match_insensitive``: the string holds the substring. ``is_empty``: missing, null, "" or [].
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

from rarebit.errors import FilterError
from rarebit.retrievers.collection.arguments import as_ids
from rarebit.retrievers.collection.records import Row

Operator: TypeAlias = Literal[
    "eq",
    "ne",
    "gt",
    "gte",
    "lt",
    "lte",
    "in",
    "nin",
    "exists",
    "contains",
    "any",
    "all",
    "like",
    "text_match",
    "text_match_insensitive",
    "is_empty",
]
OPERATORS: tuple[Operator, ...] = get_args(Operator)

NEGATED: Mapping[str, Operator] = {"ne": "eq", "nin": "in"}
"""Operator -> the one whose negation it is."""

RANGES: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
DEEPEST = 100
"""Levels of And, Or and Not in one filter."""

_LISTS = ("in", "nin", "any", "all")
_STRINGS = ("like", "text_match", "text_match_insensitive")
_FLAGS = ("exists", "is_empty")


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison of a metadata field with a value.

    Args:
        field: the metadata key, or a dotted path into nested dictionaries.
        op: one of :data:`OPERATORS`.
        value: a JSON value; a list for ``in``, ``nin``, ``any`` and ``all``; a string for the text operators; for
            ``exists`` and ``is_empty`` True (the default) or False for the opposite.

    Raises:
        FilterError: an unknown operator, or a value that it cannot take.
    """

    field: str
    op: Operator
    value: Any = True

    def __post_init__(self) -> None:
        """Check that the operator exists and can take the value."""
        if not isinstance(self.field, str):
            raise FilterError(f"got a field of type {type(self.field).__name__} ({self.field!r}), wanted a metadata key (str)")
        if self.op not in OPERATORS:
            raise FilterError(f"got operator {self.op!r} on field {self.field!r}, wanted one of {list(OPERATORS)}")
        object.__setattr__(self, "value", self._json_value())
        wanted = self._wanted()
        if wanted:
            raise FilterError(f"got {self.value!r} for operator {self.op!r} on field {self.field!r}, wanted {wanted}")

    def __hash__(self) -> int:
        """Hash also those whose value is a list."""
        return hash((self.field, self.op, repr(self.value)))

    def holds(self, present: Sequence[Any]) -> bool:
        """Whether a row matches whose field has these values (none where it is missing, more where a path is ambiguous)."""
        if self.op in NEGATED:
            return not Compare(self.field, NEGATED[self.op], self.value).holds(present)
        if self.op == "exists":
            return bool(present) is self.value
        if self.op == "is_empty":
            return all(value is None or value in ("", []) for value in present) is self.value
        if (self.op == "eq" and self.value is None) or (self.op == "in" and None in self.value and not _filled(present)):
            return not _filled(present)
        return any(value is not None and self._holds_for(value) for value in present)

    def _holds_for(self, value: Any) -> bool:
        if self.op == "eq":
            return bool(value == self.value)
        if self.op == "in":
            return any(value == wanted for wanted in self.value)
        if self.op in RANGES:
            return comparable(value, self.value) and RANGES[self.op](value, self.value)
        if self.op == "contains":
            return holds_element(value, self.value)
        if self.op == "any":
            return any(holds_element(value, wanted) for wanted in self.value)
        if self.op == "all":
            return isinstance(value, list | str) and all(holds_element(value, wanted) for wanted in self.value)
        if not isinstance(value, str):
            return False
        if self.op == "like":
            return _like(self.value).fullmatch(value) is not None
        if self.op == "text_match":
            return self.value in value
        return self.value.lower() in value.lower()

    def _json_value(self) -> Any:
        try:
            encoded = json.dumps(self.value, allow_nan=False, ensure_ascii=False)
            (encoded + self.field).encode()
            return json.loads(encoded)
        except (TypeError, ValueError, RecursionError) as error:
            raise FilterError(
                f"got {self.value!r} for operator {self.op!r} on field {self.field!r}, wanted a JSON value ({error}): "
                "convert dates and the like to the form in which the metadata has them"
            ) from error

    def _wanted(self) -> str | None:
        if self.op in _LISTS and not isinstance(self.value, list):
            return "a list"
        if self.op in _STRINGS and not isinstance(self.value, str):
            return "a string"
        if self.op in _FLAGS and not isinstance(self.value, bool):
            return "True or False"
        if self.op in RANGES and not isinstance(self.value, int | float | str):
            return "a number or a string"
        return None


@dataclass(frozen=True, slots=True, init=False)
class And:
    """Matches where every child matches; ``And()`` matches everything."""

    children: tuple[Filter, ...]
    depth: int = field(init=False, repr=False, compare=False)

    def __init__(self, *children: Filter) -> None:
        """Join the children."""
        object.__setattr__(self, "children", children)
        object.__setattr__(self, "depth", _depth_over(children))


@dataclass(frozen=True, slots=True, init=False)
class Or:
    """Matches where at least one child matches; ``Or()`` matches nothing."""

    children: tuple[Filter, ...]
    depth: int = field(init=False, repr=False, compare=False)

    def __init__(self, *children: Filter) -> None:
        """Join the children."""
        object.__setattr__(self, "children", children)
        object.__setattr__(self, "depth", _depth_over(children))


@dataclass(frozen=True, slots=True)
class Not:
    """Matches where the child does not."""

    child: Filter
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the child."""
        object.__setattr__(self, "depth", _depth_over((self.child,)))


@dataclass(frozen=True, slots=True)
class Ids:
    """Matches the rows that have one of these ids."""

    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that they are several strings and not one."""
        object.__setattr__(self, "ids", tuple(as_ids(self.ids)))


@dataclass(frozen=True, slots=True)
class Where:
    """Matches the rows for which a Python function is true; every row is read, so the other leaves are far faster."""

    predicate: Callable[[Row], bool]


Filter: TypeAlias = And | Or | Not | Compare | Ids | Where


def as_filter(given: Any) -> Filter | None:
    """Check that a filter is a tree of ours, or None."""
    if given is not None and not isinstance(given, Filter):
        raise FilterError(f"got filter={given!r}, wanted And, Or, Not, Compare, Ids or Where from rarebit, or None")
    return given


def matches(tree: Filter, row: Row) -> bool:
    """Whether one row matches a filter, by looking at the row alone."""
    match tree:
        case And(children=children):
            return all(matches(child, row) for child in children)
        case Or(children=children):
            return any(matches(child, row) for child in children)
        case Not(child=child):
            return not matches(child, row)
        case Compare(field=name):
            return tree.holds(list(values_at(row.metadata, name)))
        case Ids(ids=ids):
            return row.id in ids
        case Where(predicate=predicate):
            return bool(predicate(row))


def matches_everything(tree: Filter) -> bool:
    """Whether a filter says nothing: an And of nothing, or of nothing but such."""
    match tree:
        case And(children=children):
            return all(map(matches_everything, children))
        case Or(children=children):
            return any(map(matches_everything, children))
    return False


def holds_a(kind: type[Compare | Ids | Where], tree: Filter) -> bool:
    """Whether a filter has a leaf of a kind."""
    match tree:
        case And(children=children) | Or(children=children):
            return any(holds_a(kind, child) for child in children)
        case Not(child=child):
            return holds_a(kind, child)
    return isinstance(tree, kind)


def values_at(metadata: Mapping[str, Any], name: str) -> Iterator[Any]:
    """Give every value that a field name denotes: the key itself, and each reading of it as a dotted path."""
    if name in metadata:
        yield metadata[name]
    for position in (found.start() for found in re.finditer(r"\.", name)):
        inner = metadata.get(name[:position])
        if isinstance(inner, dict):
            yield from values_at(inner, name[position + 1 :])


def comparable(one: Any, other: Any) -> bool:
    """Whether two JSON values have an order: both numbers, or both strings."""
    return all(isinstance(value, int | float) for value in (one, other)) or all(
        isinstance(value, str) for value in (one, other)
    )


def holds_element(value: Any, wanted: Any) -> bool:
    """Whether a list holds an element, or a string a substring."""
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, list) and wanted in value


def _filled(present: Sequence[Any]) -> bool:
    return any(value is not None for value in present)


def _depth_over(children: Sequence[Filter]) -> int:
    """Give the levels of a tree with these children, and check that they are filters and not too many levels."""
    for child in children:
        if not isinstance(child, Filter):
            raise FilterError(f"got {child!r} inside a filter, wanted And, Or, Not, Compare, Ids or Where")
    depth = 1 + max((getattr(child, "depth", 0) for child in children), default=0)
    if depth > DEEPEST:
        raise FilterError(f"the filter is nested more than {DEEPEST} levels deep: put several children into one And or Or")
    return depth


@lru_cache(maxsize=256)
def _like(pattern: str) -> re.Pattern[str]:
    wildcards = {"%": ".*", "_": "."}
    parts: list[str] = re.findall(r"\\.|.", pattern, flags=re.DOTALL)
    return re.compile("".join(wildcards[part] if part in wildcards else re.escape(part[-1]) for part in parts), flags=re.DOTALL)
