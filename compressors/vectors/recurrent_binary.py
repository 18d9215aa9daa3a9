"""Recurrent binary codes: several levels of signs a dimension behind a learned transform (BEBR, 2302.08714)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Codes, Prepared, Queries, Vectors, VectorsLike, as_vectors
from rarebit.compressors.vectors.codec import Arrays, SearchableCodec
from rarebit.compressors.vectors.fast_scan import FastScan
from rarebit.compressors.vectors.product import Product
from rarebit.compressors.vectors.recurrent_transform import (
    Floats,
    branch,
    linear,
    regressed,
    start_of,
    transform_inputs,
    weighted,
)
from rarebit.compressors.vectors.scanning import Division, Scanner
from rarebit.errors import CodecError, CodecWarning, InputError
from rarebit.extras import require

Transform: TypeAlias = Literal["mlp", "linear"]
Loss: TypeAlias = Literal["listnet", "contrastive"]
Own = TypeVar("Own", bound="RecurrentBinary")

SCALE_BYTES = 2
"""Of the float16 factor that a code holds where lengths vary."""

VARYING = 0.01
"""Standard deviation of the lengths, relative to their mean, from which codes hold a factor."""

SAMPLE, HELD_OUT, ASKED, ANCHORS = 40_000, 4_000, 400, 4_096
"""Vectors that are learned from; of them those held out, the queries among these, and the queries to train with."""

FEWEST = 512
"""Vectors below which nothing is trained: the transform stays a rotation of the principal axes."""

FIRST = 10
"""Recall is of the first ten."""

NOISE = 0.01
"""Difference in held-out recall that means nothing."""

BITS = 8
BATCH = 8192
SIGNS = (2.0 * (np.arange(16) >> np.arange(4)[:, np.newaxis] & 1) - 1).astype(np.float32)
"""(4, 16): the signs that each value of four bits stands for."""


@dataclass(frozen=True)
class RecurrentReport:
    """Recall of the first ten on held-out vectors."""

    reference: float
    """Of a product quantiser with the same bytes; for a compatible codec, of the old queries on the old codes."""
    start: float
    """Of the codec before training; a compatible one's mean of its queries on the old codes and on its own."""
    trained: float
    """Of the codec as it is kept; never lower than ``start``."""


@dataclass(frozen=True)
class Judged:
    """What a compatible codec learns from beside its own vectors, all of the old model."""

    documents: Floats
    queries: Floats
    values: Floats
    """(n, out_dim): what the documents' old codes hold, factors included."""


@dataclass(frozen=True)
class Examples:
    """Documents and queries to train on; ``own[i]`` is the document that query i is itself, or -1."""

    documents: Floats
    queries: Floats
    own: npt.NDArray[np.int64]
    judged: Judged | None = None


class RecurrentBinary(SearchableCodec):
    """Signs of a learned transform, signs of what these leave, and so on: a grid of ``2 ** bits_per_dim`` values a dimension.

    The transform gives ``z`` of the centred vector f, and ``b = sign(z)``. Each further level adds
    ``2**-i * sign(z - b + residual_i(f - rebuild_i(b)))``. The transform is a linear map plus a branch of Linear, BatchNorm,
    ReLU, Linear; rebuild_i is linear, residual_i another such branch. Branches start at zero, so that training starts from the
    uniform grid on the rotated principal axes; ``transform="linear"`` has no branches. (The paper's residual has no z - b: its
    maps learn that too. From three levels on, training them apart loses more than it gains.) Training moves the codes' ranking
    of a vector's neighbours towards the float one, with straight-through gradients; it needs torch.

    The query side is linear and learned with the rest: ``score = q @ mean + factor * (decoder @ q) @ b``. So
    ``decode(c) = mean + factor * b @ decoder``, in the space of the vectors, and scores equal ``q @ decode(c)`` up to float32
    rounding. The factor is 1, or a float16 number in the code. The paper's ``1 / |b|`` is left out: it lowered recall on
    MiniLM vectors, where the length of b says how much of a vector lies in the dimensions that are kept.

    ``fit(vectors, queries)``: with 400 queries or more, it is trained on and measured with them; fewer are not used, and the
    vectors themselves take their place.

    The signs of the first level come first, then those of the second, and so on, four signs to a part of a fast scan.

    Args:
        code_size: bytes a vector; None for as many dimensions as the vectors have.
        bits_per_dim: levels, 1 to 8.
        transform: ``"mlp"`` or ``"linear"``.
        loss: ``"listnet"`` against the float scores, or ``"contrastive"`` with float neighbours against the hardest others.
        scale: whether a code holds a least-squares factor, 2 of its bytes; None for only where lengths vary by over 1 %.
        hidden: width of the branches of ``"mlp"``.
        steps: of training at most; 0 keeps the start.
        seed: of the rotation and of training.

    Raises:
        InputError: arguments that name no such codec.
    """

    name = "recurrent"
    training_minimum = 4096

    def __init__(
        self,
        code_size: int | None = None,
        bits_per_dim: int = 2,
        transform: Transform = "linear",
        *,
        loss: Loss = "listnet",
        scale: bool | None = None,
        hidden: int = 512,
        steps: int = 300,
        seed: int = 0,
    ) -> None:
        """Create an unfitted codec."""
        super().__init__()
        if not 1 <= bits_per_dim <= BITS or (code_size is not None and code_size < 1) or hidden < 1 or steps < 0:
            raise InputError(
                f"got code_size={code_size}, bits_per_dim={bits_per_dim}, hidden={hidden}, steps={steps}, wanted bits_per_dim "
                f"from 1 to {BITS}, code_size and hidden from 1 (or code_size=None), and steps from 0"
            )
        if transform not in get_args(Transform) or loss not in get_args(Loss):
            raise InputError(
                f"got transform={transform!r}, loss={loss!r}, wanted one of {get_args(Transform)} and one of {get_args(Loss)}"
            )
        self._asked_size = code_size
        self.bits_per_dim = bits_per_dim
        self.transform, self.loss, self.scale = transform, loss, scale
        self.hidden, self.steps, self.seed = hidden, steps, seed
        self.report: RecurrentReport | None = None
        self._state: Arrays = {}

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("bits_per_dim", "transform", "loss", "scale", "hidden", "steps", "seed")
        return {"code_size": self._asked_size} | {name: getattr(self, name) for name in names}

    @property
    def code_size(self) -> int:
        """Bytes a vector; without ``code_size`` known only once fitted."""
        if self._asked_size is not None:
            return self._asked_size
        return -(-self.dim * self.bits_per_dim // 8) + self._scale_bytes

    @property
    def out_dim(self) -> int:
        """Dimensions of a code, each of ``bits_per_dim`` bits."""
        if self._asked_size is None:
            return self.dim
        return (self._asked_size - self._scale_bytes) * 8 // self.bits_per_dim

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Make the tables of (q, dim) float queries: the asymmetric search."""
        weights = queries @ self._state["decoder"].T
        levels = np.concatenate([weights * np.float32(2.0**-level) for level in range(self.bits_per_dim)], axis=1)
        padded = np.pad(levels, ((0, 0), (0, 4 * self._parts - levels.shape[1])))
        entries = padded.reshape(len(queries), self._parts, 4) @ SIGNS
        constants = queries @ self._state["mean"]
        tables = entries.reshape(len(queries), SIGNS.shape[1] * self._parts)
        return np.concatenate([tables, constants[:, np.newaxis]], axis=1).astype(np.float32)

    def prepare_queries_symmetric(self, queries: Queries) -> Prepared:
        """Make the tables of what the codes of (q, dim) queries stand for: the symmetric search, for queries kept as codes."""
        return self.prepare_queries(self.decode(self.encode(queries)))

    @property
    def has_lists(self) -> bool:
        """Whether its scanner keeps inverted lists apart."""
        return True

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:
        """Lay the signs out for the fast scan, with the codes' factors if they have any."""
        signs = np.ascontiguousarray(codes[:, : self.code_size - self._scale_bytes])
        return FastScan(signs, self._parts, _factors(codes) if self._scale_bytes else None, division)

    @classmethod
    def compatible_with(
        cls: type[Own], old: RecurrentBinary, new_vectors: VectorsLike, old_vectors: VectorsLike, *, progress: bool = False
    ) -> Own:
        """Fit a codec of a new embedding model whose queries search the codes of an old one, and whose codes mix with them.

        The old codes stay as they are, the grid is shared. A linear map from the new to the old space is learned from the
        pairs, then the new transform and query side are trained against the frozen old codes and the new ones (2302.08714).

        Args:
            old: the fitted codec of the old model; its settings are taken over.
            new_vectors: (n, new dim) float32, of the new model.
            old_vectors: (n, old dim) float32, of the same texts in the same order.
            progress: show a progress bar.

        Raises:
            InputError: the pairs do not match.
        """
        new, before = as_vectors(new_vectors), as_vectors(old_vectors, dim=old.dim)
        if len(new) != len(before) or len(new) == 0:
            raise InputError(f"got {len(new)} new and {len(before)} old vectors, wanted one of each for every text")
        settings: dict[str, Any] = {**old.config, "code_size": old.code_size}
        codec = cls(**settings)
        codec._dim = new.shape[1]
        codec._fit_compatible(old, new, before, progress=progress)
        return codec

    @property
    def _scale_bytes(self) -> int:
        """Bytes of the factor in a code, as decided by the fit."""
        return SCALE_BYTES if self._state and self._state["scaled"][0] else 0

    @property
    def _parts(self) -> int:
        return -(-self.out_dim * self.bits_per_dim // 4)

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        rng = np.random.default_rng(self.seed)
        sample = vectors[rng.permutation(len(vectors))[:SAMPLE]]
        self._state, self.report = {"scaled": np.array([self._scales(sample)])}, None
        if self.out_dim < 1:
            raise CodecError(f"got {self!r}, whose code has no room for a dimension: raise code_size")
        self._state |= start_of(sample, self.out_dim, self.bits_per_dim, rng)
        self._recalibrate(sample, refit=True)
        if len(sample) < FEWEST or self.dim < 2:
            return
        held, asked, examples = self._split(sample, queries, rng)
        truth = _nearest(asked @ held.T)

        def measure(state: Arrays) -> float:
            self._state = state
            return _recall(asked @ self._decode(self._encode(held)).T, truth)

        start = measure(self._state)
        self._train(examples, measure, progress=progress)
        self._recalibrate(sample)
        plain = Product(min(self.code_size, self.dim // 2), seed=self.seed).fit(examples.documents)
        reference = _recall(asked @ plain.decode(plain.encode(held)).T, truth)
        self.report = RecurrentReport(reference, start, measure(self._state))
        if self.report.trained < reference - NOISE:
            self._warn(f"a product quantiser of {self.code_size} bytes finds {reference:.3f}: use Product, or more vectors")

    def _fit_compatible(self, old: RecurrentBinary, new: Vectors, before: Floats, *, progress: bool) -> None:
        inner = before @ old._state["map"] if "map" in old._state else before
        mapping = regressed(new, inner)
        anchors = {"inner_mean": old._state.get("inner_mean", old._state["mean"])}
        anchors["inner_decoder"] = old._state.get("inner_decoder", old._state["decoder"])
        moved = {"mean": mapping @ anchors["inner_mean"], "decoder": anchors["inner_decoder"] @ mapping.T, "map": mapping}
        self._state = old._state | anchors | moved
        if len(new) < FEWEST:
            return
        rows = np.random.default_rng(self.seed).permutation(len(new))[:SAMPLE]
        held, rest = np.split(rows, [min(HELD_OUT, len(rows) // 4)])
        asked, held = np.split(held, [min(ASKED, len(held) // 4)])
        codes = old.encode(before)
        kept, truth = old.decode(codes[held]), _nearest(before[asked] @ before[held].T)
        judged = Judged(before[rest], before[rest[:ANCHORS]], old._values(codes[rest]))
        examples = Examples(new[rest], new[rest[:ANCHORS]], np.arange(len(rest))[:ANCHORS], judged)

        def measure(state: Arrays) -> float:
            self._state = state
            both = (codes[held], self._encode(new[held]))
            return sum(_recall(new[asked] @ self._decode(one).T, truth) for one in both) / len(both)

        start = measure(self._state)
        self._train(examples, measure, progress=progress)
        reference = _recall(before[asked] @ kept.T, truth)
        self.report = RecurrentReport(reference, start, measure(self._state))
        if self.report.trained < 0.8 * reference:
            self._warn(f"the old queries find {reference:.3f} on the old codes: give more pairs, or encode the texts anew")

    def _train(self, examples: Examples, measure: Callable[[Arrays], float], *, progress: bool) -> None:
        if self.steps == 0:
            return
        require("torch", "models")
        from rarebit.compressors.vectors.recurrent_training import trained

        self._state = trained(self._state, examples, self.config, measure, progress=progress)

    def _warn(self, advice: str) -> None:
        found = 0.0 if self.report is None else self.report.trained
        text = f"{self!r} finds {found:.3f} of the first {FIRST} of held-out queries, {advice}"
        warnings.warn(text, CodecWarning, stacklevel=4)

    def _scales(self, sample: Vectors) -> bool:
        if self.scale is not None:
            return self.scale
        lengths = np.linalg.norm(sample, axis=1)
        return bool(lengths.std() > VARYING * lengths.mean())

    def _split(self, sample: Vectors, queries: Queries | None, rng: Any) -> tuple[Floats, Floats, Examples]:
        """Hold some vectors and queries out: the documents and the queries to measure with, and what to train on."""
        held, rest = np.split(sample, [min(HELD_OUT, len(sample) // 4)])
        if queries is not None and len(queries) >= ASKED:
            asked, rest_queries = np.split(queries[rng.permutation(len(queries))], [min(ASKED, len(queries) // 4)])
            return held, asked, Examples(rest, rest_queries[:ANCHORS], np.full(min(len(rest_queries), ANCHORS), -1))
        asked, held = np.split(held, [min(ASKED, len(held) // 4)])
        return held, asked, Examples(rest, rest[:ANCHORS], np.arange(min(len(rest), ANCHORS)))

    def _recalibrate(self, sample: Vectors, *, refit: bool = False) -> None:
        """Set the decoder's slope, or at first all of it, by least squares; then the mean so that errors cancel."""
        rows = sample[:BATCH]
        state = self._state
        signs = self._signs(rows)
        values = weighted(signs, self.bits_per_dim)
        centred = rows - state["mean"]
        if refit:
            state["decoder"] = regressed(values, centred)
        else:
            self._set_slope(centred, values)
        if not self._scale_bytes:
            state["mean"] = state["mean"] + (centred - values @ state["decoder"]).mean(axis=0)

    def _set_slope(self, centred: Floats, values: Floats) -> None:
        """Scale estimates of the sample's own inner products to the true ones."""
        rebuilt = values @ self._state["decoder"]
        if self._scale_bytes:
            rebuilt = rebuilt * _projected(centred, rebuilt)[:, np.newaxis]
        asked = centred[:ASKED]
        true, estimated = (asked @ centred[ASKED:].T).astype(np.float64), (asked @ rebuilt[ASKED:].T).astype(np.float64)
        slope = np.float32((true * estimated).sum() / max((estimated * estimated).sum(), 1e-30))
        if np.isfinite(slope) and slope > 0:
            name = "slope" if self._scale_bytes else "decoder"
            self._state[name] = slope * self._state[name]

    def _encode(self, vectors: Vectors) -> Codes:
        codes = np.empty((len(vectors), self.code_size), np.uint8)
        for start in range(0, len(vectors), BATCH):
            codes[start : start + BATCH] = self._encoded(vectors[start : start + BATCH])
        return codes

    def _encoded(self, vectors: Floats) -> npt.NDArray[np.uint8]:
        signs = self._signs(vectors)
        packed = np.packbits(signs, axis=1, bitorder="little")
        if not self._scale_bytes:
            return packed
        state = self._state
        inner = vectors @ state["map"] if "map" in state else vectors
        centred = inner - state.get("inner_mean", state["mean"])
        rebuilt = weighted(signs, self.bits_per_dim) @ state.get("inner_decoder", state["decoder"])
        largest = float(np.finfo(np.float16).max)
        factors = np.clip(state["slope"] * _projected(centred, rebuilt), -largest, largest).astype(np.float16)
        return np.concatenate([packed, factors[:, np.newaxis].view(np.uint8)], axis=1)

    def _signs(self, vectors: Floats) -> npt.NDArray[np.bool_]:
        """Give the (n, bits * out_dim) signs, level after level."""
        state = self._state
        inputs = transform_inputs(vectors, state)
        first = linear(inputs, state, "encode")
        if "encode.first" in state:
            first += branch(inputs, state, "encode")
        signs, values = [first >= 0], np.where(first >= 0, np.float32(1), np.float32(-1))
        for level in range(1, self.bits_per_dim):
            left = first - values
            if f"rebuild{level}.linear" in state:
                left += branch(inputs - linear(values, state, f"rebuild{level}"), state, f"residual{level}")
            signs.append(left >= 0)
            values = values + np.where(left >= 0, np.float32(2.0**-level), np.float32(-(2.0**-level)))
        return np.concatenate(signs, axis=1)

    def _values(self, codes: Codes) -> Floats:
        """Give the (n, out_dim) grid values of codes, each times its factor."""
        count = self.bits_per_dim * self.out_dim
        signs = np.unpackbits(codes[:, : self.code_size - self._scale_bytes], axis=1, count=count, bitorder="little")
        values = weighted(signs.astype(np.bool_), self.bits_per_dim)
        return values * _factors(codes).astype(np.float32)[:, np.newaxis] if self._scale_bytes else values

    def _decode(self, codes: Codes) -> Vectors:
        vectors = np.empty((len(codes), self.dim), np.float32)
        for start in range(0, len(codes), BATCH):
            vectors[start : start + BATCH] = self._values(codes[start : start + BATCH]) @ self._state["decoder"]
        return vectors + self._state["mean"]

    def _arrays(self) -> Arrays:
        report = {} if self.report is None else {"report": np.array(list(asdict(self.report).values()))}
        return self._state | report

    def _restore(self, arrays: Arrays) -> None:
        self._state = {name: array for name, array in arrays.items() if name != "report"}
        self.report = RecurrentReport(*arrays["report"].tolist()) if "report" in arrays else None


def _factors(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    return np.ascontiguousarray(codes[:, -SCALE_BYTES:]).view(np.float16)[:, 0]


def _projected(centred: Floats, rebuilt: Floats) -> Floats:
    """Give the factor of each rebuilt vector that brings it nearest to what it stands for."""
    squares = (rebuilt * rebuilt).sum(axis=1)
    factors: Floats = (centred * rebuilt).sum(axis=1) / np.where(squares > 0, squares, np.float32(1))
    return factors


def _nearest(scores: Floats) -> npt.NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :FIRST]


def _recall(scores: Floats, truth: npt.NDArray[np.int64]) -> float:
    found = _nearest(scores)
    return float((found[:, :, np.newaxis] == truth[:, np.newaxis, :]).any(axis=2).mean())
