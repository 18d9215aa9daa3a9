"""Product quantisation trained to rank: the ideas of Distill-VQ, RepCONC and JPQ as options of one codec, on frozen embeddings.

It starts from a product quantiser in the principal axes: each part gets axes whose variances have about the same product (as
the parametric solution of OPQ, Ge et al., CVPR 2013, shares them out), long axes weigh more, and k-means finds the centroids.
On MiniLM vectors that start is further above a plain product quantiser than training then adds. A code is read back as
``mean + points @ decoder``; training moves the points and the matrices, with torch (:mod:`.ranked_training`). What is fitted
needs numpy and faiss only.

A least-squares factor a vector, which helps untrained codes much, is left out: after training it brings less than the byte
that it takes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit.arrays import Codes, Lists, Mask, Queries, RowIdMatrix, ScoreMatrix, Vectors
from rarebit.compressors.vectors.codec import Arrays, Codec, SearchableCodec
from rarebit.compressors.vectors.fast_scan import FastScan, unpack_nibbles
from rarebit.compressors.vectors.product import Product
from rarebit.compressors.vectors.scanning import Division, FaissScanner, Scanner, in_order
from rarebit.compressors.vectors.spectrum import Spectrum
from rarebit.compressors.vectors.yardstick import DOCUMENTS, FEWEST, FIRST, HELD_OUT, QUERIES, Yardstick, asked_of
from rarebit.errors import CodecError, CodecWarning, InputError
from rarebit.extras import require

PARTS_A_BYTE = {4: 2, 8: 1}

SAMPLE = 65_536
"""Vectors that the start is learned from."""

NOISE = 0.01
"""How much lower than a plain product quantiser's a recall may be before a warning: 500 queries tell no smaller differences."""

MORE = 1.5
"""Power of the spectrum's weights of the axes: measured on MiniLM vectors, recall at 24 and 48 bytes grows up to here."""

BATCH = 8192
"""Vectors coded at once."""

MATRICES = ("mean", "encoder", "decoder", "nearest", "points")

Points: TypeAlias = Float32[npt.NDArray[np.float32], "parts centroids width"]
Values: TypeAlias = npt.NDArray[np.uint8]
Prepared: TypeAlias = Float32[npt.NDArray[np.float32], "q prepared"]
Decoded: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RankedReport:
    """Recall of the first ten, by codes of the same size, on queries that training did not see."""

    plain: float
    """Of a plain product quantiser."""
    start: float
    """Of the codec before training."""
    trained: float
    """Of the codec as it is kept; never lower than ``start``."""
    steps: int
    """After how many steps of training it was best; 0 if training brought nothing."""


@dataclass(frozen=True)
class Quantiser:
    """Where vectors go, what the nearest centroid there is, and what it stands for."""

    mean: Float32[npt.NDArray[np.float32], "dim"]  # noqa: UP037 - a shape
    encoder: Float32[npt.NDArray[np.float32], "dim places"]
    decoder: Float32[npt.NDArray[np.float32], "places dim"]
    nearest: Points
    """The centroids that vectors are assigned to; they stay as k-means found them, so that codes do not move in training."""
    points: Points
    """What the centroids stand for in scores; trained."""

    def codes(self, vectors: Vectors) -> Codes:
        """Give the packed numbers of the nearest centroids."""
        codes: Codes = self._assigner.compute_codes(np.ascontiguousarray((vectors - self.mean) @ self.encoder))
        return codes

    def values(self, vectors: Vectors) -> Values:
        """Give the numbers of the nearest centroids, (n, parts)."""
        return self.unpacked(self.codes(vectors))

    def unpacked(self, codes: Codes) -> Values:
        """Give the numbers that packed codes hold, (n, parts)."""
        return codes if self.nearest.shape[1] == 256 else unpack_nibbles(codes, len(self.nearest))

    def decoded(self, values: Values) -> Decoded:
        """Give what numbers stand for, (n, dim)."""
        decoded: Decoded = self.points[np.arange(len(self.points)), values].reshape(len(values), -1) @ self.decoder
        decoded += self.mean
        return decoded

    def rebuilt(self, vectors: Vectors) -> Vectors:
        """Encode and decode."""
        rebuilt = np.empty_like(vectors)
        for rows in batches(len(vectors)):
            rebuilt[rows] = self.decoded(self.values(vectors[rows]))
        return rebuilt

    def spread(self, queries: Queries) -> Decoded:
        """Take (q, dim) queries to where inner products with the points are those with what is decoded: (q, places)."""
        spread: Decoded = queries @ self.decoder.T
        return spread

    @cached_property
    def _assigner(self) -> Any:
        return _product_quantiser(self.nearest)


class RankedProduct(SearchableCodec):
    """A product quantiser whose centroids, and maps around it, are trained so that its scores rank as the float ones do.

    Training needs the extra ``models`` (torch); a fitted or loaded codec does not. Without any of the four options nothing is
    trained, and the codec is the start described above. Below 512 vectors nothing is trained either.

    ``fit(vectors, queries)``: with queries, training ranks documents for them, and what is measured is their recall. Without,
    the documents' own vectors take the place of queries, each left out of its own candidates: right for collections that are
    asked about with texts like their own. Labels are not needed. Queries that are kept for checking decide when training stops;
    what came out best on them is kept, the start included, and ``report`` says how good it was.

    Codes of 4 bits a part are scanned in SIMD registers, those of 8 bits through faiss's slower ``IndexPQ``.

    With a query transform T the score of a query q is ``(T q) . x``, which is ``q . (T' x)``: T is folded into the decoder,
    ``decode`` gives ``T' x``, and ``q @ decode(code)`` is the score with every option. So what is decoded is meant for scores,
    and lies a little farther from the vector than it has to.

    Args:
        code_size: bytes a vector.
        bits: 4 or 8 bits a part.
        distillation: train by ListNet on the float scores of in-batch candidates and float neighbours (Distill-VQ, 2204.00185).
        constraint: train a residual linear map of the documents before encoding, with evenly used centroids (RepCONC,
            2110.05789).
        query_transform: train a linear map of the queries (JPQ, 2108.00644).
        joint_negatives: train by JPQ's pairwise loss, on negatives that the codes themselves find. Without labels the first ten
            by float score are the relevant ones; on MiniLM vectors this brings less than distillation, and nothing beside it.
        seed: of samples, k-means and training.
        steps: batches of 32 queries at most; a hundred take about 20 s on one processor core.
    """

    name = "ranked"
    training_minimum = 4096

    def __init__(
        self,
        code_size: int,
        *,
        bits: int = 4,
        distillation: bool = True,
        constraint: bool = False,
        query_transform: bool = True,
        joint_negatives: bool = False,
        seed: int = 0,
        steps: int = 300,
    ) -> None:
        """Create an unfitted codec."""
        super().__init__()
        if bits not in PARTS_A_BYTE:
            raise InputError(f"got bits={bits!r}, wanted one of {sorted(PARTS_A_BYTE)} bits a part")
        if code_size < 1:
            raise InputError(f"got code_size={code_size}, wanted at least 1 byte a vector")
        if steps < 0:
            raise InputError(f"got steps={steps}, wanted 0 (no training) or more")
        self._code_size, self.bits, self.seed, self.steps = code_size, bits, seed, steps
        self.distillation, self.constraint = distillation, constraint
        self.query_transform, self.joint_negatives = query_transform, joint_negatives
        self.report: RankedReport | None = None
        """What was measured in training; None if nothing was trained."""
        self._quantiser: Quantiser

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("bits", "distillation", "constraint", "query_transform", "joint_negatives", "seed", "steps")
        return {"code_size": self._code_size, **{name: getattr(self, name) for name in names}}

    @property
    def code_size(self) -> int:
        """Bytes a vector."""
        return self._code_size

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Give the tables of (q, dim) queries for 4 bits, or the mapped queries for 8; last comes what the mean adds."""
        spread = self._quantiser.spread(queries)
        if self.bits == 4:
            parts, centroids, width = self._quantiser.points.shape
            by_part = spread.reshape(len(queries), parts, width, 1)
            spread = np.matmul(self._quantiser.points, by_part).reshape(len(queries), parts * centroids)
        prepared: Prepared = np.concatenate([spread, (queries @ self._quantiser.mean)[:, np.newaxis]], axis=1)
        return prepared

    @property
    def has_lists(self) -> bool:
        """Whether its scanner keeps inverted lists apart."""
        return self.bits == 4

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:
        """Lay the parts out for fast scan with 4 bits; put them into an ``IndexPQ`` with 8."""
        points = self._quantiser.points
        if self.bits == 4:
            return FastScan(codes, len(points), division=division)
        return _Shifted(codes, points)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        rng = np.random.default_rng(self.seed)
        sample = vectors[rng.permutation(len(vectors))[:SAMPLE]]
        self._quantiser, self.report = _start(sample, self._parts(), 2**self.bits, self.seed), None
        if self._trains and len(sample) >= FEWEST:
            self._train(sample[:DOCUMENTS], queries, rng, progress=progress)

    @property
    def _trains(self) -> bool:
        return self.steps > 0 and (self.distillation or self.constraint or self.query_transform or self.joint_negatives)

    def _parts(self) -> int:
        parts = PARTS_A_BYTE[self.bits] * self.code_size
        if parts > self.dim:
            largest = self.dim // PARTS_A_BYTE[self.bits]
            advice = f"use at most code_size={largest}" if largest else "use bits=8 or a scalar codec"
            raise CodecError(
                f"got vectors of {self.dim} dimensions for the {parts} parts of {self!r}, wanted one a part: {advice}"
            )
        return parts

    def _train(self, documents: Vectors, queries: Queries | None, rng: np.random.Generator, *, progress: bool) -> None:
        require("torch", "models")
        from rarebit.compressors.vectors.ranked_training import Examples, Options, trained

        asked, own = asked_of(documents, queries, rng)
        held = min(HELD_OUT, len(asked) // 4)
        yardstick = Yardstick(documents, asked[:held], own[:held])
        examples = Examples(documents, asked[held : held + QUERIES], own[held : held + QUERIES])
        options = Options(
            self.distillation, self.constraint, self.query_transform, self.joint_negatives, seed=self.seed, steps=self.steps
        )
        start = self._quantiser

        def measure(quantiser: Quantiser) -> float:
            return yardstick.recall(quantiser.rebuilt(documents))

        self._quantiser, steps = trained(start, examples, options, measure, progress=progress)
        plain: Codec = Product(self._code_size, bits=self.bits, seed=self.seed).fit(documents)
        compared = yardstick.recall(plain.decode(plain.encode(documents)))
        self.report = RankedReport(compared, measure(start), measure(self._quantiser), steps)
        self._warn_if_worse(self.report)

    def _warn_if_worse(self, report: RankedReport) -> None:
        if report.trained < report.plain - NOISE:
            warnings.warn(
                f"{self!r} finds {report.trained:.3f} of the first {FIRST} on held-out queries, a plain product quantiser of "
                f"{self.code_size} bytes {report.plain:.3f}: use Product, or fit on more vectors",
                CodecWarning,
                stacklevel=5,
            )

    def _encode(self, vectors: Vectors) -> Codes:
        codes = np.empty((len(vectors), self.code_size), np.uint8)
        for rows in batches(len(vectors)):
            codes[rows] = self._quantiser.codes(vectors[rows])
        return codes

    def _decode(self, codes: Codes) -> Vectors:
        vectors = np.empty((len(codes), self.dim), np.float32)
        for rows in batches(len(codes)):
            vectors[rows] = self._quantiser.decoded(self._quantiser.unpacked(codes[rows]))
        return vectors

    def _arrays(self) -> Arrays:
        arrays = {name: getattr(self._quantiser, name) for name in MATRICES}
        if self.report is not None:
            arrays["report"] = np.array(list(asdict(self.report).values()))
        return arrays

    def _restore(self, arrays: Arrays) -> None:
        self._quantiser = Quantiser(**{name: arrays[name] for name in MATRICES})
        if "report" in arrays:
            plain, start, trained, steps = arrays["report"].tolist()
            self.report = RankedReport(plain, start, trained, int(steps))


class _Shifted(FaissScanner):
    """Codes of 8 bits a part; to every score the last number of the prepared query is added.

    They lie in the one list of an ``IndexIVFPQ``, because faiss's ``IndexPQ`` refuses to be told what may be found.
    """

    def __init__(self, codes: Codes, points: Points) -> None:
        parts, _, width = points.shape
        library: Any = faiss  # its stubs know the C++ signatures, not the Python ones
        self._origin = library.IndexFlatIP(parts * width)
        self._origin.add(np.zeros((1, parts * width), np.float32))
        index = library.IndexIVFPQ(self._origin, parts * width, 1, parts, 8, faiss.METRIC_INNER_PRODUCT)
        index.by_residual, index.pq, index.is_trained = False, _product_quantiser(points), True
        ids = np.arange(len(codes))
        index.invlists.add_entries(0, len(codes), library.swig_ptr(ids), library.swig_ptr(np.ascontiguousarray(codes)))
        index.ntotal = len(codes)
        super().__init__(index, codes.shape[1] + ids.itemsize)
        self._shared = 4 * points.size

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, of the places that the list keeps beside them, and of the points."""
        return super().nbytes + self._shared

    def search(
        self, prepared: Prepared, k: int, allowed: Mask | None = None, lists: Lists | None = None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        del lists
        library: Any = faiss
        parameters = library.SearchParametersIVF(nprobe=1)
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            parameters.sel = selector = library.IDSelectorBitmap(bits)  # noqa: F841 - has to live until the search ends
        scores, places = self._index.search(np.ascontiguousarray(prepared[:, :-1]), k, params=parameters)
        return in_order(scores + prepared[:, -1:], places)


def _start(sample: Vectors, parts: int, centroids: int, seed: int) -> Quantiser:
    """Cluster weighted principal axes, shared out among the parts."""
    spectrum = Spectrum.of(sample)
    weights = spectrum.weights**MORE
    roots = np.sqrt(weights).astype(np.float32)
    groups = _shared_out(spectrum.variances * weights, parts)
    width = max(map(len, groups))
    encoder = np.zeros((sample.shape[1], parts * width), np.float32)
    decoder = np.zeros((parts * width, sample.shape[1]), np.float32)
    for part, axes in enumerate(groups):
        places = slice(part * width, part * width + len(axes))
        encoder[:, places] = spectrum.axes[:, axes] * roots[axes]
        decoder[places] = (spectrum.axes[:, axes] / roots[axes]).T
    quantiser = _product_quantiser(np.zeros((parts, centroids, width), np.float32))
    quantiser.cp.seed = seed
    quantiser.cp.min_points_per_centroid = 1
    quantiser.cp.max_points_per_centroid = 2 * BATCH // centroids
    placed = (sample[: 2 * BATCH] - spectrum.mean) @ encoder
    # k-means wants at least as many vectors as centroids; repeated ones give centroids that are not used.
    quantiser.train(np.resize(placed, (max(len(placed), centroids), placed.shape[1])))
    nearest = faiss.vector_to_array(quantiser.centroids).reshape(parts, centroids, width)
    return Quantiser(spectrum.mean, encoder, decoder, nearest, nearest.copy())


def _shared_out(variances: npt.NDArray[np.float64], parts: int) -> list[list[int]]:
    """Give each part equally many axes, so that the products of their variances are about the same; the longest axes first."""
    worth = np.log(np.maximum(variances, np.finfo(float).tiny))
    worth = worth - worth.min() + 1
    largest = -(-len(worth) // parts)
    groups: list[list[int]] = [[] for _ in range(parts)]
    sums = np.zeros(parts)
    for axis in np.argsort(-worth, kind="stable").tolist():
        part = int(np.argmin(sums))
        groups[part].append(axis)
        sums[part] += worth[axis] if len(groups[part]) < largest else np.inf
    return groups


def _product_quantiser(points: Points) -> Any:
    parts, centroids, width = points.shape
    library: Any = faiss  # its stubs know the C++ signatures, not the Python ones
    quantiser = library.ProductQuantizer(parts * width, parts, int(centroids).bit_length() - 1)
    faiss.copy_array_to_vector(np.ascontiguousarray(points).ravel(), quantiser.centroids)
    return quantiser


def batches(count: int) -> Iterator[slice]:
    """Cut rows into batches."""
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))
