"""Engines past one machine: Rarebit's two stages beside the engine's own float32 index through its usual LangChain adapter.

``python -m rarebit.cookbook.benchmarks.engines --data DIR [--engines postgresql,milvus] [--rows 50000,200000] [--queries 400]``

A PostgreSQL server with pgvector, or Milvus Lite, is started in a temporary folder. The stores are filled through LangChain
with the rows of :mod:`.stores`, 4,096 a call, and take turns of 20 queries in one process, whose documents come with texts and
metadata.

    - ``add_per_s``: rows a second, vectors given, with what each needs to be searched: training and indexes for Rarebit, over
      the filtered fields too; an HNSW index for pgvector, built by its adapter when all rows are there.
    - ``index``: bytes a row of the index that a search runs through, which has to be in memory to be fast: over bits for
      Rarebit, over float32 for the others, with the vectors in it. ``tables``, ``other indexes``: of everything else.
    - ``p50_ms``, ``p95_ms``, ``recall@10``: one query at a time. ``ratio``: the median over queries of Rarebit's time over
      that of the line. pgvector finds more where it looks at more of its index (``hnsw.ef_search``, 40 unless said).
    - Filters match 10 or 1 % of the rows at random; ``complete`` is the share of queries that gave ten. Each is used once.

The engine's own quantisation (``halfvec``, or bits) cannot be had through its adapter, which makes columns of float32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from rarebit.cookbook.benchmarks.embedded import chosen, default_cache, embedded, read_corpus
from rarebit.cookbook.benchmarks.engine_store import EngineStore
from rarebit.cookbook.benchmarks.figures import Figure, Subject, p95, table, write_json
from rarebit.cookbook.benchmarks.judged import SHORTEST
from rarebit.cookbook.benchmarks.store_data import (
    KINDS,
    K,
    Prepared,
    Trial,
    prepare,
    prepare_passages,
)
from rarebit.cookbook.benchmarks.store_gauges import timed
from rarebit.cookbook.own_server import own_server
from rarebit.errors import InputError

BENCHMARK: Final = "engines"
ROWS: Final = (50_000, 200_000)
SHARES: Final = (0.1, 0.01)
TURN: Final = 20
WARM_UP: Final = 10
QUICK: Final = 2000
ENGINES: Final = {"postgresql": "engine_postgres", "milvus": "engine_milvus"}
"""The engines, and the modules of their stores."""


def measured(
    about: Subject, prepared: Prepared, url: str, kinds: Sequence[type[EngineStore]], queries: int
) -> Iterator[Figure]:
    """Fill the stores on an engine, and ask them in turns; the first one is Rarebit's."""
    stores = [kind(Path(), prepared) for kind in kinds]
    count = len(prepared.vectors)
    for store in stores:
        store.connect(url)
        seconds = timed(store.create)[1]
        for batch in prepared.batches():
            seconds += timed(partial(store.add, batch))[1]
        seconds += timed(store.finish)[1]
        own = about.of(store.method)
        yield own.counted("add_per_s", count / seconds, count)
        for name, size in store.sizes().items():
            yield own.counted(name, size / count, count)
    asked = prepared.queries[:queries].tolist()
    yield from _plain(about, prepared, [*stores, *(wider for store in stores for wider in store.wider())], asked)
    for share in SHARES:
        trials = prepared.trials(KINDS[0], share)
        yield from _filtered(replace(about, setting=f"{about.setting}, {100 * share:g} %"), prepared, stores, trials, asked)
    for store in stores:
        store.close()


def _plain(about: Subject, prepared: Prepared, stores: Sequence[EngineStore], asked: list[list[float]]) -> Iterator[Figure]:
    order = np.random.default_rng(0)
    for store in stores:
        for query in asked[:WARM_UP]:
            store.search(query)
    seconds = np.zeros((len(stores), len(asked)))
    recalls = np.zeros_like(seconds)
    for start in range(0, len(asked), TURN):
        for place in order.permutation(len(stores)):
            for number in range(start, min(start + TURN, len(asked))):
                found, seconds[place, number] = timed(partial(stores[place].search, asked[number]))
                recalls[place, number] = prepared.recall(number, stores[place].rows(found))
    yield from _told(about, stores, seconds, recalls)


def _filtered(
    about: Subject, prepared: Prepared, stores: Sequence[EngineStore], trials: Sequence[Trial], asked: list[list[float]]
) -> Iterator[Figure]:
    trials = [trial for trial in trials if trial.query < len(asked)]
    seconds = np.zeros((len(stores), len(trials)))
    recalls, complete = np.zeros_like(seconds), np.zeros_like(seconds)
    for place, store in enumerate(stores):
        for number, trial in enumerate(trials):
            found, seconds[place, number] = timed(partial(store.search, asked[trial.query], trial.where))
            rows = store.rows(found)
            recalls[place, number] = prepared.recall_of(trial, rows)
            complete[place, number] = len(rows) == min(K, trial.matching)
    yield from _told(about, stores, seconds, recalls)
    for store, own in zip(stores, complete, strict=True):
        yield about.of(store.method).counted("complete", own.mean(), len(own))


def _told(about: Subject, stores: Sequence[EngineStore], seconds: Any, recalls: Any) -> Iterator[Figure]:
    for store, took, found in zip(stores, seconds, recalls, strict=True):
        own = about.of(store.method)
        yield own.sampled(f"recall@{K}", found)
        yield own.sampled("p50_ms", 1000 * took, np.median)
        yield own.sampled("p95_ms", 1000 * took, p95)
    for store, took in zip(stores[1:], seconds[1:], strict=True):
        yield about.of(store.method).sampled("ratio", seconds[0] / took, np.median)


@contextmanager
def _running(engine: str, folder: Path) -> Iterator[tuple[str, Sequence[type[EngineStore]]]]:
    """Start an engine in a folder; gives its address, and the stores."""
    if engine not in ENGINES:
        raise InputError(f"got the engine {engine!r}, wanted one of {list(ENGINES)}")
    stores = import_module(f"rarebit.cookbook.benchmarks.{ENGINES[engine]}")
    start = own_server if engine == "postgresql" else stores.own_folder
    with start(folder) as url:
        yield url, stores.STORES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--engines", default=",".join(ENGINES), help="(default: %(default)s)")
    parser.add_argument("--collections", default="eltec-eng", help="(default: %(default)s)")
    parser.add_argument("--rows", help="sizes, multiples of 1000, with commas between")
    parser.add_argument("--queries", type=int, default=400, help="(default: %(default)s)")
    parser.add_argument("--embedded", type=int, default=200_000, help="passages to embed; rows beyond them are mixed")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rows and 100 queries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args(arguments)
    sizes = [QUICK] if given.quick else [int(size) for size in given.rows.split(",")] if given.rows else ROWS
    real, queries = (QUICK, 100) if given.quick else (given.embedded, given.queries)
    engines: list[str] = given.engines.split(",")
    figures: list[Figure] = []
    for name in given.collections.split(","):
        passages = chosen(list(read_corpus(given.data / name)), real + 1000, shortest=SHORTEST)
        vectors = embedded([passage.text for passage in passages], given.cache)
        for rows, engine in [(rows, engine) for rows in sizes for engine in engines]:
            with ExitStack() as stack:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="rarebit-")))
                prepare_passages(folder, passages, vectors, 1000)
                prepared = prepare(folder / f"{rows}", rows)
                url, kinds = stack.enter_context(_running(engine, folder / "server"))
                mixed = f", {rows - real:,} of them mixed" if rows > real else ""
                about = Subject(BENCHMARK, name, setting=f"{rows:,} rows{mixed}")
                found = list(measured(about, prepared, url, kinds, queries))
            print(f"\n{name}, {engine}")
            print(table(found, with_intervals=(f"recall@{K}", "ratio")), flush=True)
            figures += found
            if given.json:
                write_json(figures, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
