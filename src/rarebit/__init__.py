"""Rarebit: fewer bits a vector, fewer passages a query, one token a passage.

Drop-in parts for retrieval-augmented generation with LangChain and LlamaIndex. The names below are loaded when they are
first used, so ``import rarebit`` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rarebit.retrievers.collection import (
        And,
        Collection,
        Compare,
        EmbeddingFingerprint,
        Explanation,
        Filter,
        Hit,
        Ids,
        Not,
        Or,
        Row,
        Stats,
        Tenant,
        Where,
    )

__version__ = "0.1.0"

__all__ = [
    "And",
    "Collection",
    "Compare",
    "EmbeddingFingerprint",
    "Explanation",
    "Filter",
    "Hit",
    "Ids",
    "Not",
    "Or",
    "Row",
    "Stats",
    "Tenant",
    "Where",
    "__version__",
]

_HOMES = {name: "rarebit.retrievers.collection" for name in __all__ if name != "__version__"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rarebit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
