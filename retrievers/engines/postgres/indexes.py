"""Indexes over the bits and over fields, and how far the first has to look to find the rows with the fewest other bits."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np
from psycopg import sql

from rarebit.retrievers.engines.engine import Kept
from rarebit.retrievers.engines.postgres import schema, statements
from rarebit.retrievers.engines.postgres.connections import Connection
from rarebit.retrievers.engines.postgres.escaping import escaped
from rarebit.retrievers.engines.postgres.kept_table import KeptTable
from rarebit.retrievers.engines.postgres.runner import Runner

FROM: Final = 10_000
"""Rows from which an index over the bits is built; fewer are compared one by one about as fast."""

FEWEST_SCANNED: Final = 40
MOST_SCANNED: Final = 1000
"""The list that an HNSW index of pgvector keeps of what it has found: as long as it is usually, and the longest."""

TRIED: Final = tuple(1 + quarters / 4 for quarters in range(9))
"""Times as many candidates as would hold the nearest if nothing were missed."""

ASKED: Final = 300
"""Rows that are asked for, with and without the index; fewer, so that ``MOST_READ`` rows are read at most."""

FEWEST_ASKED: Final = 10
"""Where so many would have to read more, what was measured before with fewer rows is kept."""

MOST_READ: Final = 50_000_000

NEAREST: Final = 100
SHARE: Final = 0.98
"""Of so many rows with the fewest other bits, what share the index has to find. It then finds more of those that matter: a row
among the ten nearest has fewer other bits than most of these. Of 200,000 novels' passages, .982 to .986 of the ten nearest were
found with .98 of these."""


def build(runner: Runner, table: KeptTable, connection: Connection, kept: Kept) -> None:
    """Build the index over the bits, unless somebody else did."""
    assert kept.plane is not None  # noqa: S101 -- it is trained
    table.check(connection, kept.generation)
    if not table.is_indexed(connection):
        connection.execute(runner.formatted(statements.INDEX, bits=kept.plane.bits))


def build_over_field(runner: Runner, connection: Connection, field: str) -> None:
    """Build an index over the numbers of a field, unless there is one, and let the server count how often they are there."""
    name = "field_" + blake2b(field.encode("utf-8", "replace"), digest_size=8).hexdigest()
    given = {"schema": runner.identifier, "field": sql.Literal(escaped(field))}
    connection.execute(sql.SQL(statements.FIELD_INDEX).format(name=sql.Identifier(name), **given))
    kinds = sql.Identifier(schema.PREFIX + runner.name, name)  # other than an index, they would not be put beside their table
    connection.execute(sql.SQL(statements.FIELD_KINDS).format(name=kinds, **given))
    connection.execute(runner.formatted(statements.ANALYZE))


def enough(runner: Runner, connection: Connection, kept: Kept) -> int:
    """Measure how many candidates the index has to be asked for, to find the nearest among them.

    It is searched as wide as it is asked for candidates: that they are found costs more than that they are scored.
    """
    assert kept.plane is not None  # noqa: S101 -- the index is over its bits
    bits = kept.plane.bits
    asked = min(ASKED, MOST_READ // max(1, kept.tuned_rows))
    if asked < FEWEST_ASKED:
        return kept.candidates
    given = {"count": NEAREST, "some": asked, "share": min(1.0, 2 * asked / max(1, kept.tuned_rows))}
    planes = [plane for (plane,) in connection.execute(runner.formatted(statements.SOME_PLANES, bits=bits), given)]
    farthest = runner.formatted(statements.FARTHEST, bits=bits)

    def distances() -> list[list[float]]:
        found = [connection.execute(farthest, {**given, "plane": plane}).fetchall() for plane in planes]
        return [[distance for (distance,) in each] for each in found]

    with connection.transaction():
        connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")  # a kept plan would outlive the next lines
        connection.execute("SET LOCAL enable_indexscan = off")
        exact = distances()
        connection.execute("SET LOCAL enable_indexscan = on")
        connection.execute("SET LOCAL enable_seqscan = off")
        scanned = kept.candidates
        for times in TRIED:
            scanned = min(MOST_SCANNED, round(times * kept.candidates))
            connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(scanned)))
            found = [
                np.count_nonzero(np.array(near) <= best[-1]) / len(best)
                for near, best in zip(distances(), exact, strict=True)
                if best
            ]
            if not found or np.mean(found) >= SHARE or scanned == MOST_SCANNED:
                break
    return scanned
