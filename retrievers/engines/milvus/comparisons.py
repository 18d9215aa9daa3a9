"""One comparison of a filter as an expression of Milvus.

What a row's slots tell of a field is asked for first. Milvus looks at JSON only among some thousand rows of which one is
crowded or needs it, since it leaves out the rest of an ``and`` where nothing matches any more.

An expression is made of comparisons alone: ``not`` and ``exists`` are not in Milvus Lite. What they ask for is found by looking
at all rows that the rest of the filter leaves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rarebit.retrievers.collection.filters import NEGATED, RANGES, Compare
from rarebit.retrievers.engines.milvus.forms import FIELDS, SLOTS, STRINGS, Kind, field_of, is_name, kept, kind_of, value_of

NOTHING: Final = "row_id < 0"
CROWDED: Final = "crowded == true"
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


def compared(compare: Compare) -> Expression:
    """Translate a comparison."""
    if compare.op in NEGATED or compare.holds([]) or not is_name(compare.field):
        return EVERYTHING  # also rows that do not have the field, or a field whose name cannot be written
    found: Expression = _OF_OPERATOR.get(compare.op, _any_string)(_Field(compare.field), compare.value)
    return found


class _Field:
    """A field in expressions."""

    def __init__(self, name: str) -> None:
        self._name, written = name, json.dumps(name, ensure_ascii=False)
        self.path = f"metadata[{written}]"
        self._is_other = f"{self.path} == true"
        self.is_string = f'json_contains(metadata["{STRINGS}"], {written})'
        self.is_there = f'json_contains(metadata["{FIELDS}"], {written})'

    def slots(self, *kinds: Kind, that: str = "") -> str:
        """Ask for rows with a value of some kinds in any slot, and for its number."""
        value = " and {value} " + that if that else ""
        asked = [(f"{{field}} == {field_of(self._name, kind)}" + value) for kind in kinds]
        return any_of([each.format(field=field, value=value) for field, value in SLOTS for each in asked])

    def where(self, slots: str, *in_json: str, unsure: str, unsure_in_json: str = "") -> Expression:
        """Ask for what slots tell, or JSON of rows that are crowded; what of it is unsure has to be looked at."""
        looked_at = any_of([unsure_in_json, self._is_other])
        crowded = all_of([CROWDED, any_of([*in_json, looked_at])])
        return Expression(any_of([slots, crowded]), any_of([unsure, all_of([CROWDED, looked_at])]))

    @property
    def present(self) -> Expression:
        """Ask for every row that has the field, and look at each."""
        return Expression(self.is_there, None)


def _equal(field: _Field, wanted: Any) -> Expression:
    return _among(field, [wanted])


def _among(field: _Field, wanted: Sequence[Any]) -> Expression:
    if not wanted:
        return NONE
    if any(isinstance(each, list | dict) for each in wanted):
        return field.present
    asked: dict[Kind, list[Any]] = {}
    for each in wanted:
        if (kind := kind_of(each)) is not None:
            asked.setdefault(kind, []).append(each)
    slots = {kind: field.slots(kind, that=_one_of(values)) for kind, values in asked.items()}
    # Strings may share a part of their digests: those that are none of these in JSON are looked at.
    others = [f"{field.path} != {_literal(each)}" for each in asked.get("string", ())]
    unsure = any_of([all_of([slots.get("string", ""), *others]), slots.get("text", ""), slots.get("big", "")])
    in_json = [f"{field.path} == {text}" for text in map(_literal, wanted) if text is not None]
    return field.where(any_of([*slots.values()]), *in_json, unsure=unsure)


def _one_of(wanted: Sequence[Any]) -> str:
    """Compare with numbers that stand for values."""
    numbers = list(dict.fromkeys(map(value_of, wanted)))
    return f"== {numbers[0]!r}" if len(numbers) == 1 else f"in {numbers!r}"


def _ranged(operator: str) -> Any:
    def ranged(field: _Field, wanted: Any) -> Expression:
        written = _literal(wanted)
        if written is None:
            return field.present
        in_json = f"{field.path} {operator} {written}"
        if isinstance(wanted, str):
            unsure, slots = field.slots("text"), all_of([field.slots("string"), in_json])
        else:
            unsure, slots = field.slots("big"), field.slots("number", that=f"{operator} {value_of(wanted)!r}")
        return field.where(any_of([slots, unsure]), in_json, unsure=unsure)

    return ranged


def _holding(field: _Field, wanted: Any) -> Expression:
    written = _literal(wanted)
    in_list = "" if written is None else f"json_contains({field.path}, {written})"
    slots = all_of([field.slots("list"), in_list]) if in_list else ""
    kinds: list[Kind] = ["mixed", "string", "text"] if isinstance(wanted, str) else ["mixed"]
    unsure, in_json = field.slots(*kinds), field.is_string if isinstance(wanted, str) else ""
    return field.where(any_of([slots, unsure]), in_list, unsure=unsure, unsure_in_json=in_json)


def _holding_any(field: _Field, wanted: Sequence[Any]) -> Expression:
    return either([_holding(field, each) for each in wanted])


def _holding_all(field: _Field, wanted: Sequence[Any]) -> Expression:
    return every([_holding(field, each) for each in wanted]) if wanted else field.present


def _any_string(field: _Field, wanted: Any) -> Expression:
    del wanted
    strings = field.slots("string", "text")
    return field.where(strings, unsure=strings, unsure_in_json=field.is_string)


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


def every(parts: Sequence[Expression]) -> Expression:
    """Ask for what all parts ask for."""
    texts = [part.text for part in parts if part.text is not None]
    return Expression(all_of(texts) or None, _either_unsure(parts))


def either(parts: Sequence[Expression]) -> Expression:
    """Ask for what any part asks for."""
    if not parts:
        return NONE
    texts = [part.text for part in parts]
    text = None if None in texts else any_of([each for each in texts if each is not None])
    return Expression(text, _either_unsure(parts))


def _either_unsure(parts: Sequence[Expression]) -> str | None:
    unsure = [part.unsure for part in parts]
    return None if None in unsure else any_of([each for each in unsure if each is not None])


def all_of(texts: Sequence[str]) -> str:
    """Join expressions; "" for none, and those that are "" are left out."""
    return _joined(" and ", texts)


def any_of(texts: Sequence[str]) -> str:
    """Join alternatives; "" for none, and those that are "" are left out."""
    return _joined(" or ", texts)


def _joined(word: str, texts: Sequence[str]) -> str:
    given = [text for text in dict.fromkeys(texts) if text]
    return given[0] if len(given) == 1 else word.join(f"({text})" for text in given)


def _literal(value: Any) -> str | None:
    """Write a value into an expression; None for what is kept in no form that Milvus could compare.

    Strings with quotes, backslashes or what cannot be printed are among those: versions of Milvus read escapes differently.
    """
    form = kept(value)
    if isinstance(form, str):
        return f'"{form}"'
    return None if form is None else repr(form)
