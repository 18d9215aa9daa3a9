"""Product quantisation: k-means in groups of dimensions (Jégou, Douze and Schmid, PAMI 2011), through faiss."""

from __future__ import annotations

from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Codes, Lists, Mask, Queries, RowIdMatrix, ScoreMatrix, Vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec
from rarebit.compressors.vectors.fast_scan import FastScan
from rarebit.compressors.vectors.scanning import NOWHERE, Division, FaissScanner, Scanner
from rarebit.errors import CodecError, InputError

Spread: TypeAlias = Float32[npt.NDArray[np.float32], "n spread"]
"""Vectors cut into parts of one width; narrower parts are filled up with zeros."""
Prepared: TypeAlias = Float32[npt.NDArray[np.float32], "q prepared"]

PARTS_A_BYTE = {4: 2, 8: 1}

SAMPLE = 65_536
"""Vectors that the centroids are learned from."""


class _TableScanner(FaissScanner):
    """A faiss ``IndexPQ``; it takes no selectors, so the codes that a mask allows are copied into an index of their own."""

    def __init__(self, quantizer: Any, codes: Codes) -> None:
        super().__init__(_index(quantizer, codes), codes.shape[1])
        self._quantizer = quantizer

    def search(
        self, prepared: Queries, k: int, allowed: Mask | None = None, lists: Lists | None = None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        del lists
        if allowed is None:
            return super().search(prepared, k)
        places = np.flatnonzero(allowed)
        codes = np.empty((0, self._code_size), np.uint8)
        if len(places):
            codes = faiss.rev_swig_ptr(self._index.codes.data(), self.nbytes).reshape(-1, self._code_size)[places]
        scores, found = FaissScanner(_index(self._quantizer, codes), self._code_size).search(prepared, k)
        return scores, np.where(found < 0, NOWHERE, np.append(places, NOWHERE)[found])


def _index(quantizer: Any, codes: Codes) -> Any:
    index = faiss.IndexPQ(quantizer.d, quantizer.M, quantizer.nbits, faiss.METRIC_INNER_PRODUCT)
    index.pq = quantizer
    index.is_trained = True
    index.add_sa_codes(np.ascontiguousarray(codes))
    return index


class Product(SearchableCodec):
    """Cuts vectors into parts, and keeps for each part the number of the nearest of its centroids.

    With 4 bits there are ``2 * code_size`` parts of 16 centroids, scanned in SIMD registers; with 8 bits ``code_size`` parts of
    256 centroids, more exact but many times slower to scan. Dimensions need not be divisible: parts then differ by one.

    Args:
        code_size: bytes a vector.
        bits: 4 or 8 bits a part.
        seed: of the sample and of k-means.
    """

    name = "product"
    training_minimum = 1024

    def __init__(self, code_size: int, bits: int = 4, seed: int = 0) -> None:
        """Create an unfitted codec."""
        super().__init__()
        if bits not in PARTS_A_BYTE:
            raise InputError(f"got bits={bits!r}, wanted one of {sorted(PARTS_A_BYTE)} bits a part")
        if code_size < 1:
            raise InputError(f"got code_size={code_size}, wanted at least 1 byte a vector")
        self._code_size = code_size
        self.bits = bits
        self.seed = seed
        self._columns = np.empty(0, np.int64)
        self._quantizer: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"code_size": self._code_size, "bits": self.bits, "seed": self.seed}

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return self._code_size

    @property
    def parts(self) -> int:
        """How many parts a vector is cut into."""
        return self._code_size * PARTS_A_BYTE[self.bits]

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Give tables of inner products for 4 bits, (q, 16 * parts + 1); the queries cut into parts for 8 bits."""
        spread = self._spread(queries)
        if self.bits == 8:
            return spread
        by_part = spread.reshape(len(spread), self.parts, spread.shape[1] // self.parts).transpose(1, 0, 2)
        entries = by_part @ self._centroids().transpose(0, 2, 1)
        tables = entries.transpose(1, 0, 2).reshape(len(spread), 2**self.bits * self.parts)
        return np.pad(tables, ((0, 0), (0, 1)))

    @property
    def has_lists(self) -> bool:
        """Whether its scanner keeps inverted lists apart."""
        return self.bits == 4

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:
        """Pack the codes for fast scan with 4 bits; put them into a faiss ``IndexPQ`` with 8."""
        if self.bits == 4:
            return FastScan(codes, self.parts, division=division)
        return _TableScanner(self._quantizer, codes)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        del queries, progress
        if self.parts > self.dim:
            raise CodecError(self._too_many())
        self._lay_out()
        rng = np.random.default_rng(self.seed)
        sample = vectors if len(vectors) <= SAMPLE else vectors[np.sort(rng.choice(len(vectors), SAMPLE, replace=False))]
        # k-means wants at least as many vectors as centroids; repeated ones give centroids that are not used.
        self._quantizer.train(self._spread(np.resize(sample, (max(len(sample), 2**self.bits), self.dim))))

    def _encode(self, vectors: Vectors) -> Codes:
        codes: Codes = self._quantizer.compute_codes(self._spread(vectors))
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        spread = self._quantizer.decode(codes)
        vectors = np.empty((len(codes), self.dim), np.float32)
        vectors[:, self._columns[self._real]] = spread[:, self._real]
        return vectors

    def _arrays(self) -> Arrays:
        return {"centroids": self._centroids()}

    def _restore(self, arrays: Arrays) -> None:
        self._lay_out()
        faiss.copy_array_to_vector(np.ascontiguousarray(arrays["centroids"]).ravel(), self._quantizer.centroids)

    def _centroids(self) -> Float32[npt.NDArray[np.float32], "parts centroids width"]:
        centroids = faiss.vector_to_array(self._quantizer.centroids)
        return centroids.reshape(self.parts, 2**self.bits, -1)

    def _lay_out(self) -> None:
        """Find which dimension goes into which column of which part, -1 for none, and create the quantiser."""
        groups = np.array_split(np.arange(self.dim), self.parts)
        width = max(map(len, groups))
        self._columns = np.concatenate([np.pad(group, (0, width - len(group)), constant_values=-1) for group in groups])
        library: Any = faiss
        self._quantizer = library.ProductQuantizer(self.parts * width, self.parts, self.bits)
        clustering = self._quantizer.cp
        clustering.seed = self.seed
        clustering.min_points_per_centroid = 1
        clustering.max_points_per_centroid = SAMPLE

    @property
    def _real(self) -> npt.NDArray[np.bool_]:
        return self._columns >= 0

    def _spread(self, vectors: Vectors) -> Spread:
        """Cut (n, dim) vectors into parts of equal width."""
        if self._real.all():
            return vectors
        return np.where(self._real, vectors[:, self._columns], np.float32(0))

    def _too_many(self) -> str:
        largest = self.dim // PARTS_A_BYTE[self.bits]
        advice = f"use at most code_size={largest}" if largest else "use bits=8 or a scalar codec"
        return f"got vectors of {self.dim} dimensions for the {self.parts} parts of {self!r}, wanted one a part: {advice}"
