"""What the codes in principal axes share: groups of axes, a four-bit part for each group, one factor a vector.

A vector is written as ``mean + factor * axes @ y``. The axes are cut into groups that deserve four bits each, and the part of a
group names one of 16 values for each of its axes. Scores add up over parts, so faiss's fast-scan kernel computes them; the
factor, which the kernel does not know, is applied when the candidates that it found are scored again in memory.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int, Int32, UInt8

from rarebit.arrays import Codes, Prepared, Queries, Scores, Vector, Vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec
from rarebit.compressors.vectors.factors import FactorGrid, Factors, PackedFactors, factor_bytes, least_squares
from rarebit.compressors.vectors.fast_scan import NIBBLES, FastScan, pack_nibbles, summed, unpack_nibbles
from rarebit.compressors.vectors.scanning import Division, Scanner
from rarebit.compressors.vectors.spectrum import Axes, Spectrum
from rarebit.errors import CodecError, InputError

LARGEST_SAMPLE = 65_536
"""Vectors that the code is learned from."""

BATCH = 8192
"""Vectors encoded or decoded at once."""

FACTOR_SAMPLE = 16_384
"""Vectors whose factors say how far the grid of factors reaches."""

LEAST = 4
"""Bytes a vector that are taken without being asked for, also where one bit a dimension is less."""

InAxes: TypeAlias = Float32[npt.NDArray[np.float32], "n axes"]
"""Centred vectors in the principal axes, those of one group side by side."""
InOneRow: TypeAlias = Float32[npt.NDArray[np.float32], "axes"]
"""One of them, or a number for each axis."""
Tables: TypeAlias = Float32[npt.NDArray[np.float32], "axes 16"]
"""What each value of a part stands for along each axis of its group."""
Groups: TypeAlias = Int32[npt.NDArray[np.int32], "axes"]
"""The group of each axis, ascending; there may be groups without axes."""
Values: TypeAlias = UInt8[npt.NDArray[np.uint8], "n parts"]
Axis: TypeAlias = Int[npt.NDArray[np.signedinteger[Any]], "axes"]
Part: TypeAlias = Int[npt.NDArray[np.signedinteger[Any]], "axes"]


def looked_up(tables: Tables, values: Values, parts: Part) -> InAxes:
    """Give the entries of (axes, 16) tables for the values that each axis's part has: (n, axes)."""
    places = values.take(parts, axis=1) + NIBBLES * np.arange(len(parts))
    found: InAxes = tables.take(places, mode="clip")
    return found


class ScoreTable:
    """Makes what each value of each part adds to a query's score.

    Args:
        axis: of each line of entries.
        part: whose values the line belongs to.
        entries: (lines, 16) what the values stand for.
        parts: how many there are; one without lines adds nothing.
    """

    def __init__(self, axis: Axis, part: Part, entries: Tables, parts: int) -> None:
        """Sort the lines by their parts, once for all queries."""
        order = np.argsort(part, kind="stable")
        self._axis, self._entries, self._parts = axis[order], entries[order], parts
        self._starts = np.flatnonzero(np.diff(part[order], prepend=-1))
        self._filled = part[order][self._starts]

    def of(self, in_axes: InOneRow) -> Vector:
        """Give the table of a query in the principal axes: (16 * parts,)."""
        sums = np.zeros((self._parts, NIBBLES), np.float32)
        if len(self._starts):
            sums[self._filled] = np.add.reduceat(in_axes[self._axis, np.newaxis] * self._entries, self._starts, axis=0)
        return sums.ravel()


class GroupedCode(SearchableCodec):
    """A four-bit part for each group of principal axes, and a factor.

    Args:
        code_size: bytes a vector; by default one bit a dimension, and at least 4 bytes. One byte of it is the factor, two
            where the vectors' lengths differ.
        seed: of the sample and of what learning draws.
    """

    training_minimum = 1024

    def __init__(self, code_size: int | None = None, seed: int = 0) -> None:
        """Create an unfitted codec."""
        super().__init__()
        if code_size is not None and code_size < 2:
            raise InputError(f"got code_size={code_size!r}, wanted 2 bytes or more: one for the factor, one for the code")
        self._asked = code_size
        self.seed = seed
        self._mean: Vector
        self._axes: Axes
        self._roots: InOneRow
        self._groups: Groups
        self._own: Tables
        self._grid: FactorGrid

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"code_size": self._asked, "seed": self.seed}

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return self._asked or max(LEAST, self.dim // 8)

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Give the tables of (q, dim) queries: what each value of each part adds to the score, and last the mean's share."""
        prepared: Prepared = np.empty((len(queries), NIBBLES * self._parts + 1), np.float32)
        for row, query in zip(prepared, queries, strict=True):  # one by one: the scores of a query are the same in any company
            row[:-1] = self._table.of(query @ self._axes)
            row[-1] = query @ self._mean
        return prepared

    @property
    def has_lists(self) -> bool:
        """Whether its scanner keeps inverted lists apart."""
        return True

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:
        """Lay the parts out for fast scan, and the factors beside them."""
        factors, values = self._split(codes)
        return FastScan(values, self._parts, PackedFactors(self._grid, factors), division)

    def scores(self, prepared: Prepared, codes: Codes) -> Scores:
        """As :meth:`SearchableCodec.scores` says, without packing them into blocks."""
        factors, packed = self._split(codes)
        sums = summed(prepared[0], unpack_nibbles(packed, self._parts))
        scores: Scores = sums * self._grid.decode(factors) + prepared[0, -1]
        return scores

    @abstractmethod
    def _grouping(self, spectrum: Spectrum, parts: int) -> tuple[npt.NDArray[np.intp], Groups]:
        """Choose axes of the spectrum, and cut them into groups: their numbers and groups, in the order of the groups."""

    @abstractmethod
    def _learn(self, in_axes: InAxes, rng: np.random.Generator, *, progress: bool) -> None:
        """Learn the tables from vectors in the chosen axes."""

    @abstractmethod
    def _nearest(self, in_axes: InAxes) -> Values:
        """Choose the value of each part."""

    def _points(self, values: Values) -> InAxes:
        """Give what the values of the parts stand for, before the factor."""
        return looked_up(self._own, values, self._groups)

    def _entries(self) -> tuple[Axis, Part, Tables]:
        """Give what values stand for, line by line: along which axis, of which part."""
        return np.arange(len(self._own)), self._groups, self._own

    @cached_property
    def _table(self) -> ScoreTable:
        return ScoreTable(*self._entries(), self._parts)

    def _tables_changed(self) -> None:
        """Forget what was derived from the tables; to be called when they are exchanged."""
        vars(self).pop("_table", None)

    @property
    def _parts(self) -> int:
        return 2 * (self.code_size - self._grid.size)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        del queries
        rng = np.random.default_rng(self.seed)
        sample = vectors[rng.permutation(len(vectors))[:LARGEST_SAMPLE]]
        self._grid = FactorGrid(1, 2, factor_bytes(sample))
        if self._parts < 1 or (self._asked is not None and self._parts > 2 * self.dim):
            least = self._grid.size + 1
            raise CodecError(
                f"got code_size={self.code_size} for vectors of dimension {self.dim}, wanted {least} to "
                f"{self.dim + self._grid.size}: more than a byte a dimension is what float16 is for"
            )
        spectrum = Spectrum.of(sample)
        chosen, self._groups = self._grouping(spectrum, self._parts)
        self._mean, self._roots = spectrum.mean, np.sqrt(spectrum.weights[chosen]).astype(np.float32)
        # Rounded as they are saved, so that a loaded codec gives the same codes.
        self._axes = np.ascontiguousarray(spectrum.axes[:, chosen]).astype(np.float16).astype(np.float32)
        in_axes = self._in_axes(sample)
        self._learn(in_axes, rng, progress=progress)
        self._tables_changed()
        self._grid = FactorGrid.fit(self._coded(in_axes[:FACTOR_SAMPLE])[1], self._grid.size)

    def _encode(self, vectors: Vectors) -> Codes:
        values, factors = self._coded(self._in_axes(vectors))
        codes: Codes = np.concatenate([self._grid.encode(factors), pack_nibbles(values)], axis=1)
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        vectors: Vectors = np.empty((len(codes), self.dim), np.float32)
        factors, packed = self._split(codes)
        for start in range(0, len(codes), BATCH):
            part = slice(start, start + BATCH)
            points = self._points(unpack_nibbles(packed[part], self._parts))
            np.matmul(points, self._axes.T, out=vectors[part])
            vectors[part] *= self._grid.decode(factors[part])[:, np.newaxis]
        vectors += self._mean
        return vectors

    def _arrays(self) -> Arrays:
        return {
            "mean": self._mean,
            "axes": self._axes.astype(np.float16),
            "roots": self._roots,
            "groups": self._groups,
            "own": self._own,
            "factors": np.array([self._grid.low, self._grid.high, self._grid.size]),
        }

    def _restore(self, arrays: Arrays) -> None:
        self._mean, self._axes, self._roots = arrays["mean"], arrays["axes"].astype(np.float32), arrays["roots"]
        self._groups, self._own = arrays["groups"], arrays["own"]
        low, high, size = arrays["factors"].tolist()
        self._grid = FactorGrid(low, high, int(size))

    def _in_axes(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        in_axes: npt.NDArray[np.float32] = np.matmul(vectors - self._mean, self._axes)
        return in_axes

    def _coded(self, in_axes: InAxes) -> tuple[Values, Factors]:
        """Choose values and factors, batch by batch."""
        values = np.empty((len(in_axes), self._parts), np.uint8)
        factors = np.empty(len(in_axes), np.float32)
        for start in range(0, len(in_axes), BATCH):
            part = slice(start, start + BATCH)
            values[part] = self._nearest(in_axes[part])
            factors[part] = least_squares(in_axes[part], self._points(values[part]))
        return values, factors

    def _split(self, codes: Codes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        return codes[:, : self._grid.size], codes[:, self._grid.size :]
