"""The other of two processes that write to one file in turn."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from rarebit import Collection, Compare


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


def answer(path: Path, pipe: Connection) -> None:
    """Tell what is seen at each question, through one collection that stays open; stop at None."""
    with Collection.open(path, read_only=True) as collection:
        while (about := pipe.recv()) is not None:
            group, name = about
            tenant = collection.tenant(name)
            pipe.send(
                {
                    "rows": sorted(row.id for row in collection),
                    "found": sorted(hit.id for hit in collection.search([1.0] * 16, 1000)),
                    "filtered": sorted(
                        hit.id for hit in collection.search([1.0] * 16, 1000, filter=Compare("group", "eq", group))
                    ),
                    "count": collection.count(Compare("group", "eq", group)),
                    "words": sorted(hit.id for hit in collection.search_lexical(f"group{group}", 1000)),
                    "tenants": collection.tenants(),
                    "tenant": sorted(hit.id for hit in tenant.search([1.0] * 16, 1000)),
                    "tenant filtered": sorted(row.id for row in tenant.get(filter=Compare("group", "eq", group))),
                }
            )
