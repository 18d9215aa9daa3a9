"""Which collection a store works on: one that is given, or one that it opens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

from rarebit.errors import InputError
from rarebit.integrations.langchain.situated import SituatedEmbeddings
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.integrations.situated_name import SITUATED_METRIC, check_metric
from rarebit.integrations.tenancy import bound
from rarebit.retrievers.collection import Collection, EmbeddingFingerprint
from rarebit.retrievers.collection.settings import Metric
from rarebit.retrievers.collection.tenants import checked_name
from rarebit.retrievers.engines import AnyCollection, AnyRows

STORE_KEYWORDS = (
    "path",
    "collection",
    "tenant",
    "relevance",
    "relevance_score_fn",
    "score_key",
    "ids_from_content",
    "batch_size",
    "progress",
)
"""The store's own keywords, which a misspelt one may have been meant to be."""


class CollectionSettings(TypedDict, total=False):
    """The keyword settings of :meth:`rarebit.Collection.open`, where each is explained."""

    dim: int | None
    metric: Metric | None
    codec: str | None
    fine: str | None
    memory_per_vector: int | None
    target_recall: float | None
    tokenizer: str | None
    training_minimum: int | None
    near_duplicates: float | None
    fingerprint: EmbeddingFingerprint | str | None
    read_only: bool
    create: bool
    lock_timeout: float


def collection_for(
    embedding: object,
    path: str | os.PathLike[str] | None,
    collection: AnyRows | None,
    tenant: str | None,
    settings: Mapping[str, Any],
) -> tuple[AnyCollection, AnyRows]:
    """Take the collection that is given, or open one for an embedding model; and the handle that a store is bound to.

    Args:
        embedding: the model whose name is checked against the one that filled the collection.
        path: of the file; None for memory.
        collection: an open collection, or a tenant's handle; then neither path nor settings may be given.
        tenant: the name of a tenant; None for the collection itself.
        settings: those of :class:`CollectionSettings`.

    Raises:
        InputError: an unknown setting, or a collection together with a path or settings.
        FingerprintError, SettingsError: the file was filled by another model, or made with other settings.
    """
    _check_known(settings)
    if collection is None:
        # All that can be refused is refused before a file is made.
        tenant = None if tenant is None else checked_name(tenant)
        if _keeps_lengths(embedding):
            check_metric(settings.get("metric") or SITUATED_METRIC)
            settings = {**settings, "metric": SITUATED_METRIC}
        fingerprint = settings.get("fingerprint") or fingerprint_of(embedding)
        return bound(Collection.open(path, **{**settings, "fingerprint": fingerprint}), tenant)
    given = [*(["path"] if path is not None else []), *settings]
    if given:
        raise InputError(f"got collection= together with {given}, wanted either: pass these to Collection.open() instead")
    opened, rows = bound(collection, tenant)
    if _keeps_lengths(embedding):
        check_metric(opened.settings.metric)
    opened.check_fingerprint(fingerprint_of(embedding))
    return opened, rows


def _keeps_lengths(embedding: object) -> bool:
    return isinstance(embedding, SituatedEmbeddings) and embedding.keeps_lengths


def _check_known(settings: Mapping[str, Any]) -> None:
    known = CollectionSettings.__annotations__
    for name in settings:
        if name not in known:
            keywords = [*STORE_KEYWORDS, *known]
            meant = get_close_matches(name, keywords, n=1)
            hint = f" (did you mean {meant[0]!r}?)" if meant else ""
            raise InputError(f"got the keyword {name!r}{hint}, wanted one of {keywords}")
