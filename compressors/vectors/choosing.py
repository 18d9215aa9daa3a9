"""The choice of a code for a budget or a target, by measuring candidates on the user's own vectors.

Compression that is best for one model is not for another (CoRECT), so nothing is taken for granted: candidates are fitted on a
sample, held-out vectors ask, and recall against exact search decides. What was measured is kept with the choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rarebit.arrays import Codes, Queries, RowIdMatrix, Vectors, VectorsLike, as_vectors
from rarebit.compressors.vectors import SearchableCodec, codec_named
from rarebit.compressors.vectors.fine_tier import NO_FINE, TIERS, FineTier
from rarebit.compressors.vectors.scanning import NOWHERE
from rarebit.errors import CodecError, InputError, VectorError

K = 10
ROWS = 16_384
QUERIES = 256
DEPTHS = (100, 200, 400)
"""Numbers of candidates that are tried for re-ranking. Fewer would do among the vectors of a sample, but not among all."""

SLACK = 0.002
"""Recall given up for fewer candidates to re-rank."""

TIE = 1e-6
"""A vector this near to the tenth, relative to the length of the query, counts as well."""

SHARES = (1 / 24, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 2)
"""Bytes a dimension that are tried for a target."""

FINE = ("residual8", "float16", "float32")
"""Fine tiers, the smallest first."""


@dataclass(frozen=True)
class Measured:
    """A candidate: recall@10 of its codes alone, and of their best ``candidates`` after re-ranking by the fine tier."""

    codec: str
    code_size: int
    fine: str
    candidates: int
    recall_of_codes: float
    recall: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, why, and what it was chosen from."""

    chosen: Measured
    reason: str
    rows: int
    queries: int
    measured: tuple[Measured, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON."""
        return asdict(self)


def choose(
    vectors: VectorsLike,
    *,
    code_bytes: int | None = None,
    target_recall: float | None = None,
    queries: VectorsLike | None = None,
    fine: Sequence[str] = FINE,
    seed: int = 0,
    progress: bool = False,
) -> Choice:
    """Choose a codec, a fine tier and the number of candidates to re-rank.

    Args:
        vectors: (n, dim) float32, a sample of what will be stored; at most 16,640 are used.
        code_bytes: the most bytes a vector that the codes may take; the code that finds most within them is chosen.
        target_recall: recall@10 after re-ranking; the smallest code that reaches it is chosen. With both, the codes keep to
            their bytes, and fine tier and candidates are chosen for the recall.
        queries: (q, dim) to measure with; without them some of the vectors are held out to ask for the others.
        fine: the fine tiers to choose from, the first preferred; "none" measures the codes alone.
        seed: of the sample.
        progress: show a progress bar.

    Raises:
        InputError: neither a budget nor a target, or an unknown fine tier.
        CodecError: fewer than two vectors, or no codec fits into the budget.
    """
    if code_bytes is None and target_recall is None:
        raise InputError("got neither code_bytes nor target_recall, wanted at least one to choose by")
    unknown = [name for name in fine if name not in {*TIERS, NO_FINE}]
    if unknown or not fine:
        raise InputError(f"got fine={list(fine)}, wanted one or more of {[*TIERS, NO_FINE]}")
    sample = _Sample.drawn(as_vectors(vectors), queries, seed)
    if code_bytes is None:
        return _for_target(sample, float(target_recall or 0), fine, progress=progress)
    return _for_budget(sample, code_bytes, target_recall, fine, progress=progress)


class _Sample:
    """Vectors to store, queries that are not among them, and which ten are nearest."""

    def __init__(self, stored: Vectors, queries: Queries) -> None:
        self.stored, self.queries = stored, queries
        self.k = min(K, len(stored))
        self._least = -np.partition(-(queries @ stored.T), self.k - 1, axis=1)[:, self.k - 1]

    @classmethod
    def drawn(cls, vectors: Vectors, queries: VectorsLike | None, seed: int) -> _Sample:
        if len(vectors) < 2:
            raise CodecError(f"got {len(vectors)} vectors to choose a codec by, wanted two or more")
        order = np.random.default_rng(seed).permutation(len(vectors))
        if queries is not None and np.size(queries):
            return cls(vectors[order[:ROWS]], as_vectors(queries, dim=vectors.shape[1])[:QUERIES])
        held_out = max(1, min(QUERIES, len(vectors) // 10))
        return cls(vectors[order[held_out : held_out + ROWS]], vectors[order[:held_out]])

    def recall(self, found: RowIdMatrix) -> float:
        """Give the share of the nearest ten that are among those found; of several that are equally near, any will do."""
        shares = [
            np.count_nonzero(self.stored[places[places >= 0]] @ query >= least - TIE * np.linalg.norm(query))
            for query, places, least in zip(self.queries, found, self._least, strict=True)
        ]
        return float(np.minimum(shares, self.k).mean()) / self.k

    def measured(self, spelling: str, fine: Sequence[str]) -> Iterator[Measured]:
        """Fit a codec, and measure it with each fine tier and number of candidates, the cheapest first.

        What is as good as float16 has no fine tier. One that cannot hold the vectors is left out.
        """
        fine = (NO_FINE,) if spelling.startswith("float") else fine
        codec = codec_named(spelling).fit(self.stored)
        assert isinstance(codec, SearchableCodec)  # noqa: S101 -- the spellings below are
        codes = codec.encode(self.stored)
        found = self._found(codec, codes)
        alone = self.recall(found[:, : self.k])
        for name in fine:
            tier = FineTier.beside(codec, name)
            if tier is None:
                yield Measured(spelling, codec.code_size, NO_FINE, self.k, alone, alone)
                continue
            try:
                finer = tier.decode(tier.encode(self.stored, codes), codes)
            except VectorError:
                continue
            for depth in DEPTHS:
                best = [_reranked(query, finer, row[:depth], self.k) for query, row in zip(self.queries, found, strict=True)]
                yield Measured(spelling, codec.code_size, tier.name, depth, alone, self.recall(np.array(best)))

    def _found(self, codec: SearchableCodec, codes: Codes) -> RowIdMatrix:
        return codec.scanner(codes).search(codec.prepare_queries(self.queries), min(DEPTHS[-1], len(codes)))[1]


def _for_budget(sample: _Sample, code_bytes: int, target: float | None, fine: Sequence[str], *, progress: bool) -> Choice:
    dim = sample.stored.shape[1]
    by_codec: list[list[Measured]] = []
    spellings = _spellings(code_bytes, dim) if code_bytes >= 1 else []
    for spelling in tqdm(spellings, desc="choosing a codec", unit="codec", disable=not progress):
        try:
            by_codec.append(list(sample.measured(spelling, fine[:1] if target is None else fine)))
        except (CodecError, VectorError):  # it has no code of this size for these vectors, or cannot hold them
            continue
    by_codec = [trials for trials in by_codec if trials]
    if not by_codec:
        raise CodecError(f"no codec has codes of {code_bytes} bytes or less for dimension {dim}: allow more memory a vector")
    best = max(by_codec, key=lambda trials: trials[0].recall_of_codes)
    reason = f"finds most of the {len(by_codec)} codecs measured within {code_bytes} bytes a code"
    wanted = max(trial.recall for trial in best) - SLACK
    if target is not None:
        reached = max(trial.recall for trial in best) >= target
        wanted = target if reached else wanted
        reason += "; " + (f"re-ranking reaches {target}" if reached else f"re-ranking does not reach {target}")
    chosen = next(trial for trial in best if trial.recall >= wanted)
    return _choice(sample, chosen, reason, by_codec)


def _for_target(sample: _Sample, target: float, fine: Sequence[str], *, progress: bool) -> Choice:
    dim = sample.stored.shape[1]
    by_codec: list[list[Measured]] = []
    sizes = sorted({max(4, round(share * dim)) for share in SHARES})
    spellings = [*(f"trellis{size}" for size in sizes), "sq8", "float16", "float32"]
    for spelling in tqdm(spellings, desc="choosing a codec", unit="codec", disable=not progress):
        try:
            by_codec.append(list(sample.measured(spelling, fine)))
        except (CodecError, VectorError):
            continue
        reaching = [trial for trial in by_codec[-1] if trial.recall >= target]
        if reaching:
            return _choice(sample, reaching[0], f"the smallest code measured that reaches recall {target}", by_codec)
    best = max((trial for trials in by_codec for trial in trials), key=lambda trial: trial.recall)
    return _choice(sample, best, f"nothing measured reaches recall {target}; this comes nearest", by_codec)


def _spellings(code_bytes: int, dim: int) -> list[str]:
    """Name the codecs worth measuring at a size: fewer dimensions with more bits, all dimensions with few, and learned ones."""
    size = min(code_bytes, dim)
    named = [f"trellis{size}", f"variance{size}", f"pq{size}"] if size >= 2 else []
    named += [f"pca{size},sq8"] if size < dim else ["sq8"]
    named += [f"pca{2 * size},sq4"] if 2 * size < dim else ["sq4"]
    whole = {"rabitq": (dim + 7) // 8 + 8, "float16": 2 * dim, "float32": 4 * dim}
    return named + [spelling for spelling, least in whole.items() if least <= code_bytes]


def _choice(sample: _Sample, chosen: Measured, reason: str, by_codec: Sequence[Sequence[Measured]]) -> Choice:
    """Keep of every codec the trial with the most candidates, beside the one chosen."""
    others = tuple(trials[-1] for trials in by_codec)
    return Choice(chosen, reason, len(sample.stored), len(sample.queries), others)


def _reranked(query: Any, vectors: Vectors, places: Any, k: int) -> Any:
    """Put the best k of the candidates first, as the collection does; filled up with ``NOWHERE``."""
    own = np.sort(places[places >= 0])
    best = own[np.argsort(-(vectors[own] @ query), kind="stable")[:k]]
    return np.pad(best, (0, k - len(best)), constant_values=NOWHERE)
