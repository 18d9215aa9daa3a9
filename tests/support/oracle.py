"""What a filter means, written a second time from the documentation, without a look at the implementation.

An expression is ``("and" | "or" | "not", *children)`` or ``("is", field, operator, value)``.
"""

from __future__ import annotations

import random
from typing import Any

MISSING = object()
LONG = "long " * 100
NUMBERS = (int, float)

METADATAS: list[dict[str, Any]] = [
    {"f": value}
    for value in [
        None,
        0,
        1,
        -1,
        2,
        2.5,
        1.0,
        0.1 + 0.2,
        10**30,
        -(2**63),
        2**53 + 1,
        True,
        False,
        "",
        "a",
        "b",
        "A",
        "ab",
        "abc",
        "1",
        "100%",
        "1000",
        "a_c",
        "ß",
        "STRASSE",
        "日本語",
        "\u0000x",
        'quo"te',
        "new\nline",
        LONG,
        [],
        ["a"],
        ["a", "b"],
        [1, 2],
        [1.0, "a", None],
        [["a"]],
        [LONG, "z"],
        {"x": 1},
        {},
    ]
] + [{}, {"g": 1}, {"f": "a", "g": "b"}, {"f": 1, "g": 2.5}, {"g": None, "f": 2}]

OPERATORS: dict[str, list[Any]] = {
    "eq": [0, 1, 2.5, "a", "", "1", LONG, 10**30, 2**53, 2**53 + 1, 0.1 + 0.2, 0.3, "日本語", "\u0000x", 'quo"te', "A"],
    "ne": [1, "a", "missing", 2.5, LONG],
    "gt": [0, 1, 2.4, "a", "", 10**30, 2**53],
    "gte": [0, 1, 2.5, "a", "b"],
    "lt": [0, 1, 2.5, "b", "ab", 2**53 + 1],
    "lte": [0, 1, 2.5, "a", LONG],
    "in": [[1, 2], ["a", "b"], [], [LONG], [2.5, 0.5]],
    "nin": [[1, 2], ["a", "b"], [], [LONG]],
    "contains": ["a", "b", 1, "z", "new"],
    "any": [["a", "z"], [2, 7], []],
    "all": [["a", "b"], [1, 2], ["a"], []],
    "text_match": ["a", "b", "STR", "\n", ""],
    "text_match_insensitive": ["A", "ss", "LONG", "Ab"],
    "is_empty": [True],
    "exists": [True, False],
    "like": ["a%", "%b", "a_c", "1%", "100\\%", "", "%", "a\\_c", "_"],
}
ALSO: dict[str, list[Any]] = {
    "eq": [None, True, False, ["a"], ["a", "b"], [], {"x": 1}, {}],
    "ne": [None, True, ["a"]],
    "in": [[None], [None, "a"], [True], [["a"], "b"]],
    "nin": [[None]],
    "is_empty": [False],
    "contains": [None, ["a"]],
}
"""Values that not every framework's filters can carry."""


def matches(expression: tuple[Any, ...], metadata: dict[str, Any]) -> bool:
    """Whether the row matches, by the documented meaning."""
    kind, *rest = expression
    if kind == "and":
        return all(matches(child, metadata) for child in rest)
    if kind == "or":
        return any(matches(child, metadata) for child in rest)
    if kind == "not":
        return not matches(rest[0], metadata)
    field, operator, wanted = rest
    return holds(metadata.get(field, MISSING), operator, wanted)


def holds(value: Any, operator: str, wanted: Any) -> bool:
    """Whether one value satisfies one operator."""
    absent = value is MISSING or value is None
    match operator:
        case "exists":
            return (value is not MISSING) == wanted
        case "is_empty":
            return (absent or value in ("", [])) == wanted
        case "eq":
            return absent if wanted is None else not absent and value == wanted
        case "ne":
            return not holds(value, "eq", wanted)
        case "in":
            return any(holds(value, "eq", each) for each in wanted)
        case "nin":
            return not holds(value, "in", wanted)
    return not absent and _present(value, operator, wanted)


def _present(value: Any, operator: str, wanted: Any) -> bool:  # noqa: C901
    ordered = (isinstance(value, NUMBERS) and isinstance(wanted, NUMBERS)) or (
        isinstance(value, str) and isinstance(wanted, str)
    )
    match operator:
        case "gt":
            return ordered and value > wanted
        case "gte":
            return ordered and value >= wanted
        case "lt":
            return ordered and value < wanted
        case "lte":
            return ordered and value <= wanted
        case "contains":
            return _contains(value, wanted)
        case "any":
            return any(_contains(value, each) for each in wanted)
        case "all":
            return isinstance(value, (list, str)) and all(_contains(value, each) for each in wanted)
        case "text_match":
            return isinstance(value, str) and wanted in value
        case "text_match_insensitive":
            return isinstance(value, str) and wanted.lower() in value.lower()
        case "like":
            return isinstance(value, str) and _like(value, wanted)
    raise AssertionError(operator)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, list) and wanted in value


def _like(value: str, pattern: str) -> bool:
    """SQL's LIKE, by trying every way to spend the wildcards."""
    if not pattern:
        return not value
    head, tail = pattern[0], pattern[1:]
    if head == "%":
        return any(_like(value[start:], tail) for start in range(len(value) + 1))
    if head == "\\" and tail:
        head, tail = tail[0], tail[1:]
    elif head == "_":
        return bool(value) and _like(value[1:], tail)
    return value[:1] == head and _like(value[1:], tail)


def random_expression(rng: random.Random, depth: int, operators: dict[str, list[Any]]) -> tuple[Any, ...]:
    """Make a random tree of at most this depth."""
    kind = rng.choice(["is", "and", "or", "not"]) if depth > 0 else "is"
    if kind == "is":
        operator = rng.choice(list(operators))
        return ("is", rng.choice(["f", "g"]), operator, rng.choice(operators[operator]))
    count = 1 if kind == "not" else rng.randint(1, 3)
    return (kind, *(random_expression(rng, depth - 1, operators) for _ in range(count)))
