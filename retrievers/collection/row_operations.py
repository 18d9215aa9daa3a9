"""Adding, reading and deleting rows, as the collection itself and as one of its tenants."""

# ruff: noqa: A002 -- `filter` is the word of both frameworks

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from tqdm.auto import tqdm

from rarebit.arrays import Vectors, VectorsLike
from rarebit.errors import InputError, SettingsError
from rarebit.retrievers.collection import rows, tenants
from rarebit.retrievers.collection.arguments import as_count, as_ids
from rarebit.retrievers.collection.filters import And, Filter, Ids, as_filter, matches, matches_everything
from rarebit.retrievers.collection.handle import Handle
from rarebit.retrievers.collection.ingest import Batch, Writer, check_unique, without_vectors
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings
from rarebit.retrievers.collection.storage import Connection

BATCH_ROWS = 1024

Handling: TypeAlias = Literal["skip", "keep"]
HANDLINGS: Final = ("skip", "keep")

NOBODY: Final = -1
"""The number that stands for a tenant without one, which has no rows."""


class RowOperations(Handle):
    """The half of :class:`rarebit.Collection` and of its tenants that has to do with single rows."""

    @property
    def path(self) -> Path | None:
        """The file, or None for a collection in memory."""
        return self._engine.storage.path

    @property
    def identity(self) -> str:
        """What tells the collection from others: its file, or for one in memory a name that no other has; and the tenant."""
        own = self._engine.memory_name if self.path is None else str(self.path.resolve())
        return own if self._tenant is None else f"{own}\0{self._tenant}"

    @property
    def read_only(self) -> bool:
        """Whether the collection refuses to write."""
        return self._engine.storage.read_only

    @property
    def settings(self) -> Settings:
        """What the collection was made with, and what was chosen since."""
        return self._engine.refresh()

    def add(
        self,
        vectors: VectorsLike,
        texts: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str] | None = None,
        *,
        near_duplicates: Handling | None = None,
        batch_size: int = BATCH_ROWS,
        progress: bool = False,
    ) -> list[str]:
        """Add rows; a row whose id exists already is replaced. All rows are kept, or none.

        In a collection with the setting ``near_duplicates``, a row whose text nearly duplicates that of a row which is there,
        or of one before it in the call, is skipped. Rows of other tenants and shared ones do not count, nor do rows without
        text. A row that replaces another is always written, and what it replaces stands for nothing.

        Args:
            vectors: (n, dim) numbers. A numpy array, also one that is mapped from a file, is read batch by batch.
            texts: n passages; empty if left out.
            metadatas: n dictionaries of JSON values, or None.
            ids: n strings, each once; random ones if left out.
            near_duplicates: ``"skip"``, the default in a collection with this setting, or ``"keep"``, which writes all rows.
            batch_size: rows encoded and written at once.
            progress: show a progress bar.

        Returns:
            The ids, in the order of the vectors; for a row that was skipped, that of the row which stands for it.

        Raises:
            InputError: and its kinds, for vectors, ids or metadata that cannot be kept; the collection is unchanged.
            SettingsError: ``near_duplicates="skip"`` in a collection without the setting.
        """
        batch_size = as_count("batch_size", batch_size, least=1)
        skips = self._skips(near_duplicates)
        batch = Batch.of(vectors, texts, metadatas, ids, self._engine.settings)
        if not batch.ids:
            return []
        check_unique(batch.ids)
        stands: list[str] = []
        with self._engine.write() as connection:
            replaced = self._engine.snapshot_in(connection, self._tenant).stored_ids(batch.ids) if skips else set()
            settings = self._engine.fixed_dimension(connection, batch.dim)
            number, near = self._number_for(connection), settings.near_duplicate_index
            intake = near.intake(connection, number, replaced) if near is not None and skips else None
            writer = Writer(connection, settings, number, intake)
            with tqdm(total=len(batch.ids), desc="adding", unit="row", disable=not progress) as bar:
                for written in writer.write(batch.parts(batch_size)):
                    stands += written
                    bar.update(len(written))
        self._engine.refresh()
        return stands

    def stand_ins(self, texts: Sequence[str], ids: Sequence[str]) -> list[str]:
        """Say what :meth:`add` would answer for rows, so that nothing needs to be embedded that it would skip.

        Args:
            texts: n passages.
            ids: n strings, each once.

        Returns:
            For each row its own id, or that of the row that would stand for it: one that is there, or an earlier one of these.
            In a collection without the setting ``near_duplicates``, the ids that were given.
        """
        new = without_vectors(texts, ids)
        given, passages = [row.id for row in new], [row.text for row in new]
        near = self._engine.settings.near_duplicate_index
        with self._engine.snapshot(self._tenant) as snapshot:
            if near is None:
                return given
            number = NOBODY if snapshot.tenant is None else snapshot.tenant
            intake = near.intake(snapshot.connection, number, snapshot.stored_ids(given))
            return intake.stand_ins(given, passages, near.bands(passages))

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint | str) -> None:
        """Check that a model is the one that filled the collection; what was unknown about that one is filled in.

        Raises:
            FingerprintError: it is another model.
        """
        self._engine.check_fingerprint(EmbeddingFingerprint.of(fingerprint))

    def get(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> list[Row]:
        """Read rows by their ids, in that order, leaving out the missing; or all that match a filter; or both at once."""
        tree = as_filter(filter)
        if ids is None:
            with self._engine.snapshot(self._tenant) as snapshot:
                return snapshot.rows(snapshot.matching(tree))
        wanted = as_ids(ids)
        with self._engine.snapshot(self._tenant) as snapshot:
            found = snapshot.by_ids(wanted)
            allowed = None if tree is None else snapshot.matching(tree)
            return [found[key][1] for key in wanted if key in found and (allowed is None or found[key][0] in allowed)]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Give the vectors of ids: (n, dim) float32, in that order, decoded from the finest tier that is kept.

        Under cosine they have length 1, whatever the length of the vectors that were added.

        Raises:
            MissingRowError: an id is not in the collection.
        """
        with self._engine.snapshot(self._tenant) as snapshot:
            return snapshot.vectors_of(as_ids(ids))

    def sample_vectors(self, count: int, *, seed: int = 0) -> Vectors:
        """Draw rows without replacement: (count, dim) float32 as :meth:`vectors` gives them; all where there are fewer."""
        count = as_count("count", count)
        with self._engine.snapshot(self._tenant) as snapshot:
            visible = snapshot.visible()
            places = np.random.default_rng(seed).permutation(len(visible))[:count]
            return snapshot.vectors([visible[place] for place in np.sort(places).tolist()])

    def delete(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Delete rows by ids, by a filter, or those of the ids that match it; returns how many there were.

        Missing ids are no error. With neither, InputError: use :meth:`delete_all`.
        """
        tree = as_filter(filter)
        if ids is None and (tree is None or matches_everything(tree)):
            raise InputError(
                "got neither ids nor a filter that says anything, wanted at least one: to delete every row call delete_all()"
            )
        by_id = [] if ids is None else [Ids(tuple(as_ids(ids)))]
        by_filter = [] if tree is None else [tree]
        return self._delete(And(*by_id, *by_filter))

    def delete_all(self) -> int:
        """Delete every row; settings stay. Returns how many there were.

        With the last row of a file goes the codec that was trained.
        """
        return self._delete(None)

    def count(self, filter: Filter | None = None) -> int:
        """Count the rows, or those that match a filter."""
        tree = as_filter(filter)
        with self._engine.snapshot(self._tenant) as snapshot:
            if tree is None and snapshot.sees_everything:
                return snapshot.state.row_count
            return len(snapshot.matching(tree))

    def iterate(self, filter: Filter | None = None, *, batch_size: int = BATCH_ROWS) -> Iterator[Row]:
        """Give every row, or those that match a filter, in the order of insertion; memory does not grow with the collection.

        Each batch is read from the newest commit, so rows written meanwhile may or may not be given; none is given twice
        under one id unless it is replaced meanwhile.
        """
        batch_size, tree = as_count("batch_size", batch_size, least=1), as_filter(filter)
        last = 0
        while True:
            with self._engine.snapshot(self._tenant) as snapshot:
                found = snapshot.after(last, batch_size)
            if not found:
                return
            last = found[-1][0]
            yield from (row for _, row in found if tree is None or matches(tree, row))

    def __len__(self) -> int:
        """Count the rows."""
        return self.count()

    def __bool__(self) -> bool:
        """Be true also when empty, so that ``collection or default`` does what it looks like."""
        return True

    def __contains__(self, key: object) -> bool:
        """Whether a row has this id."""
        if not isinstance(key, str) or not _is_unicode(key):
            return False
        with self._engine.snapshot(self._tenant) as snapshot:
            return bool(snapshot.by_ids([key]))

    def __iter__(self) -> Iterator[Row]:
        """Give every row, in the order of insertion."""
        return self.iterate()

    def _delete(self, tree: Filter | None) -> int:
        """Delete own rows, and hide shared ones."""
        with self._engine.write() as connection:
            snapshot = self._engine.snapshot_in(connection, self._tenant)
            if tree is None and len(snapshot.own) == snapshot.state.row_count:
                return rows.delete_all(connection)
            found = snapshot.matching(tree)
            own, of_collection = list(found & snapshot.own), list(found - snapshot.own)
            near, deleted = snapshot.settings.near_duplicate_index, 0
            if own and snapshot.tenant is not None:
                deleted = rows.delete(connection, snapshot.tenant, own, near)
            return deleted + (tenants.hide(connection, self._number_for(connection), of_collection) if of_collection else 0)

    def _skips(self, asked: Handling | None) -> bool:
        """Whether near-duplicates are skipped, by what was asked for and by the setting."""
        if asked not in (None, *HANDLINGS):
            raise InputError(f"got near_duplicates={asked!r}, wanted one of {list(HANDLINGS)}")
        is_set = self._engine.settings.near_duplicates is not None
        if asked == "skip" and not is_set:
            raise SettingsError(
                f"got near_duplicates='skip' for {self._engine.storage}, which was made without this setting: make a new "
                "collection with Collection.open(near_duplicates=0.9), or use rarebit.retrievers.near_duplicates.unique"
            )
        return is_set and asked != "keep"

    def _number_for(self, connection: Connection) -> int:
        return tenants.OWN if self._tenant is None else tenants.number_for(connection, self._tenant)


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
