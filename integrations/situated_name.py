"""What both frameworks say and check of models whose vectors are situated."""

from __future__ import annotations

from rarebit.errors import InputError
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.retrievers.collection import Collection
from rarebit.retrievers.situating import SituatingMethod


def situated_name(model: object | None, method: SituatingMethod) -> str:
    """Name a model together with what situates its vectors, for a collection's fingerprint; empty where it is not known."""
    if not method.needs_model:
        return method.fingerprint
    name = fingerprint_of(model).name or ""
    return f"{name} situated by {method.fingerprint}" if name and method.fingerprint else name


def check_model(model: object | None, method: SituatingMethod) -> None:
    """Raise InputError unless there is an embedding model where one is needed, and only there."""
    if method.needs_model and model is None:
        raise InputError(
            "got no embedding model, wanted one, whose vectors or texts are then situated; only LateChunking, TwoEncoders and "
            "SitEmb embed by themselves"
        )
    if not method.needs_model and model is not None:
        raise InputError(
            f"got the embedding model {type(model).__name__} together with {method.fingerprint}, which embeds chunks and "
            "queries by itself: pass None in place of the model"
        )


def check_metric(collection: Collection) -> None:
    """Raise InputError unless a collection keeps the lengths of situated vectors."""
    metric = collection.settings.metric
    if metric != "inner_product":
        raise InputError(
            f"got a collection whose metric is {metric!r}, wanted 'inner_product', since the length of a situated vector means "
            "something: make another collection, with metric='inner_product'"
        )
