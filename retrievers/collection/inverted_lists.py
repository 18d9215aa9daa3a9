"""Inverted lists: rows by the nearest of some centroids, so that a search in a large collection looks at the nearest lists.

The lists are learned from the rows themselves when there are enough of them, and again when there are twice as many: what
came first decides nothing. How many of them a search looks at is tuned on held-out rows, to find as many of the nearest as a
scan of everything would. A filter looks at more of them, the nearest of those that hold a matching row.

They are learned while no tenant has rows, and from then on hold the collection's own rows that came first, as long as those are
most of a segment. Other rows are laid out tenant after tenant, and a search in one tenant scans all of its codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rarebit.arrays import Lists, Queries, RowIds, Vector, Vectors
from rarebit.compressors.vectors import SearchableCodec
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import checksums, stored_codes
from rarebit.retrievers.collection.finest import FinestVectors
from rarebit.retrievers.collection.row_numbers import Places
from rarebit.retrievers.collection.settings import Metric, Settings
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.stored_codes import StoredCodes

LISTS_FROM: Final = 262_144
"""Rows from which lists pay: below, a scan of all codes takes less time than the rest of a search."""

GROWTH: Final = 2
"""How many times as many rows as when lists were learned call for others."""

SEGMENT_FROM: Final = 65_536
"""Rows from which a segment is laid out in lists; fewer are scanned as a whole."""

KEPT: Final = 0.995
"""Share of the ten nearest, of those that a search of all lists finds, that the lists looked at have to hold on average."""

CANDIDATES: Final = 100

HELD_OUT: Final = 256
NEAREST: Final = 10
FILTERED: Final = 2
"""How many times as many lists a filter that every row matches would look at: what a filter finds may have to do with the
query, and lie elsewhere than what is nearest. With the benchmark's filters half as many hold between 95 and 99.9 % of it."""

ITERATIONS: Final = 10
SAMPLE_PER_LIST: Final = 64
WRITTEN_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class InvertedLists:
    """Centroids, (l, dim) float32, and how many of the nearest lists a search looks at.

    ``deeper_probes`` lists hold what is a hundredth nearest as surely as ``probes`` lists hold what is a tenth nearest.
    ``row_count`` is how many rows there were when they were learned.
    """

    metric: Metric
    centroids: Vectors
    probes: int
    deeper_probes: int
    row_count: int

    @property
    def count(self) -> int:
        """How many lists there are."""
        return len(self.centroids)

    @cached_property
    def _index(self) -> Any:
        index = faiss.IndexFlatL2(self.centroids.shape[1])
        index.add(self.centroids)
        return index

    @cached_property
    def _half_squares(self) -> npt.NDArray[np.float32]:
        squares: npt.NDArray[np.float32] = 0.5 * (self.centroids * self.centroids).sum(axis=1)
        return squares

    def assign(self, vectors: Vectors) -> RowIds:
        """Give the list of each of (n, dim) vectors: that of the nearest centroid."""
        lists: RowIds = self._index.search(vectors, 1)[1][:, 0]
        return lists

    def near(self, queries: Queries) -> NearLists:
        """Put the lists into the order of their nearness to each query.

        By inner product a distance would not do: it changes with the length of the query, which changes no order of products.
        """
        products = queries @ self.centroids.T
        farness = -products if self.metric == "inner_product" else self._half_squares - products
        return NearLists(np.argsort(farness, axis=1), self.probes, self.deeper_probes)


@dataclass(frozen=True)
class NearLists:
    """All lists for each query, the nearest first, (q, l), and how many of them a search among all rows looks at."""

    order: Lists
    probes: int
    deeper_probes: int

    def among(self, share: float) -> int:
        """Say how many lists a search among a share of the rows looks at, of those that hold some of them.

        The tenth nearest of a tenth of the rows is the hundredth nearest of all, if it has nothing to do with the query, so for
        each tenth the number grows as it does from the tenth nearest to the hundredth.
        """
        growth = self.deeper_probes / self.probes
        return int(np.ceil(min(FILTERED * self.probes * growth ** -np.log10(share), self.order.shape[1])))

    @property
    def usual(self) -> Lists:
        """The lists for a search among all rows."""
        return np.ascontiguousarray(self.order[:, : self.probes])

    def ranks_of(self, lists: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give how many lists are nearer to each query than each of (q, m) lists."""
        ranks = np.empty_like(self.order)
        np.put_along_axis(ranks, self.order, np.arange(self.order.shape[1])[np.newaxis], axis=1)
        return np.take_along_axis(ranks, lists, axis=1)


def are_due(state: State, codec: SearchableCodec, known: InvertedLists | None) -> bool:
    """Whether a write has brought so many rows that lists should be learned; rows of tenants are laid out by tenant instead."""
    if not codec.has_lists or state.tenant_rows:
        return False
    return state.row_count >= (LISTS_FROM if known is None else GROWTH * known.row_count)


def load(connection: Connection, settings: Settings) -> InvertedLists | None:
    """Read the lists of a collection; None where there are none.

    Raises:
        DamagedFileError: they are not what was stored.
    """
    stored = connection.execute("SELECT centroids, probes, deeper_probes, row_count, checksum FROM lists").fetchone()
    if stored is None:
        return None
    centroids, *counts, checksum = stored
    if checksums.of_parts(centroids, *counts) != checksum or settings.dim is None:
        raise DamagedFileError("the inverted lists in the file are not what was stored: restore it from a backup")
    return InvertedLists(settings.metric, np.frombuffer(centroids, np.float32).reshape(-1, settings.dim), *counts)


def learn(connection: Connection, state: State, source: FinestVectors, sampled: list[int]) -> InvertedLists:
    """Learn lists inside a write transaction, and put every row into one."""
    wanted = 1 << round(np.log2(np.sqrt(state.row_count)))
    sample = source.of(sampled)
    drawn = np.random.default_rng(0).permutation(len(sample))
    held_out, rest = np.sort(drawn[:HELD_OUT]), sample[np.sort(drawn[HELD_OUT:][: SAMPLE_PER_LIST * wanted])]
    kmeans: Any = faiss.Kmeans(sample.shape[1], wanted, niter=ITERATIONS, seed=1, min_points_per_centroid=1)
    kmeans.train(rest)
    centroids = np.ascontiguousarray(kmeans.centroids)
    lists = InvertedLists(source.settings.metric, centroids, wanted, wanted, state.row_count)
    stored = _put(connection, state, source, lists)
    own = np.searchsorted(stored.row_ids, np.asarray(sampled)[held_out])
    probes, deeper_probes = _tuned(source, lists, sample[held_out], own, stored)
    lists = replace(lists, probes=probes, deeper_probes=deeper_probes)
    described = (lists.centroids.tobytes(), probes, deeper_probes, lists.row_count)
    connection.execute("INSERT OR REPLACE INTO lists VALUES (1, ?, ?, ?, ?, ?)", (*described, checksums.of_parts(*described)))
    connection.execute("UPDATE state SET generation = generation + 1")
    return lists


def _put(connection: Connection, state: State, source: FinestVectors, lists: InvertedLists) -> StoredCodes:
    """Write every row's list beside its code; gives what is stored then."""
    assert source.codec is not None  # noqa: S101
    stored = stored_codes.codes_between(connection, 1, state.next_row_id, source.codec.code_size, state.row_count)
    numbers = np.empty(len(stored.row_ids), np.int64)
    for start in range(0, len(numbers), WRITTEN_AT_ONCE):
        part = slice(start, start + WRITTEN_AT_ONCE)
        numbers[part] = lists.assign(source.codec.decode(stored.codes[part]))  # near enough, and nothing more is read
        stored_codes.write_codes(connection, "codes", stored._replace(lists=numbers).at(part))
    return stored._replace(lists=numbers)


def _tuned(source: FinestVectors, lists: InvertedLists, queries: Queries, own: Places, stored: StoredCodes) -> tuple[int, int]:
    """Find how many lists hold the nearest, and those further down, of rows that the lists were not learned from.

    ``own`` are the places of the queries, which are rows themselves.
    """
    assert source.codec is not None  # noqa: S101
    scanner = source.codec.scanner(stored.codes)
    found = scanner.search(source.codec.prepare_queries(queries), min(CANDIDATES, len(stored.codes)))[1]
    asked = zip(queries, found, own.tolist(), strict=True)
    nearest = np.stack([_by_nearness(source, query, stored.row_ids, places, place) for query, places, place in asked])
    ranks = lists.near(queries).ranks_of(stored.lists[nearest])
    probes, deeper = _holding(ranks[:, :NEAREST]), _holding(ranks[:, -NEAREST:])
    return probes, max(probes, deeper)


def _holding(ranks: npt.NDArray[np.int64]) -> int:
    """Say how many of the nearest lists hold the share wanted of rows in lists of these ranks."""
    ordered = np.sort(ranks.ravel())
    return int(ordered[min(int(np.ceil(KEPT * len(ordered))), len(ordered) - 1)]) + 1


def _by_nearness(source: FinestVectors, query: Vector, row_ids: RowIds, places: Places, own: int) -> Places:
    """Put places in the order of their finest vectors' nearness, without the query's own, or the last where it is not there.

    By inner product a row need not be its own nearest.
    """
    places = np.sort(places)
    ordered = places[np.argsort(-(source.of(row_ids[places].tolist()) @ query), kind="stable")]
    others: Places = ordered[ordered != own][: len(places) - 1]
    return others
