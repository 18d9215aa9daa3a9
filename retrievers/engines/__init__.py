"""Past one machine: a collection whose rows live in an engine that is distributed already."""

from typing import TypeAlias

from rarebit.retrievers.collection import Collection, Tenant
from rarebit.retrievers.engines.collection import RemoteCollection, RemoteTenant
from rarebit.retrievers.engines.connecting import connect

AnyCollection: TypeAlias = Collection | RemoteCollection
"""In a file or in memory, or on an engine."""

AnyRows: TypeAlias = AnyCollection | Tenant | RemoteTenant
"""What rows are read from and written to: a collection's own, or those of a tenant."""

__all__ = ["AnyCollection", "AnyRows", "RemoteCollection", "RemoteTenant", "connect"]
