"""Many tenants in one file: how long a search in one takes, beside a collection that holds that tenant's rows and no others.

``python -m rarebit.cookbook.benchmarks.tenants --data DIR [--collections eltec-eng] [--rows 200000] [--tenants 10000]``

Real passages, embedded with MiniLM, are dealt out to tenants of mixed sizes: most have a handful of rows, a few have thousands
(the sizes of a Zipf law). For tenants of each class of size, the same queries are asked in turn of the tenant's handle and of
two collections of its own with the same rows: ``own``, as a user would open it, which is exact up to 1,024 rows; and ``own,
compressed``, from 256 rows on, trained as early as that: what the tenant's rows are in the file that all share.

    - ``p50_ms``; ``ratio``: the median over queries of the tenant's time divided by the collection's for the same query.
    - ``recall@10``: share of the exact ten best of the tenant's rows that were found.
    - ``foreign``: hits that were another tenant's row.
    - ``memory``: bytes a vector that the index keeps in memory for all tenants together.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rarebit import Collection
from rarebit.arrays import Queries, Vectors
from rarebit.cookbook.benchmarks.embedded import chosen, default_cache, embedded, read_corpus
from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.cookbook.benchmarks.judged import SHORTEST
from rarebit.cookbook.benchmarks.methods import K, timed

CLASSES = ((1, 15), (16, 255), (256, 1023), (1024, 4095), (4096, 10**9))
"""Sizes of tenants, from and to, that are reported together."""

ASKED = 8
"""Tenants of each class that are asked."""

TURN = 20
SKEW = 1.2
SHARED = "all tenants in one file"
OWN, COMPRESSED = "own", "own, compressed"
FEWEST_COMPRESSED = 256


@dataclass(frozen=True)
class Dealt:
    """Rows dealt out: tenant t has the rows ``starts[t]`` to ``starts[t + 1]``."""

    vectors: Vectors
    texts: Sequence[str]
    queries: Queries
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, vectors: Vectors, texts: Sequence[str], queries: Queries, tenants: int) -> Dealt:
        """Deal rows out in the sizes of a Zipf law, at least one a tenant."""
        shares = 1 / np.arange(1, tenants + 1) ** SKEW
        sizes = 1 + np.floor((len(vectors) - tenants) * shares / shares.sum()).astype(np.int64)
        sizes[0] += len(vectors) - sizes.sum()
        np.random.default_rng(0).shuffle(sizes)
        return cls(vectors, texts, queries, np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many rows each tenant has."""
        return np.diff(self.starts)

    def rows(self, tenant: int) -> slice:
        """Give the places of a tenant's rows."""
        return slice(int(self.starts[tenant]), int(self.starts[tenant + 1]))

    def fill(self, target: Any, tenant: int) -> None:
        """Add a tenant's rows under ids that name the tenant."""
        rows = self.rows(tenant)
        ids = [f"{tenant} {place}" for place in range(rows.start, rows.stop)]
        target.add(self.vectors[rows], texts=self.texts[rows], ids=ids)


def measure(dealt: Dealt, folder: Path, subject: Subject) -> list[Figure]:
    """Fill one file for all tenants, and compare tenants of each class with collections of their own."""
    figures: list[Figure] = []
    with Collection.open(folder / "all.rarebit") as collection:
        _, seconds = timed(partial(_fill_all, collection, dealt))
        print(f"filled with a commit for each of {len(dealt.sizes):,} tenants in {seconds:.0f} s", flush=True)
        collection.tenant("0").search(dealt.queries[0], K)
        for low, high in CLASSES:
            asked = np.flatnonzero((dealt.sizes >= low) & (dealt.sizes <= high))
            asked = np.random.default_rng(low).permutation(asked)[:ASKED]
            if len(asked):
                about = Subject(subject.benchmark, subject.collection, setting=f"{low:,} to {dealt.sizes[asked].max():,} rows")
                figures += _class(dealt, collection, folder, [int(tenant) for tenant in asked], about)
        figures.append(
            subject.of(SHARED, "everything").counted("memory", collection.stats().memory_per_vector, len(dealt.vectors))
        )
    return figures


def _fill_all(collection: Collection, dealt: Dealt) -> None:
    for tenant in range(len(dealt.sizes)):
        dealt.fill(collection.tenant(str(tenant)), tenant)


def _class(dealt: Dealt, collection: Collection, folder: Path, asked: Sequence[int], about: Subject) -> Iterator[Figure]:
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    recalls, foreign = [], 0
    for tenant in asked:
        handle = collection.tenant(str(tenant))
        with ExitStack() as stack:
            ask = {SHARED: handle.search}
            minima = {OWN: None, COMPRESSED: FEWEST_COMPRESSED}
            for name, minimum in minima.items():
                if minimum is None or dealt.sizes[asked].min() >= minimum:
                    path = folder / f"{tenant} {name}.rarebit"
                    own = stack.enter_context(Collection.open(path, training_minimum=minimum))
                    dealt.fill(own, tenant)
                    ask[name] = own.search
            for name, times in _in_turns(ask, dealt.queries).items():
                seconds[name] += times
            for query in dealt.queries[:TURN]:
                found = [hit.id for hit in handle.search(query, K)]
                foreign += sum(not key.startswith(f"{tenant} ") for key in found)
                recalls.append(_recall(dealt, tenant, query, found))
    shared = np.array(seconds[SHARED])
    for name, times in seconds.items():
        yield about.of(name).sampled("p50_ms", 1000 * np.array(times), np.median)
        yield about.of(name).sampled("ratio", shared / np.array(times), np.median)
    yield about.of(SHARED).sampled(f"recall@{K}", np.array(recalls))
    yield about.of(SHARED).counted("foreign", foreign, len(recalls) * K)


def _in_turns(ask: dict[str, Callable[..., Any]], queries: Queries) -> dict[str, list[float]]:
    """Ask every query of every target, in turns of some, so that all meet the same moments of the machine."""
    for search in ask.values():
        search(queries[0], K)
    seconds: dict[str, list[float]] = {name: [] for name in ask}
    for start in range(0, len(queries), TURN):
        for name, search in ask.items():
            seconds[name] += [timed(partial(search, query, K))[1] for query in queries[start : start + TURN]]
    return seconds


def _recall(dealt: Dealt, tenant: int, query: Any, found: Sequence[str]) -> float:
    rows = dealt.rows(tenant)
    best = np.argsort(-(dealt.vectors[rows] @ query))[:K] + rows.start
    return len({int(key.split()[1]) for key in found} & set(best.tolist())) / len(best)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rarebit.cookbook.benchmarks.tenants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR layout")
    parser.add_argument("--collections", default="eltec-eng", help="names of collections, with commas between")
    parser.add_argument("--rows", type=int, default=200_000, help="passages to deal out")
    parser.add_argument("--tenants", type=int, default=10_000, help="to whom")
    parser.add_argument("--queries", type=int, default=1000, help="passages to ask with")
    parser.add_argument("--quick", action="store_true", help="2,000 rows, 100 tenants and 20 queries")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    rows, tenants, queries = (2000, 100, 20) if given.quick else (given.rows, given.tenants, given.queries)
    faiss.omp_set_num_threads(1)
    figures: list[Figure] = []
    for name in given.collections.split(","):
        passages = chosen(list(read_corpus(given.data / name.strip())), rows + queries, shortest=SHORTEST)
        vectors = embedded([passage.text for passage in passages], given.cache)
        rows = len(passages) - queries
        dealt = Dealt.of(vectors[:rows], [passage.text for passage in passages[:rows]], vectors[rows:], tenants)
        with TemporaryDirectory(prefix="rarebit-") as place:
            found = measure(dealt, Path(place), Subject("tenants", name.strip()))
        print(f"{name}: {rows:,} rows, {tenants:,} tenants, {queries} queries\n{table(found, (f'recall@{K}', 'ratio'))}\n")
        figures += found
    if given.json:
        write_json(figures, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
