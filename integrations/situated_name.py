"""What both frameworks say and check of models whose vectors are situated."""

from __future__ import annotations

from typing import Final

from rarebit.errors import InputError
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.retrievers.situating import SituatingMethod

SITUATED_METRIC: Final = "inner_product"


def situated_name(model: object | None, method: SituatingMethod) -> str:
    """Name a model together with what situates its vectors, for a collection's fingerprint; empty where it is not known."""
    method_name = method.fingerprint.replace("/", "|")  # what stands before a slash is not compared: a model's owner
    if not method.needs_model:
        return method_name
    name = fingerprint_of(model).name or ""
    return f"{name} situated by {method_name}" if name and method_name else name


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


def check_metric(metric: str) -> None:
    """Raise InputError unless a collection of this metric keeps the lengths of situated vectors."""
    if metric != SITUATED_METRIC:
        raise InputError(
            f"got a collection whose metric is {metric!r}, wanted {SITUATED_METRIC!r}, since the length of a situated vector "
            f"means something: make another collection, with metric={SITUATED_METRIC!r}"
        )
