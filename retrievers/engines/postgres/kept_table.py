"""What holds for all rows of a collection in PostgreSQL: its settings, codec and bits, in a table with one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from psycopg import sql

from rarebit.compressors.vectors import restore_codec
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.compressors.vectors.codec import SearchableCodec
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import CollectionNotFoundError, DamagedFileError, InputError, SettingsError
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings, reconciled
from rarebit.retrievers.engines.engine import UNTRAINED, Kept, StaleCodesError
from rarebit.retrievers.engines.postgres import schema, statements
from rarebit.retrievers.engines.postgres.connections import Connection
from rarebit.retrievers.engines.postgres.runner import Runner


class KeptTable:
    """Reads and writes the one line, and remembers what it said last.

    Args:
        runner: of the collection's statements.
    """

    def __init__(self, runner: Runner) -> None:
        """Know nothing yet."""
        self._runner = runner
        self.may_write = False
        """Whether the role may change the line."""
        self._seen = Kept(Settings())

    def agree(self, asked: Mapping[str, Any], *, create: bool, partitions: int) -> None:
        """Agree on the settings with the collection, or make it.

        Raises:
            CollectionNotFoundError: there is none, and none is to be made.
            SettingsError, FingerprintError: it was made with other settings, or by another model.
        """
        name = self._runner.name
        first = Settings(**{key: value for key, value in asked.items() if value is not None})

        def agree(connection: Connection) -> None:
            if not schema.exists(connection, name):
                if not create:
                    raise CollectionNotFoundError(
                        f"there is no collection {self._runner.where}, wanted one that exists: leave out create=False"
                    )
                schema.create(connection, name, json.dumps(asdict(first)), first.tokenizer, partitions)
            self._runner.extension = sql.Identifier(schema.extension_schema(connection) or "public")
            names = {name: f"{self._runner.schema}.{name}" for name in ("rows", "collection")}
            given = {"rows": names["rows"], "table": names["collection"]}
            owns = self._runner.run(connection, statements.MAY_TRAIN, given).fetchone() == (True,)
            self.may_write = owns and not self._runner.connections.read_only
            self._reconcile(connection, asked)

        self._runner.in_transaction(agree, alone=None)
        self.read()

    def check_fingerprint(self, fingerprint: EmbeddingFingerprint) -> None:
        """Check, and complete, the fingerprint of the embedding model."""
        self._runner.in_transaction(lambda connection: self._reconcile(connection, {"fingerprint": fingerprint}), alone=None)
        self.read()

    def _reconcile(self, connection: Connection, asked: Mapping[str, Any]) -> None:
        agreed = reconciled(kept := self._settings(connection), asked, self._runner.where)
        if agreed != kept and self.may_write:
            self._runner.lock(connection, alone=True)  # somebody may be fixing the dimension, or training
            self._save(connection, reconciled(self._settings(connection), asked, self._runner.where))

    def fix_dimension(self, dim: int) -> None:
        """Fix the dimension, unless somebody else did."""

        def fix(connection: Connection) -> None:
            settings = self._settings(connection)
            if settings.dim is None:
                self._save(connection, replace(settings, dim=dim))

        self._runner.in_transaction(fix, alone=True)
        self.read()

    def adopt(self, kept: Kept) -> None:
        """Take over settings, codec and bits from elsewhere, while there are no rows."""

        def adopt(connection: Connection) -> None:
            if self._runner.run(connection, statements.AT_LEAST, {"least": 1}).fetchone() is not None:
                raise SettingsError(f"{self._runner.where} has rows, wanted an empty collection to take over codes")
            if kept.plane is None:
                self._runner.run(connection, statements.FORGET, {"new": json.dumps(asdict(kept.settings))})
            else:
                self.write(connection, kept)

        self._runner.in_transaction(adopt, alone=True)
        self.read()

    def write(self, connection: Connection, kept: Kept) -> None:
        """Write what a training has learned, under a new generation."""
        if kept.codec is None or kept.plane is None:
            raise InputError("got a training without a codec or bits, wanted both")
        told = {
            "settings": json.dumps(asdict(kept.settings)),
            "codec": json.dumps({"name": kept.codec.name, "config": kept.codec.config}),
            "learned": kept.codec.learned(),
            "plane": kept.plane.learned(),
        }
        self._runner.run(connection, statements.TAKE_OVER, told)

    def tune(self, generation: int, candidates: int, rows: int) -> None:
        """Remember how many candidates are enough for the bits of a training."""
        given = {"generation": generation, "candidates": candidates, "rows": rows}
        self._runner.call(lambda connection: self._runner.run(connection, statements.TUNE, given))
        self.read()

    def check(self, connection: Connection, generation: int) -> None:
        """Raise StaleCodesError if there was a training since a generation, or vectors have another dimension by now."""
        found = self._runner.run(connection, "SELECT generation, settings['dim'] FROM {schema}.collection").fetchone()
        if found != (generation, self._seen.settings.dim):
            raise StaleCodesError

    def carried(self, connection: Connection, before: Kept, after: Kept) -> Kept:
        """Give what a training has learned, with the fingerprint of the model that was told meanwhile.

        Raises:
            StaleCodesError: there was another training since, or settings were changed.
        """
        self.check(connection, before.generation)
        settings = self._settings(connection)
        if settings != replace(before.settings, fingerprint=settings.fingerprint):
            raise StaleCodesError
        return replace(after, settings=replace(after.settings, fingerprint=settings.fingerprint))

    def is_indexed(self, connection: Connection) -> bool:
        """Whether there is an index over the bits."""
        found = connection.execute("SELECT to_regclass(%s)", (f"{self._runner.schema}.rows_plane",)).fetchone()
        return bool(found != (None,))

    @property
    def seen(self) -> Kept:
        """What the line said last."""
        return self._seen

    def read(self) -> Kept:
        """Read the line.

        Raises:
            DamagedFileError: the codec cannot be read.
        """

        def read(connection: Connection) -> tuple[Any, ...]:
            return *self._runner.run(connection, statements.KEPT).fetchone(), self.is_indexed(connection)

        stored, generation, codec, learned, plane, candidates, tuned_rows, indexed = self._runner.call(read)
        settings = _settings(stored)
        if settings.dim is None:
            self._seen = Kept(settings)
        elif generation == UNTRAINED:
            self._seen = Kept(settings, UNTRAINED, Exact().with_dim(settings.dim))
        else:
            restored = restore_codec(codec["name"], dim=settings.dim, config=codec["config"], learned=learned)
            if not isinstance(restored, SearchableCodec):
                raise DamagedFileError(f"the codec {codec['name']!r} of {self._runner.where} cannot be searched")
            bits = BitPlane.restore(plane)
            self._seen = Kept(settings, generation, restored, bits, candidates, tuned_rows, indexed)
        return self._seen

    def _settings(self, connection: Connection) -> Settings:
        (stored,) = self._runner.run(connection, "SELECT settings FROM {schema}.collection").fetchone()
        return _settings(stored)

    def _save(self, connection: Connection, settings: Settings) -> None:
        self._runner.run(connection, statements.SETTINGS, {"new": json.dumps(asdict(settings))})


def _settings(stored: dict[str, Any]) -> Settings:
    return Settings(**{**stored, "fingerprint": EmbeddingFingerprint(**stored["fingerprint"])})
