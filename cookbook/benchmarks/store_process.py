"""One store in a process of its own: fills it, or opens and measures it. Started by :mod:`.stores`, with a job in a JSON file.

``python -m rarebit.cookbook.benchmarks.store_process JOB.json``

Rows are appended to the job's file as they are there, so that what was measured stays when the process is killed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from traceback import print_exc
from typing import Any, TypeAlias

import numpy as np

from rarebit.arrays import Vectors
from rarebit.cookbook.benchmarks.figures import Figure, p95
from rarebit.cookbook.benchmarks.figures import Subject as About
from rarebit.cookbook.benchmarks.store_data import BLOCK, BUCKET, KINDS, SHARES, TOPIC, K, Prepared, Trial, Where
from rarebit.cookbook.benchmarks.store_gauges import Search, asked_by_two, bytes_in, memory, on_cores, timed
from rarebit.cookbook.benchmarks.store_subjects import CannotError, Store, load_store

FILL, OPEN, SEARCH, THREADS, FIRST, FILTERS = "fill", "open", "search", "threads", "first filter", "filters"
METRICS: dict[str, tuple[str, ...]] = {
    FILL: ("add_per_s", "disk"),
    OPEN: ("open_s", "memory", "memory_total", "memory_peak"),
    SEARCH: (f"recall@{K}", "p50_ms", "p95_ms", "ratio_to_flat"),
    THREADS: ("qps_2_threads", "qps_ratio_to_flat"),
    FIRST: ("first_filter_s",),
    FILTERS: (
        f"recall@{K}",
        "complete",
        "cold_p50_ms",
        "cold_p95_ms",
        "warm_p50_ms",
        "warm_p95_ms",
        "cold_ratio_to_flat",
        "warm_ratio_to_flat",
    ),
}
"""What each part of a measurement gives."""

TURN = 20
WARM_UP = 10
MEMORY_QUERIES = 50
PATIENCE = 20
"""The share of its time after which it is judged whether a store can be filled at all."""

FEWEST = 3
"""Queries that are asked however long they take."""


@dataclass(frozen=True)
class Reason:
    """A figure that cannot be: its value says why."""

    benchmark: str
    collection: str
    method: str
    setting: str
    metric: str
    value: str
    low: None = None
    high: None = None
    n: int = 0


Row: TypeAlias = Figure | Reason


@dataclass(frozen=True)
class Job:
    """What a process has to do.

    ``budget`` is the seconds that one part of the measurement should take: the search, and a quarter for each filter. ``limit``
    is the seconds that filling may take.
    """

    place: str
    settings: dict[str, Any]
    data: str
    folder: str
    out: str
    about: dict[str, str]
    steps: list[str]
    budget: float
    limit: float

    def save(self, path: Path) -> None:
        """Write the job for the process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def setting_of(about: About, kind: str, share: float, mode: str) -> About:
    """Name the setting of a filter."""
    named = f"{about.setting}, {100 * share:g} % {kind}"
    return replace(about, setting=f"{named}, {mode}" if mode else named)


def reasons(about: About, part: str, why: str) -> list[Reason]:
    """Give the reason in place of each figure of a part."""
    return [Reason(**asdict(about), metric=metric, value=why) for metric in METRICS[part]]


def why_of(error: BaseException) -> str:
    """Say in a line what went wrong."""
    first = str(error).strip().split("\n", maxsplit=1)[0]
    return first if isinstance(error, CannotError) else f"{type(error).__name__}: {first}"


class Measurement:
    """Measures one store, and writes rows."""

    def __init__(self, job: Job) -> None:
        """Read the rows of the size."""
        self.job = job
        self.about = About(**job.about)
        self.prepared = Prepared(Path(job.data))
        self.store_class = load_store(job.place)
        for name in self.store_class.imports:
            import_module(name)
        self.folder = Path(job.folder)
        self.store = self._new()
        self.queries: list[list[float]] = self.prepared.queries.tolist()
        self.rows = len(self.prepared.vectors)

    def _new(self) -> Store:
        return self.store_class(self.folder, self.prepared, **self.job.settings)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows to the job's file."""
        with Path(self.job.out).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)

    def attempt(self, part: str, about: About, measure: Callable[[], list[Row]]) -> None:
        """Measure a part, or write why it cannot be."""
        try:
            rows = measure()
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is its reason
            rows = [*reasons(about, part, why_of(error))]
        self.write(rows)

    def fill(self) -> None:
        """Fill the store, and count its bytes.

        Raises:
            CannotError: it is not worth waiting for.
        """
        seconds = timed(self.store.create)[1]
        added = 0
        for batch in self.prepared.batches():
            seconds += timed(partial(self.store.add, batch))[1]
            added += len(batch.ids)
            if seconds > self.job.limit / PATIENCE and seconds * self.rows / added > self.job.limit:
                raise CannotError(
                    f"at {added / seconds:,.0f} rows a second, filling would take more than the {self.job.limit:,.0f} s allowed"
                )
        seconds += timed(self.store.finish)[1]
        rows: list[Row] = [self._counted("add_per_s", self.rows / seconds)]
        if self.store_class.reopens:
            rows.append(self._counted("disk", bytes_in(self.folder) / self.rows))
        else:
            rows.append(self._reason("disk", "in memory only"))
        self.write(rows)

    def _counted(self, metric: str, value: float) -> Figure:
        return self.about.counted(metric, value, self.rows)

    def _reason(self, metric: str, why: str) -> Reason:
        return Reason(**asdict(self.about), metric=metric, value=why)

    def grow(self, before: dict[str, int], seconds: float | None) -> list[Row]:
        """Ask some queries, and tell what the process has grown by."""
        deadline = perf_counter() + self.job.budget
        for query in self.queries[:MEMORY_QUERIES]:
            self.store.search(query)
            if perf_counter() > deadline:
                break
        after = memory()
        opened: Row = self._reason("open_s", "in memory only") if seconds is None else self.about.counted("open_s", seconds, 1)
        grown = {"memory": "RssAnon", "memory_total": "VmRSS", "memory_peak": "VmHWM"}
        if not after:
            return [opened, *(self._reason(metric, "the system has no /proc") for metric in grown)]
        less = {**before, "VmHWM": before["VmRSS"]}
        return [
            opened,
            *(self._counted(metric, (after[name] - less[name]) / self.rows) for metric, name in grown.items()),
        ]

    def open(self) -> list[Row]:
        """Open the store in this process, which has not seen it yet, and answer the first query."""
        self.store = self._new()
        before = memory()
        started = perf_counter()
        self.store.open()
        self.store.search(self.queries[0])
        return self.grow(before, perf_counter() - started)

    def measure(self) -> None:
        """Measure searches, in turns with the exact index, and filters."""
        flat = _flat(self.prepared.vectors)
        given = self.prepared.queries

        def ask_flat(number: int) -> Any:
            return flat.search(given[number : number + 1], K)

        def ask(number: int) -> Any:
            return self.store.search(self.queries[number])

        on_cores(1)
        self.attempt(SEARCH, self.about, lambda: self.search(ask, ask_flat))
        on_cores(None)
        self.attempt(THREADS, self.about, lambda: self.threads(ask, ask_flat))
        on_cores(1)
        self.attempt(FIRST, self.about, self.first_filters)
        for kind in KINDS:
            for share in SHARES:
                for mode in self.store_class.modes:
                    about = setting_of(self.about, kind, share, mode)
                    trials = self.prepared.trials(kind, share)
                    self.attempt(FILTERS, about, partial(self.filters, about, trials, mode, ask_flat))

    def search(self, ask: Search, ask_flat: Search) -> list[Row]:
        """Let the store and the exact index answer queries in turns."""
        deadline = perf_counter() + self.job.budget
        for number in range(min(WARM_UP, len(self.queries))):
            ask(number)
            ask_flat(number)
            if perf_counter() > deadline:
                break
        found: list[Any] = []
        seconds: dict[Search, list[float]] = {ask: [], ask_flat: []}
        order = np.random.default_rng(0)
        for start in range(0, len(self.queries), TURN):
            numbers = range(start, min(start + TURN, len(self.queries)))
            for place in order.permutation(2):
                asked = (ask, ask_flat)[place]
                for number in numbers:
                    answer, took = timed(partial(asked, number))
                    seconds[asked].append(took)
                    if asked is ask:
                        found.append(answer)
                        if len(found) >= FEWEST and perf_counter() > deadline:
                            break
            if perf_counter() > deadline:
                break
        both = min(map(len, seconds.values()))
        own, exact = (np.array(taken[:both]) for taken in (seconds[ask], seconds[ask_flat]))
        recalls = [self.prepared.recall(number, self.store.rows(answer)) for number, answer in enumerate(found)]
        return [
            self.about.sampled(f"recall@{K}", np.array(recalls)),
            self.about.sampled("p50_ms", 1000 * own, np.median),
            self.about.sampled("p95_ms", 1000 * own, p95),
            self.about.sampled("ratio_to_flat", own / exact, np.median),
        ]

    def threads(self, ask: Search, ask_flat: Search) -> list[Row]:
        """Let two threads ask as fast as they can."""
        seconds = self.job.budget / 6
        (asked, per_second), (_, of_flat) = (asked_by_two(search, len(self.queries), seconds) for search in (ask, ask_flat))
        return [
            self.about.counted("qps_2_threads", per_second, asked),
            self.about.counted("qps_ratio_to_flat", per_second / of_flat, asked),
        ]

    def first_filters(self) -> list[Row]:
        """Filter by each field for the first time."""
        seconds = []
        for where in (Where(BUCKET, 0, 1), Where(TOPIC, 0, 1)):
            self.store.tell(where)
            seconds.append(timed(partial(self.store.search, self.queries[0], where, self.store_class.modes[0]))[1])
        return [self.about.counted("first_filter_s", max(seconds), len(seconds))]

    def filters(self, about: About, trials: Sequence[Trial], mode: str, ask_flat: Search) -> list[Row]:
        """Use each filter for the first time with one query, and for the second time with another."""
        deadline = perf_counter() + self.job.budget / 4
        taken: list[tuple[float, float, float, float]] = []
        shares: list[tuple[float, float]] = []
        for start in range(0, len(trials), TURN):
            turn = trials[start : start + TURN]
            exact = [[timed(partial(ask_flat, number))[1] for number in (trial.query, trial.second)] for trial in turn]
            for trial, of_flat in zip(turn, exact, strict=True):
                self.store.tell(trial.where)
                found, cold = timed(partial(self.store.search, self.queries[trial.query], trial.where, mode))
                warm = timed(partial(self.store.search, self.queries[trial.second], trial.where, mode))[1]
                taken.append((cold, warm, cold / of_flat[0], warm / of_flat[1]))
                rows = self.store.rows(found)
                shares.append((self.prepared.recall_of(trial, rows), float(len(rows) == min(K, trial.matching))))
                if len(taken) >= FEWEST and perf_counter() > deadline:
                    break
            if perf_counter() > deadline:
                break
        cold_s, warm_s, cold_ratios, warm_ratios = np.array(taken).T
        recalls, complete = np.array(shares).T
        return [
            about.sampled(f"recall@{K}", recalls),
            about.counted("complete", complete.mean(), len(complete)),
            about.sampled("cold_p50_ms", 1000 * cold_s, np.median),
            about.sampled("cold_p95_ms", 1000 * cold_s, p95),
            about.sampled("warm_p50_ms", 1000 * warm_s, np.median),
            about.sampled("warm_p95_ms", 1000 * warm_s, p95),
            about.sampled("cold_ratio_to_flat", cold_ratios, np.median),
            about.sampled("warm_ratio_to_flat", warm_ratios, np.median),
        ]


def _flat(vectors: Vectors) -> Any:
    faiss: Any = import_module("faiss")
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + BLOCK]))
    return index


def main(arguments: Sequence[str] | None = None) -> int:
    """Do a job."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    with suppress(OSError):  # when memory runs out, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    try:
        _do(job)
    except Exception as error:  # noqa: BLE001 -- as in attempt
        print_exc()
        print(why_of(error), file=sys.stderr)  # the last line is the reason that the other process gives
        return 1
    return 0


def _do(job: Job) -> None:
    measurement = Measurement(job)
    before = memory()
    if FILL in job.steps:
        measurement.fill()
    if OPEN in job.steps:
        measurement.write(measurement.open() if measurement.store_class.reopens else measurement.grow(before, None))
        measurement.measure()
        measurement.store.close()


if __name__ == "__main__":
    sys.exit(main())
