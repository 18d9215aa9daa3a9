"""The trained codecs with parts taken away, or exchanged: what each part is good for.

To add one, add a line to :func:`_variants`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Queries, RowIdMatrix, Vectors
from rarebit.compressors.vectors import Codec, spectrum, trellis
from rarebit.compressors.vectors.factors import Factors
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.compressors.vectors.grouped_code import Groups, InAxes, Tables, Values
from rarebit.compressors.vectors.int4 import Int4
from rarebit.compressors.vectors.ranked_product import RankedProduct
from rarebit.compressors.vectors.recurrent_binary import RecurrentBinary
from rarebit.compressors.vectors.trellis import TrellisCode
from rarebit.compressors.vectors.verification import QueryMap
from rarebit.compressors.vectors.viterbi import STATES
from rarebit.cookbook.benchmarks.codec_methods import Entry, Method, OurCodec, in_bytes
from rarebit.cookbook.benchmarks.judged import CANDIDATES, scored, sorted_by
from rarebit.errors import CodecError

MAP_DOCUMENTS, MAP_QUERIES = 20_000, 4000
"""Vectors of the sample that a map of queries is trained among, and those that ask."""

Make: TypeAlias = Callable[[], Method]


def ablation_entries(sizes: Iterable[int], train_queries: Queries) -> Iterator[Entry]:
    """List all variants at each size.

    Args:
        sizes: bytes a vector.
        train_queries: (q, dim) queries that are not test queries, for the variants that learn from some; there may be none.
    """
    for size in sizes:
        for label, make in _variants(size, train_queries).items():
            yield Entry(label, in_bytes(size), make)


def _variants(size: int, train_queries: Queries) -> dict[str, Make]:
    def plain(create: Callable[..., Codec], **settings: Any) -> Make:
        return lambda: OurCodec(create(size, **settings))

    def asked(create: Callable[..., Codec], **settings: Any) -> Make:
        return lambda: OurCodec(create(size, **settings), _some(train_queries))

    ranked: dict[str, Any] = {"distillation": False, "query_transform": False}
    return {
        "trellis": plain(TrellisCode),
        "trellis: nothing carried over": plain(SeparateParts),
        "trellis: no factor": lambda: OurCodec(NoFactor(size + 1), unused=1),
        "trellis: distilled": plain(TrellisCode, distilled=True),
        "trellis: distilled, train queries": asked(TrellisCode, distilled=True),
        "trellis: weight 0": lambda: Weighted(TrellisCode(size), 0.0),
        "trellis: weight 1": lambda: Weighted(TrellisCode(size), 1.0),
        **{f"recurrent: {bits} levels": plain(RecurrentBinary, bits_per_dim=bits) for bits in (1, 2, 3, 4)},
        "verification: int4": lambda: Verified(TrellisCode(size), Int4()),
        "verification: int4 of the residual": lambda: VerifiedByResidual(TrellisCode(size)),
        "verification: int4, query map": lambda: Verified(TrellisCode(size), Int4(), QueryMap()),
        "verification: twice the bytes": lambda: Verified(TrellisCode(size), TrellisCode(2 * size)),
        "verification: twice the bytes, query map": lambda: Verified(TrellisCode(size), TrellisCode(2 * size), QueryMap()),
        "recurrent: 2 levels, untrained": plain(RecurrentBinary, bits_per_dim=2, steps=0),
        "recurrent: 2 levels, mlp": plain(RecurrentBinary, bits_per_dim=2, transform="mlp"),
        "recurrent: 2 levels, contrastive": plain(RecurrentBinary, bits_per_dim=2, loss="contrastive"),
        "recurrent: 2 levels, train queries": asked(RecurrentBinary, bits_per_dim=2),
        "ranked": plain(RankedProduct),
        "ranked: untrained": plain(RankedProduct, steps=0),
        "ranked: distillation alone": plain(RankedProduct, query_transform=False),
        "ranked: query transform, no distillation": plain(RankedProduct, distillation=False, joint_negatives=True),
        "ranked: joint negatives alone": plain(RankedProduct, **ranked, joint_negatives=True),
        "ranked: with constraint": plain(RankedProduct, constraint=True),
        "ranked: train queries": asked(RankedProduct),
        "ranked: distillation alone, train queries": asked(RankedProduct, query_transform=False),
    }


def _some(train_queries: Queries) -> Queries:
    if not len(train_queries):
        raise CodecError("the collection has no queries for training")
    return train_queries


class Weighted(OurCodec):
    """A codec that is fitted with another exponent of the axes' variances in their weights."""

    def __init__(self, codec: Codec, weight: float) -> None:
        """Take the codec and the exponent."""
        super().__init__(codec)
        self._weight = weight

    def train(self, sample: Vectors) -> None:
        """Fit while the module has the other exponent; the fitted codec keeps the weights themselves."""
        usual, spectrum.WEIGHT = spectrum.WEIGHT, self._weight
        try:
            super().train(sample)
        finally:
            spectrum.WEIGHT = usual


class Verified(OurCodec):
    """A codec whose 100 candidates are sorted by rough fine vectors, with the queries as they are or mapped.

    The map is trained on vectors of the sample, each left out of its own candidates.
    """

    def __init__(self, codec: Codec, fine: Codec, query_map: QueryMap | None = None) -> None:
        """Take coarse codec, fine codec, and the unfitted map."""
        super().__init__(codec)
        self._fine, self._map = fine, query_map
        self._decoded: Vectors

    def train(self, sample: Vectors) -> None:
        """Fit the codecs, and the map to what they get wrong."""
        super().train(sample)
        self._fine.fit(sample)
        if self._map is not None:
            stored, asked = sample[:MAP_DOCUMENTS], np.arange(min(MAP_QUERIES, len(sample)))
            self.fill(stored)
            found = super().search(stored[asked], CANDIDATES + 1)
            others = np.argsort(found == asked[:, np.newaxis], axis=1, kind="stable")[:, :CANDIDATES]
            places = np.take_along_axis(found, others, axis=1)
            self._map.fit(stored[asked], self._decoded, places, scored(stored, stored[asked], places))

    def fill(self, docs: Vectors) -> None:
        """Encode in both codecs."""
        super().fill(docs)
        self._decoded = self._fine.decode(self._fine.encode(docs))

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Scan, and sort what is found."""
        asked = queries if self._map is None else self._map.apply_queries(queries)
        return sorted_by(self._decoded, asked, super().search(queries, k))


class VerifiedByResidual(OurCodec):
    """A codec whose 100 candidates are sorted by the scores of their codes and of four bits of what the codes miss."""

    def fill(self, docs: Vectors) -> None:
        """Encode in both tiers."""
        super().fill(docs)
        tier = FineTier("residual4", self._codec)
        self._decoded = tier.decode(tier.encode(docs, self._codes), self._codes)

    def search(self, queries: Queries, k: int) -> RowIdMatrix:
        """Scan, and sort what is found."""
        return sorted_by(self._decoded, queries, super().search(queries, k))


class NoFactor(TrellisCode):
    """All factors are 1: their byte is in the code, and says nothing."""

    def _coded(self, in_axes: InAxes) -> tuple[Values, Factors]:
        values, factors = super()._coded(in_axes)
        return values, np.ones_like(factors)


class SeparateParts(TrellisCode):
    """Each part adds to its own group only: a product quantiser in parts that deserve equally many bits.

    Where a group has no axes, since the axis behind it deserves more than one part, its part still adds to that axis.
    """

    def _take(self, own: Tables, carried: Tables) -> None:
        super()._take(own, np.where(_before_is_free(self._groups)[:, np.newaxis], carried, np.float32(0)))

    def _learn(self, in_axes: InAxes, rng: np.random.Generator, *, progress: bool) -> None:
        super()._learn(in_axes, rng, progress=progress)
        sample = in_axes[: trellis.ROUNDS[-1][0]]
        for _ in range(trellis.KMEANS_ROUNDS):
            values = self._nearest(sample)
            own, carried = trellis._fitted_tables(sample, self._groups, values)
            alone = ~_before_is_free(self._groups)
            own[alone] = _means(sample[:, alone], values[:, self._groups[alone]])
            self._take(own, carried)


def _before_is_free(groups: Groups) -> npt.NDArray[np.bool_]:
    return (groups > 0) & ~np.isin(groups - 1, groups)


def _means(points: npt.NDArray[np.float32], values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give, for each column of points, the mean of those with each of the 16 values: (columns, 16)."""
    means = np.zeros((points.shape[1], STATES), np.float32)
    for column, (axis, own) in enumerate(zip(points.T, values.T, strict=True)):
        counts = np.bincount(own, minlength=STATES)
        means[column] = np.bincount(own, weights=axis, minlength=STATES) / np.maximum(counts, 1)
    return means
