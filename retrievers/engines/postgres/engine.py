"""PostgreSQL with pgvector: rows in a table, candidates by the Hamming distance of bits through an HNSW index."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, ClassVar, Final

from psycopg import sql

from rarebit.arrays import Codes
from rarebit.errors import InputError, LockedError
from rarebit.retrievers.collection.filters import Filter, Ids
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.settings import EmbeddingFingerprint
from rarebit.retrievers.engines.engine import (
    Choose,
    Kept,
    NewRow,
    Recoding,
    RemoteEngine,
    StaleCodesError,
    StoredCode,
)
from rarebit.retrievers.engines.postgres import indexes, schema, statements
from rarebit.retrievers.engines.postgres.connections import Connection, Connections
from rarebit.retrievers.engines.postgres.escaping import ESCAPED, escaped, unescaped
from rarebit.retrievers.engines.postgres.filters import Condition
from rarebit.retrievers.engines.postgres.kept_table import KeptTable
from rarebit.retrievers.engines.postgres.runner import Runner
from rarebit.retrievers.engines.postgres.searching import Asked, Searches, check_generation, row_of

LONGEST_NAME: Final = 40
"""Bytes."""

LONGEST_KEY: Final = 2500
"""Bytes of an id and its tenant's name: more does not fit into PostgreSQL's index."""

BATCH: Final = 4096
"""Rows that are encoded anew at once."""

_REWRITTEN: Final = re.compile(r"\d[eE][+-]?\d|-0(?![.]?\d*[1-9])")
"""Numbers that JSONB writes in another way: with an exponent, or minus zero."""


class PostgresEngine(RemoteEngine):
    """A collection in a schema of a PostgreSQL database.

    Args:
        connections: to the database.
        name: of the collection; its schema is ``rarebit_`` and the name.
        asked: settings that the user gave; None for those left out.
        create: make the collection if it is not there.
        partitions: tables that its rows are spread over by tenant, when it is made; 0 for one table.

    Raises:
        CollectionNotFoundError: there is none, and none is to be made.
        SettingsError, FingerprintError: it was made with other settings, or by another model.
    """

    kind: ClassVar = "PostgreSQL"

    def __init__(
        self, connections: Connections, name: str, asked: Mapping[str, Any], *, create: bool = True, partitions: int = 0
    ) -> None:
        """Agree on the settings with the collection, or make it."""
        if not isinstance(name, str) or not name or "\0" in name or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
            raise InputError(f"got name={name!r:.100} for a collection, wanted a string of 1 to {LONGEST_NAME} bytes")
        if not name.isprintable():
            raise InputError(f"got name={name!r} for a collection, wanted characters that can be printed")
        self._connections, self.name, self._asked = connections, name, dict(asked)
        self._runner = Runner(connections, name)
        self._table = KeptTable(self._runner)
        self._searches = Searches(self._runner)
        try:
            self._table.agree(asked, create=create, partitions=partitions)
            ((self.size,),) = self._runner.fetched(statements.GUESSED_ROWS, {"name": self._runner.schema})
        except BaseException:
            connections.close()
            raise

    @property
    def where(self) -> str:
        """The collection and the address, without credentials."""
        return self._runner.where

    def kept(self, *, fresh: bool = False) -> Kept:
        """As :class:`RemoteEngine` says."""
        return self._table.read() if fresh else self._table.seen

    def fix_dimension(self, dim: int) -> Kept:
        """As :class:`RemoteEngine` says."""
        self._table.fix_dimension(dim)
        return self._table.seen

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint) -> None:
        """As :class:`RemoteEngine` says."""
        self._table.check_fingerprint(fingerprint)

    @property
    def may_train(self) -> bool:
        """As :class:`RemoteEngine` says."""
        return self._table.may_write

    def adopt(self, kept: Kept) -> None:
        """As :class:`RemoteEngine` says."""
        self._table.adopt(kept)

    def tune(self, generation: int, candidates: int, rows: int) -> None:
        """As :class:`RemoteEngine` says; more, if the index finds too little by so many."""
        self._table.tune(generation, candidates, rows)
        with suppress(LockedError):  # somebody else is counting, or the server itself
            self._runner.call(lambda connection: self._runner.run(connection, statements.ANALYZE_FIELDS))
        self._tune_to_index()

    def put(self, tenant: str, generation: int, batches: Callable[[], Iterable[Sequence[NewRow]]]) -> None:
        """As :class:`RemoteEngine` says; the rows are copied in bulk, and put in place by one statement."""
        room = LONGEST_KEY - len(tenant.encode())

        def put(connection: Connection) -> int:
            place = -1
            self._table.check(connection, generation)
            connection.execute(statements.INCOMING)
            with connection.cursor().copy(statements.COPY) as copy:
                copy.set_types(["int8", "text", "text", "text", "bytea", "bytea", "bytea", "text"])
                for place, row in enumerate(chain.from_iterable(batches())):
                    _check_key(row.id, tenant, room)
                    copy.write_row((place, escaped(row.id), escaped(row.text), *_metadata(row.metadata, row[3:])))
            self._runner.run(connection, statements.UPSERT, {"tenant": escaped(tenant)})
            return place + 1

        self.size += self._runner.in_transaction(put)

    def delete(self, tenant: str, tree: Filter | None) -> int:
        """As :class:`RemoteEngine` says."""
        condition = Condition(tree, self._runner.schema)
        statement = f"DELETE FROM {{schema}}.rows WHERE tenant = %(tenant)s AND {statements.braced(condition.sql)}"
        given = {**condition.parameters, "tenant": escaped(tenant)}
        return self._runner.in_transaction(
            lambda connection: int(self._runner.run(connection, statement, given).rowcount), repeatable=False
        )

    def count(self, tenant: str | None, tree: Filter | None = None, *, most: int | None = None) -> int:
        """As :class:`RemoteEngine` says."""
        condition = Condition(tree, self._runner.schema)
        own = "TRUE" if tenant is None else "tenant = %(tenant)s"
        matching = f"SELECT FROM {{schema}}.rows WHERE {own} AND {statements.braced(condition.sql)}"
        limited = "" if most is None else " LIMIT %(most)s"
        given = {**condition.parameters, "tenant": escaped(tenant or ""), "most": most}
        ((found,),) = self._runner.fetched(f"SELECT count(*) FROM ({matching}{limited}) AS matching", given)
        return int(found)

    def rows(self, tenant: str, tree: Filter | None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Row]]:
        """As :class:`RemoteEngine` says."""
        end = " AND row_id > %(after)s ORDER BY row_id" + ("" if limit is None else " LIMIT %(limit)s")
        found = self._selected(statements.ROW, tenant, tree, end, after=after, limit=limit)
        return [(row_id, row_of(*parts)) for row_id, *parts in found]

    def numbers(self, tenant: str) -> list[int]:
        """As :class:`RemoteEngine` says."""
        return [row_id for (row_id,) in self._selected("row_id", tenant, None, " ORDER BY row_id")]

    def codes(
        self, tenant: str | None, generation: int, tree: Filter | None = None, *, row_ids: Sequence[int] | None = None
    ) -> list[StoredCode]:
        """As :class:`RemoteEngine` says."""
        own = "" if row_ids is None else " AND row_id = ANY(%(row_ids)s)"
        return self._coded(generation, tenant, tree, f"{own} ORDER BY row_id", row_ids=row_ids)

    def codes_of(self, tenant: str, generation: int, ids: Sequence[str]) -> dict[str, StoredCode]:
        """As :class:`RemoteEngine` says."""
        found = self._selected(f"{statements.GENERATION}, id, row_id, code, fine", tenant, Ids(tuple(ids)))
        check_generation(generation, *found[:1])
        return {unescaped(key): StoredCode(*parts) for _, key, *parts in found}

    def coded(
        self, tenant: str, tree: Filter | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[tuple[int, NewRow]]:
        """As :class:`RemoteEngine` says."""
        end = " AND row_id > %(after)s ORDER BY row_id" + ("" if limit is None else " LIMIT %(limit)s")
        found = self._selected(f"{statements.ROW}, code, fine", tenant, tree, end, after=after, limit=limit)
        return [
            (
                row_id,
                NewRow(unescaped(key), unescaped(text), _unescaped_json(metadata), code, fine, None),
            )
            for row_id, key, text, metadata, code, fine in found
        ]

    def sample(self, generation: int, most: int) -> list[StoredCode]:
        """As :class:`RemoteEngine` says."""
        share = min(1.0, 1.2 * most / max(1, self.count(None)))
        drawn = "" if share >= 1 else " AND random() < %(share)s"
        return self._coded(generation, None, None, f"{drawn} ORDER BY random() LIMIT %(most)s", share=share, most=most)

    def nearest(
        self, tenant: str, generation: int, planes: Codes, count: int, tree: Filter | None, *, choose: Choose
    ) -> list[list[Row]]:
        """As :class:`RemoteEngine` says."""
        asked = Asked(tenant, generation, Condition(tree, self._runner.schema))
        return self._searches.nearest(asked, planes, count, choose)

    def among_all(self, tenant: str, generation: int, queries: int, tree: Filter | None, *, choose: Choose) -> list[list[Row]]:
        """As :class:`RemoteEngine` says."""
        return self._searches.among_all(Asked(tenant, generation, Condition(tree, self._runner.schema)), queries, choose)

    def best_by_words(self, tenant: str, text: str, k: int, tree: Filter | None) -> list[tuple[int, Row, float]]:
        """As :class:`RemoteEngine` says: by ``ts_rank_cd``, of rows that have any of the words."""
        configuration = schema.CONFIGURATIONS[self._table.seen.settings.tokenizer]
        words = f"to_tsvector('{configuration}'::regconfig, left(text, {schema.LONGEST_INDEXED}))"
        found = self._selected(
            f"{statements.ROW}, ts_rank_cd({words}, asked.query, 1)",
            tenant,
            tree,
            f" AND {words} @@ asked.query ORDER BY 5 DESC, row_id LIMIT %(k)s",
            source=f", {statements.any_word(configuration)} AS asked (query)",
            words=escaped(text.encode("utf-8", "replace").decode()),
            k=k,
        )
        return [(row_id, row_of(*parts), float(score)) for row_id, *parts, score in found]

    def retrain(self, before: Kept, after: Kept, recode: Recoding) -> bool:
        """As :class:`RemoteEngine` says; other writers wait meanwhile, readers do not."""

        def train(connection: Connection) -> None:
            carried = self._table.carried(connection, before, after)
            self._recode(connection, recode)
            self._table.write(connection, carried)

        try:
            self._runner.in_transaction(train, alone=True)
        except StaleCodesError:
            self._table.read()
            return False
        if self._table.read().indexed:  # it has the bits of before in it as well
            self._runner.call(lambda connection: self._runner.run(connection, statements.REINDEX))
        return True

    def _recode(self, connection: Connection, recode: Recoding) -> None:
        last: dict[str, Any] = {"tenant": "", "last": -1}
        while found := self._runner.run(connection, statements.TO_RECODE, {**last, "batch": BATCH}).fetchall():
            row_ids, codes, fines, planes = zip(*recode([StoredCode(*row) for _, *row in found]), strict=True)
            given = {"row_ids": list(row_ids), "codes": list(codes), "fines": list(fines), "planes": list(planes)}
            self._runner.run(connection, statements.RECODE, {**given, "tenants": [tenant for tenant, *_ in found]})
            last = {"tenant": found[-1][0], "last": found[-1][1]}

    def index_if_due(self) -> None:
        """As :class:`RemoteEngine` says; writers wait meanwhile."""
        kept = self.kept()
        if kept.plane is None or kept.indexed or self.count(None, most=indexes.FROM) < indexes.FROM:
            return
        with suppress(StaleCodesError):  # who trained has built it
            self._runner.in_transaction(
                lambda connection: indexes.build(self._runner, self._table, connection, kept), alone=True
            )
        self._table.read()
        self._tune_to_index()

    def index_field(self, field: str) -> None:
        """As :class:`RemoteEngine` says; writers wait meanwhile."""
        self._runner.in_transaction(lambda connection: indexes.build_over_field(self._runner, connection, field), alone=True)

    def _tune_to_index(self) -> None:
        kept = self.kept()
        if kept.indexed and kept.candidates:
            candidates = self._runner.call(lambda connection: indexes.enough(self._runner, connection, kept))
            self._table.tune(kept.generation, candidates, kept.tuned_rows)

    def grant(self, role: str, tenant: str) -> None:
        """As :class:`RemoteEngine` says; the role must exist."""
        if not isinstance(role, str) or not role:
            raise InputError(f"got role={role!r}, wanted the name of a role of the database")
        given = {"role": role, "tenant": escaped(tenant), "table": f"{self._runner.schema}.collection"}

        def grant(connection: Connection) -> None:
            found = self._runner.run(connection, statements.CANNOT_BE_BOUND, given).fetchone()
            if found != (False,):
                why = "there is none" if found is None else "no policy binds it: it is a superuser, or owns the collection"
                raise InputError(f"got role={role!r}, wanted one that can be bound to a tenant ({why})")
            for statement in statements.GRANTS:
                connection.execute(sql.SQL(statement).format(schema=self._runner.identifier, role=sql.Identifier(role)))
            self._runner.run(connection, statements.MEMBER, given)

        self._runner.in_transaction(grant, alone=None)

    def tenants(self) -> list[str]:
        """As :class:`RemoteEngine` says, in the order in which they came."""
        return [unescaped(name) for (name,) in self._runner.fetched(statements.TENANTS)]

    def sizes(self) -> dict[str, int]:
        """As :class:`RemoteEngine` says: the index over the bits, the other indexes, and the tables."""
        found = self._runner.fetched(statements.SIZES, {"name": self._runner.schema})
        return {"plane_index": 0, "other_indexes": 0, "tables": 0, **{kind: int(size) for kind, size in found}}

    def close(self) -> None:
        """As :class:`RemoteEngine` says."""
        self._connections.close()

    def _selected(
        self, what: str, tenant: str | None, tree: Filter | None, end: str = "", *, source: str = "", **given: Any
    ) -> list[Any]:
        condition = Condition(tree, self._runner.schema)
        own = "TRUE" if tenant is None else "tenant = %(tenant)s"
        statement = f"SELECT {what} FROM {{schema}}.rows{source} WHERE {own} AND {statements.braced(condition.sql)}{end}"
        parameters = {**condition.parameters, **given, "tenant": escaped(tenant or "")}
        return self._runner.fetched(statement, parameters)

    def _coded(self, generation: int, tenant: str | None, tree: Filter | None, end: str, **given: Any) -> list[StoredCode]:
        found = self._selected(f"{statements.GENERATION}, row_id, code, fine", tenant, tree, end, **given)
        check_generation(generation, *found[:1])
        return [StoredCode(*parts) for _, *parts in found]


def _metadata(given: str, codes: Sequence[bytes | None]) -> tuple[Any, ...]:
    """Give metadata as JSONB takes it, the codes, and the metadata as it is written, where JSONB would write it otherwise."""
    if any(mark in given for mark in statements.WRITTEN):
        given = json.dumps(escaped(json.loads(given)))
    return given, *codes, given if _REWRITTEN.search(given) else None


def _unescaped_json(metadata: str) -> str:
    return metadata if ESCAPED not in metadata else json.dumps(unescaped(json.loads(metadata)), ensure_ascii=False)


def _check_key(key: str, tenant: str, room: int) -> None:
    if len(key.encode()) > room:
        raise InputError(
            f"got an id of {len(key.encode()):,} bytes ({key[:40]!r}...), wanted {room:,} at most"
            + (f" beside the tenant {tenant[:40]!r}" if tenant else "")
        )
