"""What can be imported: a source, which gives its rows batch by batch, in the same order every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from rarebit.arrays import Vectors

Ranking: TypeAlias = Literal["cosine", "inner_product", "l2"]
"""What a store ranks by."""


@dataclass(frozen=True)
class Rows:
    """Rows on their way: (n, dim) float32 vectors, and n of everything else.

    A text that is None counts as missing, and becomes the empty text; metadata that is None is empty.
    """

    ids: Sequence[str]
    vectors: Vectors
    texts: Sequence[str | None]
    metadatas: Sequence[Mapping[str, Any] | None]


@runtime_checkable
class Source(Protocol):
    """Where rows come from. Any object with these four members is one.

    Giving the same rows under the same ids each time is all that resuming needs.
    """

    @property
    def name(self) -> str:
        """What messages and the progress bar call it."""
        ...

    @property
    def count(self) -> int | None:
        """How many rows there are; None if that is not known."""

    @property
    def ranked_by(self) -> Ranking | None:
        """What it ranks by; None if that is not known."""

    def batches(self, size: int) -> Iterator[Rows]:
        """Give all rows, at most ``size`` at a time.

        Raises:
            InputError: rows that cannot be read, or lack their vectors; the message says which.
        """
        ...
