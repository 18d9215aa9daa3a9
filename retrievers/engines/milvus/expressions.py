"""Filters as expressions of Milvus that match at least what they match, and what has to be looked at once more.

Milvus' JSON has other meanings than Python's, and its versions differ: in what a missing key answers, or a number of another
type. So a row's metadata are kept a second time in a form in which all versions mean the same: one level, keys with dots;
numbers, short plain strings, and lists of those; no booleans (they are 0 and 1), no null. What does not fit is ``true`` there:
look yourself. A row whose metadata do not fit at all is ``odd`` as a whole.

An expression is made of comparisons alone: ``not`` and ``exists`` are not in Milvus Lite. What they ask for is found by looking
at all rows that the rest of the filter leaves.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rarebit.retrievers.collection.filters import NEGATED, RANGES, And, Compare, Filter, Ids, Not, Or, Where
from rarebit.retrievers.engines.milvus.names import key_of, owner_of

FIELDS: Final = "*"
"""Under this key: the names of all fields that a row has."""

STRINGS: Final = "$"
"""Under this key: the names of those that hold a string."""

LONGEST_STRING: Final = 500
MOST_ELEMENTS: Final = 500
LONGEST: Final = 50_000
"""Bytes of JSON that Milvus compares with; it takes 65,536."""

EXACT_BELOW: Final = 2**53
"""Numbers from here on are not the same as integers and as floats."""

NOTHING: Final = "row_id < 0"
ODD: Final = "odd == true"

_NAME: Final = re.compile(r"\w[\w .:@-]{0,99}")
_OPERATORS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True)
class Expression:
    """What Milvus is asked for.

    Args:
        text: matches at least what the filter matches; None is everything.
        unsure: matches those of them that have to be looked at; None is all of them; "" is none.
    """

    text: str | None = None
    unsure: str | None = ""


EVERYTHING: Final = Expression(None, None)
NONE: Final = Expression(NOTHING)


class Condition:
    """A filter as Milvus is asked, among the rows of a tenant.

    Args:
        tenant: whose; None for everybody's.
        tree: the filter, without predicates of Python.
    """

    def __init__(self, tenant: str | None, tree: Filter | None) -> None:
        """Translate."""
        self.tree = tree
        own = "" if tenant is None else owned_by(tenant)
        found = Expression() if tree is None else _translated(tree, tenant or "")
        self.is_exact = found.unsure == "" and not _holds_compare(tree)
        """Whether nothing has to be looked at."""
        text = found.text if self.is_exact or found.text is None else f"{ODD} or {found.text}"
        self.text = _all([own, text or ""]) or "row_id >= 0"
        self.unsure = None if found.unsure is None else _all([self.text, _any([ODD, found.unsure])])
        """Matches those that have to be looked at; None where these are all."""


def _holds_compare(tree: Filter | None) -> bool:
    match tree:
        case And(children=children) | Or(children=children):
            return any(map(_holds_compare, children))
        case Not(child=child):
            return _holds_compare(child)
    return isinstance(tree, Compare)


def _translated(tree: Filter, tenant: str) -> Expression:
    match tree:
        case And(children=children):
            return _every([_translated(child, tenant) for child in children])
        case Or(children=children):
            return _either([_translated(child, tenant) for child in children])
        case Ids(ids=ids):
            return Expression(keys_in([key_of(tenant, key) for key in ids]))
        case Compare():
            return _compared(tree)
        case Not() | Where():
            return EVERYTHING


def owned_by(tenant: str) -> str:
    """Ask for the rows of a tenant."""
    return " and ".join(f"{name} == {number}" for name, number in owner_of(tenant).items())


def owned_by_others(tenant: str) -> str:
    """Ask for the rows of all other tenants."""
    return " or ".join(f"{name} != {number}" for name, number in owner_of(tenant).items())


def keys_in(keys: Iterable[str]) -> str:
    """Ask for rows by their primary keys."""
    listed = ", ".join(f'"{key}"' for key in dict.fromkeys(keys))
    return f"key in [{listed}]" if listed else NOTHING


def _compared(compare: Compare) -> Expression:
    if compare.op in NEGATED or compare.holds([]) or not _NAME.fullmatch(compare.field):
        return EVERYTHING  # also rows that do not have the field, or a field whose name cannot be written
    found: Expression = _OF_OPERATOR.get(compare.op, _any_string)(_Field(compare.field), compare.value)
    return found


class _Field:
    """A field in expressions."""

    def __init__(self, name: str) -> None:
        self.name = json.dumps(name, ensure_ascii=False)
        self.path = f"metadata[{self.name}]"
        self.is_other = f"{self.path} == true"
        self.is_string = f'json_contains(metadata["{STRINGS}"], {self.name})'
        self.is_there = f'json_contains(metadata["{FIELDS}"], {self.name})'

    def where(self, *conditions: str, unsure: str = "") -> Expression:
        """Ask for any of some conditions, or for what has to be looked at."""
        looked_at = _any([unsure, self.is_other])
        return Expression(_any([*conditions, looked_at]), looked_at)

    @property
    def present(self) -> Expression:
        """Ask for every row that has the field, and look at each."""
        return Expression(self.is_there, None)


def _equal(field: _Field, wanted: Any) -> Expression:
    if isinstance(wanted, list | dict):
        return field.present
    written = _literal(wanted)
    return field.where() if written is None else field.where(f"{field.path} == {written}")


def _among(field: _Field, wanted: Sequence[Any]) -> Expression:
    return _either([_equal(field, each) for each in wanted])


def _ranged(operator: str) -> Any:
    def ranged(field: _Field, wanted: Any) -> Expression:
        written = _literal(wanted)
        return field.present if written is None else field.where(f"{field.path} {operator} {written}")

    return ranged


def _holding(field: _Field, wanted: Any) -> Expression:
    written = _literal(wanted)
    if written is None and not isinstance(wanted, str):
        return field.where()
    in_list = "" if written is None else f"json_contains({field.path}, {written})"
    return field.where(in_list, unsure=field.is_string if isinstance(wanted, str) else "")


def _holding_any(field: _Field, wanted: Sequence[Any]) -> Expression:
    return _either([_holding(field, each) for each in wanted])


def _holding_all(field: _Field, wanted: Sequence[Any]) -> Expression:
    return _every([_holding(field, each) for each in wanted]) if wanted else field.present


def _any_string(field: _Field, wanted: Any) -> Expression:
    del wanted
    return field.where(unsure=field.is_string)


def _there(field: _Field, wanted: Any) -> Expression:
    del wanted
    return Expression(field.is_there)


def _filled(field: _Field, wanted: Any) -> Expression:
    del wanted
    return field.present


_OF_OPERATOR: Final[Mapping[str, Any]] = {
    "eq": _equal,
    "in": _among,
    "contains": _holding,
    "any": _holding_any,
    "all": _holding_all,
    "exists": _there,
    "is_empty": _filled,
    **{name: _ranged(_OPERATORS[name]) for name in RANGES},
}


def _every(parts: Sequence[Expression]) -> Expression:
    """Ask for what all parts ask for."""
    texts = [part.text for part in parts if part.text is not None]
    return Expression(_all(texts) or None, _either_unsure(parts))


def _either(parts: Sequence[Expression]) -> Expression:
    """Ask for what any part asks for."""
    if not parts:
        return NONE
    texts = [part.text for part in parts]
    text = None if None in texts else _any([each for each in texts if each is not None])
    return Expression(text, _either_unsure(parts))


def _either_unsure(parts: Sequence[Expression]) -> str | None:
    unsure = [part.unsure for part in parts]
    return None if None in unsure else _any([each for each in unsure if each is not None])


def _all(texts: Sequence[str]) -> str:
    return _joined(" and ", texts)


def _any(texts: Sequence[str]) -> str:
    return _joined(" or ", texts)


def _joined(word: str, texts: Sequence[str]) -> str:
    given = [text for text in dict.fromkeys(texts) if text]
    return given[0] if len(given) == 1 else word.join(f"({text})" for text in given)


def _literal(value: Any) -> str | None:
    """Write a value into an expression; None for what is kept in no form that Milvus could compare.

    Strings with quotes, backslashes or what cannot be printed are among those: versions of Milvus read escapes differently.
    """
    kept = _kept(value)
    if isinstance(kept, str):
        return f'"{kept}"'
    return None if kept is None else repr(kept)


def _kept(value: Any) -> str | int | float | None:
    """Give a value in the form in which it is compared; None where it has none."""
    if isinstance(value, str):
        is_plain = len(value) <= LONGEST_STRING and value.isprintable() and not set(value) & {'"', "\\"}
        return value if is_plain else None
    if not isinstance(value, int | float) or not abs(value) < EXACT_BELOW:
        return None
    if isinstance(value, int):
        return int(value)
    return int(value) if value.is_integer() else value


def compared_form(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Give a row's metadata in the form in which Milvus compares them, and whether the row is odd."""
    found = [(name, value) for name, value in _flat(metadata) if _NAME.fullmatch(name)]
    names = Counter(name for name, _ in found)
    form: dict[str, Any] = {FIELDS: list(names)}
    strings = []
    for name, value in found:
        if value is None:
            continue
        form[name] = _kept_or_other(value)
        if isinstance(form[name], str):
            strings.append(name)
    if strings:
        form[STRINGS] = strings
    is_odd = len(names) < len(found) or len(json.dumps(form, ensure_ascii=False).encode()) > LONGEST
    return ({}, True) if is_odd else (form, False)


def _flat(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every value by its path."""
    for name, value in metadata.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")


def _kept_or_other(value: Any) -> Any:
    if isinstance(value, list) and len(value) <= MOST_ELEMENTS:
        elements = [_kept(each) for each in value]
        return True if None in elements else elements
    kept = _kept(value)
    return True if kept is None else kept
