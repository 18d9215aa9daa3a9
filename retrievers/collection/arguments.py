"""What users pass to a collection's methods, checked in one place."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from rarebit.errors import InputError

LONGEST_WAIT = 1e6

MOST = 2**31 - 1
"""The largest count that SQLite, faiss and numpy all take; nothing there is so many of."""


def as_ids(given: Iterable[str]) -> list[str]:
    """Check ids, and make a list of strings and no kinds of them, such as members of an enumeration.

    Raises:
        InputError: one string, something else than strings, or text that UTF-8 cannot encode.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"got {given!r} as ids, wanted a list of ids, such as [{str(given)!r}]")
    ids = []
    for key in given:
        if not isinstance(key, str):
            raise InputError(f"got the id {key!r} ({type(key).__name__}), wanted strings: convert ids with str() first")
        ids.append(str.__str__(key))
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the id {key!r} is not valid Unicode ({error}): decode it with errors='replace'") from error
    return ids


def as_count(name: str, given: Any, least: int = 0) -> int:
    """Check a whole number; more than ``MOST`` is as good as that."""
    try:
        count = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        count = None
    if count is None or count < least:
        raise InputError(f"got {name}={given!r}, wanted a whole number, {least} or more")
    return min(count, MOST)


def as_seconds(name: str, given: Any) -> float:
    """Check a time to wait."""
    return _within(name, given, LONGEST_WAIT, f"seconds, from 0 to {LONGEST_WAIT:.0f}")


def as_share(name: str, given: Any) -> float:
    """Check a number from 0 to 1."""
    return _within(name, given, 1.0, "a number from 0 to 1")


def check_text(text: str) -> None:
    """Check the words of a lexical search."""
    if not isinstance(text, str):
        raise InputError(f"got a text of type {type(text).__name__}, wanted a string of words to look for")


def _within(name: str, given: Any, most: float, wanted: str) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not 0 <= number <= most:
        raise InputError(f"got {name}={given!r}, wanted {wanted}")
    return number
