"""The collection: passages with their vectors in one SQLite file, searched through small codes in memory."""

# ruff: noqa: A002 -- `filter` is the word of both frameworks

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from rarebit.arrays import VectorsLike
from rarebit.retrievers.collection import checking, copying, rows, tenants
from rarebit.retrievers.collection.arguments import as_ids, as_seconds
from rarebit.retrievers.collection.engine import Engine
from rarebit.retrievers.collection.filters import And, Filter, Ids, as_filter
from rarebit.retrievers.collection.recompression import Recompression, forget_deleted
from rarebit.retrievers.collection.row_operations import RowOperations
from rarebit.retrievers.collection.searching import Searches
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Metric, Settings, check_one_way
from rarebit.retrievers.collection.stats import Stats, content_bytes
from rarebit.retrievers.collection.storage import Storage
from rarebit.retrievers.collection.tenant import Tenant
from rarebit.retrievers.near_duplicates import as_threshold

if TYPE_CHECKING:
    from rarebit.retrievers.engines import RemoteCollection

LOCK_TIMEOUT = 30.0


class Collection(RowOperations, Searches):
    """Passages with vectors, texts and metadata, kept in one SQLite file or in memory.

    Open one with :meth:`open`. One object may be used by many threads, and one file by many processes: each call sees every
    commit made before it began, and a call that writes is kept whole or not at all. Two calls never see each other half done.

    Rows that were added through a :meth:`tenant` are that tenant's: the collection's own methods neither find nor count them.
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
        near_duplicates: float | None = None,
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
            memory_per_vector: instead of a codec, the bytes that a row may take in memory, its row id (8) included: when there
                is enough to train on, the codec that finds most is chosen, by measuring on held-out vectors.
            target_recall: instead of a codec, recall@10 after re-ranking, from 0 to 1: the smallest code that reaches it is
                chosen in the same way. With both, fine tier and candidates are chosen for the recall.
            tokenizer: of lexical search: ``"porter"`` (default: English stems), ``"unicode61"`` (whole words), ``"trigram"``.
            training_minimum: rows at which the codec is trained, in one step; until then answers are exact.
            near_duplicates: skip rows whose text is nearly that of another: the Jaccard similarity of the texts, in runs of 8
                letters, from which :meth:`add` does so, above 0, at most 1. By default all rows are kept. Fixed at creation.
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
            "near_duplicates": None if near_duplicates is None else as_threshold(near_duplicates, "near_duplicates"),
            "fingerprint": EmbeddingFingerprint.of(fingerprint),
        }
        check_one_way(codec, memory_per_vector, target_recall)
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
    def connect(
        cls,
        url: str,
        name: str = "rarebit",
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
        timeout: float = LOCK_TIMEOUT,
        partitions: int = 0,
    ) -> RemoteCollection:
        """Connect to a collection on a database server; make it on first use.

        Its methods are those of an embedded one, and what a server cannot is an error that says so. Rows are searched in two
        stages: the server finds candidates by the Hamming distance of learned bits, and sends their codes, by which they are
        scored here.

        Args:
            url: ``postgresql://user@host:5432/database``, a PostgreSQL database with the extension pgvector 0.8 or later. A
                password may stand in it, or in ``PGPASSWORD`` or libpq's password file; it is neither shown nor pickled. Or
                ``milvus://user:password@host:19530/database``, a server or cluster of Milvus (``milvuss://`` for TLS; an API
                key may stand in place of user and password, and either in ``MILVUS_TOKEN``), or ``milvus:///folder/file.db``,
                Milvus Lite, for one process.
            name: of the collection in the database.
            dim: as in :meth:`open`, and so are all settings that follow.
            metric: ``"cosine"`` or ``"inner_product"``.
            codec: of the codes.
            fine: what is kept of vectors beside their codes.
            memory_per_vector: bytes of a code, and 8; they are the server's.
            target_recall: of the codes, re-ranked; and of the candidates that the server is asked for (default 0.99).
            tokenizer: of lexical search: ``"porter"`` or ``"unicode61"``.
            training_minimum: rows at which codes are learned.
            fingerprint: of the embedding model.
            read_only: refuse to write, and to make the collection.
            create: make the collection if it does not exist.
            timeout: seconds to wait for the server, and for another writer.
            partitions: tables of PostgreSQL, or partitions of Milvus 2.4 and later, that rows are spread over by tenant, at
                creation; 0 is one of all.

        Raises:
            EngineUnreachableError, AccessError: the server is not there, or lets nobody in.
            CollectionNotFoundError, ForeignFileError, FormatVersionError: the collection is not what was expected.
            SettingsError, FingerprintError: the collection was made with other settings, or by another model.
            MissingExtraError: the server's client is not installed.
        """
        from rarebit.retrievers.engines import connect

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
        check_one_way(codec, memory_per_vector, target_recall)
        return connect(url, name, asked, read_only=read_only, create=create, timeout=timeout, partitions=partitions)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Collection:
        """Read a collection's file into memory; what is written then does not reach the file."""
        with cls.open(path, read_only=True) as source:
            copy = cls.open(tokenizer=source.settings.tokenizer)
            copy._engine.storage.copy_from(source._engine.storage)
        copy._engine = Engine(copy._engine.storage, dict.fromkeys(copy._engine.asked))
        return copy

    def tenant(self, name: str) -> Tenant:
        """Give a handle whose every operation is bound to one tenant; it need not exist, and costs nothing.

        A search in a tenant scans all of its codes, however many: inverted lists are learned only while no tenant has rows, and
        speed up only searches among the collection's own rows that came before. A very large tenant gets a file of its own.

        Raises:
            InputError: the name is no string, empty, or longer than 1,024 characters.
        """
        return Tenant(self._engine, tenants.checked_name(name))

    def tenants(self) -> list[str]:
        """Name the tenants that have, or had, rows of their own or shared ones, in the order in which they came."""
        with self._engine.storage.read() as connection:
            return tenants.names(connection)

    def delete_tenant(self, name: str) -> int:
        """Delete a tenant with its rows and what was shared with it; returns how many rows of its own there were."""
        with self._engine.write() as connection:
            number = tenants.number_of(connection, tenants.checked_name(name))
            if number is None:
                return 0
            own = self._engine.snapshot_in(connection, name).own
            deleted = rows.delete(connection, number, list(own), self._engine.settings.near_duplicate_index)
            tenants.forget(connection, number)
            return deleted

    def share(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Filter | None = None,
        tenants: Sequence[str] | None = None,
    ) -> int:
        """Let tenants see rows of the collection, which are stored once; returns how many rows.

        Args:
            ids: of the rows; missing ones are no error.
            filter: which rows, or which of those with the ids; with neither, every row that there is now.
            tenants: their names; None for every tenant, also those that come later.
        """
        return self._share(ids, filter, tenants, seen=True)

    def unshare(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Filter | None = None,
        tenants: Sequence[str] | None = None,
    ) -> int:
        """Take rows back that were shared: from some tenants, whatever was said to everyone; or from every one.

        A name that is not there comes among :meth:`tenants` only if rows that everyone sees are hidden from it.
        """
        return self._share(ids, filter, tenants, seen=False)

    def stats(self) -> Stats:
        """Count the rows and every byte, in memory and on disk, of all tenants."""
        with self._engine.searchable() as snapshot:
            view, settings = snapshot.view, snapshot.settings
            disk = content_bytes(snapshot.connection)
            state = view.state
        memory = {
            "codes": view.code_bytes,
            "row_ids": view.id_bytes,
            "filters": self._engine.known.nbytes,
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
            disk={**disk, "file": self._engine.storage.file_bytes(), "cache": self._engine.index.cache_bytes},
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
        check_one_way(codec, memory_per_vector, target_recall)
        given = {"codec": codec, "fine": fine, "memory_per_vector": memory_per_vector, "target_recall": target_recall}
        asked = {name: value for name, value in given.items() if value is not None}
        prepared = None if queries is None or np.size(queries) == 0 else self._engine.prepared(queries)
        Recompression(self._engine, asked, prepared, progress=progress).run()
        return self.stats()

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a copy of the newest commit to another file, whole or not at all; the collection may be in use."""
        copying.copy_whole(self._engine, path, overwrite=overwrite)

    def check(self, *, progress: bool = False) -> list[str]:
        """Look for damage: read everything once, and compare every table with the rows.

        Args:
            progress: show a progress bar.

        Returns:
            What is wrong, one sentence each; nothing where all is well.

        What is read by searches, filters, iteration and counts is compared with checksums and counts each time, and damage
        there is an error. A damaged index can hide something without one, and only this method finds it: that an id or a tenant
        is there; with whom a row is shared; and what lexical search finds, and how it scores. The lexical index is not looked
        at where the collection was opened read-only.

        Damage to the log that a killed process leaves (``-wal``) is found by nothing: SQLite takes it for the log's end, as
        after a power cut, and what was committed from there on is gone.
        """
        return checking.problems(self._engine, progress=progress)

    def compact(self) -> int:
        """Give the space of deleted rows back to the disk; returns the bytes that came free.

        Searches go on meanwhile, other writes wait. The file is written anew, so it takes as long, and as much free space. A
        process that is killed leaves the file as it was. What another reads from for longer than a second at the end stays
        until it is done, and comes free with a later write.
        """
        forget_deleted(self._engine.storage)
        return self._engine.storage.compact()

    def _share(
        self,
        ids: Sequence[str] | None,
        filter: Filter | None,
        names: Sequence[str] | None,
        *,
        seen: bool,
    ) -> int:
        by_id = [] if ids is None else [Ids(tuple(as_ids(ids)))]
        tree = as_filter(filter)
        with self._engine.write() as connection:
            found = self._engine.snapshot_in(connection).matching(And(*by_id, *([] if tree is None else [tree])))
            if names is None:
                tenants.share_with_everyone(connection, found, seen=seen)
            for name in () if names is None else [tenants.checked_name(name) for name in as_ids(names)]:
                tenants.share(connection, found, name, seen=seen)
            return len(found)

    def close(self) -> None:
        """Close the file; further calls raise ClosedError."""
        self._engine.close()

    def __enter__(self) -> Collection:
        """Use the collection in a ``with`` block, which closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def __repr__(self) -> str:
        """Name the file and what is in it."""
        where = "in memory" if self.path is None else str(self.path)
        settings = self._engine.settings
        return f"<Collection {where}: dim={settings.dim}, metric={settings.metric}, codec={settings.codec}>"
