"""What every codec is: the unit of compression.

A codec turns embeddings into fixed-size codes and back. One that can also be searched lays its codes out for faiss's SIMD
kernels (:mod:`.scanning`). A new codec is one new file with one subclass, and one line in the table of
:mod:`rarebit.compressors.vectors`.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from rarebit.arrays import Codes, Prepared, Queries, Scores, Vectors, VectorsLike, as_vectors
from rarebit.compressors.vectors.scanning import Division, Scanner
from rarebit.errors import CodecError, InputError, NotFittedError

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
"""The learned arrays of a codec, by name, as safetensors holds them."""

Own = TypeVar("Own", bound="Codec")
"""The codec's own class; written out because the run-time shape checks do not know ``Self``."""

CONFIG_FILE = "config.json"
ARRAYS_FILE = "codec.safetensors"


class Codec(ABC):
    """Encodes vectors to codes of ``code_size`` bytes each and decodes them again.

    Subclasses implement the underscored methods, which receive checked arrays; the public ones here check.
    """

    name: ClassVar[str]
    """The name under which the codec is registered and saved."""

    training_minimum: int = 0
    """How many vectors a good fit needs; 0 where nothing is learned from them."""

    lossless: ClassVar[bool] = False
    """Whether decoding gives back every bit."""

    def __init__(self) -> None:
        """Create an unfitted codec."""
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Dimension of the vectors; raises NotFittedError before ``fit``."""
        if self._dim is None:
            raise NotFittedError(f"{self!r} was used before it was fitted: call fit(vectors) or load a saved codec")
        return self._dim

    @property
    def is_fitted(self) -> bool:
        """Whether the codec can encode."""
        return self._dim is not None

    @property
    @abstractmethod
    def code_size(self) -> int:
        """Bytes a vector."""

    @property
    def state_bytes(self) -> int:
        """Bytes of everything learned, which every process that uses the codec holds once."""
        return sum(array.nbytes for array in self._arrays().values()) if self.is_fitted else 0

    def fit(self: Own, vectors: VectorsLike, queries: VectorsLike | None = None, *, progress: bool = False) -> Own:
        """Learn the code from a sample of the vectors, and return the codec itself.

        Args:
            vectors: (n, dim) float32, as they will be encoded.
            queries: (q, dim) float32, for codecs that learn from queries; the others ignore them.
            progress: show a progress bar where learning takes time.

        Raises:
            CodecError: fewer vectors than the codec can be fitted on.
        """
        checked = as_vectors(vectors)
        if len(checked) == 0:
            raise CodecError(f"got no vectors to fit {self!r} on, wanted at least one (and better {self.training_minimum})")
        asked = None if queries is None or np.size(queries) == 0 else as_vectors(queries, dim=checked.shape[1])
        self._dim = checked.shape[1]
        try:
            self._fit(checked, asked, progress=progress)
        except BaseException:
            self._dim = None  # what it knew before may be half overwritten
            raise
        return self

    def with_dim(self: Own, dim: int) -> Own:
        """Make a codec that learns nothing ready for vectors of this dimension."""
        if self.training_minimum:
            raise CodecError(f"{self!r} learns from vectors: call fit(vectors)")
        self._dim = dim
        return self

    def encode(self, vectors: VectorsLike) -> Codes:
        """Encode (n, dim) float32 vectors to (n, code_size) uint8 codes."""
        return self._encode(as_vectors(vectors, dim=self.dim))

    def decode(self, codes: Codes) -> Vectors:
        """Decode (n, code_size) uint8 codes to the (n, dim) float32 vectors that they stand for."""
        if codes.shape[1] != self.code_size:
            raise InputError(f"got codes of {codes.shape[1]} bytes, wanted {self.code_size} bytes a code for {self!r}")
        return self._decode(np.ascontiguousarray(codes))

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""
        return {}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the codec to a folder: ``config.json`` and ``codec.safetensors``."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        described = {"codec": self.name, "dim": self.dim, "config": self.config}
        (target / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        (target / ARRAYS_FILE).write_bytes(self.learned())

    def learned(self) -> bytes:
        """Everything learned, as safetensors."""
        return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in self._arrays().items()})

    @classmethod
    def restore(cls: type[Own], *, dim: int, config: Mapping[str, Any], learned: bytes) -> Own:
        """Rebuild the codec from its configuration and what :meth:`learned` returned."""
        codec = cls(**config)
        codec._dim = dim
        codec._restore(safetensors.numpy.load(learned))
        return codec

    def __repr__(self) -> str:
        """Name the codec and its settings."""
        settings = ", ".join(f"{key}={value!r}" for key, value in self.config.items())
        return f"{type(self).__name__}({settings})"

    @abstractmethod
    def _encode(self, vectors: Vectors) -> Codes: ...

    @abstractmethod
    def _decode(self, codes: Codes) -> Vectors: ...

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        """Learn nothing; codecs that learn override this."""
        del vectors, queries, progress

    def _arrays(self) -> Arrays:
        return {}

    def _restore(self, arrays: Arrays) -> None:
        """Take back what :meth:`_arrays` gave."""
        del arrays


class SearchableCodec(Codec):
    """A codec whose codes faiss can scan, estimating inner products with float queries."""

    scores_as_decoded: bool = True
    """Whether a scanner's scores are the inner products with the decoded vectors, up to rounding."""

    @property
    def has_lists(self) -> bool:
        """Whether its scanner keeps inverted lists apart."""
        return False

    @abstractmethod
    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:
        """Lay codes out for search, in their order; it takes the queries that :meth:`prepare_queries` returns.

        ``division`` puts them into inverted lists; codecs whose scanner has no lists leave it out.
        """

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Turn (q, dim) queries into what the scanner takes; the identity unless the codec transforms them."""
        return queries

    def scores(self, prepared: Prepared, codes: Codes) -> Scores:
        """Score (n, code_size) codes, of which there are few, for one query as :meth:`prepare_queries` returns it: (n,)."""
        scores: Scores = np.empty(len(codes), np.float32)
        found, places = self.scanner(codes).search(prepared, len(codes))
        scores[places[0]] = found[0]
        return scores
