"""RaBitQ: one bit a dimension or more, with an unbiased estimate of the inner product, through faiss.

Gao and Long, SIGMOD 2024, for one bit; Gao et al., SIGMOD 2025, arXiv 2409.09913, for more.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rarebit.arrays import Codes, Prepared, Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec
from rarebit.compressors.vectors.scanning import Division, FaissScanner, Scanner
from rarebit.errors import CodecError, InputError

QUERY_BITS = 8
"""Bits to which faiss rounds each dimension of the query, so that it can count bits instead of multiplying."""

FACTOR_BYTES = 8
"""Two float32 numbers beside the signs: the length of the centred vector, and what makes the estimate unbiased."""

BOUND_BYTES = 4
"""With more bits, one float32 behind those two: how far off the estimate from the signs alone may be."""

EXTRA_FACTOR_BYTES = 8
"""With more bits, two float32 numbers at the end: the inner product with the centre, and the step between levels."""

MOST_BITS = 9

BLOCK = 64
"""Dimensions that are rotated together."""


class RaBitQ(SearchableCodec):
    """The signs of the centred, randomly rotated vector, and two float32 factors that make the estimate unbiased.

    ``dim / 8 + 8`` bytes a vector. The rotation spreads every vector's length evenly over the dimensions, on which the
    estimate's guarantee rests; the centre is the mean of the training vectors. Dimensions are rotated in random groups of at
    most 64, which mixes them well enough and keeps ``64 * dim`` numbers in memory instead of ``dim * dim``.

    With more bits, each dimension has ``2 ** bits`` levels around the centre, on a grid chosen for each vector:
    ``dim * bits / 8 + 20`` bytes a vector. The estimate is then linear in the query. ``decode`` gives the vector of levels that
    it uses: estimates are the query's inner product with it, plus a number for each vector that makes the estimate for the
    centre exact. With one bit it gives the nearest multiple of the signs, which is shorter than what the estimate uses.

    Args:
        bits: 1 to 9 bits a dimension; more than one needs faiss 1.13.2.
        seed: of the random rotation.
    """

    name = "rabitq"
    training_minimum = 1024
    scores_as_decoded = False  # they are unbiased, which decoded vectors are not

    def __init__(self, bits: int = 1, seed: int = 0) -> None:
        """Create an unfitted codec."""
        super().__init__()
        if not 1 <= bits <= MOST_BITS:
            raise InputError(f"got bits={bits!r}, wanted 1 to {MOST_BITS} bits a dimension")
        self.bits = bits
        self.seed = seed
        self._groups: list[npt.NDArray[np.int32]] = []
        self._rotations: list[npt.NDArray[np.float32]] = []
        self._index: Any = None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments; one bit is left out, as before there were more."""
        return {"seed": self.seed} if self.bits == 1 else {"bits": self.bits, "seed": self.seed}

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        signs = (self.dim + 7) // 8 + FACTOR_BYTES
        return signs if self.bits == 1 else signs + BOUND_BYTES + self._extra_bytes + EXTRA_FACTOR_BYTES

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Rotate (q, dim) queries as the vectors were."""
        return self._rotated(queries)

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:  # noqa: ARG002
        """Put the codes into a faiss ``IndexRaBitQ`` over the codes."""
        index = self._centred_index(faiss.vector_to_array(self._index.center))
        index.add_sa_codes(codes)
        return FaissScanner(index, self.code_size)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        del queries, progress
        rng = np.random.default_rng(self.seed)
        self._group(rng.permutation(self.dim))
        self._rotations = [_random_rotation(rng, len(group)) for group in self._groups]
        self._index = self._centred_index(self._rotated(vectors).mean(axis=0, dtype=np.float64))

    def _encode(self, vectors: Vectors) -> Codes:
        rotated = self._rotated(vectors)
        if self.bits > 1:
            # faiss gives a component that is exactly the centre's the lowest level instead of a middle one.
            center = faiss.vector_to_array(self._index.center)
            rotated = np.where(rotated == center, np.nextafter(center, np.float32(np.inf)), rotated)
        codes: Codes = self._index.sa_encode(rotated)
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        rotated: Vectors = self._index.sa_decode(codes) if self.bits == 1 else self._levels(codes)
        vectors = np.empty_like(rotated)
        for group, rotation in zip(self._groups, self._rotations, strict=True):
            vectors[:, group] = rotated[:, group] @ rotation.T
        return vectors

    def _levels(self, codes: Codes) -> Vectors:
        """Decode to rotated vectors; faiss's own decoding ignores the extra bits."""
        extra_bits = self.bits - 1
        sign_bytes = (self.dim + 7) // 8
        start = sign_bytes + FACTOR_BYTES + BOUND_BYTES
        signs = np.unpackbits(codes[:, :sign_bytes], axis=1, count=self.dim, bitorder="little")
        levels = signs.astype(np.float32) * 2**extra_bits - np.float32(2**extra_bits - 0.5)
        extra = np.unpackbits(
            codes[:, start : start + self._extra_bytes], axis=1, count=self.dim * extra_bits, bitorder="little"
        )
        for bit in range(extra_bits):
            levels += extra[:, bit::extra_bits] * np.float32(2**bit)
        steps = np.ascontiguousarray(codes[:, -4:]).view("<f4")
        vectors: Vectors = levels * steps + faiss.vector_to_array(self._index.center)
        return vectors

    @property
    def _extra_bytes(self) -> int:
        return (self.dim * (self.bits - 1) + 7) // 8

    def _arrays(self) -> Arrays:
        return {
            "order": np.concatenate(self._groups),
            "rotations": np.concatenate([rotation.ravel() for rotation in self._rotations]),
            "center": faiss.vector_to_array(self._index.center),
        }

    def _restore(self, arrays: Arrays) -> None:
        self._group(arrays["order"])
        ends = np.cumsum([len(group) ** 2 for group in self._groups])[:-1]
        parts = np.split(arrays["rotations"], ends)
        self._rotations = [part.reshape(len(group), -1) for part, group in zip(parts, self._groups, strict=True)]
        self._index = self._centred_index(arrays["center"])

    def _group(self, order: npt.NDArray[np.integer[Any]]) -> None:
        """Cut a random order of the dimensions into groups of nearly equal size."""
        self._groups = np.array_split(order.astype(np.int32), -(-self.dim // BLOCK))

    def _rotated(self, vectors: Vectors) -> Vectors:
        rotated = np.empty_like(vectors)
        for group, rotation in zip(self._groups, self._rotations, strict=True):
            rotated[:, group] = vectors[:, group] @ rotation
        return rotated

    def _centred_index(self, center: Any) -> Any:
        library: Any = faiss  # its stubs know the C++ signatures, not the Python ones
        bits = () if self.bits == 1 else (self.bits,)
        try:
            index = library.IndexRaBitQ(self.dim, faiss.METRIC_INNER_PRODUCT, *bits)
        except TypeError as error:
            raise CodecError(
                f"faiss {faiss.__version__} has no {self!r}, wanted faiss 1.13.2 or later: upgrade faiss-cpu"
            ) from error
        index.qb = QUERY_BITS
        faiss.copy_array_to_vector(np.ascontiguousarray(center, dtype=np.float32), index.center)
        index.is_trained = True
        return index


def _random_rotation(rng: np.random.Generator, dim: int) -> npt.NDArray[np.float32]:
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
