"""Rows in the codes of another training: copied, and put in the place of those of before, as :mod:`.steps` says."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from rarebit.errors import EngineError
from rarebit.retrievers.engines.engine import UNTRAINED, Kept, Recoding
from rarebit.retrievers.engines.milvus.connections import Connections
from rarebit.retrievers.engines.milvus.learned import Learned
from rarebit.retrievers.engines.milvus.names import Names
from rarebit.retrievers.engines.milvus.rows import FETCHED, WHOLE, Numbered, Rows, code_of, new_row_of, stored
from rarebit.retrievers.engines.milvus.steps import Step, Steps

MOST_GENERATION: Final = 2**31 - 2
EVERY: Final = "row_id >= 0"


class Replacing:
    """Puts other rows in the place of a collection's.

    Args:
        connections: to Milvus.
        names: of the collection.
        steps: of the collection.
        learned: keeps codecs and bits.
        new_rows: creates a collection of rows with so many bits, spread over so many partitions.
    """

    def __init__(
        self, connections: Connections, names: Names, steps: Steps, learned: Learned, new_rows: Callable[[int, int], Rows]
    ) -> None:
        """Nothing is done yet."""
        self._connections, self._names, self._steps, self._learned = connections, names, steps, learned
        self._new_rows = new_rows

    def __call__(self, before: Step, after: Kept, copy: Callable[[Rows, Rows], None]) -> bool:
        """Copy, and copy what has changed; False if somebody else changed the collection meanwhile.

        Args:
            before: the step that is in force.
            after: what the new rows mean.
            copy: makes the second rows what the first ones are; it is called twice.
        """
        # Those of trainings that died, or that will be refused: one that begins after this one's end is not among them.
        left = [name for name in self._connections.call("list_collections") if self._names.is_rows(name)]
        learned = self._learned.generations()
        generation = UNTRAINED if after.plane is None else 1 + secrets.randbelow(MOST_GENERATION)
        source = Rows(self._connections, before.rows)
        target = self._new_rows(after.plane.bits if after.plane else 0, before.partitions)
        closed = replace(before, number=before.number + 1, is_open=False)
        last = Step(before.number + 2, target.name, after.settings, generation, partitions=before.partitions)
        is_done = False
        try:
            if generation != UNTRAINED:
                self._learned.write(generation, after)
            copy(source, target)
            is_done = self._steps.take(closed) and self._finish(source, target, copy, closed, last)
        finally:
            self._clear_away(left if is_done else [target.name], learned if is_done else [generation])
        return is_done

    def _finish(self, source: Rows, target: Rows, copy: Callable[[Rows, Rows], None], closed: Step, last: Step) -> bool:
        """Copy while nobody writes; whatever goes wrong, let them write again."""
        try:
            copy(source, target)
            target.count(EVERY)  # waits until the server has all of them in its searches
        except BaseException:
            with suppress(EngineError):
                self._steps.take(replace(closed, number=closed.number + 1, is_open=True))
            raise
        return self._steps.take(last)

    def _clear_away(self, rows: Sequence[str], generations: Sequence[int]) -> None:
        """Drop what no step needs any more."""
        for name in rows:
            with suppress(EngineError):  # the next training does it
                Rows(self._connections, name).drop()
        with suppress(EngineError):
            self._learned.forget(generations)


class Copy:
    """Makes some rows what others are, in other codes.

    Args:
        recode: turns codes into others.
    """

    def __init__(self, recode: Recoding) -> None:
        """Nothing is copied yet."""
        self._recode = recode

    def __call__(self, source: Rows, target: Rows) -> None:
        """Write what is missing or other, and delete what is gone."""
        there = {each.key: each.row_id for part in target.numbered(EVERY) for each in part}
        for part in source.numbered(EVERY):
            other = [each for each in part if there.pop(each.key, None) != each.row_id]
            for start in range(0, len(other), FETCHED):
                self._write(source, target, other[start : start + FETCHED])
        for _ in target.delete(list(there)):
            pass

    def _write(self, source: Rows, target: Rows, numbered: Sequence[Numbered]) -> None:
        found = list(source.fetched(numbered, (*WHOLE, "tenant")))
        if not found:
            return
        recoded = self._recode([code_of(row) for row in found])
        rows = []
        for row, (row_id, code, fine, plane) in zip(found, recoded, strict=True):
            rows += stored(row["tenant"], [new_row_of(row)._replace(code=code, fine=fine, plane=plane)], [row_id])
        for _ in target.write(rows):
            pass
