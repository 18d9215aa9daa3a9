"""NUL characters, which PostgreSQL's texts and JSON cannot hold, written as two others, and read back.

U+0000 becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002: what was less by code points stays less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

Given = TypeVar("Given")
"""A JSON value."""

NUL: Final = "\0"
ESCAPE: Final = "\1"
ESCAPED: Final = "\\u0001"
"""How JSON writes what begins an escape."""

_OF_NUL, _OF_ESCAPE = "\1\1", "\1\2"


def escaped(given: Given) -> Given:
    """Write a string, or every string in a JSON value, keys included, without NUL."""
    written: Given = _through(given, _escape)
    return written


def unescaped(given: Given) -> Given:
    """Read what :func:`escaped` wrote."""
    read: Given = _through(given, _unescape)
    return read


def _escape(text: str) -> str:
    if NUL not in text and ESCAPE not in text:
        return text
    return text.replace(ESCAPE, _OF_ESCAPE).replace(NUL, _OF_NUL)


def _unescape(text: str) -> str:
    if ESCAPE not in text:
        return text
    # From the left: the second half of one pair and the first of the next look like another pair.
    pieces, place = [], 0
    while (found := text.find(ESCAPE, place)) >= 0:
        pieces += [text[place:found], NUL if text[found + 1] == ESCAPE else ESCAPE]
        place = found + 2
    return "".join([*pieces, text[place:]])


def _through(given: Any, change: Callable[[str], str]) -> Any:
    if isinstance(given, str):
        return change(given)
    if isinstance(given, dict):
        return {change(key): _through(value, change) for key, value in given.items()}
    if isinstance(given, list):
        return [_through(value, change) for value in given]
    return given
