"""Vectors as codes on their way to an engine and back, by the codec, the fine tier and the bits of one generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rarebit.arrays import Codes, FineCodes, Scores, Vector, Vectors, normalized
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection.ingest import Part
from rarebit.retrievers.engines.engine import Candidate, Kept, NewRow, Recoding, StoredCode


@dataclass(frozen=True)
class Coding:
    """What codes of a generation mean."""

    kept: Kept

    @property
    def codec(self) -> SearchableCodec:
        """The codec of the codes."""
        assert self.kept.codec is not None  # noqa: S101 -- there are rows
        return self.kept.codec

    @cached_property
    def tier(self) -> FineTier | None:
        """The fine tier; None where the codes themselves are exact, as before training."""
        return FineTier.beside(self.codec, str(self.kept.settings.fine))

    def rows(self, part: Part) -> list[NewRow]:
        """Encode rows."""
        vectors = normalized(part.vectors) if self.kept.settings.metric == "cosine" else part.vectors
        encoded = self.encoded(vectors)
        return [NewRow(*new, *own) for new, own in zip(part.new, encoded, strict=True)]

    def encoded(self, vectors: Vectors) -> list[tuple[bytes, bytes | None, bytes | None]]:
        """Give each vector's code, fine code and bits."""
        codes = self.codec.encode(vectors)
        fine = None if self.tier is None else self.tier.encode(vectors, codes)
        planes = None if self.kept.plane is None else self.kept.plane.encode(vectors)
        return [
            (code.tobytes(), None if fine is None else fine[row].tobytes(), None if planes is None else planes[row].tobytes())
            for row, code in enumerate(codes)
        ]

    def vectors(self, stored: Sequence[StoredCode | Candidate]) -> Vectors:
        """Decode vectors from the finest that is kept: (n, dim).

        Raises:
            DamagedFileError: a code has another size than the codec's.
        """
        codes = self._codes(stored)
        return self.codec.decode(codes) if self.tier is None else self.tier.decode(self._fine(stored), codes)

    def scores(self, query: Vector, stored: Sequence[Candidate]) -> Scores:
        """Give the inner products of a (dim,) query with the vectors as :meth:`vectors` decodes them, up to rounding: (n,).

        A residual's share and its code's are added up where they can be, which is several times faster than decoding.
        """
        if self.tier is None or not self.tier.adds_to_scores:
            scores: Scores = self.vectors(stored) @ query
            return scores
        codes, fine = self._codes(stored), self._fine(stored)
        scores = self.codec.scores(self.codec.prepare_queries(query[np.newaxis]), codes)
        scores += self.tier.part(fine) @ query
        return scores

    def _codes(self, stored: Sequence[StoredCode | Candidate]) -> Codes:
        codes: Codes = self._stacked([each.code for each in stored], self.codec.code_size)
        return codes

    def _fine(self, stored: Sequence[StoredCode | Candidate]) -> FineCodes:
        assert self.tier is not None  # noqa: S101
        codes: FineCodes = self._stacked([each.fine or b"" for each in stored], self.tier.code_size)
        return codes

    @staticmethod
    def _stacked(codes: Sequence[bytes], size: int) -> Any:
        if any(len(code) != size for code in codes):
            raise DamagedFileError(f"a row's code on the server has not the {size} bytes of the codec: restore a backup")
        stacked: Codes = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), size)
        return stacked


@dataclass(frozen=True)
class Recoder(Recoding):
    """Turns codes of one generation into those of the next."""

    before: Coding
    after: Coding

    def __call__(self, stored: Sequence[StoredCode]) -> list[tuple[int, bytes, bytes | None, bytes]]:
        """As :class:`Recoding` says."""
        encoded = self.after.encoded(self.before.vectors(stored))
        return [(own.row_id, code, fine, plane or b"") for own, (code, fine, plane) in zip(stored, encoded, strict=True)]
