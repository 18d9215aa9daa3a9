"""The finer tier of a vector: kept on disk, and read for the candidates that its code in memory brings (BiDR, 2201.05409).

A tier keeps the vector, or its residual: what the code misses of it. That is a third as long at one bit a dimension of MiniLM
vectors, so the same bytes leave a third of the error. What is lost differs:

- A residual is written anew with every new code, and rounded anew: the errors of n codes add up as their square root. A vector
  in int8 is rounded once.
- The error of a residual follows the error of the code, not the length of the vector. Where inner products are searched among
  vectors that are a hundred times as long as others, int8 or float16 keeps the directions of the short ones better.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from rarebit.arrays import Codes, FineCodes, Vectors
from rarebit.compressors.vectors import SearchableCodec, codec_named
from rarebit.errors import InputError

NO_FINE: Final = "none"


class Kept(NamedTuple):
    """What a tier keeps: the codec that it is kept in, and whether it is the residual."""

    codec: str
    is_residual: bool


TIERS: Final = {
    "int4": Kept("int4", is_residual=False),
    "residual4": Kept("int4", is_residual=True),
    "int8": Kept("int8", is_residual=False),
    "residual8": Kept("int8", is_residual=True),
    "float16": Kept("float16", is_residual=False),
    "float32": Kept("float32", is_residual=False),
}
"""The tiers by name, the roughest first."""


def default_fine(codec: SearchableCodec) -> str:
    """Name the tier for a codec: residuals where their scores can be added to those of the codes."""
    return "residual8" if codec.scores_as_decoded else "int8"


class FineTier:
    """Encodes what is kept of vectors beside their codes.

    Args:
        name: one of ``TIERS``.
        codec: the fitted codec of the codes.

    Raises:
        InputError: another name.
    """

    def __init__(self, name: str, codec: SearchableCodec) -> None:
        """Prepare the tier for the dimension of the codec."""
        if name not in TIERS:
            raise InputError(f"got the fine tier {name!r}, wanted one of {[*TIERS, NO_FINE]}")
        self.name = name
        self.is_residual = TIERS[name].is_residual
        self._coarse = codec
        self._codec = codec_named(TIERS[name].codec).with_dim(codec.dim)

    @classmethod
    def beside(cls, codec: SearchableCodec, name: str) -> FineTier | None:
        """Give the tier of a collection; None where there is to be none, and beside codes that lose nothing."""
        return None if name == NO_FINE or codec.lossless else cls(name, codec)

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return self._codec.code_size

    @property
    def adds_to_scores(self) -> bool:
        """Whether a candidate's score is the sum of its code's and its :meth:`part`'s; else it is that of :meth:`decode`."""
        return self.is_residual and self._coarse.scores_as_decoded

    def encode(self, vectors: Vectors, codes: Codes) -> FineCodes:
        """Encode (n, dim) vectors that have these codes."""
        if not self.is_residual:
            return self._codec.encode(vectors)
        residuals = self._coarse.decode(codes)
        # Not encode(): it checks what users pass, and the residual of a long vector may be longer still.
        return self._codec._encode(np.subtract(vectors, residuals, out=residuals))

    def part(self, fine: FineCodes) -> Vectors:
        """Decode what is kept: the residuals or the vectors, (n, dim)."""
        return self._codec.decode(fine)

    def decode(self, fine: FineCodes, codes: Codes | None) -> Vectors:
        """Decode the vectors: (n, dim). Only residuals need the codes."""
        vectors = self.part(fine)
        if self.is_residual:
            assert codes is not None  # noqa: S101
            vectors += self._coarse.decode(codes)
        return vectors
