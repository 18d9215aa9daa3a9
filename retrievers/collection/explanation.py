"""How a search was done: its plan, the rows that it was among, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from rarebit.retrievers.collection.records import Hit
from rarebit.retrievers.collection.selection import Selection


@dataclass(frozen=True)
class Explanation:
    """What ``search(..., explain=True)`` gives.

    ``plan``: how the candidates were found, in words. ``rows``: how many the caller may see; ``matches``: those of them that
    match the filter, counted before the search; ``scanned``: codes that were looked at; ``candidates``: how many were taken to
    be scored again by the fine tier, at most. ``seconds``: time by step.
    """

    hits: Sequence[Hit]
    plan: str
    rows: int
    matches: int
    scanned: int
    candidates: int
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in a few lines."""
        times = ", ".join(f"{step} {1000 * seconds:.2f} ms" for step, seconds in self.seconds.items())
        return (
            f"{self.plan}: {self.matches:,} of {self.rows:,} rows match, {self.scanned:,} codes scanned, "
            f"{self.candidates:,} candidates, {len(self.hits)} hits\n{times}"
        )


class Steps:
    """Notes what a search does, if anybody wants to know.

    Args:
        wanted: whether to note anything.
    """

    def __init__(self, *, wanted: bool = False) -> None:
        """Begin to note."""
        self.wanted = wanted
        self._told: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note the time that a block takes."""
        if not self.wanted:
            yield
            return
        started = perf_counter()
        yield
        self._seconds[step] = self._seconds.get(step, 0.0) + perf_counter() - started

    def told(self, **facts: Any) -> None:
        """Note what was counted."""
        if self.wanted:
            self._told |= facts

    def explained(self, hits: Sequence[Hit]) -> Explanation:
        """Put what was noted together."""
        return Explanation(hits, **self._told, seconds=self._seconds)


EXACT_PLAN: Final = "every vector of the tenant"


def plan_of(selection: Selection, visible: int, matching: int, scanned: int) -> str:
    """Name the plan of a search."""
    if not matching:
        return "nothing to search"
    if selection.row_ids is not None:
        if scanned == matching:
            return "the matching rows one by one"
        return "scan that passes over rows that do not match"
    if scanned < visible:
        return "scan of the nearest lists"
    return "scan of every row" if selection.owners is None else "scan of the tenant's rows"
