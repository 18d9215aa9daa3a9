"""The embedded engine: one SQLite file, small codes in memory, exact answers to filters."""

from rarebit.retrievers.collection.collection import Collection
from rarebit.retrievers.collection.explanation import Explanation
from rarebit.retrievers.collection.filters import And, Compare, Filter, Ids, Not, Or, Where, matches
from rarebit.retrievers.collection.records import Hit, Row
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings
from rarebit.retrievers.collection.stats import Stats
from rarebit.retrievers.collection.tenant import Tenant

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
    "Settings",
    "Stats",
    "Tenant",
    "Where",
    "matches",
]
