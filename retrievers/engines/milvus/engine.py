"""Milvus: candidates by the Hamming distance of bits, which it compares all; the same code for a file, a server and a cluster.

What it has not is said: rows of one call are not written all or none, there is no search by words, and no right to one tenant
alone.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, TypeVar

from rarebit.arrays import Codes
from rarebit.errors import CollectionNotFoundError, EngineError, EngineLimitError, SettingsError
from rarebit.retrievers.collection.filters import Filter, Ids
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings, reconciled
from rarebit.retrievers.engines.engine import (
    OWN,
    UNTRAINED,
    Candidate,
    Choose,
    Kept,
    NewRow,
    Recoding,
    RemoteEngine,
    StaleCodesError,
    StoredCode,
)
from rarebit.retrievers.engines.milvus import matching
from rarebit.retrievers.engines.milvus.connections import Connections, GoneError
from rarebit.retrievers.engines.milvus.expressions import Condition, owned_by_others
from rarebit.retrievers.engines.milvus.learned import Learned
from rarebit.retrievers.engines.milvus.names import Names
from rarebit.retrievers.engines.milvus.packed import PACKED, Found, code_of, new_row_of, row_of, stored
from rarebit.retrievers.engines.milvus.retraining import Replacing
from rarebit.retrievers.engines.milvus.rows import CLOCK, Numbered, Rows, estimated_bytes
from rarebit.retrievers.engines.milvus.steps import Step, Steps, agreed

Answer = TypeVar("Answer")

TRIES: Final = 8
"""Of a question that meets a training."""


class MilvusEngine(RemoteEngine):
    """A collection in collections of Milvus whose names begin with ``rarebit_`` and its name.

    Args:
        connections: to Milvus.
        name: of the collection.
        asked: settings that the user gave; None for those left out.
        create: make the collection if it is not there.
        partitions: over which tenants are spread by their names, when it is made; 0 for none.

    Raises:
        CollectionNotFoundError: there is none, and none is to be made.
        SettingsError, FingerprintError: it was made with other settings, or by another model.
        EngineLimitError: partitions, where there are none.
    """

    kind: ClassVar = "Milvus"

    def __init__(
        self, connections: Connections, name: str, asked: Mapping[str, Any], *, create: bool = True, partitions: int = 0
    ) -> None:
        """Agree on the settings with the collection, or make it."""
        self._names = Names(name)
        self._connections, self.name, self._asked = connections, name, dict(asked)
        self._steps = Steps(connections, self._names, self.where)
        self._learned = Learned(connections, self._names.learned, self.where)
        self._replace = Replacing(connections, self._names, self._steps, self._learned, self._new_rows)
        try:
            self._open(asked, create=create, partitions=partitions)
        except BaseException:
            connections.close()
            raise

    def _open(self, asked: Mapping[str, Any], *, create: bool, partitions: int) -> None:
        if self._steps.find() is None:
            if not create:
                raise CollectionNotFoundError(
                    f"there is no collection {self.where}, wanted one that exists: leave out create=False"
                )
            self._create(asked, partitions)
        self._kept = self._learned.newest(self._steps)
        self._reconcile(asked)
        self.size = self._rows(self._steps.seen).about()

    def _create(self, asked: Mapping[str, Any], partitions: int) -> None:
        if partitions:
            self._connections.check_partitions()
        settings = agreed({**asked, "dim": None})
        self._learned.create()
        rows = self._new_rows(0, partitions)
        self._steps.begin(Step(1, rows.name, settings, partitions=partitions))
        if self._steps.seen.rows != rows.name:  # somebody else was faster
            rows.drop()

    def _new_rows(self, bits: int, partitions: int) -> Rows:
        """Create another collection of rows."""
        rows = Rows(self._connections, self._names.rows(secrets.token_hex(8)))
        rows.create(bits, partitions)
        return rows

    @property
    def where(self) -> str:
        """The collection and the address, without credentials."""
        return f"{self.name!r} in Milvus at {self._connections.where!r}"

    def kept(self, *, fresh: bool = False) -> Kept:
        """As :class:`RemoteEngine` says."""
        return self._read() if fresh else self._kept

    def _read(self) -> Kept:
        step = self._steps.look()
        before = self._kept
        known = before.generation == step.generation and before.settings == step.settings
        if not known or (step.generation != UNTRAINED and not before.candidates):
            self._kept = self._learned.newest(self._steps)
        return self._kept

    def fix_dimension(self, dim: int) -> Kept:
        """As :class:`RemoteEngine` says."""
        self._reconcile({}, dim=dim)
        return self._kept

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint) -> None:
        """As :class:`RemoteEngine` says."""
        self._reconcile({"fingerprint": fingerprint})

    def _reconcile(self, asked: Mapping[str, Any], *, dim: int | None = None) -> None:
        """Agree on settings; a dimension only where there is none yet."""
        step = self._steps.look()
        while (settings := self._agreed(step, asked, dim)) != step.settings and not self._connections.read_only:
            if step.is_open and self._steps.take(replace(step, number=step.number + 1, settings=settings)):
                break
            step = self._steps.open()
        self._read()

    def _agreed(self, step: Step, asked: Mapping[str, Any], dim: int | None) -> Settings:
        given = {**asked, "dim": step.settings.dim or dim} if dim else asked
        return reconciled(step.settings, given, self.where)

    @property
    def may_train(self) -> bool:
        """As :class:`RemoteEngine` says."""
        return not self._connections.read_only

    def tune(self, generation: int, candidates: int, rows: int) -> None:
        """As :class:`RemoteEngine` says."""
        self._learned.tune(self._steps, generation, candidates, rows)
        self._kept = self._learned.newest(self._steps)

    def index_if_due(self) -> None:
        """As :class:`RemoteEngine` says: the index compares all bits, and is there from the beginning."""

    def put(self, tenant: str, generation: int, batches: Callable[[], Iterable[Sequence[NewRow]]]) -> None:
        """Insert rows, or replace those of the same ids; some at a time, since Milvus has no transactions.

        Raises:
            EngineError: something went wrong; the message says how many rows are written. The same call again is safe.
        """
        new = [row for batch in batches() for row in batch]  # what cannot be encoded is known before anything is written
        rows = stored(tenant, new, CLOCK.numbers(len(new)))
        step = self._open_step(generation)
        codec = self._kept.codec
        if generation == UNTRAINED and (codec is None or any(len(row.code) != codec.code_size for row in new)):
            raise StaleCodesError
        self._change(step, self._rows(step).write(rows), len(new), "written", "write all of them again")
        self.size += len(new)

    def _open_step(self, generation: int) -> Step:
        step = self._steps.open()
        if step.generation != generation or step.settings.dim != self._kept.settings.dim:
            raise StaleCodesError
        return step

    def _change(self, step: Step, parts: Iterator[int], count: int, done: str, advice: str) -> None:
        """Change rows, and look whether they are still those of the collection."""
        changed = 0
        try:
            for part in parts:
                changed += part
        except GoneError:
            self._steps.look_again()
            raise StaleCodesError from None
        except EngineError as error:
            raise type(error)(
                f"{error}; of {count:,} rows {changed:,} are {done}, of the next ones it is unknown: {advice}, which is safe"
            ) from error
        if self._moved(step):
            raise StaleCodesError

    def _moved(self, step: Step) -> bool:
        """Whether the rows of a step are not the collection's any more, or may not be written now."""
        last = self._steps.look()
        return last.rows != step.rows or not last.is_open

    def delete(self, tenant: str, tree: Filter | None) -> int:
        """As :class:`RemoteEngine` says; some at a time, and those that are there when it begins, not what replaces them."""
        deleted: set[str] = set()
        for _ in range(TRIES):
            step = self._steps.open()
            found = self._numbered(tenant, tree)
            deleted.update(each.key for each in found)
            try:
                self._change(step, self._rows(step).delete_found(found), len(found), "deleted", "delete them again")
            except StaleCodesError:
                continue
            self.size = max(0, self.size - len(found))
            return len(deleted)
        raise self._restless()

    def _numbered(self, tenant: str | None, tree: Filter | None) -> list[Numbered]:
        return self._ask(lambda rows: matching.numbered(rows, tenant, tree))

    def count(self, tenant: str | None, tree: Filter | None = None, *, most: int | None = None) -> int:
        """As :class:`RemoteEngine` says."""
        found = self._ask(lambda rows: matching.count(rows, tenant, tree, most))
        if tenant is None and tree is None:
            self.size = found
        return found if most is None else min(found, most)

    def rows(self, tenant: str, tree: Filter | None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Row]]:
        """As :class:`RemoteEngine` says."""
        found = self._ask(lambda rows: matching.matching(rows, tenant, tree, [PACKED], after=after, limit=limit))
        return [(row["row_id"], row_of(row)) for row in found]

    def numbers(self, tenant: str) -> list[int]:
        """As :class:`RemoteEngine` says."""
        return [each.row_id for each in self._numbered(tenant, None)]

    def codes(
        self, tenant: str | None, generation: int, tree: Filter | None = None, *, row_ids: Sequence[int] | None = None
    ) -> list[StoredCode]:
        """As :class:`RemoteEngine` says."""
        wanted = None if row_ids is None else set(row_ids)

        def read(rows: Rows) -> list[StoredCode]:
            every = matching.numbered(rows, tenant, tree)
            among = every if wanted is None else [each for each in every if each.row_id in wanted]
            return [code_of(row) for row in rows.fetched(among, [PACKED])]

        return self._ask(read, generation)

    def codes_of(self, tenant: str, generation: int, ids: Sequence[str]) -> dict[str, StoredCode]:
        """As :class:`RemoteEngine` says."""
        found = self._ask(lambda rows: matching.matching(rows, tenant, Ids(tuple(ids)), [PACKED]), generation)
        return {new_row_of(row).id: code_of(row) for row in found}

    def coded(
        self, tenant: str, tree: Filter | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[tuple[int, NewRow]]:
        """As :class:`RemoteEngine` says."""
        found = self._ask(lambda rows: matching.matching(rows, tenant, tree, [PACKED], after=after, limit=limit))
        return [(row["row_id"], new_row_of(row)) for row in found]

    def sample(self, generation: int, most: int) -> list[StoredCode]:
        """As :class:`RemoteEngine` says."""

        def draw(rows: Rows) -> list[StoredCode]:
            every = matching.numbered(rows, None, None)
            drawn = random.sample(every, most) if len(every) > most else every
            return [code_of(row) for row in rows.fetched(drawn, [PACKED])]

        return self._ask(draw, generation)

    def among_all(self, tenant: str, generation: int, queries: int, tree: Filter | None, *, choose: Choose) -> list[list[Row]]:
        """As :class:`RemoteEngine` says."""

        def search(rows: Rows) -> list[list[Row]]:
            every = [_candidate(row) for row in matching.matching(rows, tenant, tree, [PACKED])]
            return _chosen(rows, [every] * queries, choose)

        return self._ask(search, generation)

    def nearest(
        self, tenant: str, generation: int, planes: Codes, count: int, tree: Filter | None, *, choose: Choose
    ) -> list[list[Row]]:
        """As :class:`RemoteEngine` says; to a server all queries go out together."""
        condition = Condition(tenant, tree)
        # Milvus Lite takes far longer for many queries at once than for one after the other.
        parts = [planes[place : place + 1] for place in range(len(planes))] if self._connections.is_file else [planes]

        def search(rows: Rows) -> list[list[Row]]:
            found = [own for part in parts for own in matching.nearest(rows, condition, part, count)]
            return _chosen(rows, [[_candidate(row) for row in own] for own in found], choose)

        return self._ask(search, generation)

    def best_by_words(self, tenant: str, text: str, k: int, tree: Filter | None) -> list[tuple[int, Row, float]]:
        """As :class:`RemoteEngine` says: raises."""
        del tenant, text, k, tree
        raise EngineLimitError(
            "Milvus is asked for vectors alone here, wanted a search by words: use an embedded collection, or PostgreSQL"
        )

    def grant(self, role: str, tenant: str) -> None:
        """As :class:`RemoteEngine` says: raises."""
        raise EngineLimitError(
            f"got role={role!r:.60} for the tenant {tenant!r:.60}, and Milvus grants whole collections: make one for each "
            "tenant, or use PostgreSQL"
        )

    def tenants(self) -> list[str]:
        """As :class:`RemoteEngine` says, in the order in which they came."""

        def name(rows: Rows) -> list[str]:
            parts = rows.numbered(owned_by_others(OWN))
            return list(dict.fromkeys(row["tenant"] for part in parts for row in rows.fetched(part, ["tenant"])))

        return self._ask(name)

    def adopt(self, kept: Kept) -> None:
        """As :class:`RemoteEngine` says."""

        def check_empty(source: Rows, target: Rows) -> None:
            del target
            if source.count("row_id >= 0"):
                raise SettingsError(f"{self.where} has rows, wanted an empty collection to take over codes")

        try:
            is_done = self._replace(self._steps.open(), kept, check_empty)
        except GoneError:
            is_done = False
        self._read()
        if not is_done:
            raise SettingsError(
                f"{self.where} was changed meanwhile, wanted one that nobody uses to take over codes: try again"
            )

    def retrain(self, before: Kept, after: Kept, recode: Recoding) -> bool:
        """As :class:`RemoteEngine` says; how, and why that is safe, is told in :mod:`.steps`."""
        is_done = self._replace.codes(before, after, recode)
        self._read()
        return is_done

    def sizes(self) -> dict[str, int]:
        """As :class:`RemoteEngine` says: the file, which may hold other collections too; of a server an estimate.

        A server tells no bytes: those of some rows are measured, before it compresses them.
        """
        file = self._connections.file
        if file is not None:
            return {"file": file.stat().st_size}
        return self._ask(estimated_bytes)

    def close(self) -> None:
        """As :class:`RemoteEngine` says."""
        self._connections.close()

    def _rows(self, step: Step) -> Rows:
        return Rows(self._connections, step.rows)

    def _ask(self, work: Callable[[Rows], Answer], generation: int | None = None) -> Answer:
        """Ask the rows, and again if a training has put others in their place meanwhile."""
        for _ in range(TRIES):
            step = self._steps.seen
            if generation not in (None, step.generation):
                raise StaleCodesError
            try:
                answer = work(self._rows(step))
            except GoneError:
                if self._steps.look_again().rows == step.rows:
                    raise self._restless() from None
                continue
            if self._steps.look().rows == step.rows:
                return answer
        raise self._restless()

    def _restless(self) -> EngineError:
        return EngineError(f"{self.where} was trained again and again meanwhile, or lacks rows: try again")


def _candidate(row: Found) -> Candidate:
    return Candidate(*code_of(row), row)


def _chosen(rows: Rows, found: list[list[Candidate]], choose: Choose) -> list[list[Row]]:
    """Choose rows, and read long ones whole; for those that were deleted or replaced meanwhile, others are chosen."""
    while True:
        chosen = choose(found)
        wanted = {candidate.found["key"]: candidate.found for own in chosen for candidate in own}
        whole = {row["key"]: row for row in rows.completed(list(wanted.values()))}
        if len(whole) == len(wanted):
            return [[row_of(whole[candidate.found["key"]]) for candidate in own] for own in chosen]
        gone = wanted.keys() - whole.keys()
        found = [[candidate for candidate in own if candidate.found["key"] not in gone] for own in found]
