"""What statements about one collection have in common: its schema, its lock, and the connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from psycopg import sql

from rarebit.retrievers.engines.postgres import schema
from rarebit.retrievers.engines.postgres.connections import Connection, Connections

Answer = TypeVar("Answer")


class Runner:
    """Runs statements.

    Args:
        connections: to the database.
        name: of the collection; its schema is ``rarebit_`` and the name.
    """

    def __init__(self, connections: Connections, name: str) -> None:
        """Name the schema."""
        self.connections, self.name = connections, name
        self.identifier = sql.Identifier(schema.PREFIX + name)
        self.schema = self.identifier.as_string()
        self.extension = sql.Identifier("public")
        """The schema that pgvector is installed in."""

    @property
    def where(self) -> str:
        """The collection and the address, without credentials."""
        return f"{self.name!r} in PostgreSQL at {self.connections.where!r}"

    def call(self, work: Callable[[Connection], Answer]) -> Answer:
        """Do something with a connection; see :meth:`Connections.call`."""
        return self.connections.call(work)

    def in_transaction(
        self, work: Callable[[Connection], Answer], *, alone: bool | None = False, repeatable: bool = True
    ) -> Answer:
        """Do something that is kept whole or not at all.

        Args:
            work: to do.
            alone: wait for every writer, and let others wait; otherwise wait for a training alone; None for neither.
            repeatable: as in :meth:`Connections.call`.
        """

        def whole(connection: Connection) -> Answer:
            with connection.transaction():
                if alone is not None:
                    self.lock(connection, alone=alone)
                return work(connection)

        return self.connections.call(whole, repeatable=repeatable)

    def formatted(self, statement: str, **numbers: int) -> sql.Composed:
        """Fill in the schema, and numbers."""
        given = {name: sql.Literal(number) for name, number in numbers.items()}
        text: Any = statement  # of this package alone; values are parameters
        return sql.SQL(text).format(schema=self.identifier, extension=self.extension, **given)

    def run(self, connection: Connection, statement: str, given: dict[str, Any] | None = None, *, binary: bool = False) -> Any:
        """Run a statement; gives its cursor."""
        return connection.execute(self.formatted(statement), given, binary=binary)

    def fetched(self, statement: str, given: dict[str, Any] | None = None) -> list[Any]:
        """Run a statement by itself; gives its rows."""
        found: list[Any] = self.call(lambda connection: self.run(connection, statement, given, binary=True).fetchall())
        return found

    def lock(self, connection: Connection, *, alone: bool) -> None:
        """Wait for a training, or for every writer, until the transaction ends."""
        shared = "" if alone else "_shared"
        lock = f"SELECT pg_advisory_xact_lock{shared}(hashtextextended(%s::text, 0::bigint))"
        connection.execute(lock, (schema.lock_key(self.name),))
