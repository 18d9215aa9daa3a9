"""The cosine adapter: from a query to the curve that maps its scores to relevances (arXiv 2408.04887).

The curve rises, so that the order of a query's passages stays; what differs from query to query is how high a score has to be.
It is told from two things, whose contributions to the curve's parameters add up:

- the query's embedding, through one hidden layer, as in the paper;
- the evidence (:mod:`.evidence`): how the query's scores are spread over the collection, and how its best ones stand out. This
  is ours. It needs few labels, since it is five numbers, and carries over to collections that training did not see.

Training needs torch (:mod:`.training`); a trained adapter needs numpy, O(hidden * dim) a query and O(1) a passage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from rarebit.arrays import Queries, Scores, normalized
from rarebit.errors import CalibrationError, DimensionError, InputError, NotFittedError
from rarebit.extras import require
from rarebit.retrievers.collection.arguments import as_count
from rarebit.retrievers.engines import AnyRows
from rarebit.retrievers.relevance import evidence as evidence_
from rarebit.retrievers.relevance.background import Background, Moments
from rarebit.retrievers.relevance.curves import UNBOUNDED, Family, Parameters, as_family, logits, sigmoid
from rarebit.retrievers.relevance.drift import Drift, drift_between, remembered
from rarebit.retrievers.relevance.labels import LabelledScores, Relevances
from rarebit.retrievers.relevance.model import Asked, RelevanceModel
from rarebit.retrievers.relevance.score_source import ScoreSource

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Reads: TypeAlias = Literal["both", "query", "evidence"]
READS: Final[tuple[Reads, ...]] = get_args(Reads)

SHIPPED: Final = Path(__file__).parent / "shipped"
HIDDEN: Final = 64
FEWEST: Final = 10
"""Labelled queries that an adapter is fitted to, at least."""

FARTHEST: Final = 3.0
"""Evidence that is farther from the typical than so many standard deviations counts as so far."""


@dataclass(frozen=True)
class FitReport:
    """What training measured, on queries that it was not taught with: cross-entropy of a passage, in nats."""

    calibrated: float
    """By one curve for all queries."""
    trained: float
    """By what was chosen; never higher."""
    chosen: str
    """What the curves are told from: ``"nothing"``, ``"evidence"``, ``"query"`` or ``"evidence and query"``."""
    queries: int
    steps: int


class CosineAdapter(RelevanceModel):
    """Maps the scores of what was found for a query to probabilities of relevance, by a curve of the query's own.

    A new adapter has one curve for all queries; :meth:`fit`, :meth:`from_pretrained` and :meth:`shipped` give one that learned.

    Args:
        dim: of the embeddings.
        family: of the curves.
        hidden: width of the hidden layer over the query's embedding.
    """

    kind = "cosine adapter"
    reads_vector = True

    def __init__(self, dim: int, *, family: Family = "power", hidden: int = HIDDEN) -> None:
        """Create an adapter with one curve for all queries."""
        self.dim, self.hidden = as_count("dim", dim, least=1), as_count("hidden", hidden, least=1)
        self.family: Family = as_family(family)
        self.unit = 1.0
        """What scores are divided by first: 1 for cosines, how large scores are for inner products."""
        self.fit_report: FitReport | None = None
        self.background: Background | None = None
        """Of the collection that is searched; without one, the evidence has no spread."""
        self._arrays: Arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes(self.dim, self.hidden).items()}
        self._arrays["evidence_scale"] += 1
        self._seen: Arrays = {}

    @classmethod
    def fit(
        cls,
        labelled: LabelledScores,
        *,
        family: Family = "power",
        reads: Reads = "both",
        start: CosineAdapter | None = None,
        hidden: int = HIDDEN,
        steps: int = 600,
        seed: int = 0,
        progress: bool = False,
    ) -> CosineAdapter:
        """Train an adapter; needs the extra ``models`` (torch). Seconds to minutes on one processor core.

        First one curve is fitted to all queries. Then what curves can be told from is added step by step, and kept only if it
        lowers the cross-entropy on queries held out (in five parts, or in one where there are 2,000 queries or more) by more
        than chance. With few queries the result may be one curve for all, which is Platt's calibration.

        Args:
            labelled: what searches found, with labels; of some tens of queries at least.
            family: of the curves.
            reads: ``"both"``, ``"query"`` (the paper's adapter), or ``"evidence"``.
            start: an adapter of the same family, whose evidence is the start, such as :meth:`shipped`.
            hidden: width of the hidden layer.
            steps: at most.
            seed: of the parts, the batches and the first weights.
            progress: show a bar.

        Raises:
            InputError: there are fewer than ten labelled queries, or all labels are the same.
        """
        require("torch", "models")
        from rarebit.retrievers.relevance.training import trained

        if reads not in READS:
            raise InputError(f"got reads={reads!r}, wanted one of {list(READS)}")
        _check(labelled)
        new = cls(labelled.queries.shape[1], family=family, hidden=hidden)
        new.source, new.background = labelled.source, labelled.background
        scores = labelled.scores[~np.isnan(labelled.scores)]
        if labelled.source.metric == "inner_product":
            new.unit = max(float(np.quantile(np.abs(scores), 0.95)), 1e-6)
        new._take_evidence(labelled, start)
        made = trained(new, labelled, reads, steps, seed, progress=progress)
        made._seen = remembered(made._statistics(labelled, made.relevances(labelled)))
        return made

    @classmethod
    def shipped(cls, background: Background | None = None) -> CosineAdapter:
        """Give the adapter that comes with Rarebit, for cosines of all-MiniLM-L6-v2.

        It reads evidence alone, and was trained on the questions of several public collections; the command is
        ``python -m rarebit.cookbook.train_cosine_adapter``. Give it the background of the collection that you search.
        """
        return cls.from_pretrained(SHIPPED).with_background(background)

    def with_background(self, background: Background | None) -> CosineAdapter:
        """Give the adapter for a collection with another background; DimensionError if it is one of other embeddings."""
        if background is not None and background.dim != self.dim:
            raise DimensionError(f"got the background of vectors of dimension {background.dim}, wanted {self.dim}")
        return self._with(background=background)

    def for_collection(self, rows: AnyRows) -> CosineAdapter:
        """Give the adapter for the collection that is searched, with its background.

        Raises:
            CalibrationError: its scores are not those that the adapter was calibrated on.
            InputError: it is empty.
        """
        self.check_source(ScoreSource.of(rows))
        return self.with_background(Background.of_collection(rows))

    def with_source(self, source: ScoreSource, *, unit: float | None = None) -> CosineAdapter:
        """Give the adapter for scores of another source: only if you know that they mean the same, divided by ``unit``.

        Inner products with vectors that differ little in length are near to cosines times that length.
        """
        if unit is not None and not (np.isfinite(unit) and unit > 0):
            raise InputError(f"got unit={unit!r}, wanted a number above 0, such as the typical length of the passages' vectors")
        return self._with(source=source, unit=self.unit if unit is None else float(unit))

    def relevances_of(self, asked: Asked) -> Scores:
        """Give the probability of relevance of each passage found for a question; InputError without the question's vector."""
        if asked.vector is None:
            raise InputError(
                "got a question without its embedding, which the adapter reads: pass the vector that was searched with"
            )
        query, scores = asked.vector[np.newaxis], asked.scores[np.newaxis]
        moments = self._moments(self._prepared(query))
        found: Scores = self._relevances(query, scores, moments)[0]
        return found

    def relevances(self, labelled: LabelledScores) -> Relevances:
        """Give the relevances of what was found for many queries at once, (q, k); 0 where there is no score."""
        return self._relevances(labelled.queries, labelled.scores, self._moments_of(labelled))

    def parameters(self, labelled: LabelledScores) -> Parameters:
        """Give the numbers that make each query's curve, (q, 3); see :mod:`.curves`."""
        return self._parameters(labelled.queries, labelled.scores, self._moments_of(labelled))

    def drift(self, queries: Queries, scores: npt.NDArray[np.float32]) -> Drift:
        """Compare live queries, (q, dim), and what was found for them, (q, k), with those of the calibration.

        Raises:
            NotFittedError: the adapter was not fitted.
        """
        if not self._seen:
            raise NotFittedError("this adapter has seen no queries to compare with: fit it on labelled scores first")
        live = LabelledScores(queries, scores, np.full_like(scores, np.nan))
        return drift_between(self._seen, self._statistics(live, self.relevances(live)))

    def _statistics(self, labelled: LabelledScores, relevances: Relevances) -> Mapping[str, npt.NDArray[np.float64]]:
        found = self._evidence(labelled.scores, self._moments_of(labelled))
        best = dict(zip(evidence_.NAMES, found.T, strict=True))
        return {**best, "best_relevance": relevances.max(axis=1, initial=0.0).astype(np.float64)}

    def _moments_of(self, labelled: LabelledScores) -> Moments:
        return self._moments(self._prepared(labelled.queries)) if self.background is not None else labelled.moments

    def _moments(self, queries: Queries) -> Moments:
        return np.full((len(queries), 2), np.nan) if self.background is None else self.background.moments(queries)

    def _prepared(self, queries: Queries) -> Queries:
        if queries.shape[1] != self.dim:
            raise DimensionError(f"got queries of dimension {queries.shape[1]}, wanted {self.dim}, that of the adapter")
        return queries if self.source.metric == "inner_product" else normalized(queries)

    def _relevances(self, queries: Queries, scores: npt.NDArray[np.float32], moments: Moments) -> Relevances:
        if not scores.size:
            return np.zeros(scores.shape, np.float32)
        curves = self._parameters(queries, scores, moments)
        found: Relevances = sigmoid(logits(self.family, scores.astype(np.float64) / self.unit, curves)).astype(np.float32)
        found[np.isnan(found)] = 0
        return found

    def _parameters(self, queries: Queries, scores: npt.NDArray[np.float32], moments: Moments) -> Parameters:
        arrays = self._arrays
        told = self.standardised(self._evidence(scores, moments)) @ arrays["evidence_weight"].T
        directions = normalized(self._prepared(queries)).astype(np.float64) * self.dim**0.5
        hidden = np.tanh(directions @ arrays["query_in"].T + arrays["query_bias"])
        found: Parameters = arrays["base"] + told + hidden @ arrays["query_out"].T
        return found

    def standardised(
        self, given: Float64[npt.NDArray[np.float64], "q evidence"]
    ) -> Float64[npt.NDArray[np.float64], "q evidence"]:
        """Bring evidence to mean 0 and deviation 1; what is not known becomes 0."""
        found = (given - self._arrays["evidence_mean"]) / self._arrays["evidence_scale"]
        return np.clip(np.nan_to_num(found), -FARTHEST, FARTHEST)

    def _evidence(self, scores: npt.NDArray[np.float32], moments: Moments) -> Float64[npt.NDArray[np.float64], "q evidence"]:
        return evidence_.evidence(scores, moments, self.unit)

    def _take_evidence(self, labelled: LabelledScores, start: CosineAdapter | None) -> None:
        """Take over what is typical, from the start or from the queries."""
        if start is not None:
            if (start.family, start.unit) != (self.family, self.unit):
                raise CalibrationError(
                    f"got a start of family={start.family!r} for scores about {start.unit:g}, wanted family={self.family!r} "
                    f"and {self.unit:g}: leave start= out, or fit on scores like those that it was fitted on"
                )
            names = ("evidence_mean", "evidence_scale", "evidence_weight", "base")
            self._arrays |= {name: start._arrays[name].copy() for name in names}
            return
        found = self._evidence(labelled.scores, self._moments_of(labelled))
        known = ~np.isnan(found).all(axis=0)
        mean, scale = np.zeros(evidence_.COUNT), np.ones(evidence_.COUNT)
        mean[known], scale[known] = np.nanmean(found[:, known], axis=0), np.nanstd(found[:, known], axis=0)
        self._arrays["evidence_mean"] = mean.astype(np.float32)
        self._arrays["evidence_scale"] = np.where(scale > 1e-6, scale, 1.0).astype(np.float32)

    def with_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> CosineAdapter:
        """Give the adapter with other weights; InputError if one is missing or has another shape."""
        wanted = shapes(self.dim, self.hidden)
        given = {name: np.asarray(arrays[name], np.float32) for name in wanted if name in arrays}
        wrong = [name for name, shape in wanted.items() if name not in given or given[name].shape != shape]
        if wrong:
            raise InputError(f"got weights of other shapes for {wrong}, wanted {wanted}")
        return self._with(_arrays=given)

    def _config_kept(self) -> dict[str, Any]:
        shape = {"dim": self.dim, "family": self.family, "hidden": self.hidden, "unit": self.unit}
        rest = None if self.background is None else self.background.rest
        return {**shape, "rest": rest, "fit_report": None if self.fit_report is None else asdict(self.fit_report)}

    def _arrays_kept(self) -> Arrays:
        kept = {**self._arrays, **{f"seen.{name}": values for name, values in self._seen.items()}}
        if not kept["query_out"].any():
            del kept["query_in"]  # nothing looks at the query's embedding: megabytes of zeros
        if self.background is not None:
            own = self.background
            kept |= {
                "background.mean": own.mean,
                "background.directions": own.directions,
                "background.variances": own.variances,
            }
        return kept

    @classmethod
    def _restored(cls, config: dict[str, Any], arrays: Arrays) -> CosineAdapter:
        made = cls(config["dim"], family=config["family"], hidden=config["hidden"])
        made.unit = float(config["unit"])
        if not (np.isfinite(made.unit) and made.unit > 0):
            raise InputError(f"got unit={made.unit!r}, wanted a number above 0")
        made.fit_report = None if config["fit_report"] is None else FitReport(**config["fit_report"])
        made._seen = {name.removeprefix("seen."): values for name, values in arrays.items() if name.startswith("seen.")}
        if config["rest"] is not None:
            mean, directions, variances = (arrays[f"background.{name}"] for name in ("mean", "directions", "variances"))
            if mean.shape != (made.dim,) or directions.shape != (len(variances), made.dim) or variances.ndim != 1:
                raise InputError(f"got a background of shapes {mean.shape}, {directions.shape} and {variances.shape}")
            made = made.with_background(Background(mean, directions, variances, float(config["rest"])))
        left_out = {} if np.any(arrays["query_out"]) else {"query_in": made._arrays["query_in"]}
        return made.with_arrays({**left_out, **arrays})


def shapes(dim: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Give the shape of each array of weights."""
    return {
        "base": (UNBOUNDED,),
        "evidence_mean": (evidence_.COUNT,),
        "evidence_scale": (evidence_.COUNT,),
        "evidence_weight": (UNBOUNDED, evidence_.COUNT),
        "query_in": (hidden, dim),
        "query_bias": (hidden,),
        "query_out": (UNBOUNDED, hidden),
    }


def _check(labelled: LabelledScores) -> None:
    asked, relevant = int(labelled.known.any(axis=1).sum()), int(labelled.relevant.sum())
    if asked < FEWEST or not 0 < relevant < int(labelled.known.sum()):
        raise InputError(
            f"got {asked} labelled queries with {relevant} relevant passages of {int(labelled.known.sum())} labelled, wanted "
            f"{FEWEST} queries at least, and some passages that are relevant and some that are not"
        )
