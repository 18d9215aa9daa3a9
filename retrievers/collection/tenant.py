"""One tenant of a collection: a handle that can do nothing to the rows of another."""

from __future__ import annotations

import os

from rarebit.retrievers.collection.copying import copy_of_tenant
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

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of the newest commit to another file, with the rows that the tenant sees and no others.

        Whole or not at all; the collection may be in use. The rows are this tenant's, and those of the collection that are
        shared with it, as before; settings are those of the collection, and so is the codec, which was learned from the
        vectors of all tenants. Meanwhile a whole copy is in a hidden folder beside the new file.

        Raises:
            InputError: the path is that of a folder, or of a file that exists, without ``overwrite``, or is open.
        """
        copy_of_tenant(self._engine, self.name, path, overwrite=overwrite)

    def __repr__(self) -> str:
        """Name the tenant and the file."""
        return f"<Tenant {self.name!r} of {self._engine.storage}>"
