"""What the codec benchmark compares: Rarebit's codecs here, the rivals in :mod:`.codec_rivals`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rarebit.arrays import Codes, Queries, RowIdMatrix, Vectors
from rarebit.compressors.vectors import Codec, SearchableCodec, codec_named
from rarebit.compressors.vectors.fine_tier import FineTier, default_fine
from rarebit.compressors.vectors.scanning import Scanner
from rarebit.errors import CodecError

OURS = "rarebit "
"""What the names of Rarebit's own methods start with."""

SIZED = {
    "trellis": "trellis{size}",
    "distilled trellis": "distilled{size}",
    "variance": "variance{size}",
    "pq": "pq{size}",
    "recurrent": "recurrent{size}x{bits}",
    "ranked": "ranked{size}",
    "pca, sq8": "pca{size},sq8",
    "matryoshka, sq8": "matryoshka{size},sq8",
}
"""Codecs that are made for a size, by their spelling; ``bits`` is 2 a dimension, or as many as fill the size."""

FIXED = {
    ("rabitq", "1 bit"): "rabitq",
    ("rabitq", "2 bits"): "rabitq2",
    ("rabitq", "4 bits"): "rabitq4",
    ("sq", "4 bits"): "sq4",
    ("sq", "8 bits"): "sq8",
}
"""Codecs whose size follows from the dimension."""


class Method(ABC):
    """A way to compress vectors and to search what is left of them."""

    @property
    @abstractmethod
    def code_size(self) -> float:
        """Bytes that the code of one vector takes; known after training."""

    def train(self, sample: Vectors) -> None:
        """Learn from a sample of the documents, (n, dim)."""
        del sample

    @abstractmethod
    def fill(self, docs: Vectors) -> None:
        """Encode (n, dim) documents, and lay the codes out for search."""

    def kept(self, docs: Vectors) -> Vectors | None:
        """Give the documents as a collection would keep them beside these codes, residuals included; None if it would not."""
        del docs
        return None

    @abstractmethod
    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Give the places of the k best documents for each query, best first: (q, k)."""


@dataclass(frozen=True)
class Entry:
    """A method that may be measured: making it may fail for a package that is not installed, or a size that cannot be."""

    name: str
    setting: str
    make: Callable[[], Method]

    def is_wanted(self, prefixes: Iterable[str]) -> bool:
        """Tell whether the name, with or without ``rarebit``, starts with one of the prefixes."""
        return any(name.startswith(prefix) for prefix in prefixes for name in (self.name, self.name.removeprefix(OURS)))


class OurCodec(Method):
    """A codec of Rarebit.

    Args:
        codec: unfitted.
        queries: what it is fitted with beside the documents; None for nothing.
        unused: bytes of each code that carry nothing, and are not counted.
    """

    def __init__(self, codec: Codec, queries: Queries | None = None, unused: int = 0) -> None:
        """Take the codec."""
        if not isinstance(codec, SearchableCodec):
            raise CodecError(f"got {codec!r}, wanted a codec that can be searched")
        self._codec = codec
        self._queries = queries
        self._unused = unused
        self._scanner: Scanner
        self._codes: Codes

    @property
    def code_size(self) -> float:
        """Bytes a vector."""
        return self._codec.code_size - self._unused

    def train(self, sample: Vectors) -> None:
        """Fit the codec."""
        self._codec.fit(sample, self._queries)

    def fill(self, docs: Vectors) -> None:
        """Encode, and make the scanner."""
        self._codes = self._codec.encode(docs)
        self._scanner = self._codec.scanner(self._codes)

    def kept(self, docs: Vectors) -> Vectors | None:
        """Decode the default fine tier beside the codes."""
        tier = FineTier.beside(self._codec, default_fine(self._codec))
        return None if tier is None else tier.decode(tier.encode(docs, self._codes), self._codes)

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Prepare the queries and scan."""
        return self._scanner.search(self._codec.prepare_queries(queries), k)[1]


class FaissIndex(Method):
    """An index of faiss, or whatever has its ``train``, ``add`` and ``search``."""

    def __init__(self, index: Any, code_size: int) -> None:
        """Take the empty index."""
        self._index = index
        self._code_size = code_size

    @property
    def code_size(self) -> float:
        """Bytes a vector."""
        return self._code_size

    def train(self, sample: Vectors) -> None:
        """Train the index."""
        self._index.train(sample)

    def fill(self, docs: Vectors) -> None:
        """Add the documents."""
        self._index.add(docs)

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Search the index."""
        places: RowIdMatrix = self._index.search(queries, k)[1]
        return places


def in_bytes(size: int) -> str:
    """Name the setting of a size."""
    return f"{size} bytes"


def our_entries(dim: int, sizes: Iterable[int]) -> Iterator[Entry]:
    """List Rarebit's codecs at each size, and then those that have a size of their own."""
    for size in sizes:
        bits = 2 if 8 * size <= 2 * dim else 4
        for name, spelling in SIZED.items():
            yield _ours(name, in_bytes(size), spelling.format(size=size, bits=bits))
    for (name, setting), spelling in FIXED.items():
        yield _ours(name, setting, spelling)


def _ours(name: str, setting: str, spelling: str) -> Entry:
    return Entry(OURS + name, setting, lambda: OurCodec(codec_named(spelling)))
