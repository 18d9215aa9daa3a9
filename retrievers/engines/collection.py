"""A collection whose rows live in an engine on another machine, with the public face of :class:`rarebit.Collection`."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from rarebit.errors import EngineLimitError, InputError
from rarebit.retrievers.collection import tenants
from rarebit.retrievers.collection.stats import Stats
from rarebit.retrievers.engines import training
from rarebit.retrievers.engines.engine import UNTRAINED, RemoteEngine
from rarebit.retrievers.engines.searching import RemoteSearches


class RemoteTenant(RemoteSearches):
    """What :meth:`RemoteCollection.tenant` gives: every method is bound to the tenant's own rows."""

    def __init__(self, collection: RemoteCollection, name: str) -> None:
        """Use :meth:`RemoteCollection.tenant`."""
        self.collection = collection
        self.read_only = collection.read_only
        self._engine, self._tenant = collection._engine, name

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self._tenant

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Raise: a backup is the engine's own business."""
        del overwrite
        raise _no_file(self._engine, path)

    def __repr__(self) -> str:
        """Name the tenant and where it is."""
        return f"<Tenant {self.name!r} of {self._engine.where}>"


class RemoteCollection(RemoteSearches):
    """A collection on an engine; made by :meth:`rarebit.Collection.connect`."""

    def __init__(self, engine: RemoteEngine, *, read_only: bool = False) -> None:
        """Use :meth:`rarebit.Collection.connect`."""
        self._engine = engine
        self.read_only = read_only

    def tenant(self, name: str) -> RemoteTenant:
        """Give a handle whose every operation is bound to one tenant; it need not exist, and costs nothing.

        Raises:
            InputError: the name is no string, empty, or longer than 1,024 characters.
        """
        return RemoteTenant(self, tenants.checked_name(name))

    def tenants(self) -> list[str]:
        """Name the tenants that have rows, in the order in which they came."""
        return self._engine.tenants()

    def delete_tenant(self, name: str) -> int:
        """Delete a tenant's rows; returns how many there were."""
        return self.tenant(name).delete_all()

    def share(self, *given: Any, **more: Any) -> int:
        """Raise: rows cannot be shared with tenants here."""
        del given, more
        raise EngineLimitError(f"{self._engine.kind} shares no rows between tenants, wanted an embedded collection for that")

    unshare = share

    def grant(self, role: str, tenant: str) -> None:
        """Let a role of the database read and write the rows of one tenant: the database itself refuses it all others.

        Args:
            role: of the database; it exists already, and another grant takes the place of its last one.
            tenant: its name; it need not have rows.
        """
        self._check_writable()
        self._engine.grant(role, tenants.checked_name(tenant))

    def index_field(self, field: str) -> None:
        """Build an index over the numbers of a metadata field, for filters that ask whether they are more or less than others.

        Equality needs none. Writers wait until it is built.

        Raises:
            InputError: the name is no string, empty, or has dots, which lead into dictionaries.
            EngineLimitError: the engine has no such index.
        """
        self._check_writable()
        if not isinstance(field, str) or not field or "." in field or not _is_utf8(field):
            raise InputError(f"got field={field!r}, wanted the name of a field of the metadata, without dots")
        self._engine.index_field(field)

    def train(self) -> None:
        """Learn codes and bits anew from the rows there are now; reads go on meanwhile, writes wait.

        Raises:
            LockedError: others have changed the collection meanwhile, and nothing was trained.
        """
        self._check_writable()
        count = self._engine.count(None)
        if count:
            training.train(self._engine, self._engine.kept(fresh=True), count)

    def stats(self) -> Stats:
        """Count the rows of everybody, and the bytes on the server: ``disk`` as the engine counts them, ``memory`` is here."""
        kept = self._engine.kept(fresh=True)
        settings = kept.settings
        return Stats(
            count=self._engine.count(None),
            dim=settings.dim,
            metric=settings.metric,
            codec=settings.codec,
            fine=str(settings.fine),
            trained=kept.generation != UNTRAINED,
            choice=settings.choice,
            memory={"codec": kept.codec.state_bytes if kept.codec else 0},
            disk=self._engine.sizes(),
        )

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Raise: a backup is the engine's own business."""
        del overwrite
        raise _no_file(self._engine, path)

    def recompress(self, **given: Any) -> Stats:
        """Raise: other codes need another collection here; :meth:`train` learns the same ones anew."""
        raise EngineLimitError(
            f"got recompress({', '.join(given)}) for {self._engine.where}, wanted train(), or a move into a new collection"
        )

    def check(self, **given: Any) -> list[str]:
        """Raise: looking for damage is the engine's own business."""
        del given
        raise EngineLimitError(f"{self._engine.kind} looks for damage by its own means, wanted an embedded collection to check")

    def compact(self) -> int:
        """Raise: space is the engine's own business."""
        raise EngineLimitError(
            f"{self._engine.kind} gives space back by its own means, wanted an embedded collection to compact"
        )

    def close(self) -> None:
        """Close the connections; further calls raise ClosedError."""
        self._engine.close()

    def __enter__(self) -> RemoteCollection:
        """Use the collection in a ``with`` block, which closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        """Say where it is and what is in it, without credentials."""
        settings = self._engine.kept().settings
        return f"<Collection {self._engine.where}: dim={settings.dim}, metric={settings.metric}, codec={settings.codec}>"


def _is_utf8(text: str) -> bool:
    return text.encode("utf-8", "ignore").decode() == text


def _no_file(engine: RemoteEngine, path: object) -> EngineLimitError:
    return EngineLimitError(f"{engine.kind} writes no backup to {path!s}: use the engine's own means")
