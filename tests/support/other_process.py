"""The other of two processes that write to one file in turn."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from rarebit import Collection


def vector_of(writer: str, turn: int) -> list[float]:
    """Give the vector that a writer writes in a turn: a direction of its own."""
    directions: list[float] = np.random.default_rng([len(writer), turn]).standard_normal(16).tolist()
    return directions


def write_in_turn(path: Path, pipe: Connection) -> None:
    """At each number received: report what is seen, then write; stop at None."""
    with Collection.open(path) as collection:
        while (turn := pipe.recv()) is not None:
            seen = sorted(row.id for row in collection)
            nearest = collection.search(vector_of("parent", turn), 1)[0].id
            collection.add([vector_of("child", turn)], ids=[f"child {turn}"])
            if turn % 5 == 4:
                collection.delete([f"parent {turn - 2}"])
            pipe.send((seen, nearest))
