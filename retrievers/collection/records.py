"""What a collection gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rarebit.arrays import Vector

Metadata: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One stored passage."""

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    ``score``: the cosine or inner product with the query for vector search, BM25 for lexical search, the fused score for
    hybrid search; higher is nearer. ``vector``: (dim,) float32, only when it was asked for.
    """

    id: str
    score: float
    text: str
    metadata: Metadata = field(default_factory=dict)
    vector: Vector | None = field(default=None, compare=False, repr=False)
