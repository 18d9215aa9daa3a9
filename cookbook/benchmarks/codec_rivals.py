"""What Rarebit's codecs are compared with: faiss, turbovec, and the quantisation that sentence-transformers has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rarebit.arrays import Codes, Queries, RowIdMatrix, Vectors
from rarebit.cookbook.benchmarks.codec_methods import Entry, FaissIndex, Method, in_bytes
from rarebit.errors import CodecError, MissingExtraError

FLAT = "faiss IndexFlatIP"

OPQ_SAMPLE = 20_000

PQ_POINTS = 65_536
"""Vectors that faiss's k-means may use; by itself it takes 256 for each centroid."""

CALIBRATION = 4096
"""Documents that turbovec is calibrated on; its own advice is 1024 or more."""

RABITQ_QUERY_BITS = 8

IP = faiss.METRIC_INNER_PRODUCT
_faiss: Any = faiss  # its stubs know the C++ signatures, not the Python ones


def rival_entries(dim: int, sizes: Iterable[int]) -> Iterator[Entry]:
    """List the rivals at each size that they can have, and then those that have a size of their own."""
    yield Entry(FLAT, "exact", lambda: FaissIndex(faiss.IndexFlatIP(dim), 4 * dim))
    for size in sizes:
        yield Entry("faiss PQ fast scan", in_bytes(size), partial(_fast_scan, dim, size))
        yield Entry("faiss PQ 8-bit", in_bytes(size), partial(_pq8, dim, size))
        yield Entry("faiss OPQ + PQ fast scan", in_bytes(size), partial(_opq, dim, size))
        if 8 * size <= dim:
            yield Entry("faiss ITQ", in_bytes(size), partial(_itq, dim, size))
            yield Entry("faiss LSH", in_bytes(size), partial(_lsh, dim, size))
    for bits in (1, 2, 4):
        yield Entry("faiss RaBitQ", in_bits(bits), partial(_rabitq, dim, bits))
    for bits in (4, 8):
        yield Entry("faiss SQ", in_bits(bits), partial(_sq, dim, bits))
    for bits in (2, 4):
        yield Entry("turbovec", in_bits(bits), partial(Turbovec, dim, bits))
    yield Entry("sentence-transformers binary", in_bits(1), partial(Signs, dim))
    yield Entry("sentence-transformers int8", in_bits(8), partial(WholeNumbers, dim))


def in_bits(bits: int) -> str:
    """Name the setting of so many bits a dimension."""
    return f"{bits} bit{'' if bits == 1 else 's'}"


def _fast_scan_index(dim: int, size: int) -> Any:
    _check_parts(dim, 2 * size)
    index = _faiss.IndexPQFastScan(dim, 2 * size, 4, IP)
    _use_all_points(index.pq)
    return index


def _fast_scan(dim: int, size: int) -> Method:
    return FaissIndex(_fast_scan_index(dim, size), size)


def _pq8(dim: int, size: int) -> Method:
    _check_parts(dim, size)
    index = _faiss.IndexPQ(dim, size, 8, IP)
    _use_all_points(index.pq)
    return FaissIndex(index, size)


def _check_parts(dim: int, parts: int) -> None:
    if dim % parts:
        raise CodecError(f"faiss cannot cut {dim} dimensions into {parts} equal parts")


def _use_all_points(quantizer: Any) -> None:
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.max_points_per_centroid = PQ_POINTS


class _Opq(FaissIndex):
    """Keeps the product quantiser alive that the rotation is trained for: faiss has a pointer to it only."""

    def __init__(self, rotation: Any, inner: Any, quantizer: Any, code_size: int) -> None:
        super().__init__(_faiss.IndexPreTransform(rotation, inner), code_size)
        self._kept = rotation, inner, quantizer


def _opq(dim: int, size: int) -> Method:
    inner = _fast_scan_index(dim, size)
    rotation = _faiss.OPQMatrix(dim, 2 * size)
    quantizer = _faiss.ProductQuantizer(dim, 2 * size, 4)
    _use_all_points(quantizer)
    rotation.pq, rotation.max_train_points = quantizer, OPQ_SAMPLE
    return _Opq(rotation, inner, quantizer, size)


def _itq(dim: int, size: int) -> Method:
    """Iterative quantisation (Gong and Lazebnik, CVPR 2011) and Hamming distances."""
    rotation = _faiss.ITQTransform(dim, 8 * size, 8 * size < dim)
    rotation.max_train_per_dim = PQ_POINTS
    return FaissIndex(_faiss.IndexPreTransform(rotation, _faiss.IndexLSH(8 * size, 8 * size, False)), size)


def _lsh(dim: int, size: int) -> Method:
    """Signs after a random rotation, with trained thresholds, and Hamming distances."""
    return FaissIndex(_faiss.IndexLSH(dim, 8 * size, True, True), size)


def _rabitq(dim: int, bits: int) -> Method:
    index = _faiss.IndexRaBitQ(dim, IP, *(() if bits == 1 else (bits,)))  # more bits came with faiss 1.13
    index.qb = RABITQ_QUERY_BITS
    return FaissIndex(_faiss.IndexPreTransform(_faiss.RandomRotationMatrix(dim, dim), index), int(index.code_size))


def _sq(dim: int, bits: int) -> Method:
    kind = faiss.ScalarQuantizer.QT_4bit if bits == 4 else faiss.ScalarQuantizer.QT_8bit
    index = _faiss.IndexScalarQuantizer(dim, kind, IP)
    return FaissIndex(index, int(index.code_size))


class Turbovec(Method):
    """turbovec's index, calibrated on random documents, with one thread; ids are not counted in its bytes.

    Raises:
        MissingExtraError: turbovec is not installed.
    """

    def __init__(self, dim: int, bits: int) -> None:
        """Create the empty index."""
        if find_spec("turbovec") is None:
            raise MissingExtraError("turbovec is not installed: pip install turbovec")
        os.environ.setdefault("RAYON_NUM_THREADS", "1")  # read when its threads are first used
        self._index = import_module("turbovec").IdMapIndex(dim, bits)
        self._code_size = dim * bits // 8 + 4

    @property
    def code_size(self) -> float:
        """The levels, and a float32 of the vector's length."""
        return self._code_size

    def train(self, sample: Vectors) -> None:
        """Calibrate; the sample is in random order."""
        self._index.calibrate(sample[:CALIBRATION])

    def fill(self, docs: Vectors) -> None:
        """Add, and build what the first search would build."""
        self._index.add_with_ids(docs, np.arange(len(docs), dtype=np.uint64))
        self._index.prepare()

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Search; it gives no more places than there are documents."""
        places: RowIdMatrix = self._index.search(queries, k)[1].astype(np.int64)
        return np.pad(places, ((0, 0), (0, k - places.shape[1])), constant_values=-1)


def _quantize(vectors: Vectors, precision: str, ranges: npt.NDArray[np.float32] | None = None) -> npt.NDArray[Any]:
    quantized: npt.NDArray[Any] = _quantization().quantize_embeddings(vectors, precision=precision, ranges=ranges)
    return quantized


def _quantization() -> Any:
    """Import the functions from where the installed version has them."""
    if find_spec("sentence_transformers") is None:
        raise MissingExtraError("sentence-transformers is not installed: pip install 'rarebit[models]'")
    try:
        return import_module("sentence_transformers.util.quantization")
    except ImportError:  # before 5.5
        return import_module("sentence_transformers.quantization")


class Signs(Method):
    """``quantize_embeddings(..., "ubinary")`` and Hamming distances."""

    def __init__(self, dim: int) -> None:
        """Create the empty index."""
        _quantization()
        self._index = _faiss.IndexBinaryFlat(-(-dim // 8) * 8)

    @property
    def code_size(self) -> float:
        """One bit a dimension."""
        return float(self._index.code_size)

    def fill(self, docs: Vectors) -> None:
        """Take the signs."""
        self._index.add(self._signs(docs))

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Count the differing signs."""
        places: RowIdMatrix = self._index.search(self._signs(queries), k)[1]
        return places

    @staticmethod
    def _signs(vectors: Vectors) -> Codes:
        return _quantize(vectors, "ubinary")


class WholeNumbers(FaissIndex):
    """``quantize_embeddings(..., "int8")`` of documents and queries, with the ranges of the sample, and inner products."""

    def __init__(self, dim: int) -> None:
        """Create the empty index, which keeps the numbers as they are."""
        _quantization()
        super().__init__(_faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, IP), dim)

    def train(self, sample: Vectors) -> None:
        """Measure the range of each dimension."""
        self._ranges = np.stack([sample.min(axis=0), sample.max(axis=0)])

    def fill(self, docs: Vectors) -> None:
        """Round, and add."""
        super().fill(self._rounded(docs))

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Round the queries like the documents, and search."""
        return super().search(self._rounded(queries), k)

    def _rounded(self, vectors: Vectors) -> Vectors:
        return _quantize(vectors, "int8", self._ranges).astype(np.float32)
