"""The other of two processes that write to one file in turn."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from rarebit import Collection


def write_in_turn(path: Path, pipe: Connection) -> None:
    """At each number received: report what is seen, then write; stop at None."""
    with Collection.open(path) as collection:
        while (turn := pipe.recv()) is not None:
            seen = sorted(row.id for row in collection)
            nearest = collection.search([float(turn), 1.0], 1)[0].id
            collection.add([[-float(turn) - 1, 1.0]], ids=[f"child {turn}"])
            if turn % 5 == 4:
                collection.delete([f"parent {turn - 2}"])
            pipe.send((seen, nearest))
