"""Searches in PostgreSQL: candidates by their bits, with their codes, and then the rows that are chosen among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from psycopg import sql

from rarebit.arrays import Codes
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.engines.engine import Candidate, Choose, StaleCodesError
from rarebit.retrievers.engines.postgres import indexes, statements
from rarebit.retrievers.engines.postgres.connections import Connection
from rarebit.retrievers.engines.postgres.escaping import escaped, unescaped
from rarebit.retrievers.engines.postgres.filters import Condition
from rarebit.retrievers.engines.postgres.runner import Runner

FEW: Final = 4096
"""Rows up to which those that match a filter are compared one by one: the index would pass over too many others."""


class Asked(NamedTuple):
    """Whose rows are asked for, by codes of which training, and what they have to match."""

    tenant: str
    generation: int
    condition: Condition

    @property
    def parameters(self) -> dict[str, Any]:
        """Of a statement."""
        return {**self.condition.parameters, "tenant": escaped(self.tenant)}


class Searches:
    """Searches a collection, in two round trips: most candidates are not chosen, and their texts are not sent.

    Args:
        runner: of the collection's statements.
    """

    def __init__(self, runner: Runner) -> None:
        """Nothing is asked yet."""
        self._runner = runner
        self._scanned: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()

    def nearest(self, asked: Asked, planes: Codes, count: int, choose: Choose) -> list[list[Row]]:
        """Give the rows that are chosen for each of (q, bits / 8) queries; they go out together.

        An index that has looked at many rows without finding enough gives up: such a query is asked once more without it.
        """
        given = {**asked.parameters, "count": count, "few": FEW}
        bits = [_bits(plane) for plane in planes]
        is_whole = asked.condition.is_any and not asked.tenant
        statement = statements.NEAREST if is_whole else statements.narrow(asked.condition.sql)

        def ask(connection: Connection) -> list[list[Any]]:
            answers = self._pipelined(connection, statement, given, bits, scanned=count)
            short = [place for place, found in enumerate(answers) if len(found) < count and not (found and found[0][0])]
            if short:
                exact = statements.exact(asked.condition.sql)
                again = self._pipelined(connection, exact, given, [bits[place] for place in short])
                for place, found in zip(short, again, strict=True):
                    answers[place] = found
            return answers

        return self._chosen(asked, ask, choose)

    def among_all(self, asked: Asked, queries: int, choose: Choose) -> list[list[Row]]:
        """Give the rows that are chosen for each of so many queries among all that match."""
        statement = statements.everything(asked.condition.sql, "row_id")

        def ask(connection: Connection) -> list[list[Any]]:
            return [self._runner.run(connection, statement, asked.parameters, binary=True).fetchall()] * queries

        return self._chosen(asked, ask, choose)

    def _chosen(self, asked: Asked, ask: Callable[[Connection], list[list[Any]]], choose: Choose) -> list[list[Row]]:
        """Ask for candidates, and for the rows that are chosen among them.

        Where one of these was deleted or replaced in between, both are asked for again, as of one and the same moment.
        """

        def find(connection: Connection) -> list[list[Row]] | None:
            chosen = choose([_candidates(asked.generation, answer) for answer in ask(connection)])
            wanted = {candidate.row_id for own in chosen for candidate in own}
            if not wanted:
                return [[] for _ in chosen]
            given = {"tenant": escaped(asked.tenant), "row_ids": list(wanted)}
            found = self._runner.run(connection, statements.CHOSEN, given, binary=True)
            rows = {row_id: row_of(*parts) for row_id, *parts in found}
            return [[rows[candidate.row_id] for candidate in own] for own in chosen] if len(rows) == len(wanted) else None

        def find_of_one_moment(connection: Connection) -> list[list[Row]] | None:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                return find(connection)

        found = self._runner.call(find)
        if found is None:
            found = self._runner.call(find_of_one_moment)
        assert found is not None  # noqa: S101 -- nothing is gone from that moment
        return found

    def _pipelined(
        self, connection: Connection, statement: str, given: dict[str, Any], bits: Sequence[str], *, scanned: int | None = None
    ) -> list[list[Any]]:
        """Ask for each of the bits, in one round trip; ``scanned`` rows of the index are looked at, which is remembered."""
        query = self._runner.formatted(statement, bits=len(bits[0]))
        wanted = None if scanned is None else max(indexes.FEWEST_SCANNED, min(scanned, indexes.MOST_SCANNED))
        same = wanted in (None, self._scanned.get(connection))
        if same and len(bits) == 1:
            return [connection.execute(query, {**given, "plane": bits[0]}, binary=True).fetchall()]
        with connection.pipeline():
            if not same:
                connection.execute(sql.SQL("SET hnsw.ef_search = {}").format(sql.Literal(wanted)))
            cursors = [connection.cursor(binary=True) for _ in bits]
            for cursor, plane in zip(cursors, bits, strict=True):
                cursor.execute(query, {**given, "plane": plane})
            answers = [cursor.fetchall() for cursor in cursors]
        if wanted is not None:
            self._scanned[connection] = wanted
        return answers


def check_generation(generation: int, *first: Any) -> None:
    """Check the first of the rows that came, if there is one: its codes are of the training that is known."""
    if first and first[0] is not None and first[0][0] != generation:
        raise StaleCodesError


def row_of(key: str, text: str, metadata: str) -> Row:
    """Read a row's id, text and metadata."""
    return Row(unescaped(key), unescaped(text), unescaped(json.loads(metadata)))


def _candidates(generation: int, found: Sequence[Any]) -> list[Candidate]:
    check_generation(generation, *(row[1:] for row in found[:1]))
    return [Candidate(*parts) for _, _, *parts in found]


def _bits(plane: Any) -> str:
    return "".join(map(str, np.unpackbits(plane).tolist()))
