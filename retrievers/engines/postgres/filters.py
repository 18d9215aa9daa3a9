"""Filters as SQL over a JSONB column: the same rows as :func:`rarebit.retrievers.collection.matches` finds.

Names and values never become part of a statement. A field name with dots has several readings, and each is an expression of its
own; what compares by Python's rules (True is 1) or by code points says so in the statement.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rarebit.errors import FilterError
from rarebit.retrievers.collection.filters import NEGATED, And, Compare, Filter, Ids, Not, Or
from rarebit.retrievers.engines.postgres.escaping import escaped

MOST_DOTS: Final = 6
"""In the name of a field: each doubles the readings."""

_COMPARED: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_PYTHON: Final = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_ALWAYS, _NEVER = "TRUE", "FALSE"


class Condition:
    """A filter as a condition of a statement.

    Args:
        tree: the filter, without Python predicates; None is true of every row.
        schema: the quoted name of the schema that has ``plain``.
    """

    def __init__(self, tree: Filter | None, schema: str) -> None:
        """Translate."""
        self.parameters: dict[str, Any] = {}
        self._schema = schema
        self.sql = _ALWAYS if tree is None else self._of(tree)

    @property
    def is_any(self) -> bool:
        """Whether every row matches."""
        return self.sql == _ALWAYS

    def _given(self, value: Any) -> str:
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"

    def _text(self, value: str) -> str:
        return f"{self._given(escaped(value))}::text"

    def _json(self, value: Any) -> str:
        return f"{self._given(json.dumps(escaped(value)))}::jsonb"

    def _of(self, tree: Filter) -> str:
        match tree:
            case And(children=children):
                ranges, others = _split(children)
                parts = [self._within_bounds(field, bounds) for field, bounds in ranges.items()]
                return _joined("AND", [*parts, *map(self._of, others)], _ALWAYS)
            case Or(children=children):
                return _joined("OR", map(self._of, children), _NEVER)
            case Not(child=child):
                return f"NOT {self._of(child)}"
            case Ids(ids=ids):
                return f"(id = ANY({self._given(list(map(escaped, ids)))}::text[]))"
            case Compare():
                return self._compared(tree)
        raise FilterError(f"got {tree!r} for a statement, wanted And, Or, Not, Compare or Ids")

    def _compared(self, leaf: Compare) -> str:
        if leaf.op in NEGATED:
            return f"NOT {self._compared(Compare(leaf.field, NEGATED[leaf.op], leaf.value))}"
        readings = list(self._readings(leaf.field))
        filled = _joined("OR", map(_filled, readings), _NEVER)
        if leaf.op == "exists":
            present = _joined("OR", (f"{reading} IS NOT NULL" for reading in readings), _NEVER)
            return present if leaf.value else f"NOT {present}"
        if leaf.op == "is_empty":
            full = _joined("OR", (f"({reading} NOT IN ('null', '\"\"', '[]')) IS TRUE" for reading in readings), _NEVER)
            return f"NOT {full}" if leaf.value else full
        if leaf.op == "eq" and leaf.value is None:
            return f"NOT {filled}"
        found = _joined("OR", (f"({_filled(each)} AND {self._holds(leaf, each)}) IS TRUE" for each in readings), _NEVER)
        if leaf.op == "in" and None in leaf.value:
            return f"(NOT {filled} OR {found})"
        if len(readings) > 1:
            return found
        if _is_bound(leaf):
            return self._within_bounds(leaf.field, [leaf])
        equal = leaf.value if leaf.op == "in" else [leaf.value] if leaf.op == "eq" else []
        if equal and all(isinstance(each, str | int | float) for each in equal):
            return self._contained(leaf.field, equal)
        return found

    def _contained(self, field: str, wanted: Sequence[str | float]) -> str:
        """Say that a field is one of some strings and numbers, in words that the index over the column finds."""
        also = [bool(each) for each in wanted if isinstance(each, int | float) and each in (0, 1)]
        documents = [json.dumps(escaped({field: each})) for each in (*map(_plain, wanted), *also)]
        return f"(metadata @> ANY({self._given(documents)}::jsonb[]))"

    def _within_bounds(self, field: str, bounds: Sequence[Compare]) -> str:
        """Say that a field is a number within some bounds, in words that indexes over the field and over the column find.

        The bounds are said together: each by itself is true of all rows on one side of it, and of some booleans, for which an
        index over numbers is no help.
        """
        (value,) = self._readings(field)
        said = [(_COMPARED[bound.op], bound.value) for bound in bounds]
        held = [self._numbers(value, said), *(f"metadata @> {self._json({field: each})}" for each in _booleans(said))]
        return f"({_joined('OR', held, _NEVER)} AND {value} IS NOT NULL)"

    def _numbers(self, value: str, bounds: Sequence[tuple[str, float]]) -> str:
        compared = " AND ".join(f"{value} {sign} {self._json(_plain(wanted))}" for sign, wanted in bounds)
        return f"(jsonb_typeof({value}) = 'number' AND {compared})"

    def _holds(self, leaf: Compare, value: str) -> str:
        """Say whether one value that is there, and is not null, fulfils a comparison."""
        wanted = leaf.value
        match leaf.op:
            case "eq":
                return self._equal(value, wanted)
            case "in":
                return _joined("OR", (self._equal(value, each) for each in wanted if each is not None), _NEVER)
            case "contains":
                return self._element(value, wanted)
            case "any":
                return _joined("OR", (self._element(value, each) for each in wanted), _NEVER)
            case "all":
                held = _joined("AND", (self._element(value, each) for each in wanted), _ALWAYS)
                return f"(jsonb_typeof({value}) IN ('array', 'string') AND {held})"
            case "like":
                return self._of_string(value, f"LIKE {self._text(_pattern(wanted))} ESCAPE '\\'")
            case "text_match":
                return self._within(value, wanted)
            case "text_match_insensitive":
                lowered = f"{self._schema}.lowered({_string(value)})"
                return self._of_string(value, f"IS NOT NULL AND strpos({lowered}, {self._text(wanted.lower())}) > 0")
        return self._ordered(value, _COMPARED[leaf.op], wanted)

    def _equal(self, value: str, wanted: Any) -> str:
        """Compare as Python does, to which a boolean is a number."""
        if isinstance(wanted, bool | int | float) and wanted in (0, 1):
            return f"({value} IN ('{int(wanted)}', '{'true' if wanted else 'false'}'))"
        if isinstance(wanted, list | dict):
            return f"({self._schema}.plain({value}) = {self._schema}.plain({self._json(wanted)}))"
        return f"({value} = {self._json(wanted)})"

    def _element(self, value: str, wanted: Any) -> str:
        each = self._equal("element", wanted)
        elements = f"EXISTS (SELECT FROM jsonb_array_elements({value}) AS element WHERE {each})"
        in_list = f"(CASE jsonb_typeof({value}) WHEN 'array' THEN {elements}"
        in_string = f" WHEN 'string' THEN {self._within(value, wanted)}" if isinstance(wanted, str) else ""
        return f"{in_list}{in_string} ELSE FALSE END)"

    def _ordered(self, value: str, sign: str, wanted: Any) -> str:
        if isinstance(wanted, str):
            return self._of_string(value, f"{sign} {self._text(wanted)}")
        held = [f"{value} = {self._json(each)}" for each in _booleans([(sign, wanted)])]
        return _joined("OR", [self._numbers(value, [(sign, wanted)]), *held], _NEVER)

    def _within(self, value: str, wanted: str) -> str:
        return self._of_string(value, f"IS NOT NULL AND strpos({_string(value)}, {self._text(wanted)}) > 0")

    def _of_string(self, value: str, said: str) -> str:
        return f"(jsonb_typeof({value}) = 'string' AND {_string(value)} {said})"

    def _readings(self, name: str) -> Iterator[str]:
        """Give an expression for each way to read a name as keys of dictionaries inside dictionaries."""
        if name.count(".") > MOST_DOTS:
            raise FilterError(
                f"got the field {name!r} with more than {MOST_DOTS} dots, wanted fewer: each may be part of a key"
            )
        for keys in _parted(name.split(".")):
            yield f"(metadata{''.join(f' -> {self._text(key)}' for key in keys)})"


def _is_bound(tree: Filter) -> bool:
    """Whether it compares a field, whose name can be read in one way, with a number."""
    return isinstance(tree, Compare) and tree.op in _COMPARED and isinstance(tree.value, int | float) and "." not in tree.field


def _split(children: Sequence[Filter]) -> tuple[dict[str, list[Compare]], list[Filter]]:
    """Take the bounds of numbers together, by their fields; gives what is left as well."""
    bounds: dict[str, list[Compare]] = {}
    others: list[Filter] = []
    for child in children:
        if isinstance(child, Compare) and _is_bound(child):
            bounds.setdefault(child.field, []).append(child)
        else:
            others.append(child)
    return bounds, others


def _booleans(bounds: Sequence[tuple[str, float]]) -> list[bool]:
    """Give the booleans within bounds, as Python sees it, to which True is 1 and False is 0."""
    return [each for each in (False, True) if all(_PYTHON[sign](each, wanted) for sign, wanted in bounds)]


def _plain(number: Any) -> Any:
    """Give a boolean as the number that Python takes it for."""
    return int(number) if isinstance(number, bool) else number


def _parted(pieces: Sequence[str]) -> Iterator[list[str]]:
    yield [".".join(pieces)]
    for count in range(1, len(pieces)):
        for rest in _parted(pieces[count:]):
            yield [".".join(pieces[:count]), *rest]


def _joined(word: str, conditions: Iterator[str] | Sequence[str], empty: str) -> str:
    parts = list(conditions)
    return f"({f' {word} '.join(parts)})" if parts else empty


def _filled(value: str) -> str:
    return f"({value} <> 'null') IS TRUE"


def _string(value: str) -> str:
    """Give a JSON string as text that compares by code points."""
    return f"({value} #>> '{{}}') COLLATE \"C\""


def _pattern(given: str) -> str:
    """Write a pattern so that what is escaped in it is what has to be."""
    parts: list[str] = re.findall(r"\\.|.", given, flags=re.DOTALL)
    return "".join(part if part in ("%", "_") else f"\\{part[-1]}" if part[-1] in "%_\\" else part[-1] for part in parts)
