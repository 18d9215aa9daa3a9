"""The codes in memory: what a search scans.

The index is derived from the file and follows it: before each search it is brought to the commit that the search's own read
transaction sees, whoever wrote it. A view of one commit never changes, so searches need no lock; following a commit makes a
new view that shares what has not changed. Rows are appended with growing row ids and never edited, so following means
reading the codes after the last row id and the deletions since.

Codes lie in segments of exactly their size (no spare capacity): a new segment for each batch followed, merged with its
neighbour while that is not much larger, so that every code is copied only about log n times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import faiss
import numpy as np

from rarebit.arrays import Prepared, Queries, RowIdMatrix, ScoreMatrix
from rarebit.compressors.vectors import SearchableCodec
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import inverted_lists, rows, stored_codes
from rarebit.retrievers.collection import settings as settings_
from rarebit.retrievers.collection.bitmaps import array_of
from rarebit.retrievers.collection.index_cache import CachedCodes, IndexCache
from rarebit.retrievers.collection.inverted_lists import InvertedLists, NearLists
from rarebit.retrievers.collection.segment import Segment, segments_of
from rarebit.retrievers.collection.selection import EVERY_ROW, Selection
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.tenants import OWN

SEGMENT_ROWS = 4_194_304
"""Rows read at once, and the size from which a segment is not merged any more."""

MOST_DEAD = 0.2
"""Share of deleted rows above which a segment is written anew."""

QUERIES_FOR_THREADS = 8
"""Queries from which faiss shares them out among threads."""


@dataclass(frozen=True)
class View:
    """The codes of one commit."""

    state: State
    codec: SearchableCodec | None
    lists: InvertedLists | None = None
    segments: tuple[Segment, ...] = ()
    last_row_id: int = 0
    last_removal: int = 0

    @cached_property
    def count(self) -> int:
        """Rows of this commit."""
        return sum(segment.count for segment in self.segments)

    @property
    def list_count(self) -> int:
        """How many inverted lists there are."""
        return 0 if self.lists is None else self.lists.count

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes as they are laid out, those of deleted rows included."""
        return sum(segment.scanner.nbytes for segment in self.segments)

    @property
    def id_bytes(self) -> int:
        """Bytes of the row ids and the marks of deletion."""
        return sum(segment.nbytes for segment in self.segments)

    def scanned(self, queries: Queries, k: int, selection: Selection) -> int:
        """Count the codes that a search among a selection looks at, on average over the queries."""
        near = self._near(queries, selection)
        return sum(segment.scanned(k, selection, near, len(queries)) for segment in self.segments)

    def search(
        self, queries: Queries, k: int, selection: Selection = EVERY_ROW, *, rough: bool = False
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Find the k best codes for each query.

        Args:
            queries: (q, dim) float32.
            k: how many; rows of the result are filled up with ``NOWHERE``.
            selection: which rows to search among.
            rough: what is found will be scored again by finer vectors.

        Returns:
            Estimated inner products (q, <= k), descending, and the row ids; equal scores are ordered by row id.
        """
        found = []
        if self.codec is not None and k > 0:
            prepared: Prepared = np.ascontiguousarray(self.codec.prepare_queries(queries))
            with _threads_for(len(queries)):
                near = self._near(queries, selection)
                parts = (segment.search(prepared, k, selection, near, rough=rough) for segment in self.segments)
                found = [part for part in parts if part is not None]
        if not found:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if len(found) == 1:
            return found[0]
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        row_ids = np.concatenate([row_ids for _, row_ids in found], axis=1)
        order = np.lexsort((row_ids, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(row_ids, order, axis=1)

    def _near(self, queries: Queries, selection: Selection) -> NearLists | None:
        """Put the lists in order, unless only rows of a tenant are searched: the collection's alone lie in them."""
        if self.lists is None or (selection.owners is not None and OWN not in selection.owners):
            return None
        return self.lists.near(queries)


class CodeIndex:
    """Holds the newest view and brings it forward.

    Args:
        cache: where the codes of a large first segment are kept for the next one who opens the file.
    """

    def __init__(self, cache: IndexCache) -> None:
        """Hold nothing yet."""
        self._cache = cache
        self._lock = Lock()
        self._view: View | None = None

    @property
    def cache_bytes(self) -> int:
        """Bytes of the file beside the database."""
        return self._cache.nbytes

    @property
    def lock(self) -> Lock:
        """Held while a read transaction begins, so that views are asked for in the order of their commits."""
        return self._lock

    def follow(self, connection: Connection, state: State, codec: SearchableCodec | None) -> View:
        """Give the view of the commit that the connection's transaction sees; call with the lock held."""
        view = self._view
        if view is None or view.state.version != state.version:
            if view is None or not _can_follow(view, state):
                view = self._started(connection, state, codec)
            view = self._compacted(self._brought_to(view, connection, state), connection)
            if view.count != state.row_count:
                raise DamagedFileError(
                    f"the file holds the codes of {view.count} rows, wanted {state.row_count}: restore it from a backup"
                )
            self._view = view
        return view

    def _started(self, connection: Connection, state: State, codec: SearchableCodec | None) -> View:
        """Begin with what the cache holds, or before the first row."""
        if codec is None:
            return View(state, None)
        settings = settings_.load(connection)
        lists = None if settings is None else inverted_lists.load(connection, settings)
        cached = self._cache.load(connection, state, codec.code_size)
        if cached is None:
            return View(state, codec, lists)
        segments = segments_of(codec, cached.stored, lists.count if lists else 0)
        return View(state, codec, lists, tuple(segments), cached.last_row_id, cached.last_removal)

    def _brought_to(self, view: View, connection: Connection, state: State) -> View:
        """Append the codes of newer rows, and mark the rows deleted since."""
        if view.codec is None:
            return replace(view, state=state, last_removal=rows.latest_removal(connection))
        removed = array_of(rows.removed_since(connection, view.last_removal))
        segments = [segment.without(removed) for segment in view.segments] if len(removed) else list(view.segments)
        last = view.last_row_id
        removal = rows.latest_removal(connection)
        while True:
            stored = stored_codes.codes_between(connection, last + 1, state.next_row_id, view.codec.code_size, SEGMENT_ROWS)
            if not len(stored.row_ids):
                break
            last = int(stored.row_ids[-1])
            if not segments:
                self._cache.save(connection, state, CachedCodes(stored, last, removal))
            segments += segments_of(view.codec, stored, view.list_count)
        return View(state, view.codec, view.lists, tuple(segments), last, removal)

    def _compacted(self, view: View, connection: Connection) -> View:
        """Merge small neighbours and write segments anew that hold many deleted rows."""
        segments: list[Segment] = []
        for segment in (segment for segment in view.segments if segment.count):
            merged = [segment]
            while segments and _should_merge(segments[-1], merged):
                merged.insert(0, segments.pop())
            if len(merged) > 1 or _mostly_dead(segment):
                segments.append(self._rebuilt(view, merged, connection, is_first=not segments))
            else:
                segments.append(segment)
        return replace(view, segments=tuple(segments))

    def _rebuilt(self, view: View, segments: Sequence[Segment], connection: Connection, *, is_first: bool) -> Segment:
        assert view.codec is not None  # noqa: S101
        first, last = segments[0].numbers.first, segments[-1].numbers.last
        stored = stored_codes.codes_between(connection, first, last, view.codec.code_size, SEGMENT_ROWS)
        if is_first:
            self._cache.save(connection, view.state, CachedCodes(stored, last, view.last_removal))
        return Segment.build(view.codec, stored, view.list_count)

    def after_fork(self) -> None:
        """Take a new lock: the old one may be held by a thread that this process does not have."""
        self._lock = Lock()

    def drop(self) -> None:
        """Forget the view, and free its memory."""
        with self._lock:
            self._view = None


@contextmanager
def _threads_for(queries: int) -> Iterator[None]:
    """Let faiss use one thread for few queries: it shares out whole queries, and waking a team costs more than a scan."""
    library: Any = faiss
    usual = library.omp_get_max_threads()
    library.omp_set_num_threads(1 if queries < QUERIES_FOR_THREADS else usual)
    try:
        yield
    finally:
        library.omp_set_num_threads(usual)


def _forget_threads() -> None:
    """In a forked child the parent's team of threads is gone, and waiting for it would never end."""
    library: Any = faiss
    library.omp_set_num_threads(1)


os.register_at_fork(after_in_child=_forget_threads)


def _can_follow(view: View, state: State) -> bool:
    """Whether a view leads to a commit by appending and removing, or all codes have to be read again."""
    same_codes = view.codec is not None and view.state.generation == state.generation and view.state.version <= state.version
    return same_codes and view.last_removal >= state.removals_forgotten


def _should_merge(left: Segment, right: Sequence[Segment]) -> bool:
    size = sum(segment.count for segment in right)
    return left.count <= 2 * size and left.count + size <= SEGMENT_ROWS


def _mostly_dead(segment: Segment) -> bool:
    return len(segment) - segment.count > MOST_DEAD * len(segment)
