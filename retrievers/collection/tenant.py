"""One tenant of a collection: a handle that can do nothing to the rows of another."""

from __future__ import annotations

from rarebit.retrievers.collection.engine import Engine
from rarebit.retrievers.collection.row_operations import RowOperations
from rarebit.retrievers.collection.searching import Searches


class Tenant(RowOperations, Searches):
    """What :meth:`rarebit.Collection.tenant` gives: every method is bound to the tenant's own rows and those shared with it.

    Ids are the tenant's own: two tenants may use the same one. A tenant that replaces or deletes a shared row does so for
    itself alone: it no longer sees it, and everybody else does. A tenant costs nothing until it has rows.

    The statistics of words behind the scores of lexical search are those of the whole file.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        """Use :meth:`rarebit.Collection.tenant`."""
        self._engine = engine
        self._tenant = name

    @property
    def name(self) -> str:
        """The tenant's name."""
        return str(self._tenant)

    def __repr__(self) -> str:
        """Name the tenant and the file."""
        return f"<Tenant {self.name!r} of {self._engine.storage}>"
