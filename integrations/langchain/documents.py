"""Documents on their way in and out: rows become Documents, and texts become rows with ids."""

from __future__ import annotations

import json
import uuid
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from langchain_core.documents import Document

from rarebit.errors import InputError, MetadataError
from rarebit.retrievers.collection import Hit, Row
from rarebit.retrievers.collection.row_operations import Handling
from rarebit.retrievers.engines import AnyRows


def document_of(found: Row | Hit, score_key: str | None = None) -> Document:
    """Turn a row or a hit into a Document with its id and metadata of its own.

    Args:
        found: what the collection gave.
        score_key: metadata key to put a hit's score under; None leaves it out.
    """
    metadata = dict(found.metadata)
    if score_key is not None and isinstance(found, Hit):
        metadata[score_key] = found.score
    return Document(id=found.id, page_content=found.text, metadata=metadata)


def columns_of(documents: Iterable[Document]) -> tuple[list[str], list[dict[str, Any]], list[str | None]]:
    """Take documents apart: texts, metadatas, ids."""
    found = list(documents)
    return (
        [document.page_content for document in found],
        [document.metadata for document in found],
        [document.id for document in found],
    )


def content_id(text: str, metadata: Mapping[str, Any]) -> str:
    """Derive an id from content: the same text with the same metadata always has the same id.

    Returns:
        The SHA-256 of text and metadata as canonical JSON, 64 hexadecimal digits.

    Raises:
        MetadataError: metadata that is not JSON.
    """
    try:
        canonical = json.dumps([text, dict(metadata)], sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(
            f"no id can be derived from the metadata {metadata!r} ({error}), wanted JSON values under string keys: "
            "convert dates and the like first"
        ) from error
    return sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class NewPassages:
    """Passages to embed and keep, and the ids to answer with: one an input, also where inputs were the same."""

    texts: list[str]
    metadatas: list[Mapping[str, Any]]
    ids: list[str]
    answered: list[str]

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None,
        ids: Iterable[str | None] | None,
        *,
        from_content: bool,
    ) -> NewPassages:
        """Check what a user passed, and fill in missing metadata and ids; nothing that was passed is changed.

        Args:
            texts: n passages.
            metadatas: n dictionaries or None.
            ids: n ids; those that are None are filled in.
            from_content: fill in ids by content, not at random, and drop passages that are the same in id and content.

        Raises:
            InputError: not one of each a text.
        """
        if isinstance(texts, str):
            raise InputError(f"got the text {texts[:40]!r}, wanted a list of texts: put it into a list")
        passages = list(texts)
        filled: list[Mapping[str, Any]] = [
            {} if given is None else given for given in _one_each("metadatas", metadatas, len(passages))
        ]
        keys = _one_each("ids", ids, len(passages))
        if not from_content:
            known = [str(uuid.uuid4()) if key is None else key for key in keys]
            return cls(passages, filled, known, known)
        digests = [content_id(*pair) for pair in zip(passages, filled, strict=True)]
        known = [digest if key is None else key for key, digest in zip(keys, digests, strict=True)]
        kept = _first_of_each(zip(known, digests, strict=True))
        return cls([passages[row] for row in kept], [filled[row] for row in kept], [known[row] for row in kept], known)

    def without_near_duplicates(self, collection: AnyRows, handling: Handling | None) -> NewPassages:
        """Leave out what the collection would skip, so that it is not embedded."""
        if collection.settings.near_duplicates is None or handling == "keep":
            return self
        stands = collection.stand_ins(self.texts, self.ids)
        kept = [row for row, key in enumerate(self.ids) if stands[row] == key]
        left = replace(
            self,
            texts=[self.texts[row] for row in kept],
            metadatas=[self.metadatas[row] for row in kept],
            ids=[self.ids[row] for row in kept],
        )
        return left.answering(dict(zip(self.ids, stands, strict=True)))

    def answers(self, stands: Sequence[str]) -> list[str]:
        """Give the ids to answer with, when these stand for the passages that were to be kept."""
        return self.answering(dict(zip(self.ids, stands, strict=True))).answered

    def answering(self, stands: Mapping[str, str]) -> NewPassages:
        """Answer with other ids where these stand for some."""
        return replace(self, answered=[stands.get(key, key) for key in self.answered])


def _first_of_each(items: Iterable[Hashable]) -> list[int]:
    """Give the positions of the items that did not occur before."""
    first: dict[Hashable, int] = {}
    for position, item in enumerate(items):
        first.setdefault(item, position)
    return list(first.values())


def _one_each(name: str, given: Iterable[Any] | None, count: int) -> Sequence[Any]:
    items = [None] * count if given is None else list(given)
    if len(items) != count:
        raise InputError(f"got {count} texts and {len(items)} {name}, wanted one of each a text")
    return items
