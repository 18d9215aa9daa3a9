"""Rarebit and what a user would pick instead, each through its adapter, with documents returned, from 50,000 rows to a million.

``python -m rarebit.cookbook.benchmarks.stores --data DIR [--rows 50000,200000,1000000] [--stores rarebit,chroma]``

Passages as in :mod:`.index`, embedded with MiniLM; rows beyond the ``--embedded`` ones are mixed from them, and the setting
says how many (:mod:`.store_data`). The queries are 1,000 other passages. k is 10. Each store is filled in a process of its own,
with default settings and 4,096 rows a call, and opened and measured in a fresh one (:mod:`.store_process`).

    - ``add_per_s``: rows a second, of making, adding, building indexes and writing, with every core; vectors given.
    - ``disk``: bytes a vector that the files take.
    - ``open_s``: to open and answer the first query, the files being in the operating system's cache.
    - ``memory``: bytes a vector of anonymous memory that opening and 50 queries add to a process that has imported everything,
      after what was freed is given back. ``memory_total`` counts mapped pages of files too; ``memory_peak`` is the most that
      the process had on the way.
    - ``p50_ms``, ``p95_ms``, ``ratio_to_flat``: one query at a time, on one core, in turns of 20 with faiss's IndexFlatIP in
      the same process; the ratio is the median over queries.
    - ``qps_2_threads``, ``qps_ratio_to_flat``: two threads that ask as fast as they can, on every core.
    - ``recall@10``: share of the exact ten best that were found; ties within 1e-6 count.

    - ``first_filter_s``: the first filter by a field that no filter was by before, the longer of two.

Filters match exactly 50, 10, 1 or 0.1 % of the rows: ``random`` ones, ``correlated`` ones, whose rows are near the query, and
``anti-correlated`` ones, whose rows are far from it. Each is used twice in a process: ``cold`` is the first time, ``warm`` the
second, with another query; ratios are to IndexFlatIP without a filter. ``recall@10`` is against exact search among the matching
rows, ``complete`` the share of queries that gave ten. A store with two ways to filter is measured with both.

A store is given ``--budget`` seconds for its searches and a quarter of that for each filter; ``n`` says how many queries it
answered in that time.

Where a store cannot do something, fails, or takes too long, the figure's value is a text, the reason, and ``n`` is 0. With
``--work DIR`` finished stores are kept, and a run that is killed goes on behind them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from rarebit.cookbook.benchmarks.embedded import chosen, default_cache, embedded, read_corpus
from rarebit.cookbook.benchmarks.figures import Figure
from rarebit.cookbook.benchmarks.figures import Subject as About
from rarebit.cookbook.benchmarks.judged import SHORTEST
from rarebit.cookbook.benchmarks.store_data import KINDS, SHARES, prepare, prepare_passages
from rarebit.cookbook.benchmarks.store_process import (
    FILL,
    FILTERS,
    METRICS,
    OPEN,
    Job,
    Reason,
    Row,
    reasons,
    setting_of,
)
from rarebit.cookbook.benchmarks.store_report import print_tables
from rarebit.cookbook.benchmarks.store_subjects import FRAMEWORKS, SUBJECTS, Subject, chosen_subjects, load_store
from rarebit.errors import InputError

BENCHMARK = "stores"
ROWS = (50_000, 200_000, 1_000_000)
PROCESS = "rarebit.cookbook.benchmarks.store_process"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Libraries for matrices use one thread for a query, as they do beside other work."""


@dataclass(frozen=True)
class Plan:
    """What a run measures; all but ``rows`` and ``subjects`` must be the same in runs that share a folder."""

    data: Path
    cache: Path
    work: Path
    collection: str
    embedded: int
    queries: int
    budget: float
    limit: float
    rows: Sequence[int]
    subjects: Sequence[Subject]

    @property
    def folder(self) -> Path:
        """Where the collection's passages, sizes and finished stores are."""
        return self.work / self.collection

    @property
    def identity(self) -> dict[str, Any]:
        """What the runs that share a folder have in common."""
        return {
            "collection": self.collection,
            "embedded": self.embedded,
            "queries": self.queries,
            "budget": self.budget,
            "limit": self.limit,
        }


def prepare_run(plan: Plan) -> int:
    """Embed, unless a run before has done it; give how many real passages there are to store.

    Raises:
        InputError: the folder belongs to another kind of run.
    """
    kept = plan.folder / "run.json"
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
        real: int = found.pop("real")
        if found != plan.identity:
            raise InputError(
                f"got {plan.folder} of another kind of run ({found}), wanted {plan.identity}: delete it, or name another"
            )
        return real
    passages = chosen(list(read_corpus(plan.data / plan.collection)), plan.embedded + plan.queries, shortest=SHORTEST)
    queries = plan.queries
    if len(passages) < plan.embedded + queries:
        queries = max(1, min(queries, len(passages) // 10))
        print(f"{plan.collection} has only {len(passages):,} such passages")
    vectors = embedded([passage.text for passage in passages], plan.cache)
    prepare_passages(plan.folder, passages, vectors, queries)
    kept.write_text(json.dumps({**plan.identity, "real": len(passages) - queries}), encoding="utf-8")
    return len(passages) - queries


def measure_all(plan: Plan) -> list[Row]:
    """Measure every store at every size, and print."""
    real = prepare_run(plan)
    found: list[Row] = []
    for rows in plan.rows:
        folder = plan.folder / f"{rows}"
        print(f"{plan.collection}: {rows:,} rows, {max(0, rows - real):,} of them mixed", flush=True)
        dim = prepare(folder, rows).queries.shape[1]
        own: list[Row] = []
        for place, subject in enumerate(plan.subjects, start=1):
            about = About(BENCHMARK, plan.collection, subject.method, setting_for(rows, real))
            started = perf_counter()
            measured = measure_subject(plan, subject, about, folder)
            seconds = perf_counter() - started
            print(f"  {place}/{len(plan.subjects)} {subject.method}: {seconds:.1f} s", flush=True)
            own += measured
        print_tables(own, f"{plan.collection}, {setting_for(rows, real)}, {dim} dimensions", plan.subjects)
        found += own
    return found


def setting_for(rows: int, real: int) -> str:
    """Name a size, and say how many rows are mixed."""
    return f"{rows:,} rows" + (f", {rows - real:,} of them mixed" if rows > real else "")


def measure_subject(plan: Plan, subject: Subject, about: About, folder: Path) -> list[Row]:
    """Fill, open and measure a store in processes of its own, unless its figures are there; what is missing has a reason."""
    kept = folder / f"{subject.key}.done.json"
    if not kept.exists():
        out = folder / f"{subject.key}.jsonl"
        out.unlink(missing_ok=True)
        why = _run_processes(plan, subject, about, folder, out)
        rows = [*_rows_in(out)]
        rows += _missing(subject, about, rows, why or "not measured")
        aside = kept.with_suffix(".tmp")
        aside.write_text(json.dumps([asdict(row) for row in rows], ensure_ascii=False), encoding="utf-8")
        aside.replace(kept)
        out.unlink(missing_ok=True)
    return [_row(row) for row in json.loads(kept.read_text(encoding="utf-8"))]


def _run_processes(plan: Plan, subject: Subject, about: About, folder: Path, out: Path) -> str | None:
    """Run the two processes, or the one that does both; give why one failed."""
    reopens = load_store(subject.place).reopens
    store = folder / f"{subject.key}.store"
    rmtree(store, ignore_errors=True)
    store.mkdir()
    deadline = perf_counter() + plan.limit
    try:
        for steps in ([FILL], [OPEN]) if reopens else ([FILL, OPEN],):
            job = Job(
                place=subject.place,
                settings=subject.settings,
                data=str(folder),
                folder=str(store),
                out=str(out),
                about=asdict(about),
                steps=steps,
                budget=plan.budget,
                limit=plan.limit,
            )
            why = _run_process(plan, job, folder / f"{subject.key}.job.json", deadline, one_thread=OPEN in steps)
            if why is not None:
                return why
    finally:
        rmtree(store, ignore_errors=True)
    return None


def _run_process(plan: Plan, job: Job, path: Path, deadline: float, *, one_thread: bool) -> str | None:
    job.save(path)
    log = path.with_suffix(".log")
    environment = {**os.environ, **(ONE_THREAD if one_thread else {})}
    try:
        with log.open("w", encoding="utf-8") as file:
            ended = subprocess.run(  # noqa: S603 -- this very interpreter
                [sys.executable, "-m", PROCESS, str(path)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=max(0.0, deadline - perf_counter()),
                check=False,
            )
    except subprocess.TimeoutExpired:
        return f"took more than {plan.limit:,.0f} s"
    finally:
        path.unlink()
    why = _why_ended(ended.returncode, log)
    if why is None:
        log.unlink()
    return why


def _why_ended(code: int, log: Path) -> str | None:
    if code == 0:
        return None
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", most likely for want of memory" if -code == signal.SIGKILL else "")
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"ended with exit status {code}"


def _rows_in(path: Path) -> Iterator[Row]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield _row(json.loads(line))


def _row(kept: dict[str, Any]) -> Row:
    return Reason(**kept) if isinstance(kept["value"], str) else Figure(**kept)


def _missing(subject: Subject, about: About, rows: Sequence[Row], why: str) -> Iterator[Row]:
    """Give the reason in place of every figure that is not there."""
    found = {(row.setting, row.metric) for row in rows}
    wanted = [row for part in METRICS if part != FILTERS for row in reasons(about, part, why)]
    for kind in KINDS:
        for share in SHARES:
            for mode in load_store(subject.place).modes:
                wanted += reasons(setting_of(about, kind, share, mode), FILTERS, why)
    return (row for row in wanted if (row.setting, row.metric) not in found)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a JSON list, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rarebit.cookbook.benchmarks.stores", description=(__doc__ or "").split("\n")[0]
    )
    known = list(dict.fromkeys(subject.store for subject in SUBJECTS))
    parser.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR layout")
    parser.add_argument("--collections", type=_names, default=["eltec-eng"], help="names of collections, with commas between")
    parser.add_argument("--rows", type=_numbers, help="sizes, multiples of 1000, with commas between")
    parser.add_argument("--stores", type=_names, help=f"some of {', '.join(known)}, with commas between")
    parser.add_argument("--frameworks", type=_names, help=f"some of {', '.join(FRAMEWORKS)}, with commas between")
    parser.add_argument("--queries", type=int, default=1000, help="passages to ask with")
    parser.add_argument("--embedded", type=int, default=200_000, help="passages to embed; rows beyond them are mixed")
    parser.add_argument(
        "--budget", type=float, default=60, help="seconds for the searches of a store, a quarter for each filter"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds for a store at one size, filling it included")
    parser.add_argument("--quick", action="store_true", help="2,000 rows and 100 queries")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--plot", type=Path, help="svg or png file to draw to; needs matplotlib")
    parser.add_argument("--work", type=Path, help="folder for rows and finished stores, which a killed run goes on behind")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    subjects = list(_installed(chosen_subjects(given.stores, given.frameworks)))
    with ExitStack() as stack:
        work = given.work or Path(stack.enter_context(TemporaryDirectory(prefix="rarebit-")))
        rows = [row for name in given.collections for row in measure_all(_plan(given, name, work, subjects))]
    if given.plot:
        from rarebit.cookbook.benchmarks.store_plot import draw

        draw(rows, given.plot)
    if given.json:
        write_rows(rows, given.json)
    return 0


def _installed(subjects: Sequence[Subject]) -> Iterator[Subject]:
    for subject in subjects:
        if subject.missing:
            print(f"left out: {subject.method}: {', '.join(subject.missing)} is not installed")
        else:
            yield subject


def _plan(given: argparse.Namespace, collection: str, work: Path, subjects: Sequence[Subject]) -> Plan:
    return Plan(
        data=given.data,
        cache=given.cache,
        work=work,
        collection=collection,
        embedded=2000 if given.quick else given.embedded,
        queries=100 if given.quick else given.queries,
        budget=min(given.budget, 10) if given.quick else given.budget,
        limit=given.limit,
        rows=given.rows or ([2000] if given.quick else ROWS),
        subjects=subjects,
    )


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",")]


def _numbers(given: str) -> list[int]:
    return [int(number) for number in given.split(",")]


if __name__ == "__main__":
    sys.exit(main())
