"""Giving a collection another code while it is used.

Vectors are read from both tiers and encoded into tables beside the old ones, a batch at a time, each in a short transaction
of its own; readers and writers go on meanwhile. One last transaction encodes what was added since, drops what was deleted, and
puts the new tables in the place of the old. A process that is killed before leaves the old code as it was, and tables that the
next recompression removes.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tqdm.auto import tqdm

from rarebit.arrays import Queries
from rarebit.compressors.vectors.fine_tier import NO_FINE
from rarebit.errors import CodecError, CollectionError, RarebitError, SettingsError
from rarebit.retrievers.collection import settings as settings_
from rarebit.retrievers.collection import training
from rarebit.retrievers.collection.engine import Engine
from rarebit.retrievers.collection.finest import FinestVectors, stored_codec
from rarebit.retrievers.collection.settings import FINE, FINER, Settings
from rarebit.retrievers.collection.state import State, changed_state, read_state
from rarebit.retrievers.collection.storage import Connection, Storage
from rarebit.retrievers.collection.training import Codecs

NEW_TABLES = ("new_codes", "new_fine")

CREATE = """
CREATE TABLE new_codes (row_id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, list INTEGER NOT NULL, code BLOB NOT NULL);
CREATE TABLE new_fine (row_id INTEGER PRIMARY KEY, code BLOB NOT NULL);
CREATE TABLE recompression (token TEXT NOT NULL);
"""


class Recompression:
    """One run over a collection.

    Args:
        engine: of the collection.
        asked: the settings that change: codec or budget or target, and the fine tier; those that do not are left out.
        queries: to learn from and to measure with; held-out vectors without.
        progress: show progress bars.
    """

    def __init__(self, engine: Engine, asked: dict[str, Any], queries: Queries | None, *, progress: bool) -> None:
        """Prepare the run."""
        self._engine = engine
        self._asked = asked
        self._queries = queries
        self._progress = progress
        self._token = uuid.uuid4().hex

    def run(self) -> None:
        """Choose and learn the code, encode every row, and change over.

        Raises:
            SettingsError: the file keeps no vectors that are fine enough to encode again.
            CodecError: there are too few rows to learn from.
            CollectionError: another recompression or training came in between.
        """
        self._engine.storage.check_writable()
        with self._engine.storage.read() as connection:
            state, source = self._source(connection)
            wanted = self._wanted(source)
            sample = source.of(training.sampled_ids(connection))
        if not len(sample):
            raise CodecError("the collection has no rows to learn a code from: add some first")
        settings, codec = training.learned(
            sample, wanted, state.row_count, self._queries, kept_as=source.kept_as, progress=self._progress
        )
        del sample
        codecs = codec, training.new_tier(source, settings, codec)
        self._begin()
        try:
            last = self._encode_all(state, codecs)
            self._change_over(state, settings, codecs, last)
        except BaseException:
            self._abandon()
            raise

    def _source(self, connection: Connection) -> tuple[State, FinestVectors]:
        kept = settings_.load(connection) or self._engine.settings
        source = FinestVectors(connection, kept, stored_codec(connection, kept))
        rough = source.codec is not None and source.tier is None and source.codec.name not in {"float32", "float16"}
        if rough:
            raise SettingsError(
                f"{self._engine.storage} keeps no fine tier (fine={NO_FINE!r}), so its vectors are known only as their codes "
                "decode, and another code would lose more: embed the texts again into a new collection with a fine tier"
            )
        return read_state(connection), source

    def _wanted(self, source: FinestVectors) -> Settings:
        """Put what was asked for into the collection's settings; a codec and a budget replace each other."""
        kept = source.settings
        forgotten = {"memory_per_vector": None, "target_recall": None, "candidates": None, "choice": None}
        to_choose = {"memory_per_vector", "target_recall"} & set(self._asked)
        replaced = forgotten if "codec" in self._asked or to_choose else {}
        codec = self._asked.get("codec", Settings.codec if to_choose else kept.codec)
        # Codes that needed no fine tier give way to some that do.
        needs_one = kept.codec in FINER and codec not in FINER and kept.fine == NO_FINE
        fine = {"fine": None} if needs_one or kept.fine not in FINER.get(codec, FINE) else {}
        return replace(kept, **{**replaced, "codec": codec, **fine, **self._asked})

    def _begin(self) -> None:
        with self._engine.storage.write() as connection:
            drop_tables(connection)
            for statement in CREATE.strip().split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO recompression VALUES (?)", (self._token,))

    def _abandon(self) -> None:
        """Drop the tables of this run, to free their space; where that fails too, the next run does it."""
        with suppress(RarebitError), self._engine.storage.write() as connection:
            if _token_of(connection) == self._token:
                drop_tables(connection)

    def _encode_all(self, state: State, codecs: Codecs) -> int:
        """Encode batch by batch, and leave the last rows to the changing over; gives the last row id."""
        last = 0
        with tqdm(total=state.row_count, desc="encoding", unit="row", disable=not self._progress) as bar:
            while True:
                with self._engine.storage.read() as connection:
                    self._check_unchanged(connection, state)
                    row_ids = training.ids_after(connection, last)
                    if len(row_ids) < training.BATCH_ROWS:
                        return last
                    vectors = self._source(connection)[1].of(row_ids)
                encoded = training.encoded(vectors, codecs)
                with self._engine.storage.write() as connection:
                    self._check_unchanged(connection, state)
                    training.write_codes(connection, NEW_TABLES, row_ids, encoded)
                last = row_ids[-1]
                bar.update(len(row_ids))

    def _change_over(self, state: State, settings: Settings, codecs: Codecs, last: int) -> None:
        with self._engine.write() as connection:
            self._check_unchanged(connection, state)
            source = self._source(connection)[1]
            while row_ids := training.ids_after(connection, last):
                training.write_codes(connection, NEW_TABLES, row_ids, training.encoded(source.of(row_ids), codecs))
                last = row_ids[-1]
            for new, old in zip(NEW_TABLES, ("codes", "fine"), strict=True):
                if old == "fine" and codecs[1] is None and settings.has_fine_tier:
                    connection.execute(f"DROP TABLE {new}")  # the fine vectors stay as they are
                else:
                    connection.execute(f"DELETE FROM {new} WHERE row_id NOT IN (SELECT row_id FROM rows)")
                    connection.execute(f"DROP TABLE {old}")
                    connection.execute(f"ALTER TABLE {new} RENAME TO {old}")
            connection.execute("DROP TABLE recompression")
            kept = settings_.load(connection) or settings  # the fingerprint may have been completed meanwhile
            settings = replace(settings, fingerprint=kept.fingerprint, trained_rows=changed_state(connection).row_count)
            training.take_over(connection, settings, codecs[0])

    def _check_unchanged(self, connection: Connection, state: State) -> None:
        """Neither another training nor another recompression may have come in between."""
        if read_state(connection).generation != state.generation or _token_of(connection) != self._token:
            raise CollectionError(
                f"the codes of {self._engine.storage} were changed by another call meanwhile, and this one changed nothing: "
                "call recompress() again if it is still wanted"
            )


def drop_tables(connection: Connection) -> None:
    """Drop the tables of a recompression, if there are any."""
    for table in (*NEW_TABLES, "recompression"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def forget_deleted(storage: Storage) -> None:
    """Remove what a recompression keeps of rows that are deleted; it may be running, or was killed."""
    with storage.write() as connection:
        for table in NEW_TABLES if _token_of(connection) else ():
            connection.execute(f"DELETE FROM {table} WHERE row_id NOT IN (SELECT row_id FROM rows)")


def _token_of(connection: Connection) -> str | None:
    """Tell whose the tables of a recompression are; None where there are none."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'recompression'").fetchone()[0]
    return str(connection.execute("SELECT token FROM recompression").fetchone()[0]) if tables else None
