"""How memory, disk, machines and money grow from a million vectors to ten thousand million, from measured bytes.

``python -m rarebit.cookbook.benchmarks.scaling [--figures DIR] [--memory-price 3] [--disk-price 0.1] [--machine-memory 64]``

Reads the figures of :mod:`.stores` and :mod:`.engines` and prints Markdown: ``scaling.md`` beside this file is its output.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GIB: Final = 2**30
COUNTS: Final = (10**6, 10**7, 10**8, 10**9, 10**10)
FIGURES: Final = Path(__file__).parent / "results"
BUSY: Final = 0.75
"""Share of a machine's memory that indexes may fill; the rest is the system's, and the cache of what is on disk."""

EMBEDDED_MOST: Final = 10**7
"""Vectors up to which one file is a plan: it was measured up to a million, and its training is that of one process."""


@dataclass(frozen=True)
class Measured:
    """What a vector takes somewhere.

    Args:
        name: of the method.
        rows: at how many rows it was measured.
        memory: bytes a vector that have to be in memory for searches to be fast.
        disk: bytes a vector on disk, texts and metadata among them.
        recall: of the ten nearest.
        milliseconds: of one query, the median.
        single: whether it is on one machine in any case.
    """

    name: str
    rows: int
    memory: float
    disk: float
    recall: float
    milliseconds: float
    single: bool = False


@dataclass(frozen=True)
class Prices:
    """What is assumed, all of it: put in your own.

    Args:
        memory: dollars a month for a GiB of memory of a rented machine, its processors with it.
        disk: dollars a month for a GiB of fast disk.
        machine: GiB of memory of a machine.
    """

    memory: float
    disk: float
    machine: float


def measured(folder: Path) -> list[Measured]:
    """Read the bytes from the figures in a folder; engines that were not measured are left out."""
    stores = _figures(folder / "stores.json", "rarebit via LangChain")
    largest = max(stores, key=_rows)
    own = stores[largest]
    found = [
        Measured("Rarebit in a file", _rows(largest), own["memory"], own["disk"], own["recall@10"], own["p50_ms"], single=True)
    ]
    path = folder / "engines.json"
    names = {row["method"] for row in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else set()
    for name in sorted(names):
        settings = {setting: own for setting, own in _figures(path, name).items() if "index" in own}
        if settings:
            largest = max(settings, key=_rows)
            own = settings[largest]
            disk = own["index"] + own["tables"] + own["other indexes"]
            found.append(Measured(name, _rows(largest), own["index"], disk, own["recall@10"], own["p50_ms"]))
    return found


def _figures(path: Path, method: str) -> dict[str, dict[str, float]]:
    """Give the metrics of a method by its settings without filters."""
    found: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        if row["method"] == method and "%" not in row["setting"]:
            found.setdefault(row["setting"], {})[row["metric"]] = row["value"]
    return found


def _rows(setting: str) -> int:
    return int(setting.split(" rows", maxsplit=1)[0].replace(",", ""))


def report(found: Sequence[Measured], prices: Prices) -> str:
    """Write the Markdown."""
    parts = [_HEAD.format(prices=prices, busy=BUSY, most=EMBEDDED_MOST), "## Measured, a vector\n\n" + _measured_table(found)]
    parts += [f"## {count:,} vectors\n\n" + _cost_table(found, count, prices) for count in COUNTS]
    return "\n\n".join([*parts, _worked_example(found[0], COUNTS[1], prices)]) + "\n"


def _worked_example(of: Measured, count: int, prices: Prices) -> str:
    memory, disk = of.memory * count / GIB, of.disk * count / GIB
    money = memory * prices.memory + disk * prices.disk
    return f"""## The arithmetic of one line

{of.name}, {count:,} vectors:

- memory: {count:,} x {of.memory:,.0f} bytes / 2^30 = {memory:,.1f} GiB
- disk: {count:,} x {of.disk:,.0f} bytes / 2^30 = {disk:,.0f} GiB
- money: {memory:,.1f} x {prices.memory:g} + {disk:,.0f} x {prices.disk:g} = {money:,.0f} dollars a month"""


_HEAD: Final = """# From a million vectors to ten thousand million

Printed by `python -m rarebit.cookbook.benchmarks.scaling`, from the bytes and times in `results/`; nothing in it is measured at
more rows than the first table says, and everything beyond that is multiplication:

- **memory** = vectors x bytes a vector of the index that a search runs through; **disk** = vectors x bytes of everything, texts
  and metadata among them.
- **machines** = memory / ({busy:g} x {prices.machine:g} GiB), rounded up: a machine is not filled to the brim. One copy of
  everything; replicas multiply all of it.
- **money** = memory x {prices.memory:g} dollars a GiB and month + disk x {prices.disk:g} dollars a GiB and month. Both are
  assumptions (`--memory-price`, `--disk-price`), without traffic, backups and people.
- **Times** are not multiplied: the graph of one machine's part grows about with the logarithm of its rows (Milvus Lite
  compares all of them, so there it is with the rows themselves), and all parts are asked at once; a query costs its time on
  every machine that it goes to, one for a tenant that is a partition. They hold where the rows that are re-scored are cached:
  otherwise each of a few hundred candidates is a random read from disk.
- **One file** is a plan up to about {most:,} vectors, and was measured up to a million."""


def _measured_table(found: Sequence[Measured]) -> str:
    lines = ["| | measured at | memory | disk | recall@10 | median of one query |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {each.name} | {each.rows:,} rows | {each.memory:,.0f} bytes | {each.disk:,.0f} bytes | {each.recall:.3f} | "
        f"{each.milliseconds:.1f} ms |"
        for each in found
    ]
    return "\n".join(lines)


def _cost_table(found: Sequence[Measured], count: int, prices: Prices) -> str:
    lines = ["| | memory | disk | machines | dollars a month |", "|---|---|---|---|---|"]
    for each in found:
        memory, disk = count * each.memory / GIB, count * each.disk / GIB
        if each.single and count > EMBEDDED_MOST:
            lines.append(f"| {each.name} | {memory:,.1f} GiB | {disk:,.0f} GiB | not a plan | |")
            continue
        machines = math.ceil(memory / (BUSY * prices.machine))
        money = memory * prices.memory + disk * prices.disk
        lines.append(f"| {each.name} | {memory:,.1f} GiB | {disk:,.0f} GiB | {machines:,} | {money:,.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures (default: those of the project)")
    parser.add_argument("--memory-price", type=float, default=3.0, help="dollars a GiB and month (default: %(default)s)")
    parser.add_argument("--disk-price", type=float, default=0.1, help="dollars a GiB and month (default: %(default)s)")
    parser.add_argument("--machine-memory", type=float, default=64, help="GiB of a machine (default: %(default)s)")
    given = parser.parse_args(arguments)
    prices = Prices(given.memory_price, given.disk_price, given.machine_memory)
    sys.stdout.write(report(measured(given.figures), prices))
    return 0


if __name__ == "__main__":
    sys.exit(main())
