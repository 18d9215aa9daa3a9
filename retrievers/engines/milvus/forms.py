"""Metadata in forms that Milvus compares: pairs of numbers, and JSON for what does not fit in those.

Milvus' JSON has other meanings than Python's, and its versions differ: in what a missing key answers, or a number of another
type. So a row's metadata are kept a second time in a form in which all versions mean the same: one level, keys with dots;
numbers, short plain strings, and lists of those; no booleans (they are 0 and 1), no null. What does not fit is ``true`` there:
look yourself. A row whose metadata do not fit at all is ``odd`` as a whole.

To compare JSON Milvus parses that of every row, and takes a hundred times as long as for a column of numbers. So numbers,
strings and lists are also told as pairs of numbers, each in a slot of two columns: the first says which field it is and of
what kind, the second is the number, or a part of the digest of a string. A row with more of them than there are slots is
``crowded``: all of them are in its JSON. JSON of others has strings and lists alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

from rarebit.retrievers.engines.milvus.names import digest_of

Kind: TypeAlias = Literal["number", "big", "string", "text", "list", "mixed"]
"""What a value is; ``big``, ``text`` and ``mixed`` are numbers, strings and lists that do not fit in JSON."""

FIELDS: Final = "*"
"""Under this key: the names of all fields that a row has."""

STRINGS: Final = "$"
"""Under this key: the names of those that hold a string."""

SLOTS: Final = [(f"f{number}", f"v{number}") for number in range(10)]
"""Field and value. Milvus Lite writes names with every row: each slot adds some 45 bytes, and three hundredths of the time."""

LONGEST_STRING: Final = 500
MOST_ELEMENTS: Final = 500
LONGEST: Final = 50_000
"""Bytes of JSON that Milvus compares with; it takes 65,536."""

EXACT_BELOW: Final = 2**53
"""Numbers from here on are not the same as integers and as floats."""

_NAME: Final = re.compile(r"\w[\w .:@-]{0,99}")
_NOTHING: Final = (0, 0.0)


def is_name(field: str) -> bool:
    """Whether the name of a field can be written into expressions."""
    return _NAME.fullmatch(field) is not None


def kept(value: Any) -> str | int | float | None:
    """Give a value in the form in which it is compared; None where it has none."""
    if isinstance(value, str):
        is_plain = len(value) <= LONGEST_STRING and value.isprintable() and not set(value) & {'"', "\\"}
        return value if is_plain else None
    if not isinstance(value, int | float) or not abs(value) < EXACT_BELOW:
        return None
    if isinstance(value, int):
        return int(value)
    return int(value) if value.is_integer() else value


@lru_cache(maxsize=4096)
def field_of(name: str, kind: Kind) -> int:
    """Give what stands for a field with values of a kind; never 0, which is an empty slot."""
    return digest_of(kind, name, bits=63) or 1


def value_of(value: Any) -> float:
    """Give the number that stands for a value: itself, or a part of the digest of a string."""
    number = kept(value)
    if isinstance(value, str):
        return float(digest_of(value, bits=53))
    return 0.0 if number is None else float(number)


def stored_forms(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a row in which its metadata are compared."""
    form, is_odd = compared_form(metadata)
    pairs = [] if is_odd else list(_pairs(metadata))
    is_crowded = len(pairs) > len(SLOTS)
    if not is_crowded:
        form = {name: value for name, value in form.items() if name != STRINGS and isinstance(value, str | list)}
    fields: dict[str, Any] = {"metadata": form, "odd": is_odd, "crowded": is_crowded}
    empty = [_NOTHING] * (len(SLOTS) - len(pairs))
    for (field, value), pair in zip(SLOTS, [*pairs[: len(SLOTS)], *empty], strict=True):
        fields[field], fields[value] = pair
    return fields


def compared_form(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Give a row's metadata in the form of JSON in which Milvus compares them, and whether the row is odd."""
    found = [(name, value) for name, value in _flat(metadata) if is_name(name)]
    names = Counter(name for name, _ in found)
    form: dict[str, Any] = {FIELDS: list(names)}
    form |= {name: _kept_or_other(value) for name, value in found if value is not None}
    strings = [name for name, value in form.items() if isinstance(value, str)]
    if strings:
        form[STRINGS] = strings
    is_odd = len(names) < len(found) or len(json.dumps(form, ensure_ascii=False).encode()) > LONGEST
    return ({}, True) if is_odd else (form, False)


def _pairs(metadata: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Give what stands for each number, string and list."""
    for name, value in _flat(metadata):
        kind = kind_of(value)
        if kind is not None and is_name(name):
            yield field_of(name, kind), value_of(value)


def kind_of(value: Any) -> Kind | None:
    """Say what a value is; None for what matches no comparison with a number or a string."""
    fits = _kept_or_other(value) is not True
    if isinstance(value, str):
        return "string" if fits else "text"
    if isinstance(value, list):
        return "list" if fits else "mixed"
    if isinstance(value, int | float):
        return "number" if fits else "big"
    return None


def _flat(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give every value by its path."""
    for name, value in metadata.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")


def _kept_or_other(value: Any) -> Any:
    if isinstance(value, list) and len(value) <= MOST_ELEMENTS:
        elements = [kept(each) for each in value]
        return True if None in elements else elements
    form = kept(value)
    return True if form is None else form
