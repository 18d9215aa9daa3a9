"""Optimised product quantisation: the rotation before a product quantiser, learned (Ge et al., CVPR 2013)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from tqdm.auto import tqdm

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays
from rarebit.compressors.vectors.transform import Transform
from rarebit.errors import CodecError, InputError

Rotated: TypeAlias = Float32[npt.NDArray[np.float32], "n out_dim"]
RotatedQueries: TypeAlias = Float32[npt.NDArray[np.float32], "q out_dim"]
Matrix: TypeAlias = Float32[npt.NDArray[np.float32], "out_dim out_dim"]

SAMPLE = 20_000
"""Vectors that the rotation is learned from; more take longer and change little."""

ITERATIONS = 20
"""Turns between the product quantiser and the rotation that suits it."""

NEGLIGIBLE = 1e-7
"""Share of the largest variance below which an axis carries rounding errors only."""

FIRST_STEPS, LATER_STEPS = 25, 4
"""Steps of k-means in the first turn, and in the later ones, which go on from it."""

BITS = 4
"""Of the product quantiser inside: with 8 bits training takes many times as long, for the same rotation."""


class OPQ(Transform):
    """Rotates vectors so that a product quantiser of ``parts`` equal parts loses least.

    Where the parts do not divide the dimension, vectors are first filled up with zeros to the next multiple: ``out_dim``. The
    map keeps every inner product, to rounding.

    Learning starts from the principal axes, dealt out so that the parts have variances of equal product (the parametric
    solution of the paper), which is nearer to the end than a random rotation, and ends better.

    Args:
        parts: sub-quantisers of the product quantiser behind; twice its bytes a vector if they have 4 bits.
        seed: of the sample and of k-means.
    """

    name = "opq"
    training_minimum = 1024

    def __init__(self, parts: int, seed: int = 0) -> None:
        """Create an unfitted transform."""
        super().__init__()
        if parts < 1:
            raise InputError(f"got parts={parts}, wanted at least 1 part")
        self.parts = parts
        self.seed = seed
        self._matrix = np.empty((0, 0), np.float32)

    @property
    def out_dim(self) -> int:
        """Dimension of the vectors that come out: the next multiple of the parts."""
        return -(-self.dim // self.parts) * self.parts

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"parts": self.parts, "seed": self.seed}

    def apply(self, vectors: Vectors) -> Rotated:
        """Rotate (n, dim) vectors to (n, out_dim)."""
        rotated: Rotated = vectors @ self._matrix
        return rotated

    def apply_queries(self, queries: Queries) -> RotatedQueries:
        """Rotate (q, dim) queries to (q, out_dim)."""
        return self.apply(queries)

    def invert(self, vectors: Rotated) -> Vectors:
        """Rotate (n, out_dim) vectors back to (n, dim)."""
        rotated: Vectors = vectors @ self._matrix.T
        return rotated

    def arrays(self) -> Arrays:
        """Give the matrix, (dim, out_dim), whose rows are orthonormal."""
        return {"matrix": self._matrix}

    def _fit(self, vectors: Vectors, *, progress: bool) -> None:
        if self.parts > self.dim:
            raise CodecError(f"got vectors of {self.dim} dimensions for {self!r}, wanted at least one a part: use fewer parts")
        rng = np.random.default_rng(self.seed)
        sample = vectors[rng.permutation(len(vectors))[:SAMPLE]]
        # k-means wants at least as many vectors as centroids.
        sample = np.resize(sample, (max(len(sample), 2**BITS), self.dim))
        padded = np.pad(sample - sample.mean(axis=0), ((0, 0), (0, self.out_dim - self.dim)))
        with _one_thread():
            learned = self._learned(padded, progress=progress)
        self._matrix = np.ascontiguousarray(learned[: self.dim])

    def _learned(self, centred: Rotated, *, progress: bool) -> Matrix:
        """Fit centroids and rotation in turns: k-means in the parts, then the rotation onto what it decodes (Procrustes)."""
        rotation = _balanced(centred, self.parts)
        quantizer = self._new_quantizer()
        for _ in tqdm(range(ITERATIONS), desc="OPQ", disable=not progress):
            rotated = centred @ rotation
            quantizer.train(rotated)
            decoded = quantizer.decode(quantizer.compute_codes(rotated))
            left, _, right = np.linalg.svd((centred.T @ decoded).astype(np.float64))
            rotation = (left @ right).astype(np.float32)
            quantizer.train_type = quantizer.Train_hot_start
            quantizer.cp.niter = LATER_STEPS
        return rotation

    def _new_quantizer(self) -> Any:
        library: Any = faiss
        quantizer = library.ProductQuantizer(self.out_dim, self.parts, BITS)
        quantizer.cp.min_points_per_centroid = 1
        quantizer.cp.max_points_per_centroid = SAMPLE
        quantizer.cp.seed = self.seed
        quantizer.cp.niter = FIRST_STEPS
        return quantizer

    def _restore(self, arrays: Arrays) -> None:
        self._matrix = arrays["matrix"]


def _balanced(centred: Rotated, parts: int) -> Matrix:
    """Give the principal axes as columns, dealt out so that each part has as many, and variances of about one product."""
    variances, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    width = len(variances) // parts
    worth = np.log(np.maximum(variances / max(variances[-1], np.finfo(float).tiny), NEGLIGIBLE) / NEGLIGIBLE)
    members: list[list[int]] = [[] for _ in range(parts)]
    for axis in range(len(variances))[::-1]:
        emptiest = min((part for part in members if len(part) < width), key=lambda part: worth[part].sum())
        emptiest.append(axis)
    return np.ascontiguousarray(axes[:, np.concatenate(members)], dtype=np.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep faiss to one thread: the many small k-means of OPQ are slower with more."""
    library: Any = faiss
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)
