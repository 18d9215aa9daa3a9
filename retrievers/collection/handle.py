"""What a collection and the handle of a tenant have in common."""

from __future__ import annotations

from rarebit.retrievers.collection.engine import Engine


class Handle:
    """The engine, and the tenant as whom it is asked; None is the collection itself."""

    _engine: Engine
    _tenant: str | None = None
