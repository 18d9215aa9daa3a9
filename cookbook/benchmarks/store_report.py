"""The tables of the store benchmark: cells that cannot be have a number, and the reasons stand below."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rarebit.cookbook.benchmarks.figures import Figure
from rarebit.cookbook.benchmarks.store_data import KINDS, SHARES, K
from rarebit.cookbook.benchmarks.store_process import FILL, FIRST, METRICS, OPEN, SEARCH, THREADS, Row
from rarebit.cookbook.benchmarks.store_subjects import Subject

COLUMNS = [metric for part in (OPEN, FILL, SEARCH, THREADS, FIRST) for metric in METRICS[part]]
FILTER_TABLES = {
    f"recall@{K} with a filter": f"recall@{K}",
    "share of filtered queries that gave all they could": "complete",
    "milliseconds of the first query with a filter, median": "cold_p50_ms",
    "milliseconds of the second query with a filter, median": "warm_p50_ms",
    "time of the first query with a filter / IndexFlatIP without": "cold_ratio_to_flat",
}


class Notes:
    """Numbers reasons as they come up."""

    def __init__(self) -> None:
        """Have none."""
        self._numbers: dict[str, int] = {}

    def cell(self, row: Row | None) -> str:
        """Write a figure, or the number of its reason."""
        if row is None:
            return ""
        if isinstance(row, Figure):
            return f"{row.value:,.0f}" if abs(row.value) >= 1000 else f"{row.value:.3g}"
        return f"({self._numbers.setdefault(row.value, len(self._numbers) + 1)})"

    def lines(self) -> list[str]:
        """List the reasons."""
        return [f"({number}) {why}" for why, number in self._numbers.items()]


def print_tables(rows: Sequence[Row], title: str, subjects: Sequence[Subject]) -> None:
    """Print the figures of one size."""
    notes = Notes()
    plain, filtered = _split(rows)
    remarks = {subject.method: subject.note for subject in subjects if subject.note}
    print(f"\n{title}")
    print(_table(["store", *COLUMNS], [[method, *map(notes.cell, map(own.get, COLUMNS))] for method, own in plain.items()]))
    columns = [f"{100 * share:g} % {_SHORT[kind]}" for kind in KINDS for share in SHARES]
    cells = [f"{100 * share:g} % {kind}" for kind in KINDS for share in SHARES]
    for heading, metric in FILTER_TABLES.items():
        lines = [[name, *(notes.cell(own.get((cell, metric))) for cell in cells)] for name, own in filtered.items()]
        print(f"\n{heading}\n{_table(['store', *columns], lines)}")
    print("\n".join(["", *notes.lines(), *(f"{method}: {remark}" for method, remark in remarks.items()), ""]), flush=True)


_SHORT = dict(zip(KINDS, ("rnd", "cor", "anti"), strict=True))


def _split(rows: Sequence[Row]) -> tuple[dict[str, dict[str, Row]], dict[str, dict[tuple[str, str], Row]]]:
    """Divide the rows into those without a filter, by method, and those with one, by method and mode."""
    plain: dict[str, dict[str, Row]] = {}
    filtered: dict[str, dict[tuple[str, str], Row]] = {}
    for method, own in groupby(rows, key=lambda row: row.method):
        for row in own:
            filter_, mode = _filter_in(row.setting)
            if filter_:
                name = f"{method}, {mode}" if mode else method
                filtered.setdefault(name, {})[filter_, row.metric] = row
            else:
                plain.setdefault(method, {})[row.metric] = row
    return plain, filtered


def _filter_in(setting: str) -> tuple[str, str]:
    """Find the filter and the mode in a setting: two empty texts where there is none."""
    for kind in KINDS:
        for share in SHARES:
            filter_ = f", {100 * share:g} % {kind}"
            before, found, after = setting.partition(filter_)
            if found and before.rstrip("0123456789,").endswith((" rows", "mixed")):
                return filter_.removeprefix(", "), after.removeprefix(", ")
    return "", ""


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(line, widths) for line in (head, rule, *lines))


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([line[0].ljust(widths[0]), *cells])
