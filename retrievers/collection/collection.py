"""The collection: passages with their vectors in one SQLite file, searched through small codes in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rarebit.arrays import Vectors, VectorsLike
from rarebit.errors import InputError
from rarebit.retrievers.collection import checking, rows
from rarebit.retrievers.collection.arguments import as_count, as_ids, as_seconds
from rarebit.retrievers.collection.engine import Engine
from rarebit.retrievers.collection.filters import And, Filter, Ids, as_filter, matches, matches_everything
from rarebit.retrievers.collection.ingest import Batch, Writer
from rarebit.retrievers.collection.matching import Matcher
from rarebit.retrievers.collection.recompression import Recompression
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.searching import Searches
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Metric, Settings
from rarebit.retrievers.collection.stats import Stats, content_bytes
from rarebit.retrievers.collection.storage import Storage, read_state

BATCH_ROWS = 1024
LOCK_TIMEOUT = 30.0


class Collection(Searches):
    """Passages with vectors, texts and metadata, kept in one SQLite file or in memory.

    Open one with :meth:`open`. One object may be used by many threads, and one file by many processes: each call sees every
    commit made before it began, and a call that writes is kept whole or not at all. Two calls never see each other half done.
    """

    def __init__(self, engine: Engine) -> None:
        """Use :meth:`open` or :meth:`load`."""
        self._engine = engine

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        dim: int | None = None,
        metric: Metric | None = None,
        codec: str | None = None,
        fine: str | None = None,
        memory_per_vector: int | None = None,
        target_recall: float | None = None,
        tokenizer: str | None = None,
        training_minimum: int | None = None,
        fingerprint: EmbeddingFingerprint | str | None = None,
        read_only: bool = False,
        create: bool = True,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> Collection:
        """Open a collection; create it on first use.

        A setting left out takes the collection's own value, or at creation the default.

        Args:
            path: of the file; None keeps the collection in memory.
            dim: dimension of the vectors; taken from the first ones added if left out.
            metric: ``"cosine"`` (default; vectors are kept at length 1) or ``"inner_product"`` (norms are kept).
            codec: of the codes in memory: ``"trellis"`` (default, dim / 8 bytes a vector), ``"trellis24"`` (24 bytes),
                ``"variance24"``, ``"rabitq"``, ``"pq24"``, ``"sq4"``, ``"sq8"``, ``"float16"``, ``"float32"``,
                ``"pca128,sq8"``, or any other of :mod:`rarebit.compressors.vectors` that can be searched.
            fine: what is kept on disk to re-rank: ``"residual8"`` (default; what the code misses of the vector, a byte a
                dimension), ``"residual4"``, the vector itself as ``"int8"``, ``"int4"``, ``"float16"``, ``"float32"``, or
                ``"none"``; by default none for the codecs float16 and float32, which need no re-ranking, and int8 for
                ``"rabitq"``. See :mod:`rarebit.compressors.vectors.fine_tier`.
            memory_per_vector: instead of a codec, the bytes that a row may take in memory, its row id (4) included: when there
                is enough to train on, the codec that finds most is chosen, by measuring on held-out vectors.
            target_recall: instead of a codec, recall@10 after re-ranking, from 0 to 1: the smallest code that reaches it is
                chosen in the same way. With both, fine tier and candidates are chosen for the recall.
            tokenizer: of lexical search: ``"porter"`` (default: English stems), ``"unicode61"`` (whole words), ``"trigram"``.
            training_minimum: rows at which the codec is trained, in one step; until then answers are exact.
            fingerprint: of the embedding model, or its name; stored, and checked from then on.
            read_only: refuse to write, and to create the file. In a folder that cannot be written and without a log beside it,
                the file is taken for unchanging: later commits are not seen.
            create: create the file if it does not exist.
            lock_timeout: seconds to wait for another writer, at least 0.

        Raises:
            CollectionNotFoundError, ForeignFileError, FormatVersionError, DamagedFileError: the file is not what was expected.
            SettingsError, FingerprintError: the collection was made with other settings, or by another model.
        """
        asked: dict[str, Any] = {
            "dim": dim,
            "metric": metric,
            "codec": codec,
            "fine": fine,
            "memory_per_vector": memory_per_vector,
            "target_recall": target_recall,
            "tokenizer": tokenizer,
            "training_minimum": training_minimum,
            "fingerprint": EmbeddingFingerprint.of(fingerprint),
        }
        _check_one_way(codec, memory_per_vector, target_recall)
        wanted = Settings(**{name: value for name, value in asked.items() if value is not None})
        where = None if path is None else Path(path)
        storage = Storage(
            where,
            read_only=read_only,
            tokenizer=wanted.tokenizer,
            lock_timeout=as_seconds("lock_timeout", lock_timeout),
            must_exist=read_only or not create,
        )
        return cls(Engine(storage, asked))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Collection:
        """Read a collection's file into memory; what is written then does not reach the file."""
        with cls.open(path, read_only=True) as source:
            copy = cls.open(tokenizer=source.settings.tokenizer)
            copy._engine.storage.copy_from(source._engine.storage)
        copy._engine = Engine(copy._engine.storage, dict.fromkeys(copy._engine.asked))
        return copy

    @property
    def path(self) -> Path | None:
        """The file, or None for a collection in memory."""
        return self._engine.storage.path

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
        batch_size: int = BATCH_ROWS,
        progress: bool = False,
    ) -> list[str]:
        """Add rows; a row whose id exists already is replaced. All rows are kept, or none.

        Args:
            vectors: (n, dim) numbers.
            texts: n passages; empty if left out.
            metadatas: n dictionaries of JSON values, or None.
            ids: n strings, each once; random ones if left out.
            batch_size: rows encoded and written at once.
            progress: show a progress bar.

        Returns:
            The ids, in the order of the vectors.

        Raises:
            InputError: and its kinds, for vectors, ids or metadata that cannot be kept; the collection is unchanged.
        """
        batch_size = as_count("batch_size", batch_size, least=1)
        batch = Batch.checked(vectors, texts, metadatas, ids, self._engine.settings)
        if not len(batch.vectors):
            return []
        with self._engine.write() as connection:
            settings = self._engine.fixed_dimension(connection, batch.vectors.shape[1])
            writer = Writer(connection, settings)
            with tqdm(total=len(batch.ids), desc="adding", unit="row", disable=not progress) as bar:
                for part, new in batch.parts(batch_size):
                    writer.write(part, new)
                    bar.update(len(new))
        self._engine.refresh()
        return list(batch.ids)

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint | str) -> None:
        """Check that a model is the one that filled the collection; what was unknown about that one is filled in.

        Raises:
            FingerprintError: it is another model.
        """
        self._engine.check_fingerprint(EmbeddingFingerprint.of(fingerprint))

    def get(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> list[Row]:  # noqa: A002
        """Read rows by their ids, in that order, leaving out the missing; or all that match a filter; or both at once."""
        if ids is None:
            return list(self.iterate(filter))
        wanted = as_ids(ids)
        with self._engine.snapshot() as snapshot:
            allowed = snapshot.matching(as_filter(filter))
            found = rows.by_ids(snapshot.connection, wanted)
            return [found[key][1] for key in wanted if key in found and (allowed is None or found[key][0] in allowed)]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Give the vectors of ids: (n, dim) float32, in that order, decoded from the finest tier that is kept.

        Under cosine they have length 1, whatever the length of the vectors that were added.

        Raises:
            MissingRowError: an id is not in the collection.
        """
        with self._engine.snapshot() as snapshot:
            return snapshot.vectors_of(as_ids(ids))

    def delete(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None) -> int:  # noqa: A002
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
        with self._engine.write() as connection:
            found = Matcher(connection).rows(And(*by_id, *by_filter))
            return rows.delete(connection, list(found))

    def delete_all(self) -> int:
        """Delete every row, and the codec trained on them; settings stay. Returns how many there were."""
        with self._engine.write() as connection:
            return rows.delete_all(connection)

    def count(self, filter: Filter | None = None) -> int:  # noqa: A002
        """Count the rows, or those that match a filter."""
        if filter is None:
            with self._engine.storage.read() as connection:
                return read_state(connection).row_count
        with self._engine.snapshot() as snapshot:
            return len(snapshot.matching(as_filter(filter)) or ())

    def iterate(self, filter: Filter | None = None, *, batch_size: int = BATCH_ROWS) -> Iterator[Row]:  # noqa: A002
        """Give every row, or those that match a filter, in the order of insertion; memory does not grow with the collection.

        Each batch is read from the newest commit, so rows written meanwhile may or may not be given; none is given twice
        under one id unless it is replaced meanwhile.
        """
        batch_size, tree = as_count("batch_size", batch_size, least=1), as_filter(filter)
        last = 0
        while True:
            with self._engine.storage.read() as connection:
                found = rows.after(connection, last, batch_size)
            if not found:
                return
            last = found[-1][0]
            yield from (row for _, row in found if tree is None or matches(tree, row))

    def stats(self) -> Stats:
        """Count the rows and every byte, in memory and on disk."""
        with self._engine.searchable() as snapshot:
            view, settings = snapshot.view, snapshot.settings
            disk = content_bytes(snapshot.connection)
            state = view.state
        memory = {
            "codes": view.code_bytes,
            "row_ids": view.id_bytes,
            "bitmaps": self._engine.remembered.nbytes,
            "database": 0 if self.path else self._engine.storage.file_bytes(),
            "codec": view.codec.state_bytes if view.codec else 0,
        }
        trained = view.codec is not None and view.codec.name == settings.new_codec().name
        return Stats(
            count=state.row_count,
            dim=settings.dim,
            metric=settings.metric,
            codec=settings.codec,
            fine=str(settings.fine),
            trained=trained,
            choice=settings.choice,
            memory=memory,
            disk={**disk, "file": self._engine.storage.file_bytes()},
        )

    def recompress(
        self,
        *,
        codec: str | None = None,
        fine: str | None = None,
        memory_per_vector: int | None = None,
        target_recall: float | None = None,
        queries: VectorsLike | None = None,
        progress: bool = False,
    ) -> Stats:
        """Learn the code anew from the rows there are now, and encode every row in it; nothing is embedded again.

        The collection stays in use: searches and writes of this and of other processes go on, and see the new code at once when
        it is finished. A process that is killed leaves the old one.

        Args:
            codec: another codec, as in :meth:`open`.
            fine: another fine tier, written from the one that is there: no finer than it was. Residuals are rounded again with
                every new code; vectors in int8, float16 or float32 stay as they are.
            memory_per_vector: choose for another budget.
            target_recall: choose for another target. With none of these, the same choice is made, or the same codec learned,
                again.
            queries: (q, dim) numbers, what users ask: measured with, and learned from where the codec can.
            progress: show progress bars.

        Returns:
            The statistics afterwards, with what was chosen and measured.

        Raises:
            SettingsError: the collection keeps no fine tier, so its vectors are not known well enough.
            CodecError: there is nothing to learn from, or a codec cannot have this size.
        """
        _check_one_way(codec, memory_per_vector, target_recall)
        given = {"codec": codec, "fine": fine, "memory_per_vector": memory_per_vector, "target_recall": target_recall}
        asked = {name: value for name, value in given.items() if value is not None}
        prepared = None if queries is None or np.size(queries) == 0 else self._engine.prepared(queries)
        Recompression(self._engine, asked, prepared, progress=progress).run()
        return self.stats()

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of the newest commit to another file, whole or not at all; the collection may be in use."""
        target = Path(path).resolve()
        if target.is_dir():
            raise InputError(f"{target} is a folder, wanted the path of a file")
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists already: choose another path, or pass overwrite=True")
        if self.path is not None and target.exists() and target.samefile(self.path):
            raise InputError(f"{target} is the collection itself: choose another path")
        if Path(f"{target}-wal").exists():
            raise InputError(
                f"{target} is open elsewhere, or was not closed properly, and its log {target.name}-wal would change the copy: "
                "close it (or open and close it once), or choose another path"
            )
        self._engine.storage.copy_to(target)

    def check(self, *, progress: bool = False) -> list[str]:
        """Look for damage: read everything once, and compare every table with the rows.

        Args:
            progress: show a progress bar.

        Returns:
            What is wrong, one sentence each; nothing where all is well. A code that became another code is not noticed. The
            lexical index, which knows a changed text, is not looked at where the collection was opened read-only.
        """
        return checking.problems(self._engine, progress=progress)

    def compact(self) -> int:
        """Give the space of deleted rows back to the disk; returns the bytes that came free.

        Searches go on meanwhile, other writes wait. The file is written anew, so it takes as long, and as much free space. A
        process that is killed leaves the file as it was.
        """
        return self._engine.storage.compact()

    def close(self) -> None:
        """Close the file; further calls raise ClosedError."""
        self._engine.close()

    def __enter__(self) -> Collection:
        """Use the collection in a ``with`` block, which closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self.close()

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
        with self._engine.storage.read() as connection:
            return bool(rows.row_ids_of(connection, [key]))

    def __iter__(self) -> Iterator[Row]:
        """Give every row, in the order of insertion."""
        return self.iterate()

    def __repr__(self) -> str:
        """Name the file and what is in it."""
        where = "in memory" if self.path is None else str(self.path)
        settings = self._engine.settings
        return f"<Collection {where}: dim={settings.dim}, metric={settings.metric}, codec={settings.codec}>"


def _check_one_way(codec: str | None, memory_per_vector: int | None, target_recall: float | None) -> None:
    if codec is not None and (memory_per_vector is not None or target_recall is not None):
        raise InputError(
            f"got codec={codec!r} together with memory_per_vector or target_recall, wanted one or the other: a codec, "
            "or what to choose it by"
        )
