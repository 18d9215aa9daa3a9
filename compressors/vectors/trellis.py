"""Trellis codes: overlapping four-bit quantisers in the principal axes, encoded by the Viterbi algorithm.

A product quantiser with four-bit parts decides each part by itself. Here a part adds to its own group of axes and to the next
group too, so a group is approximated by two parts, in 256 ways instead of 16, at the same four bits a group. The best sequence
of parts is found exactly, as the shortest path through a trellis of 16 states (trellis-coded quantisation: Marcellin and
Fischer, 1990). Since the parts still only add up, search is that of a product quantiser; only the codes are better.

The tables are learned by alternating, as k-means does: encode a sample, then fit the tables by least squares. They are moved
beyond what least squares says, which takes fewer rounds, and shaken, less from round to round, so that they do not stay in the
first optimum that they come to (stochastic relaxation: Zeger, Vaisey and Gersho, 1992; for codes that add up: Martinez et al.,
"LSQ++", 2018). A distilled code keeps them for encoding, and reads codes with others that are trained to rank
(:mod:`.trellis_training`).
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64
from tqdm.auto import tqdm

from rarebit.arrays import Codes, Prepared, Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays
from rarebit.compressors.vectors.grouped_code import Axis, GroupedCode, Groups, InAxes, Part, Tables, Values, looked_up
from rarebit.compressors.vectors.spectrum import Axes, Rates, Spectrum
from rarebit.compressors.vectors.viterbi import STATES, Trellis
from rarebit.extras import require

ROUNDS = ((1024, 16), (4096, 8), (16_384, 3))
"""Vectors that the tables are learned from and how many times, at first few and often."""

OVERSHOOT = 0.5
"""How far the tables move beyond the least squares of a round, as a share of the way there."""

SHAKE = 0.2
"""Deviation of the noise on the tables before the first round, as a share of the axis's own; it falls to none."""

STILL_ROUNDS = 2
"""Rounds at the end without either."""

RIDGE = 0.1
"""Added to the counts in least squares: what a value adds that no vector has stays near zero."""

FIRST_STEP = 0.3
"""Size of the random tables that carry over at first, as a share of what the groups' own tables leave over."""

KMEANS_ROUNDS = 10

READING = "reading_"
"""Before the names of the arrays that a distilled code reads with."""

Points: TypeAlias = Float32[npt.NDArray[np.float32], "n width"]
"""Vectors along the axes of one group."""
Pairs: TypeAlias = Int64[npt.NDArray[np.int64], "n"]
"""The value of a part and that of the part before: ``16 * before + own``."""


class TrellisCode(GroupedCode):
    """Principal axes in groups that deserve four bits each; each part also adds to the next group; one factor.

    Args:
        code_size: bytes a vector; by default one bit a dimension, and at least 4 bytes. One byte of it is the factor, two
            where the vectors' lengths differ.
        seed: of the sample, of the first tables and of distillation.
        distilled: train what codes stand for until their scores rank as the float ones do. That takes less than a minute more,
            and the extra ``models`` (torch); a fitted or loaded codec does not need it. Below 512 vectors nothing is trained.

    ``fit(vectors, queries)``: distillation ranks the vectors for these queries, or else for the vectors themselves. What it
    gives is kept only if held-out queries find more with it. Codes are the same with and without; those that are distilled
    score better, and decode to vectors that are meant for scores and lie a little farther from the ones encoded.
    """

    name = "trellis"

    def __init__(self, code_size: int | None = None, seed: int = 0, *, distilled: bool = False) -> None:
        """Create an unfitted codec."""
        super().__init__(code_size, seed)
        self.distilled = distilled
        self._carried: Tables
        self._reading: TrellisCode | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().config, "distilled": self.distilled}

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Give the tables of (q, dim) queries: what each value of each part adds to the score, and last the mean's share."""
        return super().prepare_queries(queries) if self._reading is None else self._reading.prepare_queries(queries)

    def read_with(self, axes: Axes, own: Tables, carried: Tables) -> TrellisCode:
        """Give a code that reads what this one writes with other axes (rounded as they are saved) and tables."""
        reading = copy(self)
        reading._axes, reading._reading = axes.astype(np.float16).astype(np.float32), None
        reading._take(own, carried)
        return reading

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        if self.distilled:
            require("torch", "models")
        self._reading = None
        super()._fit(vectors, queries, progress=progress)
        if self.distilled:
            from rarebit.compressors.vectors.trellis_training import distilled

            self._reading = distilled(self, vectors, queries, progress=progress)

    def _decode(self, codes: Codes) -> Vectors:
        return super()._decode(codes) if self._reading is None else self._reading._decode(codes)

    def _grouping(self, spectrum: Spectrum, parts: int) -> tuple[npt.NDArray[np.intp], Groups]:
        rates = spectrum.rates(4 * parts)
        return np.arange(len(rates)), grouped_axes(rates, parts)

    def _learn(self, in_axes: InAxes, rng: np.random.Generator, *, progress: bool) -> None:
        fewest = ROUNDS[0][0]
        self._take(*_first_tables(in_axes[:fewest], self._groups, rng))
        counts = [count for count, times in ROUNDS if count == fewest or count < 2 * len(in_axes) for _ in range(times)]
        noise = SHAKE * in_axes[:fewest].std(axis=0)[:, np.newaxis]
        left = len(counts)
        for count in tqdm(counts, desc=f"training {self.name}", unit="round", disable=not progress):
            sample, left = in_axes[:count], left - 1
            own, carried = _fitted_tables(sample, self._groups, self._nearest(sample))
            if left >= STILL_ROUNDS:
                shake = noise * left / len(counts)
                own += OVERSHOOT * (own - self._own) + shake * rng.standard_normal(own.shape, np.float32)
                carried += OVERSHOOT * (carried - self._carried) + shake * rng.standard_normal(own.shape, np.float32)
                carried[self._groups == 0] = 0
            self._take(own, carried)

    def _nearest(self, in_axes: InAxes) -> Values:
        return self._trellis.nearest(in_axes * self._roots)

    def _points(self, values: Values) -> InAxes:
        points = super()._points(values)
        points += looked_up(self._carried, values, np.maximum(self._groups - 1, 0))
        return points

    def _entries(self) -> tuple[Axis, Part, Tables]:
        axis, part, own = super()._entries()
        late = np.flatnonzero(self._groups > 0)
        return np.append(axis, late), np.append(part, part[late] - 1), np.concatenate([own, self._carried[late]])

    def _tables_changed(self) -> None:
        super()._tables_changed()
        vars(self).pop("_trellis", None)

    def _arrays(self) -> Arrays:
        arrays = {**super()._arrays(), "carried": self._carried}
        if self._reading is not None:
            read = self._reading._arrays()
            arrays |= {READING + name: read[name] for name in ("axes", "own", "carried")}
        return arrays

    def _restore(self, arrays: Arrays) -> None:
        super()._restore(arrays)
        self._carried = arrays["carried"]
        if READING + "axes" in arrays:
            axes, own, carried = (arrays[READING + name].astype(np.float32) for name in ("axes", "own", "carried"))
            self._reading = self.read_with(axes, own, carried)

    def _take(self, own: Tables, carried: Tables) -> None:
        self._own, self._carried = own, carried
        self._tables_changed()

    @cached_property
    def _trellis(self) -> Trellis:
        """The tables as distances are taken: each axis with the root of its weight."""
        roots = self._roots[:, np.newaxis]
        return Trellis(self._own * roots, self._carried * roots, self._groups, self._parts)


def grouped_axes(rates: Rates, parts: int) -> Groups:
    """Cut the axes, which are sorted by their rates, into groups that deserve equally many bits.

    The bits that an axis deserves lie in the middle of the two parts that make its group. Where an axis deserves more than one
    part, there are groups without axes beside its own.
    """
    middles = np.cumsum(rates) - rates / 2
    groups: Groups = np.minimum(np.rint(middles / rates.sum() * parts), parts - 1).astype(np.int32)
    return groups


def _first_tables(in_axes: InAxes, groups: Groups, rng: np.random.Generator) -> tuple[Tables, Tables]:
    """Cluster each group; what is carried over is random, or the clusters themselves where the part before has no axes."""
    own, carried = np.zeros((2, len(groups), STATES), dtype=np.float32)
    for group in np.unique(groups):
        axes = groups == group
        rest = in_axes[:, axes]
        before_is_free = group > 0 and group - 1 not in groups
        if before_is_free:
            carried[axes], rest = _clustered(rest, rng)
        own[axes], rest = _clustered(rest, rng)
        if group > 0 and not before_is_free:
            carried[axes] = FIRST_STEP * rest.std(axis=0)[:, np.newaxis] * rng.standard_normal((rest.shape[1], STATES))
    return own, carried


def _clustered(points: Points, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Find 16 centres by Lloyd's algorithm; gives them, (axes, 16), and what they leave over of the points."""
    centres = points[rng.integers(len(points), size=STATES)]
    for _ in range(KMEANS_ROUNDS):
        nearest = _nearest_centres(points, centres)
        counts = np.bincount(nearest, minlength=STATES)[:, np.newaxis]
        sums = np.stack([np.bincount(nearest, weights=axis, minlength=STATES) for axis in points.T], axis=1)
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres).astype(np.float32)
    return centres.T, points - centres[_nearest_centres(points, centres)]


def _nearest_centres(points: Points, centres: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    nearest: npt.NDArray[np.intp] = ((centres * centres).sum(axis=1) - 2 * points @ centres.T).argmin(axis=1)
    return nearest


def _fitted_tables(in_axes: InAxes, groups: Groups, values: Values) -> tuple[Tables, Tables]:
    """Give the tables that leave the smallest squared error, the values being as they are."""
    own, carried = np.zeros((2, len(groups), STATES), dtype=np.float32)
    for group in np.unique(groups):
        axes = groups == group
        before = values[:, group - 1].astype(np.int64) if group else np.zeros(len(values), np.int64)
        both = _regressed(in_axes[:, axes], before * STATES + values[:, group])
        own[axes] = both[:STATES].T
        if group:
            carried[axes] = both[STATES:].T
    return own, carried


def _regressed(points: Points, pairs: Pairs) -> Float32[npt.NDArray[np.float32], "32 width"]:
    """Regress points on the value of their part and on that of the part before."""
    size = STATES * STATES
    counts = np.bincount(pairs, minlength=size).reshape(STATES, STATES).astype(np.float64)
    sums = np.stack([np.bincount(pairs, weights=axis, minlength=size) for axis in points.T], axis=1)
    sums = sums.reshape(STATES, STATES, -1)
    own, before = np.diag(counts.sum(axis=0)), np.diag(counts.sum(axis=1))
    normal = np.block([[own, counts.T], [counts, before]]) + RIDGE * np.eye(2 * STATES)
    right = np.concatenate([sums.sum(axis=0), sums.sum(axis=1)])
    solved: npt.NDArray[np.float32] = np.linalg.solve(normal, right).astype(np.float32)
    return solved
