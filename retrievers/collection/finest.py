"""What a file's codes mean: the codec that they are in, and the vectors of rows, decoded from the finest tier that is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from safetensors import SafetensorError

from rarebit.arrays import Codes, RowIds, Vectors
from rarebit.compressors.vectors import SearchableCodec, restore_codec
from rarebit.compressors.vectors.exact import Exact
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import DamagedFileError, InputError
from rarebit.retrievers.collection import checksums, stored_codes
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
        if self.tier is None:
            return self.codec.decode(self._codes(row_ids))
        fine = self._complete(row_ids, stored_codes.fine_of(self.connection, row_ids, self.tier.code_size))
        codes = self._codes(row_ids) if self.tier.is_residual else None
        return self.tier.decode(fine, codes)

    def parts_of(self, row_ids: Sequence[int]) -> Vectors:
        """Decode what the fine tier alone keeps of rows: as :meth:`of`, without what the codes say."""
        assert self.tier is not None  # noqa: S101
        return self.tier.part(self._complete(row_ids, stored_codes.fine_of(self.connection, row_ids, self.tier.code_size)))

    @property
    def kept_as(self) -> str:
        """The name of the tier or codec that the vectors are decoded from."""
        finest = self.tier or self.codec
        return Exact.name if finest is None else finest.name

    @cached_property
    def tier(self) -> FineTier | None:
        """The fine tier; None where there is none, or the codes themselves are exact, as before training."""
        return None if self.codec is None else FineTier.beside(self.codec, str(self.settings.fine))

    def _codes(self, row_ids: Sequence[int]) -> Codes:
        assert self.codec is not None  # noqa: S101
        codes: Codes = self._complete(row_ids, stored_codes.codes_of(self.connection, row_ids, self.codec.code_size))
        return codes

    @staticmethod
    def _complete(row_ids: Sequence[int], stored: tuple[RowIds, Any]) -> Any:
        found, codes = stored
        if len(found) != len(row_ids):
            raise DamagedFileError(f"{len(row_ids) - len(found)} rows have no vector in the file: restore it from a backup")
        return codes


def stored_codec(connection: Connection, settings: Settings) -> SearchableCodec | None:
    """Give the codec in which the codes are stored: the trained one, the exact one until then, None before the first row."""
    if settings.dim is None:
        return None
    stored = connection.execute("SELECT name, config, learned, checksum FROM codec").fetchone()
    if stored is None:
        codec = settings.new_codec()
        return Exact().with_dim(settings.dim) if codec.training_minimum else codec.with_dim(settings.dim)
    name, config, learned, checksum = stored
    try:
        if checksums.of_parts(name, config, learned) != checksum:
            raise ValueError("its checksum differs")  # noqa: TRY301
        restored = restore_codec(name, dim=settings.dim, config=json.loads(config), learned=learned)
    except (SafetensorError, InputError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"the codec {name!r} in the file cannot be read ({error}): restore it from a backup") from error
    if not isinstance(restored, SearchableCodec):
        raise DamagedFileError(f"the codec {name!r} in the file cannot be searched: restore it from a backup")
    return restored
