"""A process that writes until it is killed, and says after each call that it returned.

Run as ``python writer.py COLLECTION LOG FIRST``. What call number n does is a function of n, so that whoever reads the log
knows what must be in the collection.
"""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 40
TRAINING_MINIMUM = 150


def vectors_of(call: int) -> np.ndarray:
    return np.random.default_rng(call).standard_normal((ROWS, 16)).astype(np.float32)


def ids_of(call: int) -> list[str]:
    return [f"{call}-{row}" for row in range(ROWS)]


def run(collection: Any, call: int) -> None:
    """Add; every third call deletes half of an earlier one's rows, every fourth replaces one."""
    if call % 3 == 2:
        collection.delete(ids_of(call - 1)[::2])
    elif call % 4 == 3:
        collection.add(vectors_of(call), texts=[f"replaced by {call}"] * ROWS, ids=ids_of(call - 3))
    else:
        collection.add(vectors_of(call), texts=[f"written by {call}"] * ROWS, ids=ids_of(call), batch_size=16)


def apply(model: dict[str, tuple[int, int]], call: int) -> None:
    """Do to a dictionary id -> (call, row) what :func:`run` does to a collection."""
    if call % 3 == 2:
        for key in ids_of(call - 1)[::2]:
            model.pop(key, None)
    else:
        target = call - 3 if call % 4 == 3 else call
        for row, key in enumerate(ids_of(target)):
            model.pop(key, None)
            model[key] = (call, row)


def main(path: str, log_path: str, first: str) -> None:
    from rarebit import Collection

    collection = Collection.open(path, training_minimum=TRAINING_MINIMUM)
    with Path(log_path).open("a", encoding="utf-8") as log:
        for call in count(int(first)):
            run(collection, call)
            log.write(f"{call}\n")
            log.flush()
            os.fsync(log.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
