"""Filters as expressions of Milvus that match at least what they match, and what has to be looked at once more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rarebit.retrievers.collection.filters import And, Compare, Filter, Ids, Not, Or, Where
from rarebit.retrievers.engines.milvus.comparisons import (
    EVERYTHING,
    NOTHING,
    Expression,
    all_of,
    any_of,
    compared,
    either,
    every,
)
from rarebit.retrievers.engines.milvus.names import key_of, owner_of

ODD: Final = "odd == true"


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
        self.text = all_of([own, text or ""]) or "row_id >= 0"
        self.unsure = None if found.unsure is None else all_of([self.text, any_of([ODD, found.unsure])])
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
            return every([_translated(child, tenant) for child in children])
        case Or(children=children):
            return either([_translated(child, tenant) for child in children])
        case Ids(ids=ids):
            return Expression(keys_in([key_of(tenant, key) for key in ids]))
        case Compare():
            return compared(tree)
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
