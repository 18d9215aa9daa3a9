"""The finer tier of a vector: kept on disk, and read for the candidates that its code in memory brings (BiDR, 2201.05409).

A tier keeps the vector, or its residual: what the code misses of it. A residual is a third as long at one bit a dimension, so
the same bytes leave a third of the error.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from rarebit.arrays import Codes, FineCodes, Vectors
from rarebit.compressors.vectors import SearchableCodec, codec_named

NO_FINE: Final = "none"
DEFAULT_FINE: Final = "residual8"


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


class FineTier:
    """Encodes what is kept of vectors beside their codes.

    Args:
        name: one of ``TIERS``.
        codec: the fitted codec of the codes.
    """

    def __init__(self, name: str, codec: SearchableCodec) -> None:
        """Prepare the tier for the dimension of the codec."""
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
        """Whether a candidate's score is the score of its code and that of its :meth:`part` together.

        Otherwise it is the score of what :meth:`decode` gives.
        """
        return self.is_residual and self._coarse.scores_as_decoded

    def encode(self, vectors: Vectors, codes: Codes) -> FineCodes:
        """Encode (n, dim) vectors that have these codes."""
        return self._codec.encode(vectors - self._coarse.decode(codes) if self.is_residual else vectors)

    def part(self, fine: FineCodes) -> Vectors:
        """Decode what is kept: the residuals or the vectors, (n, dim)."""
        return self._codec.decode(fine)

    def decode(self, fine: FineCodes, codes: Codes) -> Vectors:
        """Decode the vectors: (n, dim). The codes are needed for residuals only."""
        kept = self.part(fine)
        return kept + self._coarse.decode(codes) if self.is_residual else kept
