"""The name of a model whose vectors are situated, for a collection's fingerprint."""

from __future__ import annotations

from functools import cache

from rarebit.errors import InputError
from rarebit.retrievers.collection import Collection
from rarebit.retrievers.situating import SituatingHead


def situated_name(model: str | None, head: SituatingHead | None) -> str:
    """Name a model together with a head; the shipped one if left out. Empty where the model is not known."""
    return f"{model} situated by {_shipped() if head is None else head.fingerprint}" if model else ""


@cache
def _shipped() -> str:
    return SituatingHead.shipped(1).fingerprint


def check_metric(collection: Collection) -> None:
    """Raise InputError unless a collection keeps the lengths of situated vectors."""
    metric = collection.settings.metric
    if metric != "inner_product":
        raise InputError(
            f"got a collection whose metric is {metric!r}, wanted 'inner_product', since the length of a situated vector means "
            "something: make another collection, with metric='inner_product'"
        )
