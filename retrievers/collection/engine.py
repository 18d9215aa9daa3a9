"""What keeps a collection's parts together: its file, the codes in memory that follow it, and its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any
from weakref import WeakSet

from rarebit.arrays import Queries, VectorsLike, as_vectors, normalized
from rarebit.compressors.vectors import SearchableCodec
from rarebit.retrievers.collection import rows, tenants
from rarebit.retrievers.collection import settings as settings_
from rarebit.retrievers.collection.code_index import CodeIndex
from rarebit.retrievers.collection.explanation import Steps
from rarebit.retrievers.collection.finest import stored_codec
from rarebit.retrievers.collection.index_cache import IndexCache
from rarebit.retrievers.collection.making import stored_tokenizer
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings
from rarebit.retrievers.collection.snapshot import Known, SearchableSnapshot, Snapshot
from rarebit.retrievers.collection.state import State, read_state
from rarebit.retrievers.collection.storage import Connection, Storage

_ENGINES: WeakSet[Engine] = WeakSet()


class Engine:
    """Gives snapshots to readers and transactions to writers.

    Args:
        storage: the open file.
        asked: the settings that the user gave; None for those left out.
    """

    def __init__(self, storage: Storage, asked: Mapping[str, Any]) -> None:
        """Agree on the settings with the file; close it if that fails."""
        self.memory_name = f"memory {token_hex(8)}"
        self.storage = storage
        self.asked = dict(asked)
        self.index = CodeIndex(IndexCache(storage.path, read_only=storage.read_only))
        self.known = Known()
        self._codec: tuple[int, SearchableCodec | None] = (0, None)
        try:
            self.settings = self._agreed_settings()
            self.asked |= dict.fromkeys(settings_.CHANGEABLE)  # from here on the file says it
            self._known = (0, self.settings)
        except BaseException:
            storage.close()
            raise
        _ENGINES.add(self)

    @contextmanager
    def snapshot(self, tenant: str | None = None) -> Iterator[Snapshot]:
        """Give the newest commit as a tenant sees it, and keep it as it is until the block ends; None is the collection."""
        with self.storage.read() as connection:
            yield self.snapshot_in(connection, tenant)

    def snapshot_in(self, connection: Connection, tenant: str | None = None) -> Snapshot:
        """Give what a transaction sees; in one that writes, before it does."""
        state = read_state(connection)
        settings = self._settings_at(connection, state)
        codec = self._codec_at(connection, state, settings)
        number = tenants.OWN if tenant is None else tenants.number_of(connection, tenant)
        return Snapshot(connection, settings, state, codec, self.known, number, Steps())

    @contextmanager
    def searchable(self, tenant: str | None = None, steps: Steps | None = None) -> Iterator[SearchableSnapshot]:
        """Give the newest commit as a tenant sees it, together with its codes in memory."""
        steps = steps or Steps()
        with self.storage.read() as connection:
            # The commit is chosen by the first read, which the lock orders: views never go back.
            with self.index.lock, steps.timed("follow"):
                state = read_state(connection)
                settings = self._settings_at(connection, state)
                codec = self._codec_at(connection, state, settings)
                view = self.index.follow(connection, state, codec)
            number = tenants.OWN if tenant is None else tenants.number_of(connection, tenant)
            yield SearchableSnapshot(connection, settings, state, codec, self.known, number, steps, view)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a transaction that counts as one commit."""
        with self.storage.write() as connection:
            read_state(connection)  # what is damaged must not get a checksum that says otherwise
            yield connection
            rows.finish(connection)

    def fixed_dimension(self, connection: Connection, dim: int) -> Settings:
        """Fix the dimension with the first rows; it counts only if the transaction commits."""
        kept = settings_.load(connection) or self.settings
        if kept.dim is None:
            kept = replace(kept, dim=dim)
            settings_.save(connection, kept)
        return kept

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint) -> None:
        """Agree on a fingerprint with the file, as at opening."""
        with self.storage.read() as connection:
            kept = settings_.load(connection) or self.settings
        settings_.reconciled(kept, {"fingerprint": fingerprint}, str(self.storage))
        self.asked["fingerprint"] = EmbeddingFingerprint.of(self.asked.get("fingerprint")).completed(fingerprint)
        self.settings = self._agreed_settings()

    def prepared(self, queries: VectorsLike) -> Queries:
        """Check (q, dim) queries, and normalise them for cosine."""
        matrix = as_vectors(queries, dim=self.settings.dim)
        return normalized(matrix) if self.settings.metric == "cosine" else matrix

    def close(self) -> None:
        """Close the file and free the codes."""
        self.storage.close()
        self.index.drop()
        self.known.drop()

    def after_fork(self) -> None:
        """Begin anew in a forked child; the storage does so by itself."""
        self.index.after_fork()
        self.known.drop()

    def refresh(self) -> Settings:
        """Give the settings of the newest commit: its dimension may be fixed now, its codec chosen."""
        if not self.storage.is_closed:
            with self.storage.read() as connection:
                self._settings_at(connection, read_state(connection))
        return self.settings

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as the path, or as the content of a collection in memory."""
        return {
            "path": self.storage.path,
            "content": self.storage.serialize() if self.storage.path is None else None,
            "read_only": self.storage.read_only,
            "lock_timeout": self.storage.lock_timeout,
            "asked": self.asked,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open again what was pickled; a file that has vanished since is an error, not an empty collection."""
        path: Path | None = state["path"]
        storage = Storage(
            path,
            read_only=state["read_only"],
            tokenizer=state["asked"]["tokenizer"] or Settings.tokenizer,
            lock_timeout=state["lock_timeout"],
            must_exist=path is not None,
        )
        if state["content"] is not None:
            storage.deserialize(state["content"])
        self.__init__(storage, state["asked"])  # type: ignore[misc]

    def _codec_at(self, connection: Connection, state: State, settings: Settings) -> SearchableCodec | None:
        generation, codec = self._codec
        if generation != state.generation or codec is None:
            codec = stored_codec(connection, settings)
            self._codec = (state.generation, codec)
        return codec

    def _settings_at(self, connection: Connection, state: State) -> Settings:
        """Give the settings of a commit: the first rows fix the dimension, a new generation of codes may have other codecs."""
        generation, settings = self._known
        if generation != state.generation or settings.dim is None:
            settings = settings_.load(connection) or self.settings
            self._known = (state.generation, settings)
            self.settings = settings
        return settings

    def _agreed_settings(self) -> Settings:
        """Keep the settings at creation; later check what was asked for against them, and keep what was unknown."""
        with self.storage.read() as connection:
            kept = settings_.load(connection)
        if kept is not None:
            agreed = settings_.reconciled(kept, self.asked, str(self.storage))
            if agreed == kept or self.storage.read_only:
                return agreed
        with self.storage.write() as connection:  # another process may have been faster
            kept = settings_.load(connection) or self._first_settings(connection)
            agreed = settings_.reconciled(kept, self.asked, str(self.storage))
            settings_.save(connection, agreed)
        return agreed

    def _first_settings(self, connection: Connection) -> Settings:
        """Give the settings of a new file; the one who made its tables may be another process, or was killed."""
        asked = {key: value for key, value in self.asked.items() if value is not None}
        return Settings(**{**asked, "tokenizer": stored_tokenizer(connection)})


def _after_fork() -> None:
    for engine in _ENGINES:
        engine.after_fork()


os.register_at_fork(after_in_child=_after_fork)
