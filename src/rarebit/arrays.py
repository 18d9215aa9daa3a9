"""The arrays that travel through Rarebit, with their dtypes and shapes as types.

The names inside a shape (``n``, ``dim``) are the same size wherever they occur in one signature; the test suite checks
that at run time (jaxtyping with beartype). This module also holds the one place where what a user passes becomes such
an array.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Int64, UInt8

from rarebit.errors import DimensionError, VectorError

Vector: TypeAlias = Float32[npt.NDArray[np.float32], "dim"]
Vectors: TypeAlias = Float32[npt.NDArray[np.float32], "n dim"]
Queries: TypeAlias = Float32[npt.NDArray[np.float32], "q dim"]
Prepared: TypeAlias = Float32[npt.NDArray[np.float32], "q prepared"]
"""Queries as a codec's scanner takes them."""
Codes: TypeAlias = UInt8[npt.NDArray[np.uint8], "n code_size"]
FineCodes: TypeAlias = UInt8[npt.NDArray[np.uint8], "n fine_code_size"]
Scores: TypeAlias = Float32[npt.NDArray[np.float32], "n"]
ScoreMatrix: TypeAlias = Float32[npt.NDArray[np.float32], "q k"]
RowIds: TypeAlias = Int64[npt.NDArray[np.int64], "n"]
RowIdMatrix: TypeAlias = Int64[npt.NDArray[np.int64], "q k"]
Lists: TypeAlias = Int64[npt.NDArray[np.int64], "q looks"]
"""For each query, the numbers of the inverted lists to look in."""
ListSizes: TypeAlias = Int64[npt.NDArray[np.int64], "lists"]
Mask: TypeAlias = Bool[npt.NDArray[np.bool_], "rows"]

NUMBER_KINDS = "biuf"
"""numpy's kinds of numbers that are taken: booleans, integers, floats; no texts, no complex numbers."""

LARGEST = 1e16
"""The largest component: inner products of longer vectors pass float32, and faiss then finds nothing without a word."""

VectorsLike: TypeAlias = npt.ArrayLike
"""What users may pass for vectors: anything that numpy makes a matrix of numbers from."""


def as_vectors(given: VectorsLike, *, dim: int | None = None, first: int = 0) -> Vectors:
    """Turn what was passed into a C-contiguous float32 matrix, or say why it cannot be one.

    Args:
        given: (n, dim) numbers; an empty sequence gives a (0, dim) matrix.
        dim: the dimension wanted; ``None`` accepts any.
        first: number of the first vector in messages, where they are part of more.

    Raises:
        VectorError: not numbers, ragged, not two-dimensional, NaN, infinite, or beyond float32.
        DimensionError: another dimension than ``dim``.
    """
    matrix = _as_float32(given)
    if matrix.size == 0 and matrix.ndim <= 2 and len(matrix) == 0:
        return np.empty((0, dim or 0), dtype=np.float32)
    if matrix.ndim != 2:
        raise VectorError(
            f"got an array of shape {matrix.shape}, wanted a matrix of shape (n, dimension): "
            "pass one row a vector, also for a single one"
        )
    return _checked(matrix, dim, first)


def as_vector(given: VectorsLike, *, dim: int | None = None) -> Vector:
    """Turn what was passed into one float32 vector; errors as in :func:`as_vectors`."""
    vector = _as_float32(given)
    if vector.ndim != 1:
        raise VectorError(f"got an array of shape {vector.shape}, wanted one vector of shape (dimension,)")
    row: Vector = _checked(vector[np.newaxis, :], dim)[0]
    return row


def normalized(vectors: Vectors) -> Vectors:
    """Scale each vector to length 1; a vector of zeros has no direction and stays as it is."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    norms[norms == 0] = 1
    directions: Vectors = (vectors / norms).astype(np.float32)
    return directions


def _as_float32(given: VectorsLike) -> npt.NDArray[np.float32]:
    try:
        array = np.asarray(given)
        if array.dtype.kind not in NUMBER_KINDS and array.size:
            raise TypeError(f"they are {array.dtype}")  # noqa: TRY301
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError(
            f"the vectors given ({type(given).__name__}) are no matrix of numbers ({error}): "
            "pass lists of floats of one length, or a numpy array"
        ) from error


def _checked(matrix: npt.NDArray[np.float32], dim: int | None, first: int = 0) -> Vectors:
    if matrix.shape[1] == 0 or (dim is not None and matrix.shape[1] != dim):
        wanted = "at least 1" if dim is None else dim
        raise DimensionError(
            f"got vectors of dimension {matrix.shape[1]}, wanted {wanted}: embed with the model that filled this "
            "collection, or open a new one"
        )
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise VectorError(
            f"{len(bad)} of {len(matrix)} vectors hold NaN, infinity or numbers beyond float32 "
            f"(first: number {first + bad[0]}), wanted finite numbers: look at the texts or the model that gave them"
        )
    if np.abs(matrix).max(initial=0) > LARGEST:
        raise VectorError(
            f"got vectors with components above {LARGEST:.0e}, whose inner products pass float32: scale them down"
        )
    return matrix
