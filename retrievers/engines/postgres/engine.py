"""PostgreSQL with pgvector: rows in a table, candidates by the Hamming distance of bits through an HNSW index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from psycopg import sql

from rarebit.arrays import Codes
from rarebit.compressors.vectors import restore_codec
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.compressors.vectors.codec import SearchableCodec
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import CollectionNotFoundError, DamagedFileError, InputError, SettingsError
from rarebit.retrievers.collection.filters import Filter, Ids
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings, reconciled
from rarebit.retrievers.engines.engine import (
    UNTRAINED,
    Candidate,
    Kept,
    NewRow,
    Recoding,
    RemoteEngine,
    StaleCodesError,
    StoredCode,
)
from rarebit.retrievers.engines.postgres import schema, statements
from rarebit.retrievers.engines.postgres.connections import Connection, Connections
from rarebit.retrievers.engines.postgres.escaping import escaped, unescaped
from rarebit.retrievers.engines.postgres.filters import Condition

Answer = TypeVar("Answer")

LONGEST_NAME: Final = 40
FEW: Final = 4096
"""Rows up to which those that match a filter are compared one by one: the index would pass over too many others."""

MOST_SCANNED: Final = 1000
"""The longest list that an HNSW index of pgvector keeps of what it has found."""

INDEX_FROM: Final = 10_000
"""Rows from which an index is built; fewer are compared one by one about as fast."""

SAMPLED: Final = 65_536
BATCH: Final = 4096


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
        if not isinstance(name, str) or not name or len(name) > LONGEST_NAME or "\0" in name:
            raise InputError(f"got name={name!r:.100} for a collection, wanted a string of 1 to {LONGEST_NAME} characters")
        self._connections, self.name, self._asked = connections, name, dict(asked)
        self._schema = sql.Identifier(schema.PREFIX + name)
        self._prefix = self._schema.as_string()
        self._may_train = False
        self._scanned: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
        first = Settings(**{key: value for key, value in asked.items() if value is not None})

        def agree(connection: Connection) -> None:
            with connection.transaction():
                if not schema.exists(connection, name):
                    if not create:
                        raise CollectionNotFoundError(
                            f"there is no collection {name!r} in {connections.where!r}, wanted one that exists: leave out "
                            "create=False to make it"
                        )
                    schema.create(connection, name, json.dumps(asdict(first)), first.tokenizer, partitions)
                kept = self._read_settings(connection)
                agreed = reconciled(kept, asked, self.where)
                privilege = connection.execute("SELECT has_table_privilege(%s, 'UPDATE')", (f"{self._prefix}.collection",))
                self._may_train = privilege.fetchone() == (True,)
                if agreed != kept and self._may_train:
                    self._save_settings(connection, agreed)

        try:
            connections.call(agree)
            self._kept = self._read_kept()
        except BaseException:
            connections.close()
            raise

    @property
    def where(self) -> str:
        """The collection and the address, without credentials."""
        return f"{self.name!r} in PostgreSQL at {self._connections.where!r}"

    def kept(self, *, fresh: bool = False) -> Kept:
        """As :class:`RemoteEngine` says."""
        if fresh:
            self._kept = self._read_kept()
        return self._kept

    def fix_dimension(self, dim: int) -> Kept:
        """As :class:`RemoteEngine` says."""

        def fix(connection: Connection) -> None:
            with connection.transaction():
                self._lock(connection, alone=True)
                settings = self._read_settings(connection)
                if settings.dim is None:
                    self._save_settings(connection, replace(settings, dim=dim))

        self._connections.call(fix)
        return self.kept(fresh=True)

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint) -> None:
        """As :class:`RemoteEngine` says."""

        def check(connection: Connection) -> None:
            with connection.transaction():
                kept = self._read_settings(connection)
                agreed = reconciled(kept, {"fingerprint": fingerprint}, self.where)
                if agreed != kept:
                    self._save_settings(connection, agreed)

        self._connections.call(check)
        self.kept(fresh=True)

    def put(self, tenant: str, generation: int, batches: Callable[[], Iterable[Sequence[NewRow]]]) -> None:
        """As :class:`RemoteEngine` says; the rows are copied in bulk, and put in place by one statement."""

        def put(connection: Connection) -> None:
            with connection.transaction():
                self._lock(connection)
                self._check(generation, self._run(connection, "SELECT generation FROM {schema}.collection").fetchone())
                connection.execute(statements.INCOMING)
                with connection.cursor().copy(statements.COPY) as copy:
                    copy.set_types(["int8", "text", "text", "text", "bytea", "bytea", "bytea"])
                    for place, row in enumerate(chain.from_iterable(batches())):
                        copy.write_row((place, escaped(row.id), escaped(row.text), _escaped_json(row.metadata), *row[3:]))
                self._run(connection, statements.UPSERT, {"tenant": escaped(tenant)})

        self._connections.call(put)

    def delete(self, tenant: str, tree: Filter | None) -> int:
        """As :class:`RemoteEngine` says."""
        condition = Condition(tree, self._prefix)
        statement = f"DELETE FROM {{schema}}.rows WHERE tenant = %(tenant)s AND {statements.braced(condition.sql)}"
        given = {**condition.parameters, "tenant": escaped(tenant)}

        def delete(connection: Connection) -> int:
            with connection.transaction():
                self._lock(connection)
                return int(self._run(connection, statement, given).rowcount)

        return self._connections.call(delete)

    def count(self, tenant: str | None, tree: Filter | None = None, *, most: int | None = None) -> int:
        """As :class:`RemoteEngine` says."""
        if most is None:
            return int(self._selected("count(*)", tenant, tree)[0][0])
        return len(self._selected("1", tenant, tree, " LIMIT %(most)s", most=most))

    def rows(self, tenant: str, tree: Filter | None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Row]]:
        """As :class:`RemoteEngine` says."""
        end = " AND row_id > %(after)s ORDER BY row_id" + ("" if limit is None else " LIMIT %(limit)s")
        found = self._selected(statements.ROW, tenant, tree, end, after=after, limit=limit)
        return [(row_id, _row(*parts)) for row_id, *parts in found]

    def numbered(self, tenant: str, row_ids: Sequence[int]) -> dict[int, Row]:
        """As :class:`RemoteEngine` says."""
        found = self._selected(statements.ROW, tenant, None, " AND row_id = ANY(%(row_ids)s)", row_ids=list(row_ids))
        return {row_id: _row(*parts) for row_id, *parts in found}

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
        self._check(generation, *found[:1])
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
                NewRow(unescaped(key), unescaped(text), json.dumps(unescaped(metadata), ensure_ascii=False), code, fine, None),
            )
            for row_id, key, text, metadata, code, fine in found
        ]

    def adopt(self, kept: Kept) -> None:
        """As :class:`RemoteEngine` says."""

        def adopt(connection: Connection) -> None:
            with connection.transaction():
                self._lock(connection, alone=True)
                if self._run(connection, statements.AT_LEAST, {"least": 1}).fetchone() is not None:
                    raise SettingsError(f"{self.where} has rows, wanted an empty collection to take over codes")
                if kept.plane is None:
                    self._save_settings(connection, kept.settings)
                else:
                    self._run(connection, statements.TAKE_OVER, _told_of(kept))

        self._connections.call(adopt)
        self.kept(fresh=True)

    def sample(self, generation: int, most: int) -> list[StoredCode]:
        """As :class:`RemoteEngine` says."""
        share = min(1.0, 1.2 * most / max(1, self.count(None)))
        drawn = "" if share >= 1 else " AND random() < %(share)s"
        return self._coded(generation, None, None, f"{drawn} ORDER BY random() LIMIT %(most)s", share=share, most=most)

    def candidates(self, tenant: str, generation: int, planes: Codes, count: int, tree: Filter | None) -> list[list[Candidate]]:
        """As :class:`RemoteEngine` says; all queries go out together."""
        condition = Condition(tree, self._prefix)
        narrowed = tree is not None or tenant != ""
        statement = statements.narrow(condition.sql) if narrowed else statements.PLAIN
        given = {**condition.parameters, "tenant": escaped(tenant), "count": count, "few": FEW}
        bits = [_bits(plane) for plane in planes]

        def ask(connection: Connection) -> list[list[Any]]:
            self._prepare_scan(connection, count)
            query = self._formatted(statement, bits=len(bits[0]))
            if len(bits) == 1:
                return [connection.execute(query, {**given, "plane": bits[0]}, binary=True).fetchall()]
            with connection.pipeline():
                cursors = [connection.cursor(binary=True) for _ in bits]
                for cursor, plane in zip(cursors, bits, strict=True):
                    cursor.execute(query, {**given, "plane": plane})
                return [cursor.fetchall() for cursor in cursors]

        answers = self._connections.call(ask)
        for answer in answers:
            self._check(generation, *answer[:1])
        return [
            [Candidate(row_id, code, fine, partial(_read_row, *parts)) for _, row_id, code, fine, *parts in answer]
            for answer in answers
        ]

    def best_by_words(self, tenant: str, text: str, k: int, tree: Filter | None) -> list[tuple[int, Row, float]]:
        """As :class:`RemoteEngine` says: by ``ts_rank_cd``, of rows that have any of the words."""
        configuration = schema.CONFIGURATIONS[self._kept.settings.tokenizer]
        words = f"to_tsvector('{configuration}', left(text, {schema.LONGEST_INDEXED}))"
        found = self._selected(
            f"{statements.ROW}, ts_rank_cd({words}, asked.query, 1)",
            tenant,
            tree,
            f" AND {words} @@ asked.query ORDER BY 5 DESC, row_id LIMIT %(k)s",
            source=f", {statements.any_word(configuration)} AS asked (query)",
            words=escaped(text),
            k=k,
        )
        return [(row_id, _row(*parts), float(score)) for row_id, *parts, score in found]

    def retrain(self, before: Kept, after: Kept, recode: Recoding) -> bool:
        """As :class:`RemoteEngine` says; other writers wait meanwhile, readers do not."""
        told = _told_of(after)

        def train(connection: Connection) -> bool:
            with connection.transaction():
                self._lock(connection, alone=True)
                (generation,) = self._run(connection, "SELECT generation FROM {schema}.collection").fetchone() or (None,)
                if generation != before.generation:
                    return False
                self._run(connection, statements.DROP_INDEX)
                self._recode(connection, recode)
                self._run(connection, statements.TAKE_OVER, told)
                if self._run(connection, statements.AT_LEAST, {"least": INDEX_FROM}).fetchone() is not None:
                    connection.execute(self._formatted(statements.INDEX, bits=told["bits"]))
                return True

        done = self._connections.call(train)
        self.kept(fresh=True)
        return done

    def _recode(self, connection: Connection, recode: Recoding) -> None:
        last = -1
        statement = "SELECT row_id, code, fine FROM {schema}.rows WHERE row_id > %(last)s ORDER BY row_id LIMIT " + str(BATCH)
        while found := self._run(connection, statement, {"last": last}).fetchall():
            stored = [StoredCode(*row) for row in found]
            last = stored[-1].row_id
            row_ids, codes, fines, planes = zip(*recode(stored), strict=True)
            given = {"row_ids": list(row_ids), "codes": list(codes), "fines": list(fines), "planes": list(planes)}
            self._run(connection, statements.RECODE, given)

    def index_if_due(self) -> None:
        """As :class:`RemoteEngine` says; writers wait meanwhile."""
        kept = self.kept()
        if kept.plane is None or kept.indexed or self.count(None, most=INDEX_FROM) < INDEX_FROM:
            return
        bits = kept.plane.bits

        def build(connection: Connection) -> None:
            with connection.transaction():
                self._lock(connection, alone=True)
                self._check(kept.generation, self._run(connection, "SELECT generation FROM {schema}.collection").fetchone())
                if not self._is_indexed(connection):
                    connection.execute(self._formatted(statements.INDEX, bits=bits))

        with suppress(StaleCodesError):  # who trained has built it
            self._connections.call(build)
        self.kept(fresh=True)

    def grant(self, role: str, tenant: str) -> None:
        """As :class:`RemoteEngine` says; the role must exist."""
        given = {"role": role, "tenant": escaped(tenant)}

        def grant(connection: Connection) -> None:
            with connection.transaction():
                for statement in statements.GRANTS:
                    connection.execute(sql.SQL(statement).format(schema=self._schema, role=sql.Identifier(role)))
                self._run(connection, statements.MEMBER, given)

        self._connections.call(grant)

    @property
    def may_train(self) -> bool:
        """As :class:`RemoteEngine` says."""
        return bool(self._may_train)

    def _is_indexed(self, connection: Connection) -> bool:
        found = connection.execute("SELECT to_regclass(%s)", (f"{self._prefix}.rows_plane",)).fetchone()
        return bool(found != (None,))

    def tune(self, candidates: int, rows: int) -> None:
        """As :class:`RemoteEngine` says."""
        statement = "UPDATE {schema}.collection SET candidates = %(candidates)s, tuned_rows = %(rows)s"
        self._connections.call(lambda connection: self._run(connection, statement, {"candidates": candidates, "rows": rows}))
        self.kept(fresh=True)

    def tenants(self) -> list[str]:
        """As :class:`RemoteEngine` says, in the order in which they came."""
        statement = "SELECT tenant FROM {schema}.rows WHERE tenant <> '' GROUP BY tenant ORDER BY min(row_id)"
        found = self._connections.call(lambda connection: self._run(connection, statement).fetchall())
        return [unescaped(name) for (name,) in found]

    def sizes(self) -> dict[str, int]:
        """As :class:`RemoteEngine` says: the index over the bits, the other indexes, and the tables."""
        statement = """
            SELECT CASE WHEN relkind = 'r' THEN 'tables' WHEN relname LIKE '%%plane%%' THEN 'plane_index'
                        ELSE 'other_indexes' END,
                   sum(CASE WHEN relkind = 'r' THEN pg_table_size(oid) ELSE pg_relation_size(oid) END)
            FROM pg_class WHERE relnamespace = to_regnamespace(%(name)s) AND relkind IN ('r', 'i') GROUP BY 1
        """
        found = self._connections.call(lambda connection: connection.execute(statement, {"name": self._prefix}).fetchall())
        return {"plane_index": 0, "other_indexes": 0, "tables": 0, **{kind: int(size) for kind, size in found}}

    def close(self) -> None:
        """As :class:`RemoteEngine` says."""
        self._connections.close()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without credentials."""
        return {"connections": self._connections, "name": self.name, "asked": self._asked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect again; a collection that has vanished since is an error."""
        self.__init__(**state, create=False)  # type: ignore[misc]

    def _selected(
        self, what: str, tenant: str | None, tree: Filter | None, end: str = "", *, source: str = "", **given: Any
    ) -> list[Any]:
        condition = Condition(tree, self._prefix)
        own = "TRUE" if tenant is None else "tenant = %(tenant)s"
        statement = f"SELECT {what} FROM {{schema}}.rows{source} WHERE {own} AND {statements.braced(condition.sql)}{end}"
        parameters = {**condition.parameters, **given, "tenant": escaped(tenant or "")}
        return self._connections.call(lambda connection: self._run(connection, statement, parameters, binary=True).fetchall())

    def _coded(self, generation: int, tenant: str | None, tree: Filter | None, end: str, **given: Any) -> list[StoredCode]:
        found = self._selected(f"{statements.GENERATION}, row_id, code, fine", tenant, tree, end, **given)
        self._check(generation, *found[:1])
        return [StoredCode(*parts) for _, *parts in found]

    @staticmethod
    def _check(generation: int, *first: Any) -> None:
        if first and first[0] is not None and first[0][0] != generation:
            raise StaleCodesError

    def _formatted(self, statement: str, **numbers: int) -> sql.Composed:
        return sql.SQL(statement).format(schema=self._schema, **{name: sql.Literal(number) for name, number in numbers.items()})

    def _run(self, connection: Connection, statement: str, given: dict[str, Any] | None = None, *, binary: bool = False) -> Any:
        return connection.execute(self._formatted(statement), given, binary=binary)

    def _lock(self, connection: Connection, *, alone: bool = False) -> None:
        """Wait for a training; ``alone`` also for every writer."""
        shared = "" if alone else "_shared"
        connection.execute(f"SELECT pg_advisory_xact_lock{shared}(hashtextextended(%s, 0))", (schema.lock_key(self.name),))

    def _prepare_scan(self, connection: Connection, count: int) -> None:
        """Let the index look at as many rows as are asked for; the connection remembers."""
        wanted = max(40, min(count, MOST_SCANNED))
        if self._scanned.get(connection) != wanted:
            connection.execute(sql.SQL("SET hnsw.ef_search = {}").format(sql.Literal(wanted)))
            self._scanned[connection] = wanted

    def _read_settings(self, connection: Connection) -> Settings:
        (stored,) = self._run(connection, "SELECT settings FROM {schema}.collection").fetchone()
        return _settings(stored)

    def _save_settings(self, connection: Connection, settings: Settings) -> None:
        self._run(connection, "UPDATE {schema}.collection SET settings = %(new)s", {"new": json.dumps(asdict(settings))})

    def _read_kept(self) -> Kept:
        statement = "SELECT settings, generation, codec, learned, plane, candidates, tuned_rows FROM {schema}.collection"

        def read(connection: Connection) -> tuple[Any, ...]:
            return *self._run(connection, statement).fetchone(), self._is_indexed(connection)

        stored, generation, codec, learned, plane, candidates, tuned_rows, indexed = self._connections.call(read)
        settings = _settings(stored)
        if settings.dim is None:
            return Kept(settings)
        if generation == UNTRAINED:
            return Kept(settings, UNTRAINED, Exact().with_dim(settings.dim))
        restored = restore_codec(codec["name"], dim=settings.dim, config=codec["config"], learned=learned)
        if not isinstance(restored, SearchableCodec):
            raise DamagedFileError(f"the codec {codec['name']!r} of {self.where} cannot be searched: restore a backup")
        return Kept(settings, generation, restored, BitPlane.restore(plane), candidates, tuned_rows, indexed)


def _told_of(kept: Kept) -> dict[str, Any]:
    """Write down what a training has learned."""
    if kept.codec is None or kept.plane is None:
        raise InputError("got a training without a codec or bits, wanted both")
    return {
        "settings": json.dumps(asdict(kept.settings)),
        "codec": json.dumps({"name": kept.codec.name, "config": kept.codec.config}),
        "learned": kept.codec.learned(),
        "plane": kept.plane.learned(),
        "bits": kept.plane.bits,
    }


def _settings(stored: dict[str, Any]) -> Settings:
    return Settings(**{**stored, "fingerprint": EmbeddingFingerprint(**stored["fingerprint"])})


def _row(key: str, text: str, metadata: Any) -> Row:
    return Row(unescaped(key), unescaped(text), unescaped(metadata))


def _read_row(key: str, text: str, metadata: str) -> Row:
    return _row(key, text, json.loads(metadata))


def _escaped_json(metadata: str) -> str:
    return metadata if not any(mark in metadata for mark in statements.WRITTEN) else json.dumps(escaped(json.loads(metadata)))


def _bits(plane: Any) -> str:
    return "".join(map(str, np.unpackbits(plane).tolist()))
