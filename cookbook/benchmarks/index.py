"""The vector index on real passages: what it finds, what it keeps, how long it takes.

``python -m rarebit.cookbook.benchmarks.index --data DIR [--collections eltec-eng] [--rows 200000] [--queries 1000]``

From each collection, distinct paragraphs of at least 30 characters are drawn at random (seeded); the first ``--rows`` are
stored with their texts and metadata, the others are the queries, so no query finds itself. All are embedded with MiniLM.
Everything runs in one process with one faiss thread, in a temporary folder.

Search (k = 10), one query at a time. The methods take turns of 20 queries, in a random (seeded) order, so that a slow moment of
the machine meets all alike, and all but the first of a turn find in the processor's caches what their own method left there, as
in a process that has one store; ten queries before that are not counted. LangChain and LlamaIndex are given lists of floats, as
their embedding models give them.
    - ``recall@10``: share of the exact ten best by float32 cosine that were found (a row whose cosine equals the tenth best
      within 1e-6 counts: either is right).
    - ``worst_score_error``, ``mean_score_error``: distance of a hit's score from the true cosine, taken in float64.
    - ``memory``: bytes a vector of everything that the index keeps in memory: ``stats().memory_per_vector``, or a faiss index
      as faiss serializes it. Texts and metadata, which come with Rarebit's hits, are on disk; the faiss indexes keep none.
    - ``p50_ms``, ``p95_ms``; ``ratio_to_flat``: the median over queries of a method's time divided by IndexFlatIP's time for
      the same query.

Sizes, in bytes a vector: the parts of the memory; ``disk`` for codes and fine vectors; ``file`` for the whole file.
``add_per_s``: rows a second, in calls of 10,000 and with the codec's trainings, vectors given; ``add_per_s_sustained``: of the
median call, in which nothing is trained. In a fresh process: ``open_s``, to open the file (which
the operating system has in its cache) and answer the first query; ``rss_growth``, how much more memory of its own the process
has after 50 queries than after opening and searching an empty collection, divided by the rows (so what does not grow with the
rows, such as the buffers of SQLite and of the libraries, is in it). Pages of the file that are mapped are not in it: they are
the operating system's cache, whether they are mapped or read.

Filters: a random integer ``bucket`` in 0..999 is asked for in ranges that hold about 10, 1 and 0.1 % of the rows, a new range
for each query. ``recall@10`` is against exact search among the matching rows; ``complete`` is the share of queries that gave
10 rows, or all that match. ``cold_p50_ms`` is with a filter for the first time, ``warm_p50_ms`` another query with the same
filter. ``memory`` is that of the search, with the rows of the last filters, which Rarebit remembers. The control is
IndexFlatIP that is told which rows match: cold includes handing them over, not finding them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rarebit import And, Collection, Compare, Filter
from rarebit.arrays import RowIds, Vector, Vectors
from rarebit.cookbook.benchmarks.embedded import chosen, default_cache, embedded, read_corpus
from rarebit.cookbook.benchmarks.figures import Figure, Subject, p95, table, write_json
from rarebit.cookbook.benchmarks.judged import SHORTEST
from rarebit.cookbook.benchmarks.methods import (
    BUCKETS,
    FLAT,
    RAREBIT,
    Answer,
    Data,
    K,
    Method,
    Places,
    Stored,
    answer_of,
    faiss_methods,
    fill,
    rarebit_methods,
    timed,
)

WARM_UP = 10
TURN = 20
WIDTHS = (100, 10, 1)
FILTERED_QUERIES = 100
FRESH_QUERIES = 50
WITH_INTERVALS = (f"recall@{K}", "ratio_to_flat")
"""Metrics whose intervals are printed; the JSON has all."""


def measure_search(methods: Sequence[Method], data: Data, subject: Subject) -> list[Figure]:
    """Let all methods answer the queries in turns, and judge the answers."""
    seconds, answers = _rounds(methods, data)
    flat = seconds[FLAT]
    figures = []
    for method in methods:
        about = subject.of(method.name, method.setting)
        own = list(zip(data.queries, answers[method.name], strict=True))
        errors = [data.score_errors(query, answer) for query, answer in own]
        figures += [
            about.sampled(f"recall@{K}", np.array([data.recall(query, places) for query, (places, _) in own])),
            about.counted("worst_score_error", max(error.max() for error in errors), len(own)),
            about.sampled("mean_score_error", np.array([error.mean() for error in errors])),
            about.counted("memory", method.memory_per_vector, len(data.vectors)),
            about.sampled("p50_ms", 1000 * seconds[method.name], np.median),
            about.sampled("p95_ms", 1000 * seconds[method.name], p95),
            about.sampled("ratio_to_flat", seconds[method.name] / flat, np.median),
        ]
    return figures


def _rounds(methods: Sequence[Method], data: Data) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, list[Answer]]]:
    for query in data.queries[:WARM_UP]:
        for method in methods:
            method.ask(query.tolist() if method.takes_list else query)
    seconds = {method.name: np.zeros(len(data.queries)) for method in methods}
    answers: dict[str, list[Answer]] = {method.name: [] for method in methods}
    order = np.random.default_rng(0)
    for start in range(0, len(data.queries), TURN):
        for place in order.permutation(len(methods)):
            method = methods[place]
            for number, query in enumerate(data.queries[start : start + TURN], start):
                given = query.tolist() if method.takes_list else query
                raw, seconds[method.name][number] = timed(partial(method.ask, given))
                answers[method.name].append(method.read(raw))
    return seconds, answers


def measure_sizes(files: dict[str, Stored], opened: dict[Method, Collection], data: Data, subject: Subject) -> Iterator[Figure]:
    """Count the bytes of each file that was filled, and the time that it took."""
    rows = len(data.vectors)
    for method, collection in opened.items():
        if method.name not in files:
            continue
        about, stats = subject.of(method.name, method.setting), collection.stats()
        for part, size in stats.memory.items():
            yield about.counted(f"memory: {part}", size / rows, rows)
        yield about.counted("disk", stats.disk_per_vector, rows)
        yield about.counted("file", stats.disk["file"] / rows, rows)
        yield about.counted("add_per_s", files[method.name].rows_per_second, rows)
        yield about.counted("add_per_s_sustained", files[method.name].sustained, rows)
        if method.name == RAREBIT:
            yield from _measure_fresh(files[method.name].path, data, about)


def _measure_fresh(path: Path, data: Data, about: Subject) -> Iterator[Figure]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds, growth = process.submit(in_fresh_process, path, data.queries[:FRESH_QUERIES]).result()
    yield about.counted("open_s", seconds, 1)
    if growth is not None:
        yield about.counted("rss_growth", growth / len(data.vectors), len(data.vectors))


def in_fresh_process(path: Path, queries: Vectors) -> tuple[float, int | None]:
    """Measure seconds to open a file and answer the first query, and the bytes that the process has grown by after all queries.

    The growth is None where the operating system does not tell it in ``/proc``.
    """
    faiss.omp_set_num_threads(1)
    with Collection.open(path.with_name("empty.rarebit"), dim=queries.shape[1]) as empty:
        empty.search(queries[0], K)
        before = _resident_bytes()
    started = perf_counter()
    with Collection.open(path, create=False) as collection:
        collection.search(queries[0], K)
        seconds = perf_counter() - started
        for query in queries:
            collection.search(query, K)
        after = _resident_bytes()
    return seconds, None if before is None or after is None else after - before


def _resident_bytes() -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), None)


@dataclass(frozen=True)
class Trial:
    """A filter that was not used before, the rows that match it, a query for its first use and one for its second."""

    tree: Filter
    matching: RowIds
    first: Vector
    second: Vector


@dataclass(frozen=True)
class Asked:
    """What a trial's first use found, and the seconds of the first and of the second."""

    found: Places
    cold: float
    warm: float


def trials(data: Data, width: int) -> list[Trial]:
    """Make up to 100 filters on ranges of buckets, each with at least one matching row."""
    made: list[Trial] = []
    for start in np.random.default_rng(width).permutation(BUCKETS - width + 1).tolist():
        matching = np.flatnonzero((data.buckets >= start) & (data.buckets < start + width))
        if len(matching):
            tree = And(Compare("bucket", "gte", start), Compare("bucket", "lt", start + width))
            turn = len(made)
            made.append(Trial(tree, matching, data.queries[turn], data.queries[(turn + 1) % len(data.queries)]))
        if len(made) == min(FILTERED_QUERIES, len(data.queries)):
            break
    return made


def measure_filters(collection: Collection, data: Data, subject: Subject) -> list[Figure]:
    """Search with filters that match many and few rows, in Rarebit and in the exact index."""
    flat = faiss.IndexFlatIP(data.vectors.shape[1])
    flat.add(data.vectors)
    figures: list[Figure] = []
    for width in WIDTHS:
        made = trials(data, width)
        setting = f"{100 * width / BUCKETS:g} %, {np.mean([len(trial.matching) for trial in made]):,.1f} rows"
        asked = [_ask_rarebit(collection, data, trial) for trial in made]
        about = subject.of(RAREBIT, setting)
        figures += _judged(asked, made, data, about)
        figures.append(about.counted("memory", collection.stats().memory_per_vector, len(data.vectors)))
        asked = [_ask_flat(flat, trial) for trial in made]
        figures += _judged(asked, made, data, subject.of("faiss IndexFlatIP, rows given", setting))
    return figures


def _ask_rarebit(collection: Collection, data: Data, trial: Trial) -> Asked:
    hits, cold = timed(lambda: collection.search(trial.first, K, filter=trial.tree))
    _, warm = timed(lambda: collection.search(trial.second, K, filter=trial.tree))
    return Asked(answer_of(data, [hit.id for hit in hits], [hit.score for hit in hits])[0], cold, warm)


def _ask_flat(flat: Any, trial: Trial) -> Asked:
    library: Any = faiss

    def search(query: Vector, parameters: Any) -> Any:
        return flat.search(query[np.newaxis], K, params=parameters)

    def search_first() -> tuple[Any, Any]:
        parameters = library.SearchParameters(sel=library.IDSelectorBatch(trial.matching))
        return parameters, search(trial.first, parameters)

    (parameters, (_, places)), cold = timed(search_first)
    _, warm = timed(lambda: search(trial.second, parameters))
    return Asked(places[0][places[0] >= 0], cold, warm)


def _judged(asked: Sequence[Asked], made: Sequence[Trial], data: Data, about: Subject) -> Iterator[Figure]:
    pairs = [(given.found, trial) for given, trial in zip(asked, made, strict=True)]
    recalls = [data.recall(trial.first, found, among=trial.matching) for found, trial in pairs]
    complete = [float(len(found) == min(K, len(trial.matching))) for found, trial in pairs]
    yield about.sampled(f"recall@{K}", np.array(recalls))
    yield about.counted("complete", np.mean(complete), len(made))
    yield about.sampled("cold_p50_ms", np.array([1000 * given.cold for given in asked]), np.median)
    yield about.sampled("warm_p50_ms", np.array([1000 * given.warm for given in asked]), np.median)


def measure(folder: Path, rows: int, queries: int, cache: Path) -> list[Figure]:
    """Measure everything on one collection, and print it."""
    passages = chosen(list(read_corpus(folder)), rows + queries, shortest=SHORTEST)
    if len(passages) < rows + queries:
        queries = max(1, min(queries, len(passages) // 10))
        rows = len(passages) - queries
        print(f"{folder.name} has only {len(passages):,} such passages")
    data = Data(passages, embedded([passage.text for passage in passages], cache), rows)
    print(f"{folder.name}: {rows:,} rows, {queries:,} queries, k = {K}, {data.vectors.shape[1]} dimensions, one faiss thread\n")
    subject = Subject("index", folder.name)
    with TemporaryDirectory(prefix="rarebit-") as place, ExitStack() as stack:
        files = fill(Path(place), data)
        opened = rarebit_methods(files, data, stack)
        found = [
            _shown("search", measure_search([*faiss_methods(data), *opened], data, subject)),
            _shown("sizes in bytes a vector, and times", list(measure_sizes(files, opened, data, subject))),
            _shown("filters", measure_filters(next(iter(opened.values())), data, subject)),
        ]
    return [figure for part in found for figure in part]


def _shown(title: str, figures: list[Figure]) -> list[Figure]:
    print(f"{title}\n{table(figures, WITH_INTERVALS)}\n", flush=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rarebit.cookbook.benchmarks.index", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR layout")
    parser.add_argument("--collections", default="eltec-eng", help="names of collections, with commas between")
    parser.add_argument("--rows", type=int, default=200_000, help="passages to store")
    parser.add_argument("--queries", type=int, default=1000, help="passages to ask with")
    parser.add_argument("--quick", action="store_true", help="2,000 rows and 100 queries")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    rows, queries = (2000, 100) if given.quick else (given.rows, given.queries)
    faiss.omp_set_num_threads(1)
    figures: list[Figure] = []
    for name in given.collections.split(","):
        figures += measure(given.data / name.strip(), rows, queries, given.cache)
    if given.json:
        write_json(figures, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
