"""Adding, reading and deleting rows on an engine: the methods of :class:`rarebit.Collection`, with the same meaning."""

# ruff: noqa: A002 -- `filter` is the word of both frameworks

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from tqdm.auto import tqdm

from rarebit.arrays import Vectors, VectorsLike
from rarebit.errors import CodecWarning, CollectionError, EngineLimitError, InputError, MissingRowError, ReadOnlyError
from rarebit.retrievers.collection.arguments import as_count, as_ids
from rarebit.retrievers.collection.filters import And, Filter, Ids, as_filter, matches_everything
from rarebit.retrievers.collection.ingest import Batch, check_unique, without_vectors
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.row_operations import HANDLINGS, Handling
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings
from rarebit.retrievers.engines import training
from rarebit.retrievers.engines.coding import Coding
from rarebit.retrievers.engines.engine import OWN, NewRow
from rarebit.retrievers.engines.handle import RemoteHandle

BATCH_ROWS: Final = 1024


class RemoteRows(RemoteHandle):
    """The half of a remote collection and of its tenants that has to do with single rows."""

    read_only: bool = False

    @property
    def path(self) -> None:
        """None: there is no file."""
        return

    @property
    def identity(self) -> str:
        """What tells the collection from others: where it is; and the tenant."""
        return self._engine.where if self._tenant == OWN else f"{self._engine.where}\0{self._tenant}"

    @property
    def settings(self) -> Settings:
        """What the collection was made with, and what was learned since."""
        return self._engine.kept(fresh=True).settings

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
        """Add rows; a row whose id exists already is replaced. All rows are kept, or none; as :meth:`rarebit.Collection.add`.

        A connection that breaks meanwhile is made again, and so is the call: the rows are the same. Milvus has no transactions:
        where a call to it fails for good, the error says how many rows are kept, and the same call again is safe.
        """
        self._check_writable()
        if near_duplicates not in (None, *HANDLINGS):
            raise InputError(f"got near_duplicates={near_duplicates!r}, wanted one of {list(HANDLINGS)}")
        if near_duplicates == "skip":
            raise EngineLimitError(
                f"got near_duplicates='skip', which {self._engine.kind} cannot do: use near_duplicates.unique"
            )
        batch_size = as_count("batch_size", batch_size, least=1)
        batch = Batch.of(vectors, texts, metadatas, ids, self._engine.kept().settings)
        if not batch.ids:
            return []
        check_unique(batch.ids)
        if self._engine.kept().settings.dim is None:
            batch = replace(batch, settings=self._engine.fix_dimension(batch.dim).settings)

        def put(coding: Coding) -> None:
            with tqdm(total=len(batch.ids), desc="adding", unit="row", disable=not progress) as bar:

                def encoded() -> Iterator[list[NewRow]]:
                    bar.reset()
                    for part in batch.parts(batch_size):
                        rows = coding.rows(part())
                        yield rows
                        bar.update(len(rows))

                self._engine.put(self._tenant, coding.kept.generation, encoded)

        self._with_codes(put)
        try:
            training.train_if_due(self._engine)
        except CollectionError as error:  # the rows are kept
            warnings.warn(f"the rows were added, but not learned from ({error})", CodecWarning, stacklevel=2)
        return list(batch.ids)

    def stand_ins(self, texts: Sequence[str], ids: Sequence[str]) -> list[str]:
        """Say which rows would stand for these: themselves, since engines keep near-duplicates."""
        return [row.id for row in without_vectors(texts, ids)]

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint | str) -> None:
        """Check that a model is the one that filled the collection; what was unknown about that one is filled in.

        Raises:
            FingerprintError: it is another model.
        """
        self._engine.check_fingerprint(EmbeddingFingerprint.of(fingerprint))  # read-only handles only check

    def get(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> list[Row]:
        """Read rows by their ids, in that order, leaving out the missing; or all that match a filter; or both at once."""
        tree = self._resolved(as_filter(filter))
        if ids is None:
            return [row for _, row in self._engine.rows(self._tenant, tree)]
        wanted = as_ids(ids)
        among = Ids(tuple(wanted)) if tree is None else And(Ids(tuple(wanted)), tree)
        found = {row.id: row for _, row in self._engine.rows(self._tenant, among)} if wanted else {}
        return [_copied(found[key]) for key in wanted if key in found]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Give the vectors of ids: (n, dim) float32, in that order, decoded from the finest tier that is kept.

        Raises:
            MissingRowError: an id is not in the collection.
        """
        wanted = as_ids(ids)
        if not wanted:
            return np.empty((0, self._engine.kept().settings.dim or 0), np.float32)

        def read(coding: Coding) -> Vectors:
            found = self._engine.codes_of(self._tenant, coding.kept.generation, list(dict.fromkeys(wanted)))
            missing = [key for key in wanted if key not in found]
            if missing:
                raise MissingRowError(
                    f"{len(missing)} of {len(wanted)} ids are not in the collection (first: {missing[0]!r}): ask get(ids) "
                    "which are"
                )
            return coding.vectors([found[key] for key in wanted])

        return self._with_codes(read)

    def sample_vectors(self, count: int, *, seed: int = 0) -> Vectors:
        """Draw rows without replacement: (count, dim) float32 as :meth:`vectors` gives them; all where there are fewer."""
        count = as_count("count", count)

        def read(coding: Coding) -> Vectors:
            row_ids = self._engine.numbers(self._tenant)
            drawn = np.sort(np.random.default_rng(seed).permutation(len(row_ids))[:count])
            if not len(drawn):
                return np.empty((0, coding.kept.settings.dim or 0), np.float32)
            wanted = [row_ids[place] for place in drawn.tolist()]
            return coding.vectors(self._engine.codes(self._tenant, coding.kept.generation, row_ids=wanted))

        return self._with_codes(read)

    def delete(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> int:
        """Delete rows by ids, by a filter, or those of the ids that match it; returns how many there were.

        Missing ids are no error. With neither, InputError: use :meth:`delete_all`.
        """
        tree = as_filter(filter)
        if ids is None and (tree is None or matches_everything(tree)):
            raise InputError(
                "got neither ids nor a filter that says anything, wanted at least one: to delete every row call delete_all()"
            )
        self._check_writable()
        by_id = [] if ids is None else [Ids(tuple(as_ids(ids)))]
        by_filter = [] if tree is None else [tree]
        return self._engine.delete(self._tenant, self._resolved(And(*by_id, *by_filter)))

    def delete_all(self) -> int:
        """Delete every row; settings and codec stay. Returns how many there were."""
        self._check_writable()
        return self._engine.delete(self._tenant, None)

    def count(self, filter: Filter | None = None) -> int:
        """Count the rows, or those that match a filter."""
        return self._engine.count(self._tenant, self._resolved(as_filter(filter)))

    def iterate(self, filter: Filter | None = None, *, batch_size: int = BATCH_ROWS) -> Iterator[Row]:
        """Give every row, or those that match a filter, in the order of insertion, ``batch_size`` at a time."""
        batch_size = as_count("batch_size", batch_size, least=1)
        return (row for _, row in self._read(self._resolved(as_filter(filter)), batch_size))

    def __len__(self) -> int:
        """Count the rows."""
        return self.count()

    def __bool__(self) -> bool:
        """Be true also when empty, so that ``collection or default`` does what it looks like."""
        return True

    def __contains__(self, key: object) -> bool:
        """Whether a row has this id."""
        if not isinstance(key, str):
            return False
        try:
            key.encode()
        except UnicodeEncodeError:
            return False
        return bool(self._engine.count(self._tenant, Ids((key,))))

    def __iter__(self) -> Iterator[Row]:
        """Give every row, in the order of insertion."""
        return self.iterate()

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self._engine.where} was connected to read-only, wanted a write: connect without read_only")


def _copied(row: Row) -> Row:
    """Give a row of its own to each place of an id that was asked for twice."""
    return Row(row.id, row.text, dict(row.metadata))
