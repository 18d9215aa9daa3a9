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

    @property
    def where(self) -> str:
        """The collection and the address, without credentials."""
        return f"{self.name!r} in PostgreSQL at {self.connections.where!r}"

    def call(self, work: Callable[[Connection], Answer]) -> Answer:
        """Do something with a connection; see :meth:`Connections.call`."""
        return self.connections.call(work)

    def in_transaction(self, work: Callable[[Connection], Answer], *, lock: bool = True, alone: bool = False) -> Answer:
        """Do something that is kept whole or not at all.

        Args:
            work: to do.
            lock: wait for a training.
            alone: wait for every writer, and let others wait.
        """

        def whole(connection: Connection) -> Answer:
            with connection.transaction():
                if lock:
                    self._lock(connection, alone=alone)
                return work(connection)

        return self.call(whole)

    def formatted(self, statement: str, **numbers: int) -> sql.Composed:
        """Fill in the schema, and numbers."""
        given = {name: sql.Literal(number) for name, number in numbers.items()}
        return sql.SQL(statement).format(schema=self.identifier, **given)

    def run(self, connection: Connection, statement: str, given: dict[str, Any] | None = None, *, binary: bool = False) -> Any:
        """Run a statement; gives its cursor."""
        return connection.execute(self.formatted(statement), given, binary=binary)

    def fetched(self, statement: str, given: dict[str, Any] | None = None) -> list[Any]:
        """Run a statement by itself; gives its rows."""
        found: list[Any] = self.call(lambda connection: self.run(connection, statement, given, binary=True).fetchall())
        return found

    def _lock(self, connection: Connection, *, alone: bool) -> None:
        shared = "" if alone else "_shared"
        connection.execute(f"SELECT pg_advisory_xact_lock{shared}(hashtextextended(%s, 0))", (schema.lock_key(self.name),))
