"""Bulk builds with ``rarebit build``: rows a second here and by workers on Ray, and whether a killed worker changes anything.

``python -m rarebit.cookbook.benchmarks.bulk --data DIR [--collections eltec-eng] [--rows 100000] [--embed 2000] [--workers 2]``

Each method is the command itself, in a process of its own and with a new work folder. Passages with vectors, of which there are
``--rows``, are read from Parquet; ``--embed`` of them are embedded with MiniLM too.

    - ``rows_per_s``: passages a second from the start of the process to its end, Ray's start and the load included.
    - ``same``: 1 if the checksum over ids, texts, metadata and codes, in their order, is that of the build in one process.

``workers, one killed``: one of the workers gets SIGKILL when the first shard is there, and Ray starts another.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rarebit.arrays import Vectors
from rarebit.cookbook.benchmarks.embedded import Passage, chosen, default_cache, embedded, read_corpus
from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.cookbook.benchmarks.judged import SHORTEST
from rarebit.extras import require

BENCHMARK: Final = "bulk"
HERE: Final = "in one process"
DRAWN: Final = 201_000
"""Passages that are drawn and embedded, as other benchmarks do: their embeddings are kept."""

POLL: Final = 0.02
AT_ONCE: Final = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR layout")
    parser.add_argument("--collections", default="eltec-eng", help="names of collections, with commas between")
    parser.add_argument("--rows", type=int, default=100_000, help="passages with vectors")
    parser.add_argument("--embed", type=int, default=2000, help="passages to embed; 0 for none")
    parser.add_argument("--workers", type=int, default=2, help="on a local Ray")
    parser.add_argument("--quick", action="store_true", help="2,000 rows, 100 embedded")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    for module, extra in (("pyarrow", "parquet"), ("ray.data", "ray")):
        require(module, extra)  # type: ignore[arg-type]
    if given.quick:
        given.rows, given.embed = 2000, 100
    figures = [figure for name in given.collections.split(",") for figure in _measured(name, given)]
    if given.json:
        write_json(figures, given.json)
    print(table(figures, with_intervals=()))
    return 0


def _measured(name: str, given: argparse.Namespace) -> Iterator[Figure]:
    drawn = min(DRAWN, given.rows) if given.quick else max(DRAWN, given.rows)
    passages = chosen(list(read_corpus(given.data / name)), drawn, shortest=SHORTEST)
    vectors = embedded([passage.text for passage in passages], given.cache)
    with TemporaryDirectory(prefix="rarebit-bulk-") as place:
        folder = Path(place)
        source = folder / "passages.parquet"
        write_passages(source, passages[: given.rows], vectors[: given.rows])
        yield from _compared(Subject(BENCHMARK, name, setting="vectors given"), source, folder, given, "--vector-column=vector")
        if given.embed:
            source = folder / "texts.parquet"
            write_passages(source, passages[: given.embed], None)
            yield from _compared(Subject(BENCHMARK, name, setting="embedded"), source, folder, given, "--shard-rows=256")


def write_passages(path: Path, passages: Sequence[Passage], vectors: Vectors | None) -> None:
    """Write passages as Parquet, with their vectors if there are any."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {name: [getattr(each, name) for each in passages] for name in ("id", "title", "text")}
    if vectors is not None:
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    parquet.write_table(pa.table(columns), path, row_group_size=AT_ONCE)


def _compared(subject: Subject, source: Path, folder: Path, given: argparse.Namespace, *more: str) -> Iterator[Figure]:
    workers = ["--ray", f"--workers={given.workers}"]
    methods: dict[str, tuple[list[str], Callable[[int, Path], None] | None]] = {
        HERE: ([], None),
        f"{given.workers} workers": (workers, None),
        f"{given.workers} workers, one killed": (workers, kill_a_worker),
    }
    wanted = ""
    for number, (method, (options, disturb)) in enumerate(methods.items()):
        work = folder / f"{source.stem} {number}"
        took, found = _built(source, work, [*options, *more], disturb)
        wanted = wanted or found["checksum"]
        named, rows = subject.of(method), int(found["rows"])
        told = {"rows_per_s": rows / took, "seconds": took, "same": float(found["checksum"] == wanted)}
        for metric, value in told.items():
            yield Figure(named.benchmark, named.collection, named.method, named.setting, metric, value, None, None, rows)


def _built(
    source: Path, work: Path, options: Sequence[str], disturb: Callable[[int, Path], None] | None
) -> tuple[float, dict[str, Any]]:
    command = [sys.executable, "-m", "rarebit.cli", "build", str(source), "--work", str(work), "--json", *options]
    start = time.perf_counter()
    command += ["--to", f"{work}.rarebit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:  # noqa: S603 -- this package's own command
        if disturb is not None:
            disturb(run.pid, work)
        printed = run.communicate()[0]
    if run.returncode:
        raise RuntimeError(f"rarebit build ended with {run.returncode}")
    return time.perf_counter() - start, json.loads(printed)


def kill_a_worker(run: int, work: Path) -> None:
    """Wait until workers have made something, and kill one of them."""
    while not (found := _workers_of(run)):
        time.sleep(POLL)
    stage = work / ("shards" if (work / "codec.json").exists() else "vectors")
    while not list(stage.glob("*.parquet")):
        time.sleep(POLL)
    os.kill(found[0], signal.SIGKILL)
    print(f"worker {found[0]} killed, with {len(list(stage.glob('*.parquet')))} files in {stage.name}", file=sys.stderr)


def _workers_of(run: int) -> list[int]:
    """Find the actors among the processes that a run has started, and those that these have."""
    every = ["ps", "-A", "-o", "pid=,ppid=,args="]
    listed = subprocess.run(every, capture_output=True, text=True, check=True)  # noqa: S603 -- constant
    lines = [line.split(None, 2) for line in listed.stdout.splitlines()]
    below, names = {run}, {int(line[0]): line[2] for line in lines if len(line) > 2}
    for _ in range(4):
        below |= {int(line[0]) for line in lines if int(line[1]) in below}
    return sorted(each for each in below if names.get(each, "").startswith("ray::") and "MapWorker" in names[each])


if __name__ == "__main__":
    sys.exit(main())
