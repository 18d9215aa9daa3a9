"""Reading and searching one commit: candidates from the codes in memory, their order from the fine tier on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeAlias

import numpy as np
from pyroaring import BitMap64

from rarebit.arrays import Queries, RowIdMatrix, ScoreMatrix, Vector, Vectors
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.scanning import NOWHERE
from rarebit.errors import DamagedFileError, MissingRowError
from rarebit.retrievers.collection import lexical, ranking, rows, tenants
from rarebit.retrievers.collection.bitmaps import array_of
from rarebit.retrievers.collection.code_index import View
from rarebit.retrievers.collection.columns import Columns
from rarebit.retrievers.collection.explanation import EXACT_PLAN, Steps, plan_of
from rarebit.retrievers.collection.filters import Filter
from rarebit.retrievers.collection.finest import FinestVectors
from rarebit.retrievers.collection.live_rows import LiveRows
from rarebit.retrievers.collection.matching import Matcher, RememberedMatches, can_be_remembered
from rarebit.retrievers.collection.records import Hit, Row
from rarebit.retrievers.collection.rows import StoredRow
from rarebit.retrievers.collection.selection import EVERY_ROW, Selection
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.statements import chunks
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.tenant_vectors import Decoded, TenantVectors

Ranking: TypeAlias = list[tuple[int, float]]
"""Row ids with their scores, best first."""

StoredRows: TypeAlias = dict[int, rows.StoredRow]

FEWEST_CANDIDATES = 100
CANDIDATES_PER_HIT = 10
"""Candidates re-ranked for k hits unless another number was chosen by measuring: 10 k, at least 100. How much of the true top
10 is among them shows in the codec benchmark, as recall after re-ranking."""

DENSE_FROM = 262_144
"""Rows from which more candidates are taken, with the cube root of their number: the more rows, the more of them a code cannot
tell from the nearest."""

ROWS_AT_ONCE = 1024
QUERIES_AT_ONCE = 64
"""Queries whose candidates are found and re-ranked together: what the fine tier keeps of them all is in memory meanwhile."""


class Known:
    """What a collection keeps in memory beside codes, to answer filters and the small tenants that are being asked."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.live = LiveRows()
        self.columns = Columns()
        self.matches = RememberedMatches()
        self.tenant_vectors = TenantVectors()

    @property
    def nbytes(self) -> int:
        """Bytes of it all."""
        return self.columns.nbytes + self.matches.nbytes + self.tenant_vectors.nbytes

    def drop(self) -> None:
        """Forget it all, and take new locks."""
        for part in (self.live, self.columns, self.matches, self.tenant_vectors):
            part.drop()


@dataclass(frozen=True)
class Snapshot:
    """One commit as one tenant sees it, read through a connection inside its read transaction.

    ``tenant`` is its number: 0 for the collection itself, None for a tenant that has never written.
    """

    connection: Connection
    settings: Settings
    state: State
    codec: SearchableCodec | None
    known: Known
    tenant: int | None
    steps: Steps

    @cached_property
    def live(self) -> BitMap64:
        """Every row of the commit, of every tenant."""
        return self.known.live.at(self.connection, self.state)

    @cached_property
    def own(self) -> BitMap64:
        """The rows that belong to the tenant."""
        if self.tenant is None:
            return BitMap64()
        if self.sees_everything:
            return self.live
        tenant = self.tenant

        def find(after: int) -> BitMap64:
            return tenants.own_rows(self.connection, tenant, after)

        own = self._remembered(f"tenant {tenant}", find) & self.live
        wanted = tenants.own_count(self.connection, self.state, tenant)
        if len(own) != wanted:
            raise DamagedFileError(
                f"{len(own)} rows of a tenant were found in the file, wanted {wanted}: restore it from a backup"
            )
        return own

    @cached_property
    def shared(self) -> BitMap64:
        """The rows of the collection that are shared with the tenant; none for the collection, which has them anyway."""
        if self.tenant == tenants.OWN or not self.state.sharing:
            return BitMap64()
        everyone = f"shared with everyone {self.state.sharing}"
        known = self.known.matches.get(everyone, self.state.version)
        found = tenants.shared_with_everyone(self.connection) if known is None else known.found
        if known is None:
            self.known.matches.put(everyone, found, self.state)
        shared = tenants.shared_rows(self.connection, self.tenant, found)
        if not shared <= self.live:
            raise DamagedFileError("rows that are shared with a tenant are missing from the file: restore it from a backup")
        return shared

    @property
    def sees_everything(self) -> bool:
        """Whether every row of the file is the collection's own, and asked for through the collection."""
        return self.tenant == tenants.OWN and not self.state.tenant_rows

    @property
    def owners(self) -> tuple[int, ...]:
        """The tenants to whom the visible rows belong."""
        own = () if self.tenant is None else (self.tenant,)
        return (*own, tenants.OWN) if self.shared else own

    def visible(self) -> BitMap64:
        """Give the rows that the tenant may see: its own, and those that are shared with it."""
        return self.own | self.shared if self.shared else self.own

    def matching(self, tree: Filter | None) -> BitMap64:
        """Give the visible rows that match a filter."""
        if tree is None:
            return self.visible()
        if can_be_remembered(tree):
            found = self._remembered(repr(tree), lambda after: self._matcher(after).rows(tree)) & self.live
            return found if self.sees_everything else found & self.visible()
        return self._matcher(0).rows(tree) & self.visible()

    def stored_ids(self, ids: Sequence[str]) -> set[str]:
        """Tell under which of some ids there are visible rows."""
        own = set() if self.tenant is None else set(rows.stored_ids(self.connection, self.tenant, ids))
        if not self.shared:
            return own
        of_collection = rows.stored_ids(self.connection, tenants.OWN, ids)
        return own.union(key for key, row_id in of_collection.items() if row_id in self.shared)

    def by_ids(self, ids: Sequence[str]) -> dict[str, tuple[int, Row]]:
        """Read visible rows by their ids; a tenant's own rows go before shared ones."""
        found = {} if self.tenant is None else rows.by_ids(self.connection, self.tenant, ids)
        missing = [key for key in ids if key not in found]
        if missing and self.shared:
            of_collection = rows.by_ids(self.connection, tenants.OWN, missing)
            found |= {key: pair for key, pair in of_collection.items() if pair[0] in self.shared}
        return found

    def rows(self, row_ids: BitMap64) -> list[Row]:
        """Read rows, in the order of insertion."""
        return [row for _, row in self._read(row_ids)]

    def after(self, row_id: int, limit: int) -> list[tuple[int, Row]]:
        """Read the visible rows that follow a row id, in the order of insertion."""
        if self.sees_everything:
            return self._after(row_id, limit)
        following = self.visible() - BitMap64(range(row_id + 1))
        return list(self._read(islice(following, limit)))

    def best_by_words(self, text: str, k: int, tree: Filter | None) -> Ranking:
        """Find the k rows with the highest BM25."""
        wanted = min(k, self.state.row_count)
        allowed = None if tree is None and self.sees_everything else self.matching(tree)
        return lexical.ranked(self.connection, text, wanted, allowed, self.settings.tokenizer)

    def hits(self, rankings: Sequence[Ranking], *, include_vectors: bool = False) -> list[list[Hit]]:
        """Read the rows of several rankings, each row once; every hit has metadata of its own."""
        wanted = list(dict.fromkeys(row_id for found in rankings for row_id, _ in found))
        stored = self._owned(wanted)
        vectors = dict(zip(wanted, self.vectors(wanted), strict=True)) if include_vectors and wanted else {}
        return [[_hit(stored[row_id], score, vectors.get(row_id)) for row_id, score in found] for found in rankings]

    def vectors(self, row_ids: Sequence[int]) -> Vectors:
        """Decode the finest vectors that are kept of these rows: (n, dim), in the order given."""
        each_once = sorted(set(row_ids))
        return self.finest.of(each_once)[np.searchsorted(each_once, row_ids)]

    def vectors_of(self, ids: Sequence[str]) -> Vectors:
        """Decode the vectors of ids; raises MissingRowError if one is missing."""
        found = self.by_ids(ids)
        missing = [key for key in ids if key not in found]
        if missing:
            raise MissingRowError(
                f"{len(missing)} of {len(ids)} ids are not in the collection (first: {missing[0]!r}): ask get(ids) which are"
            )
        return self.vectors([found[key][0] for key in ids])

    @cached_property
    def finest(self) -> FinestVectors:
        """The vectors as the finest tier keeps them."""
        return FinestVectors(self.connection, self.settings, self.codec)

    def _read(self, row_ids: Iterable[int]) -> Iterator[tuple[int, Row]]:
        for chunk in chunks(row_ids, ROWS_AT_ONCE):
            stored = self._owned(chunk)
            yield from ((row_id, rows.decoded(stored[row_id])) for row_id in chunk)

    def _after(self, row_id: int, limit: int) -> list[tuple[int, Row]]:
        """Read in the order of the file, and compare what is there with what must be there."""
        found = rows.after(self.connection, row_id, limit)
        expected = islice(self.live.iter_equal_or_larger(row_id + 1), limit)
        if [number for number, _ in found] != list(expected):
            raise DamagedFileError(f"rows after row {row_id} are missing from the file: restore it from a backup")
        return found

    def _owned(self, row_ids: Sequence[int]) -> StoredRows:
        """Read rows, and look once more whether the tenant may see them, whatever led to them."""
        stored = rows.by_row_ids(self.connection, row_ids)
        for row_id, tenant, *_ in stored.values():
            if tenant != self.tenant and not (tenant == tenants.OWN and row_id in self.shared):
                raise DamagedFileError(
                    f"row {row_id} was found among those of a tenant that must not see it: restore the file from a backup"
                )
        return stored

    def _matcher(self, after: int) -> Matcher:
        live = self.live - BitMap64(range(after + 1)) if after else self.live
        return Matcher(
            self.connection,
            self.state,
            self.known.columns,
            self.live,
            live,
            live & self.visible() if after else self.visible(),
            self.owners,
            after,
        )

    def _remembered(self, key: str, find: Callable[[int], BitMap64]) -> BitMap64:
        """Find rows, all of them or only those that came since they were last found."""
        known = self.known.matches.get(key, self.state.version)
        if known is None:
            found = find(0)
        elif known.last_row_id == self.state.next_row_id - 1:
            return known.found
        else:
            found = known.found | find(known.last_row_id)
        self.known.matches.put(key, found, self.state)
        return found


@dataclass(frozen=True)
class SearchableSnapshot(Snapshot):
    """A commit together with its codes in memory."""

    view: View

    def nearest(self, queries: Queries, k: int, tree: Filter | None, candidates: int | None) -> list[Ranking]:
        """Find the k rows with the highest cosine or inner product for each of (q, dim) queries."""
        if not len(queries):
            return []
        tier = self.finest.tier
        adds = tier is not None and tier.adds_to_scores
        wanted = candidates or self._candidates_for(k)
        fetched = min(max(k, wanted) if tier and k else k, self.state.row_count)
        if tree is None and tier is not None:
            decoded = self._decoded()
            if decoded is not None:
                return self._exact(queries, k, decoded)
        with self.steps.timed("filter"):
            selection = self._selected(tree)
        if self.steps.wanted:
            self._explain(queries, fetched, selection)
        found: list[Ranking] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = queries[start : start + QUERIES_AT_ONCE]
            with self.steps.timed("scan"):
                scores, row_ids = self.view.search(part, fetched, selection, rough=tier is not None and not adds)
            if tier is None:
                found += self._as_estimated(scores, row_ids)
            else:
                with self.steps.timed("re-rank"):
                    found += self._reranked(part, row_ids, k, scores if adds else None)
        self.steps.told(candidates=fetched if tier else 0)
        return found

    def _decoded(self) -> Decoded | None:
        """Give the vectors of a small tenant that was asked before."""
        if self.tenant is None or self.sees_everything:
            return None
        with self.steps.timed("filter"):
            return self.known.tenant_vectors.of(self.tenant, self.visible(), self.state, self.finest.of)

    def _exact(self, queries: Queries, k: int, decoded: Decoded) -> list[Ranking]:
        """Search among vectors in memory."""
        count = len(decoded.row_ids)
        self.steps.told(plan=EXACT_PLAN, rows=count, matches=count, scanned=count, candidates=0)
        with self.steps.timed("scan"):
            scores = np.stack([decoded.vectors @ query for query in queries])  # the same in any company
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            row_ids, best = decoded.row_ids[order], np.take_along_axis(scores, order, axis=1)
        return self._as_estimated(best, row_ids)

    def _candidates_for(self, k: int) -> int:
        fewest = max(self.settings.candidates or FEWEST_CANDIDATES, CANDIDATES_PER_HIT * k)
        return int(fewest * max(1.0, self.state.row_count / DENSE_FROM) ** (1 / 3))

    def _selected(self, tree: Filter | None) -> Selection:
        """Say which rows a search is among, in the form that is found fastest among the codes."""
        if tree is None and self.sees_everything:
            return EVERY_ROW
        if tree is None and self.tenant is not None and not self.shared:
            return Selection(owners=(self.tenant,))
        return Selection(array_of(self.matching(tree)), None if self.sees_everything else self.owners)

    def _explain(self, queries: Queries, fetched: int, selection: Selection) -> None:
        visible = len(self.visible())
        matching = visible if selection.row_ids is None else len(selection.row_ids)
        scanned = self.view.scanned(queries, fetched, selection)
        plan = plan_of(selection, visible, matching, scanned)
        self.steps.told(plan=plan, rows=visible, matches=matching, scanned=scanned)

    def diverse(self, query: Vector, k: int, fetch_k: int, lambda_mult: float, tree: Filter | None) -> Ranking:
        """Choose k of the ``fetch_k`` nearest by maximal marginal relevance."""
        found = self.nearest(query[np.newaxis], max(k, fetch_k), tree, None)[0]
        if not found:
            return []
        scores = np.array([score for _, score in found], np.float32)
        vectors = self.vectors([row_id for row_id, _ in found])
        return [found[place] for place in ranking.maximal_marginal_relevance(scores, vectors, k, lambda_mult)]

    def _as_estimated(self, scores: ScoreMatrix, row_ids: RowIdMatrix) -> list[Ranking]:
        return [
            self._in_range([(row_id, score) for row_id, score in zip(*pair, strict=True) if row_id != NOWHERE])
            for pair in zip(row_ids.tolist(), scores.tolist(), strict=True)
        ]

    def _reranked(self, queries: Queries, candidates: RowIdMatrix, k: int, of_codes: ScoreMatrix | None) -> list[Ranking]:
        """Score the candidates of several queries by what the fine tier keeps of them, which is read once.

        ``of_codes`` are the scores of the codes where those of residuals are added to them.
        """
        order_of = [np.argsort(row_ids)[np.count_nonzero(row_ids == NOWHERE) :] for row_ids in candidates]
        own_of = [row_ids[order] for row_ids, order in zip(candidates, order_of, strict=True)]
        wanted = own_of[0] if len(own_of) == 1 else np.unique(np.concatenate(own_of))
        vectors = (self.finest.of if of_codes is None else self.finest.parts_of)(wanted.tolist())
        reranked = []
        for row, (query, by_id, own) in enumerate(zip(queries, order_of, own_of, strict=True)):
            shared = len(own) == len(wanted)
            scores = (vectors if shared else vectors[np.searchsorted(wanted, own)]) @ query
            if of_codes is not None:
                scores += of_codes[row, by_id]
            order = np.argsort(-scores, kind="stable")[:k]
            reranked.append(self._in_range(list(zip(own[order].tolist(), scores[order].tolist(), strict=True))))
        return reranked

    def _in_range(self, found: Ranking) -> Ranking:
        """Estimates and rounding may pass 1 by a little; a cosine does not."""
        if self.settings.metric != "cosine":
            return found
        return [(row_id, min(1.0, max(-1.0, score))) for row_id, score in found]


def _hit(stored: StoredRow, score: float, vector: Vector | None) -> Hit:
    row = rows.decoded(stored)
    return Hit(row.id, score, row.text, row.metadata, vector)
