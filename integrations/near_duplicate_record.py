"""What a passage records about the near-duplicates that were dropped in its favour, in both frameworks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Passage: TypeAlias = tuple[str | None, Mapping[str, Any]]
"""Id and metadata."""


def with_record(metadata: Mapping[str, Any], key: str, dropped: Iterable[Passage]) -> dict[str, Any]:
    """Give metadata that lists under ``key`` the ids of what was dropped, after those that were listed before.

    What the dropped ones had listed themselves comes along, so that filters may follow one another.
    """
    ids = [known for own, others in dropped for known in (own, *_listed(others, key))]
    return {**metadata, key: [*_listed(metadata, key), *ids]}


def _listed(metadata: Mapping[str, Any], key: str) -> list[Any]:
    found = metadata.get(key)
    return found if isinstance(found, list) else []
