"""The two sides of a move: a collection in a file or in memory, and one on an engine."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import EngineLimitError, SettingsError
from rarebit.retrievers.collection import inverted_lists, stored_codes, tenants, training
from rarebit.retrievers.collection import rows as sql_rows
from rarebit.retrievers.collection import settings as settings_
from rarebit.retrievers.collection.collection import Collection
from rarebit.retrievers.collection.filters import Ids
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.settings import CHANGEABLE, Settings
from rarebit.retrievers.collection.snapshot import Snapshot
from rarebit.retrievers.collection.stored_codes import Encoded
from rarebit.retrievers.engines.coding import Coding
from rarebit.retrievers.engines.collection import RemoteCollection
from rarebit.retrievers.engines.engine import OWN, UNTRAINED, Kept, NewRow, StoredCode
from rarebit.retrievers.engines.training import tune

Movable: TypeAlias = Collection | RemoteCollection
Numbered: TypeAlias = list[tuple[int, NewRow]]
"""Rows with their codes, without bits, and their numbers, which rise in the order of insertion."""

AT_ONCE: Final = 2048


class MoveSource(ABC):
    """The side of a move that is read."""

    where: str

    @abstractmethod
    def kept(self) -> Kept:
        """Give settings and codec of this side, without bits."""

    @abstractmethod
    def plane(self) -> BitPlane:
        """Give the bits by which an engine finds these rows, learned from them where there are none yet."""

    @abstractmethod
    def tenants(self) -> list[str]:
        """Name everybody who has rows, the collection itself included."""

    @abstractmethod
    def read(self, tenant: str, after: int) -> Numbered:
        """Give some rows behind a number."""

    @abstractmethod
    def named(self, tenant: str, ids: Sequence[str]) -> list[NewRow]:
        """Give those of some rows that are there."""

    def every(self, tenant: str) -> Iterator[list[NewRow]]:
        """Give all rows, some at a time."""
        last = 0
        while found := self.read(tenant, last):
            last = found[-1][0]
            yield [row for _, row in found]


class End(MoveSource):
    """One side of a move, which can be the other one too: a collection."""

    @abstractmethod
    def take(self, kept: Kept, source: MoveSource) -> None:
        """Take over settings and codec of the other side, or check that they are the same."""

    @abstractmethod
    def put(self, tenant: str, new: list[NewRow]) -> None:
        """Write rows."""

    @abstractmethod
    def delete(self, tenant: str, ids: list[str]) -> None:
        """Delete rows."""

    @abstractmethod
    def finish(self) -> None:
        """Make ready for searches what is derived from all rows."""


class EmbeddedEnd(End):
    """A collection in a file or in memory."""

    def __init__(self, collection: Collection) -> None:
        """Look at the collection's engine."""
        self._collection, self._engine = collection, collection._engine
        self.where = str(self._engine.storage)

    def kept(self) -> Kept:
        """As :class:`End` says."""
        with self._engine.snapshot() as snapshot:
            if snapshot.connection.execute("SELECT 1 FROM shared LIMIT 1").fetchone():
                raise EngineLimitError(f"{self.where} shares rows with tenants, which no engine can: add them to each tenant")
            return comparable(snapshot.settings, snapshot.codec)

    def take(self, kept: Kept, source: MoveSource) -> None:
        """As :class:`End` says."""
        with self._engine.write() as connection:
            snapshot = self._engine.snapshot_in(connection)
            own = comparable(snapshot.settings, snapshot.codec)
            _check_words(own, kept, self.where)
            if same(own, kept):
                return
            if snapshot.state.row_count or snapshot.state.tenant_rows:
                raise _other(self.where, source.where)
            settings_.save(connection, kept.settings)
            if kept.generation != UNTRAINED and kept.codec is not None:
                training.take_over(connection, kept.settings, kept.codec)
        self._engine.asked |= dict.fromkeys(CHANGEABLE)

    def plane(self) -> BitPlane:
        """As :class:`End` says."""
        with self._engine.snapshot() as snapshot:
            return BitPlane.fit(snapshot.finest.of(training.sampled_ids(snapshot.connection)))

    def tenants(self) -> list[str]:
        """As :class:`End` says."""
        return [OWN, *self._collection.tenants()]

    def read(self, tenant: str, after: int) -> Numbered:
        """As :class:`End` says."""
        with self._engine.snapshot(tenant or None) as snapshot:
            found = snapshot.after(after, AT_ONCE)
            return _coded(snapshot, found)

    def named(self, tenant: str, ids: Sequence[str]) -> list[NewRow]:
        """As :class:`End` says."""
        with self._engine.snapshot(tenant or None) as snapshot:
            return [row for _, row in _coded(snapshot, sorted(snapshot.by_ids(ids).values(), key=lambda found: found[0]))]

    def put(self, tenant: str, new: list[NewRow]) -> None:
        """As :class:`End` says."""
        with self._engine.write() as connection:
            snapshot = self._engine.snapshot_in(connection, tenant or None)
            number = tenants.OWN if tenant == OWN else tenants.number_for(connection, tenant)
            near = snapshot.settings.near_duplicate_index
            codes = np.stack([np.frombuffer(row.code, np.uint8) for row in new])
            fine = None if new[0].fine is None else np.stack([np.frombuffer(row.fine or b"", np.uint8) for row in new])
            rows = [sql_rows.new_row(row.id, row.text, json.loads(row.metadata)) for row in new]
            ids = [row.id for row in new]
            with tenants.replacing(connection, number, ids):
                sql_rows.delete(connection, number, sql_rows.row_ids_of(connection, number, ids), near)
                bands = None if near is None else near.bands([row.text for row in rows])
                sql_rows.insert(connection, number, rows, Encoded(codes, fine), bands)

    def finish(self) -> None:
        """As :class:`End` says: learn inverted lists, where there are rows enough."""
        with self._engine.write() as connection:
            snapshot = self._engine.snapshot_in(connection)
            lists = inverted_lists.load(connection, snapshot.settings)
            if snapshot.codec is not None and inverted_lists.are_due(snapshot.state, snapshot.codec, lists):
                sampled = training.sampled_ids(connection)
                inverted_lists.learn(connection, snapshot.state, snapshot.finest, sampled)

    def delete(self, tenant: str, ids: list[str]) -> None:
        """As :class:`End` says."""
        (self._collection if tenant == OWN else self._collection.tenant(tenant)).delete(ids)


class RemoteEnd(End):
    """A collection on an engine."""

    def __init__(self, collection: RemoteCollection) -> None:
        """Look at the collection's engine."""
        self._engine = collection._engine
        self.where = self._engine.where

    def kept(self) -> Kept:
        """As :class:`End` says."""
        kept = self._engine.kept(fresh=True)
        return comparable(kept.settings, kept.codec)

    def take(self, kept: Kept, source: MoveSource) -> None:
        """As :class:`End` says."""
        if kept.settings.near_duplicates is not None:
            raise EngineLimitError(f"{source.where} looks for near-duplicates, and {self._engine.kind} does not")
        own = self.kept()
        _check_words(own, kept, self.where)
        if same(own, kept):
            return
        if self._engine.count(None, most=1):
            raise _other(self.where, source.where)
        self._engine.adopt(replace(kept, plane=None if kept.generation == UNTRAINED else source.plane()))

    def plane(self) -> BitPlane:
        """As :class:`End` says: the one that there is."""
        plane = self._engine.kept().plane
        assert plane is not None  # noqa: S101 -- it is trained
        return plane

    def tenants(self) -> list[str]:
        """As :class:`End` says."""
        return [OWN, *self._engine.tenants()]

    def read(self, tenant: str, after: int) -> Numbered:
        """As :class:`End` says."""
        return self._engine.coded(tenant, after=after, limit=AT_ONCE)

    def named(self, tenant: str, ids: Sequence[str]) -> list[NewRow]:
        """As :class:`End` says."""
        return [row for _, row in self._engine.coded(tenant, Ids(tuple(ids)))]

    def put(self, tenant: str, new: list[NewRow]) -> None:
        """As :class:`End` says; the bits are made of the vectors."""
        coding = Coding(self._engine.kept())
        plane = coding.kept.plane
        if plane is not None:
            vectors = coding.vectors([StoredCode(0, row.code, row.fine) for row in new])
            new = [row._replace(plane=bits.tobytes()) for row, bits in zip(new, plane.encode(vectors), strict=True)]
        self._engine.put(tenant, coding.kept.generation, lambda: [new])

    def finish(self) -> None:
        """As :class:`End` says: build the index, and measure how many candidates are enough."""
        self._engine.index_if_due()
        tune(self._engine)

    def delete(self, tenant: str, ids: list[str]) -> None:
        """As :class:`End` says."""
        self._engine.delete(tenant, Ids(tuple(ids)))


def _coded(snapshot: Snapshot, found: Sequence[tuple[int, Row]]) -> Numbered:
    """Give rows, in the order of their numbers, with their codes."""
    if not found or snapshot.codec is None:
        return []
    row_ids = [row_id for row_id, _ in found]
    codes = stored_codes.codes_of(snapshot.connection, row_ids, snapshot.codec.code_size)[1]
    tier = snapshot.finest.tier
    fine = None if tier is None else stored_codes.fine_of(snapshot.connection, row_ids, tier.code_size)[1]
    coded = []
    for place, (row_id, row) in enumerate(found):
        own = None if fine is None else fine[place].tobytes()
        metadata = json.dumps(row.metadata, ensure_ascii=False)
        coded.append((row_id, NewRow(row.id, row.text, metadata, codes[place].tobytes(), own, None)))
    return coded


def end_of(collection: Movable) -> End:
    """Give the side of a move that a collection is."""
    return RemoteEnd(collection) if isinstance(collection, RemoteCollection) else EmbeddedEnd(collection)


def comparable(settings: Settings, codec: SearchableCodec | None) -> Kept:
    """Give what must be the same on both sides; how often it was trained is each side's own."""
    trained = codec is not None and not isinstance(codec, Exact)
    return Kept(settings, generation=int(trained), codec=codec if trained else None)


def same(one: Kept, other: Kept) -> bool:
    """Compare settings, and codecs by what they have learned."""
    if one.settings != other.settings or (one.codec is None) != (other.codec is None):
        return False
    return one.codec is None or other.codec is None or one.codec.learned() == other.codec.learned()


def _check_words(own: Kept, kept: Kept, where: str) -> None:
    """Check what is fixed when a collection is made."""
    if own.settings.tokenizer != kept.settings.tokenizer:
        wanted = kept.settings.tokenizer
        raise SettingsError(
            f"{where} has tokenizer={own.settings.tokenizer!r} and the source {wanted!r}: make the target with the source's"
        )


def _other(target: str, source: str) -> SettingsError:
    return SettingsError(
        f"{target} has rows with other settings or codes than {source}, wanted an empty collection, or what an earlier move "
        "from there has left"
    )
