"""What a file's codes mean: the codec that they are in, and the vectors of rows, decoded from the finest tier that is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from safetensors import SafetensorError

from rarebit.arrays import Vectors
from rarebit.compressors.vectors import Codec, SearchableCodec, restore_codec
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import DamagedFileError, InputError
from rarebit.retrievers.collection import rows
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.storage import Connection


@dataclass(frozen=True)
class FinestVectors:
    """Reads vectors through a connection inside its transaction."""

    connection: Connection
    settings: Settings
    codec: SearchableCodec | None

    def of(self, row_ids: Sequence[int]) -> Vectors:
        """Decode the vectors of rows that are given in order, each once: (n, dim).

        Raises:
            DamagedFileError: a row has no vector in the file.
        """
        if self.codec is None:
            return np.empty((len(row_ids), 0), np.float32)
        table, codec = ("codes", self.codec) if self.fine_codec is None else ("fine", self.fine_codec)
        found, codes = rows.codes_of(self.connection, table, row_ids, codec.code_size)
        if len(found) != len(row_ids):
            raise DamagedFileError(f"{len(row_ids) - len(found)} rows have no vector in the file: restore it from a backup")
        return codec.decode(codes)

    @property
    def kept_as(self) -> str:
        """The name of the codec that the vectors are decoded from."""
        codec = self.fine_codec or self.codec
        return Exact.name if codec is None else codec.name

    @cached_property
    def fine_codec(self) -> Codec | None:
        """The codec of the fine tier; None where there is none, or the codes themselves are exact, as before training."""
        fine = self.settings.new_fine_codec()
        if fine is None or self.codec is None or self.codec.lossless:
            return None
        return fine.with_dim(self.codec.dim)


def stored_codec(connection: Connection, settings: Settings) -> SearchableCodec | None:
    """Give the codec in which the codes are stored: the trained one, the exact one until then, None before the first row."""
    if settings.dim is None:
        return None
    stored = connection.execute("SELECT name, config, learned FROM codec").fetchone()
    if stored is None:
        codec = settings.new_codec()
        return Exact().with_dim(settings.dim) if codec.training_minimum else codec.with_dim(settings.dim)
    name, config, learned = stored
    try:
        restored = restore_codec(name, dim=settings.dim, config=json.loads(config), learned=learned)
    except (SafetensorError, InputError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"the codec {name!r} in the file cannot be read ({error}): restore it from a backup") from error
    if not isinstance(restored, SearchableCodec):
        raise DamagedFileError(f"the codec {name!r} in the file cannot be searched: restore it from a backup")
    return restored
