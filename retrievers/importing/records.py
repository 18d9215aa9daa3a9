"""Records, as lines of JSON and rows of Parquet are: which field is the text, which the id, and what is metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import numpy as np

from rarebit.arrays import Vector
from rarebit.errors import InputError, MetadataError
from rarebit.retrievers.collection.records import Metadata
from rarebit.retrievers.importing.plain import plain_metadata

TEXTS = ("text", "content", "page_content", "document", "passage", "chunk")
IDS = ("id", "_id")
VECTORS = ("vector", "embedding", "embeddings", "values", "vectors")
METADATA = "metadata"
"""Fields that are taken for these where the user names none."""


def field_for(role: str, named: str | None, usual: Sequence[str], there: Sequence[str], where: str) -> str | None:
    """Give the field of a role: the one that the user named, or the one with a usual name.

    Args:
        role: ``"text"``, ``"id"`` or ``"vector"``.
        named: by the user.
        usual: names that it is known by.
        there: names of the fields that there are.
        where: they are, for messages.

    Returns:
        Its name, or None.

    Raises:
        InputError: the field named is not there, or several have usual names.
    """
    if named is not None:
        if named not in there:
            raise InputError(f"{where} has no field {named!r} for the {role}, wanted one of {list(there)}")
        return named
    found = [name for name in usual if name in there]
    if len(found) > 1:
        raise InputError(f"{where} has the fields {found}, and each could be the {role}: name one as {role}_column")
    return found[0] if found else None


@dataclass(frozen=True)
class Fields:
    """Which fields of a record are what; every other field is metadata."""

    text: str
    id: str | None = None
    vector: str | None = None

    def passage(self, record: Mapping[str, Any], place: str) -> Passage:
        """Take a record apart; ``place`` says which it is, for messages."""
        text = record.get(self.text)
        if text is not None and not isinstance(text, str):
            raise InputError(f"{place} has a {type(text).__name__} as {self.text!r}, wanted a text: name another text_column")
        own = {name: value for name, value in record.items() if name not in (self.text, self.id, self.vector, METADATA)}
        return Passage(self._id(record, place), text, _joined(own, record, place))

    def _id(self, record: Mapping[str, Any], place: str) -> str | None:
        if self.id is None:
            return None
        found = record.get(self.id)
        if isinstance(found, bool) or not isinstance(found, (str, int, UUID)) or found == "":
            raise InputError(f"{place} has {found!r} as {self.id!r}, wanted an id, a text or a whole number")
        return str(found)


@dataclass(frozen=True)
class Passage:
    """A row without its vector; an id that is None is to be derived."""

    id: str | None
    text: str | None
    metadata: Metadata


def derived_id(position: int, passage: Passage, vector: Vector) -> str:
    """Derive an id for a row that has none from its place and its content.

    The same row at the same place always has the same id, so that an import can be resumed; the same row at two places has
    two, so that none is lost.

    Args:
        position: of the row in its source, from 0.
        passage: its text and metadata.
        vector: (dim,) float32.

    Returns:
        32 hexadecimal digits of their SHA-256.
    """
    canonical = json.dumps([position, passage.text, passage.metadata], sort_keys=True)
    digest = sha256(canonical.encode())
    digest.update(np.ascontiguousarray(vector, dtype="<f4").tobytes())
    return digest.hexdigest()[:32]


def _joined(own: Metadata, record: Mapping[str, Any], place: str) -> Metadata:
    """Put the field ``metadata``, a dictionary or its JSON, and the fields beside it into one."""
    given = record.get(METADATA)
    if isinstance(given, str):
        given = _from_json(given, place)
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        own, given = {**own, METADATA: given}, {}
    clash = sorted(own.keys() & given.keys())
    if clash:
        raise MetadataError(f"{place} has {clash} both as fields and inside {METADATA!r}, wanted each once: rename one")
    return plain_metadata({**given, **own}, place)


def _from_json(given: str, place: str) -> Any:
    if not given.strip():
        return None
    try:
        return json.loads(given)
    except ValueError as error:
        raise MetadataError(f"{place} has {given[:40]!r} as {METADATA!r}, wanted JSON ({error})") from error
