"""Learning the code of a collection from its own rows.

The first training is part of the write that reaches the minimum. A collection that has grown eightfold since is trained again
in the same way, up to the size of the sample that codes are learned from: what came first need not be like what comes later.
Beyond it, encoding every row anew would keep other writers waiting for too long; ``recompress`` does it without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.choosing import choose
from rarebit.compressors.vectors.exact import Exact
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import CodecError
from rarebit.retrievers.collection import checksums, stored_codes
from rarebit.retrievers.collection import settings as settings_
from rarebit.retrievers.collection.finest import FinestVectors
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.state import changed_state
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.stored_codes import Encoded

Codecs: TypeAlias = tuple[SearchableCodec, FineTier | None]
"""The codec of the codes, and the fine tier where it is to be written."""

SAMPLE_ROWS = 65_536
"""Rows that a code is learned from, drawn at random."""

BATCH_ROWS = 8192
COPIES = 4
"""Copies that a row may have on average among those that are learned from."""

GROWTH = 8
"""How many times as many rows as at the last training call for another."""


def is_due(connection: Connection, settings: Settings, codec: SearchableCodec) -> bool:
    """Whether a write has brought so many rows that the codec should be trained."""
    wanted = settings.new_codec()
    if not wanted.training_minimum:
        return False
    count = changed_state(connection).row_count
    if isinstance(codec, Exact):
        return count >= (settings.training_minimum or wanted.training_minimum)
    grown = GROWTH * settings.trained_rows
    return settings.has_fine_tier and 0 < grown <= min(SAMPLE_ROWS, count)


def learned(
    vectors: Vectors,
    settings: Settings,
    row_count: int,
    queries: Queries | None = None,
    *,
    kept_as: str = Exact.name,
    progress: bool = False,
) -> tuple[Settings, SearchableCodec]:
    """Choose the codec if it is to be chosen, and fit it; gives the settings with what was chosen.

    ``kept_as`` is what the vectors were decoded from: what is measured is measured against them.
    """
    if settings.is_chosen:
        choice = choose(
            vectors,
            code_bytes=settings.code_bytes,
            target_recall=settings.target_recall,
            queries=queries,
            fine=settings.fines,
            progress=progress,
        )
        against = "" if kept_as == Exact.name else f"; measured against the vectors as {kept_as} keeps them"
        settings = settings.chosen(replace(choice, reason=choice.reason + against))
    codec = settings.new_codec().fit(vectors, queries, progress=progress)
    return replace(settings, trained_rows=row_count), codec


def sampled_ids(connection: Connection, seed: int = 0) -> list[int]:
    """Draw row ids to learn from, in order."""
    every = np.fromiter((row_id for (row_id,) in connection.execute("SELECT row_id FROM codes ORDER BY row_id")), np.int64)
    drawn = np.random.default_rng(seed).permutation(len(every))[:SAMPLE_ROWS]
    chosen: list[int] = every[np.sort(drawn)].tolist()
    return chosen


def train(connection: Connection, settings: Settings, codec: SearchableCodec) -> tuple[Settings, SearchableCodec]:
    """Learn the code anew inside a write transaction, and encode every row in it."""
    source = FinestVectors(connection, settings, codec)
    row_count, sampled = changed_state(connection).row_count, sampled_ids(connection)
    sample = source.of(sampled)
    check_unlike(sample, settings)
    chosen, trained = learned(sample, settings, row_count, kept_as=source.kept_as)
    codecs = trained, new_tier(source, chosen, trained)
    every = _batches(sampled, sample) if len(sampled) == row_count else _every_row(connection, source)
    for row_ids, vectors in every:
        write_codes(connection, ("codes", "fine"), row_ids, encoded(vectors, codecs))
    if not chosen.has_fine_tier:
        connection.execute("DELETE FROM fine")
    take_over(connection, chosen, trained)
    return chosen, trained


def _batches(row_ids: list[int], vectors: Vectors) -> Iterator[tuple[list[int], Vectors]]:
    for start in range(0, len(row_ids), BATCH_ROWS):
        yield row_ids[start : start + BATCH_ROWS], vectors[start : start + BATCH_ROWS]


def _every_row(connection: Connection, source: FinestVectors) -> Iterator[tuple[list[int], Vectors]]:
    last = 0
    while row_ids := ids_after(connection, last):
        last = row_ids[-1]
        yield row_ids, source.of(row_ids)


def check_unlike(sample: Vectors, settings: Settings) -> None:
    """Raise CodecError for rows that are nearly all copies: what is learned from them says nothing about others."""
    wanted = settings.training_minimum or settings.new_codec().training_minimum
    unlike = len(set(map(bytes, sample)))
    if COPIES * unlike < min(wanted, len(sample)):
        raise CodecError(f"only {unlike} of {len(sample)} rows differ from each other, wanted {-(-wanted // COPIES)} at least")


def new_tier(source: FinestVectors, settings: Settings, codec: SearchableCodec) -> FineTier | None:
    """Give the fine tier that has to be written beside a new code; None where there is none, or it can stay as it is."""
    tier = FineTier.beside(codec, str(settings.fine))
    stays = tier is not None and source.tier is not None and tier.name == source.tier.name and not tier.is_residual
    return None if stays else tier


def ids_after(connection: Connection, row_id: int) -> list[int]:
    """Give the row ids of the next batch, in order."""
    found = connection.execute("SELECT row_id FROM codes WHERE row_id > ? ORDER BY row_id LIMIT ?", (row_id, BATCH_ROWS))
    return [row_id for (row_id,) in found]


def encoded(vectors: Vectors, codecs: Codecs) -> Encoded:
    """Give the codes and the fine codes; None for the fine codes where they stay as they are."""
    codec, tier = codecs
    codes = codec.encode(vectors)
    return Encoded(codes, None if tier is None else tier.encode(vectors, codes))


def write_codes(connection: Connection, tables: tuple[str, str], row_ids: list[int], codes: Encoded) -> None:
    """Write codes and fine codes into two tables; what is there under the row ids is replaced."""
    stored_codes.rewrite_codes(connection, tables[0], row_ids, codes.codes)
    if codes.fine is not None:
        stored_codes.write_fine(connection, tables[1], np.asarray(row_ids, dtype=np.int64), codes.fine)


def take_over(connection: Connection, settings: Settings, codec: SearchableCodec) -> None:
    """Make a codec that of the collection, once every row is encoded in it."""
    described = (codec.name, json.dumps(codec.config), codec.learned())
    checksum = checksums.of_parts(*described)
    connection.execute("INSERT OR REPLACE INTO codec VALUES (1, ?, ?, ?, ?)", (*described, checksum))
    settings_.save(connection, settings)
    connection.execute("UPDATE state SET generation = generation + 1")
