"""Moves with ``rarebit move``: from a file to a PostgreSQL server and back, once as they are and once killed half-way.

``python -m rarebit.cookbook.benchmarks.moves --data DIR [--collections eltec-eng] [--rows 200000]``

A server with pgvector is started in a temporary folder. Each move is the command itself, in a process of its own.

    - ``rows_per_s``: rows a second, from the start of the process to its end; both sides are read whole in the end.
    - ``same``: 1 if the checksum over ids, texts, metadata and codes, in their order, is that of the first move.
    - ``copied``: share of the rows that the last process wrote. ``killed half-way``: the process gets SIGKILL when half of the
      rows are on the server, and the same command goes on.
    - ``same hits``: share of queries for which the file that came back gives the hits of the first one, with the same scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rarebit import Collection
from rarebit.cookbook.benchmarks.embedded import chosen, default_cache, embedded, read_corpus
from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.cookbook.benchmarks.judged import SHORTEST
from rarebit.cookbook.benchmarks.store_data import Prepared, prepare, prepare_passages
from rarebit.cookbook.own_server import own_server

BENCHMARK: Final = "moves"
DRAWN: Final = 200_000
"""Passages that are drawn and embedded, as other benchmarks do: their embeddings are kept."""

QUICK: Final = 2000
QUERIES: Final = 100
NAME: Final = "passages"
POLL: Final = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR layout")
    parser.add_argument("--collections", default="eltec-eng", help="names of collections, with commas between")
    parser.add_argument("--rows", type=int, default=200_000, help="a multiple of 1000 (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} rows")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    rows = QUICK if given.quick else given.rows
    figures: list[Figure] = []
    for name in given.collections.split(","):
        drawn = rows if given.quick else max(DRAWN, rows)
        passages = chosen(list(read_corpus(given.data / name)), drawn + 1000, shortest=SHORTEST)
        vectors = embedded([passage.text for passage in passages], given.cache)
        with TemporaryDirectory(prefix="rarebit-") as place, own_server(Path(place) / "server") as url:
            prepare_passages(Path(place), passages, vectors, 1000)
            prepared = prepare(Path(place) / f"{rows}", rows)
            figures += measured(Subject(BENCHMARK, name, setting=f"{rows:,} rows"), prepared, Path(place), url)
    if given.json:
        write_json(figures, given.json)
    print(table(figures, with_intervals=()))
    return 0


def measured(about: Subject, prepared: Prepared, folder: Path, url: str) -> Iterator[Figure]:
    """Fill a file, and move it."""
    first, last = folder / "first.rarebit", folder / "last.rarebit"
    with Collection.open(first) as collection:
        for batch in prepared.batches():
            collection.add(batch.vectors, ids=batch.ids, texts=batch.texts, metadatas=batch.metadatas)
    count = len(prepared.vectors)
    wanted = ""
    moves: dict[str, Callable[[], dict[str, Any]]] = {
        "to the server": lambda: moved(first, url, NAME),
        "to the server, killed half-way": lambda: moved(first, url, f"{NAME} again", killed_at=count // 2),
        "back to a file": lambda: moved(url, last, NAME),
    }
    for method, move in moves.items():
        start = time.perf_counter()
        told = move()
        seconds = time.perf_counter() - start
        wanted = wanted or told["checksum"]
        own = about.of(method)
        yield own.counted("rows_per_s", count / seconds, count)
        yield own.counted("same", float((told["rows"], told["checksum"]) == (count, wanted)), count)
        yield own.counted("copied", told["copied"] / count, count)
    queries = prepared.queries[:QUERIES]
    with Collection.open(first) as one, Collection.open(last) as other:
        hits = [[[(hit.id, hit.score) for hit in own] for own in each.search_many(queries)] for each in (one, other)]
    same = [before == after for before, after in zip(*hits, strict=True)]
    yield about.of("back to a file").counted("same hits", sum(same) / len(same), len(same))


def moved(source: Path | str, target: Path | str, name: str, *, killed_at: int | None = None) -> dict[str, Any]:
    """Move with the command, and give what it tells; with ``killed_at``, killed with so many rows there, and begun again."""
    command = [sys.executable, "-m", "rarebit.cli", "move", str(source), str(target), "--name", name, "--json"]
    if killed_at is not None:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:  # noqa: S603 -- this package's own command
            while run.poll() is None and _count(str(target), name) < killed_at:
                time.sleep(POLL)
            run.kill()
        print(f"killed with {_count(str(target), name):,} rows on the server", file=sys.stderr)
    told: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603
    return told


def _count(url: str, name: str) -> int:
    with Collection.connect(url, name) as there:
        return int(there.count())


if __name__ == "__main__":
    sys.exit(main())
