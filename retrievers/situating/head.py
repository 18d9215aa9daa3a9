"""The situating head: what a chunk's surroundings add to its vector, over the vectors of any embedding model.

``v = c + residual(c | the chunks around it)``: the residual idea of SitEmb (2508.01959) on frozen embeddings, so that a
document is embedded once, chunk by chunk, and by any model. The residual is the chunks around it, each times a number that is
learned for its distance, the mean of the document times another, and what a few attention heads find among the chunks around it
and in the document as a whole. Training needs torch (:mod:`.training`); a trained head needs numpy.

A situated vector has a length that means something: keep it, and search by inner product (``metric="inner_product"``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from jaxtyping import Float32
from safetensors import SafetensorError

from rarebit.arrays import Vectors, VectorsLike, as_vectors
from rarebit.errors import InputError
from rarebit.extras import require
from rarebit.retrievers.situating.grouping import places_by_document

if TYPE_CHECKING:
    from rarebit.retrievers.situating.examples import Examples

Arrays: TypeAlias = dict[str, npt.NDArray[np.float32]]
Projected: TypeAlias = Float32[npt.NDArray[np.float32], "heads n width"]

SHIPPED: Final = Path(__file__).parent / "shipped"

CONFIG_FILE: Final = "config.json"
ARRAYS_FILE: Final = "situating_head.safetensors"

NEAR: Final = 8
"""Chunks on each side that lend a share of their vectors, whatever they say."""

REACH: Final = 16
"""Distances, in chunks, that the attention tells apart; farther ones count as this."""

SPAN: Final = 48
"""Chunks that a chunk looks at on each side; the document's mean stands for those beyond."""

SHARPNESS: Final = 8.0
"""Attention scores are multiplied by this, because the vectors have length 1."""

BLOCK: Final = 256
"""Chunks that are situated at once, so that memory does not grow with the square of a document's length."""


@dataclass(frozen=True)
class SituatingReport:
    """Geometric mean of the rank of the right chunk among the chunks of documents that training did not see.

    Where fewer than ten documents are asked about, among those of parts of them that it did not see.
    """

    plain: float
    """By the chunks' own vectors."""
    trained: float
    """By the situated ones; never higher."""
    steps: int
    """After how many steps it was best; 0 if training brought nothing."""
    questions: int
    """How many questions it was measured with."""


class SituatingHead:
    """Situates the chunks of a document.

    A new head changes nothing; :meth:`fit` or :meth:`from_pretrained` gives one that does.

    Args:
        dim: of the vectors.
        heads: of attention; 0 for none.
        width: numbers a head works with.
    """

    def __init__(self, dim: int, *, heads: int = 4, width: int = 32) -> None:
        """Create a head that leaves every vector as it is."""
        if min(dim, width) < 1 or heads < 0:
            raise InputError(f"got dim={dim}, heads={heads}, width={width}, wanted at least 1 of each, or no heads")
        self.dim, self.heads, self.width = dim, heads, width
        self.report: SituatingReport | None = None
        """What was measured in training; None if nothing was trained."""
        self._arrays = {name: np.zeros(shape, np.float32) for name, shape in self._shapes().items()}

    @property
    def fingerprint(self) -> str:
        """A short hash of the weights, in hexadecimal: two heads that do the same have the same one."""
        parts = [name.encode() + array.tobytes() for name, array in sorted(self._arrays.items()) if array.size]
        return sha256(b"".join(parts)).hexdigest()[:8]

    def situate(self, chunks: VectorsLike) -> Vectors:
        """Situate the chunks of one document.

        Args:
            chunks: (n, dim) vectors of its chunks, in their order, of length 1 as a rule.

        Returns:
            (n, dim) float32; their lengths differ.

        Raises:
            InputError: and its kinds, for what is no matrix of finite numbers of this dimension.
        """
        vectors = as_vectors(chunks, dim=self.dim)
        return self.situate_among(vectors, vectors.mean(axis=0)) if len(vectors) else vectors

    def situate_among(self, vectors: Vectors, mean: npt.NDArray[np.float32]) -> Vectors:
        """Situate neighbouring chunks, (n, dim), of a document whose chunks have a mean, (dim,)."""
        before, own, after = np.split(self._arrays["near"], [NEAR, NEAR + 1])
        situated: Vectors = np.multiply(1 + own, vectors, dtype=np.float32) + self._arrays["document_share"] * mean
        for distance in range(1, min(NEAR, len(vectors) - 1) + 1):
            situated[distance:] += before[-distance] * vectors[:-distance]
            situated[:-distance] += after[distance - 1] * vectors[distance:]
        situated += self._attended(vectors, mean)
        return situated

    def situate_grouped(
        self, chunks: VectorsLike, documents: Sequence[Hashable], order: Sequence[float] | None = None
    ) -> Vectors:
        """Situate the chunks of many documents.

        Args:
            chunks: (n, dim) vectors.
            documents: n names, which say what belongs together.
            order: n numbers by which the chunks of a document are put in order; as they are given if left out.

        Returns:
            (n, dim) float32, in the order given.

        Raises:
            InputError: and its kinds, for vectors as in :meth:`situate`, or not one name and number for each.
        """
        vectors = as_vectors(chunks, dim=self.dim)
        situated = np.empty_like(vectors)
        for own in places_by_document(len(vectors), documents, order).values():
            situated[own] = self.situate(vectors[own])
        return situated

    @classmethod
    def shipped(cls, dim: int) -> SituatingHead:
        """Give the head that comes with Rarebit: shares by distance alone, so for vectors of any dimension.

        It was trained without labels, on MiniLM's vectors of novels and of Python's documentation; the command is
        ``python -m rarebit.cookbook.train_situating_head``.
        """
        kept = cls.from_pretrained(SHIPPED)
        head = cls(dim, heads=0)
        shares = {name: kept._arrays[name] for name in ("near", "document_share")}
        return head.with_arrays({**head._arrays, **shares}, kept.report)

    @classmethod
    def fit(
        cls,
        examples: Examples,
        *,
        heads: int | None = None,
        width: int = 32,
        steps: int = 400,
        seed: int = 0,
        progress: bool = False,
    ) -> SituatingHead:
        """Train a head; needs the extra ``models`` (torch). A minute on one processor core for thousands of questions.

        A fifth of the documents is kept apart, and what answers their questions best is kept, the untrained head included.
        Documents of more than 48 chunks are taken in parts, and parts are kept apart where there are fewer than ten documents.

        Args:
            examples: documents and questions: labelled, or made of the documents by :func:`unlabelled`.
            heads: of attention. If left out, 4 where the examples are labelled and 0 where they are not: attention learns
                what tells the questions of its examples from chunks, and sentences are other questions than people ask.
            width: numbers a head works with.
            steps: batches at most.
            seed: of the first weights, of what is kept apart and of the batches.
            progress: show a bar.

        Raises:
            InputError: there are questions about fewer than ten documents or parts of some.
        """
        require("torch", "models")
        from rarebit.retrievers.situating.training import trained

        heads = (4 if examples.without is None else 0) if heads is None else heads
        return trained(cls(examples.dim, heads=heads, width=width), examples, steps, seed, progress=progress)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``situating_head.safetensors`` into a folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        config = {"dim": self.dim, "heads": self.heads, "width": self.width}
        report = None if self.report is None else asdict(self.report)
        (path / CONFIG_FILE).write_text(json.dumps({**config, "report": report}, indent=2) + "\n", encoding="utf-8")
        safetensors.numpy.save_file(self._arrays, path / ARRAYS_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> SituatingHead:
        """Load what :meth:`save_pretrained` wrote.

        Raises:
            InputError: the folder holds no head, or a damaged one.
        """
        path = Path(folder)
        try:
            config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
            report = config.pop("report")
            head = cls(**config)
            return head.with_arrays(
                safetensors.numpy.load_file(path / ARRAYS_FILE), None if report is None else SituatingReport(**report)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise InputError(
                f"got {path}, wanted a folder with {CONFIG_FILE} and {ARRAYS_FILE} of a situating head ({error}): "
                "check the path, or save the head again"
            ) from error

    def with_arrays(self, arrays: Arrays, report: SituatingReport | None = None) -> SituatingHead:
        """Give a head of the same shape with other weights.

        Raises:
            InputError: an array is missing, or has another shape.
        """
        wanted, found = self._shapes(), {name: array.shape for name, array in arrays.items()}
        if wanted != found:
            raise InputError(f"got arrays {found}, wanted {wanted}")
        head = SituatingHead(self.dim, heads=self.heads, width=self.width)
        head._arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
        head.report = report
        return head

    def __repr__(self) -> str:
        """Name the shape, and what training brought."""
        return f"SituatingHead(dim={self.dim}, heads={self.heads}, width={self.width}, report={self.report})"

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        inner = self.heads * self.width
        return {
            "near": (2 * NEAR + 1,),
            "document_share": (1,),
            "queries": (inner, self.dim),
            "keys": (inner, self.dim),
            "values": (inner, self.dim),
            "output": (self.dim, inner),
            "distances": (self.heads, 2 * REACH + 1),
            "document": (self.heads,),
        }

    def _attended(self, vectors: Vectors, mean: npt.NDArray[np.float32]) -> Vectors:
        """Give what the heads find: (n, dim), for some chunks at a time."""
        if not self._arrays["output"].any():
            return np.zeros_like(vectors)
        looked_at = np.concatenate([vectors, mean[np.newaxis]])
        queries = self._projected("queries", vectors) * (SHARPNESS / np.sqrt(self.width))
        keys, values = self._projected("keys", looked_at), self._projected("values", looked_at)
        found = np.empty((len(vectors), self.heads * self.width), np.float32)
        for start in range(0, len(vectors), BLOCK):
            asking = np.arange(start, min(start + BLOCK, len(vectors)))
            around = np.arange(max(0, start - SPAN), min(asking[-1] + SPAN + 1, len(vectors)))
            seen = np.append(around, len(vectors))
            distances = around - asking[:, np.newaxis]
            scores = queries[:, asking] @ keys[:, seen].transpose(0, 2, 1)
            scores[:, :, :-1] += self._arrays["distances"][:, np.clip(distances, -REACH, REACH) + REACH]
            scores[:, :, -1] += self._arrays["document"][:, np.newaxis]
            scores[:, :, :-1][:, np.abs(distances) > SPAN] = -np.inf
            weights = np.exp(scores - scores.max(axis=2, keepdims=True))
            weights /= weights.sum(axis=2, keepdims=True)
            found[asking] = (weights @ values[:, seen]).transpose(1, 0, 2).reshape(len(asking), -1)
        attended: Vectors = found @ self._arrays["output"].T
        return attended

    def _projected(self, name: str, vectors: Vectors) -> Projected:
        projected: Any = vectors @ self._arrays[name].T
        by_head: Projected = np.ascontiguousarray(projected.reshape(len(vectors), self.heads, self.width).transpose(1, 0, 2))
        return by_head
