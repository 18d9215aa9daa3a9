"""Rows in the codes of another training: copied, and put in the place of those of before, as :mod:`.steps` says."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from rarebit.errors import EngineError
from rarebit.retrievers.collection.settings import EmbeddingFingerprint
from rarebit.retrievers.engines.engine import UNTRAINED, Kept, Recoding, StaleCodesError
from rarebit.retrievers.engines.milvus.connections import Connections, GoneError
from rarebit.retrievers.engines.milvus.learned import Learned
from rarebit.retrievers.engines.milvus.names import Names
from rarebit.retrievers.engines.milvus.packed import PACKED, code_of, new_row_of, stored
from rarebit.retrievers.engines.milvus.rows import FETCHED, Numbered, Rows
from rarebit.retrievers.engines.milvus.steps import PATIENCE, Step, Steps

MOST_GENERATION: Final = 2**31 - 2
EVERY: Final = "row_id >= 0"
BEAT: Final = PATIENCE / 3
"""Seconds after which a training that still compares rows shows that it has not died."""


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

    def codes(self, before: Kept, after: Kept, recode: Recoding) -> bool:
        """Give every row new codes; False if somebody else changed the collection meanwhile, and has come to an end.

        Raises:
            LockedError: somebody else's training takes longer than one waits.
            CollectionNotFoundError: somebody dropped the collection.
        """
        step, is_done = self._steps.open(), False
        told = step.settings.fingerprint  # perhaps since the training began to learn
        is_same = step.generation == before.generation and step.settings == _by(before, told).settings
        if is_same:
            try:
                is_done = self(step, _by(after, told), Copy(recode))
            except GoneError:  # another training was faster, and has dropped what this one was copying
                self._steps.look_again()
        if not is_done:
            self._steps.open()
        return is_done

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
        closed = Closed(self._steps, replace(before, number=before.number + 1, is_open=False))
        last = Step(0, target.name, after.settings, generation, partitions=before.partitions)
        useless, forgotten, is_done = [target.name], [generation], False
        try:
            if generation != UNTRAINED:
                self._learned.write(generation, after)
            copy(source, target)
            if closed.take() and self._compare(source, target, copy, closed):
                useless, forgotten = [], []  # until it is known which rows are in force
                is_done = self._put_in_force(last, closed)
                useless, forgotten = (left, learned) if is_done else ([target.name], [generation])
        finally:
            self._clear_away(useless, forgotten)
        return is_done

    def _compare(self, source: Rows, target: Rows, copy: Callable[[Rows, Rows], None], closed: Closed) -> bool:
        """Copy while nobody writes; whatever goes wrong, let them write again. False if somebody did so before the end."""
        try:
            copy(*(Watched(self._connections, rows.name, closed.keep) for rows in (source, target)))
            closed.keep()
            target.count(EVERY)  # waits until the server has all of them in its searches
        except StaleCodesError:
            return False
        except BaseException:
            closed.give_up()
            raise
        return True

    def _put_in_force(self, last: Step, closed: Closed) -> bool:
        """Take the last step. Where this breaks it may have been taken: nothing is dropped that it names."""
        try:
            return self._steps.take(replace(last, number=closed.step.number + 1))
        except BaseException:
            closed.give_up()  # refused, if the last step is there; otherwise nobody waits for it in vain
            raise

    def _clear_away(self, rows: Sequence[str], generations: Sequence[int]) -> None:
        """Drop what no step needs any more."""
        for name in rows:
            with suppress(EngineError):  # the next training does it
                Rows(self._connections, name).drop()
        with suppress(EngineError):
            self._learned.forget(generations)


class Closed:
    """The step that keeps writers away while rows are compared.

    Args:
        steps: of the collection.
        step: to be taken.
    """

    def __init__(self, steps: Steps, step: Step) -> None:
        """Nothing is taken yet."""
        self._steps, self.step, self._since = steps, step, 0.0

    def take(self) -> bool:
        """Take it, unless somebody else took one meanwhile."""
        self._since = time.monotonic()
        return self._steps.take(self.step)

    def give_up(self) -> None:
        """Let others write again into the rows of before, if Milvus can be reached."""
        following = replace(self.step, number=self.step.number + 1, is_open=True)
        with suppress(EngineError):
            if self._steps.take(following) or self._steps.seen.number != following.number or self._steps.seen.is_open:
                return
            self._steps.take(replace(following, number=following.number + 1))  # over one of ours, whose answer was lost

    def keep(self) -> None:
        """Take another such step in time, since those who wait take a training for dead whose step has grown old.

        Raises:
            StaleCodesError: somebody did so.
        """
        if time.monotonic() - self._since <= BEAT:
            return
        following = Closed(self._steps, replace(self.step, number=self.step.number + 1))
        if not following.take():
            raise StaleCodesError
        self.step, self._since = following.step, following._since


class Watched(Rows):
    """Rows that call something again and again while they are read.

    Args:
        connections: to Milvus.
        name: of the collection of Milvus.
        keep: is called.
    """

    def __init__(self, connections: Connections, name: str, keep: Callable[[], None]) -> None:
        """Nothing is asked yet."""
        super().__init__(connections, name)
        self._keep = keep

    def numbered(self, text: str, after: int = 0) -> Iterator[list[Numbered]]:
        """As :class:`Rows` says."""
        for part in super().numbered(text, after):
            self._keep()
            yield part

    def fetched(self, numbered: Sequence[Numbered], fields: Sequence[str], size: int = FETCHED) -> Iterator[dict[str, Any]]:
        """As :class:`Rows` says."""
        self._keep()
        return super().fetched(numbered, fields, size)


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
        found = list(source.fetched(numbered, (PACKED, "tenant")))
        if isinstance(source, Watched) and len(found) < len(numbered):  # nobody writes, so all that were named are there
            raise EngineError(
                f"Milvus gave {len(found)} of {len(numbered)} rows that it had named, wanted all of them: nothing was trained, "
                "train again"
            )
        if not found:
            return
        recoded = self._recode([code_of(row) for row in found])
        rows = []
        for row, (row_id, code, fine, plane) in zip(found, recoded, strict=True):
            rows += stored(row["tenant"], [new_row_of(row)._replace(code=code, fine=fine, plane=plane)], [row_id])
        for _ in target.write(rows):
            pass


def _by(kept: Kept, fingerprint: EmbeddingFingerprint) -> Kept:
    """Give the same with the fingerprint of another model."""
    return replace(kept, settings=replace(kept.settings, fingerprint=fingerprint))
