"""What comes before a quantiser: linear maps of the embedding space that keep inner products as well as they can.

A transform is one file with one subclass, and one line in the table of :mod:`rarebit.compressors.vectors`. Transforms and a
quantiser after them make a :class:`~rarebit.compressors.vectors.pipeline.Pipeline`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from rarebit.arrays import Queries, Vectors
from rarebit.compressors.vectors.codec import Arrays
from rarebit.errors import NotFittedError

Own = TypeVar("Own", bound="Transform")


class Transform(ABC):
    """Maps (n, dim) vectors to (n, out_dim), so that ``apply_queries(q) @ apply(x).T`` is near ``q @ x.T``."""

    name: ClassVar[str]
    """The name under which the transform is registered and saved."""

    training_minimum: int = 0
    """How many vectors a good fit needs; 0 where nothing is learned from them."""

    scores_as_inverted: ClassVar[bool] = True
    """Whether inner products of mapped queries are those with what :meth:`invert` gives."""

    def __init__(self) -> None:
        """Create an unfitted transform."""
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Dimension of the vectors that come in; raises NotFittedError before ``fit``."""
        if self._dim is None:
            raise NotFittedError(f"{self!r} was used before it was fitted: call fit(vectors) or load a saved codec")
        return self._dim

    @property
    def out_dim(self) -> int:
        """Dimension of the vectors that come out."""
        return self.dim

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""
        return {}

    def fit(self: Own, vectors: Vectors, *, progress: bool = False) -> Own:
        """Learn the map from (n, dim) vectors, and return the transform itself."""
        self._dim = vectors.shape[1]
        try:
            self._fit(vectors, progress=progress)
        except BaseException:
            self._dim = None
            raise
        return self

    @abstractmethod
    def apply(self, vectors: Vectors) -> Vectors:
        """Map (n, dim) vectors to (n, out_dim)."""

    def apply_queries(self, queries: Queries) -> Queries:
        """Map (q, dim) queries to (q, out_dim); as the vectors, unless a subclass says otherwise."""
        return self.apply(queries)

    @abstractmethod
    def invert(self, vectors: Vectors) -> Vectors:
        """Map (n, out_dim) back to the nearest (n, dim)."""

    @classmethod
    def restore(cls: type[Own], *, dim: int, config: Mapping[str, Any], arrays: Arrays) -> Own:
        """Rebuild a fitted transform from its configuration and what :meth:`arrays` gave."""
        transform = cls(**config)
        transform._dim = dim
        transform._restore(arrays)
        return transform

    def arrays(self) -> Arrays:
        """Give everything learned, by name."""
        return {}

    def __repr__(self) -> str:
        """Name the transform and its settings."""
        settings = ", ".join(f"{key}={value!r}" for key, value in self.config.items())
        return f"{type(self).__name__}({settings})"

    def _fit(self, vectors: Vectors, *, progress: bool) -> None:
        """Learn nothing; transforms that learn override this."""
        del vectors, progress

    def _restore(self, arrays: Arrays) -> None:
        """Take back what :meth:`arrays` gave."""
        del arrays
