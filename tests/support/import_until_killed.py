"""A process that imports, and kills itself in the middle of a batch: ``python import_until_killed.py COLLECTION BATCHES``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

from support.vectors import clustered

ROWS, DIM, BATCH = 600, 16, 100


def source() -> object:
    from rarebit.retrievers.importing import NumpySource

    return NumpySource(clustered(ROWS, DIM), [f"text {row}" for row in range(ROWS)], ids=[str(row) for row in range(ROWS)])


class Dying:
    """A source that kills its process when the next batch is asked for."""

    def __init__(self, batches: int) -> None:
        self._inner, self._batches = source(), batches
        self.name, self.count, self.ranked_by = "dying", ROWS, None

    def batches(self, size: int) -> Iterator[object]:
        for number, rows in enumerate(self._inner.batches(size)):
            if number == self._batches:
                os.kill(os.getpid(), signal.SIGKILL)
            yield rows


if __name__ == "__main__":
    from rarebit import Collection
    from rarebit.retrievers.importing import import_into

    import_into(Collection.open(sys.argv[1]), Dying(int(sys.argv[2])), batch_size=BATCH)
