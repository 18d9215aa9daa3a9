"""Where everything lies in the files of a collection, and how to damage it there."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

Regions = dict[str, list[range]]
"""Name of a region -> the ranges of bytes that it takes up in its file."""

HEADER = 100
"""Bytes of the first page that describe the database; the schema takes the rest."""


def of_database(path: Path) -> Regions:
    """Attribute each page of an SQLite file to its table or index, by SQLite's own walk."""
    with sqlite3.connect(path) as raw:
        page_size = raw.execute("PRAGMA page_size").fetchone()[0]
        pages = raw.execute("SELECT name, pageno FROM dbstat ORDER BY pageno").fetchall()
        count = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.close()
    regions: Regions = {"header": [range(HEADER)]}
    for name, number in pages:
        first = HEADER if number == 1 else (number - 1) * page_size
        regions.setdefault(name, []).append(range(first, number * page_size))
    unused = set(range(1, count + 1)).difference(number for _, number in pages)
    if unused:  # by anything, but kept for what comes
        regions["unused"] = [range((number - 1) * page_size, number * page_size) for number in sorted(unused)]
    return regions


def whole(path: Path) -> Regions:
    """Take a file for one region."""
    return {path.suffix: [range(path.stat().st_size)]}


PARTS: dict[str, Callable[[Path], Regions]] = {"": of_database, "-index": whole}
"""Ending of each file of a collection -> what finds its regions."""


def files_of(path: Path) -> list[tuple[Path, Callable[[Path], Regions]]]:
    """Give the files of a collection that are there."""
    parts = [(path.with_name(path.name + ending), find) for ending, find in PARTS.items()]
    return [(part, find) for part, find in parts if part.exists()]


def flips(content: bytes, where: list[range], rng: random.Random, turns: int) -> Iterator[bytes]:
    """Flip bits of a region: a single one, one in a byte's head, a few in one page, or a burst that follow one another."""
    pages = [page for page in where if any(content[page.start : page.stop])] or where
    for turn in range(turns):
        flipped, page = bytearray(content), rng.choice(pages)
        used = [place for place in page if content[place]] or list(page)
        match turn % 4:
            case 0:  # a byte that says something: most of a page may be empty
                flipped[rng.choice(used)] ^= 1 << rng.randrange(8)
            case 1:  # the head of the page, and the list of its cells
                flipped[page.start + rng.randrange(min(40, len(page)))] ^= 1 << rng.randrange(8)
            case 2:
                for _ in range(8):
                    flipped[rng.choice(used)] ^= 1 << rng.randrange(8)
            case _:
                start = rng.choice(used)
                for place in range(start, min(start + rng.randint(2, 64), page.stop)):
                    flipped[place] ^= rng.randrange(256)
        yield bytes(flipped)
