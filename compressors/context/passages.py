"""Passages that stand behind references: their texts, and the vectors that a store already holds of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np

from rarebit.arrays import Vectors, VectorsLike, as_vectors
from rarebit.compressors.context.references import Reference, References, digest_of
from rarebit.errors import InputError, MissingRowError

Embed: TypeAlias = Callable[[list[str]], VectorsLike]
"""From n texts to their vectors, (n, dim): the model that filled the store."""

KEPT: Final = 4096
"""Passages that are in no store, and pieces of long ones, whose vectors are remembered."""

LOOSE: Final = "\0"
"""Begins the key of a passage that is in no store."""


@runtime_checkable
class PassageRow(Protocol):
    """What a store has of a passage."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def text(self) -> str:
        """Its text."""
        ...


@runtime_checkable
class PassageSource(Protocol):
    """Where passages are kept: a :class:`rarebit.Collection`, or one of its tenants."""

    def get(self, ids: Sequence[str]) -> Sequence[PassageRow]:
        """Read passages by their ids, leaving out the missing."""
        ...

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """Give vectors by ids, (n, dim) float32."""
        ...


@dataclass(frozen=True)
class Passage:
    """A passage that a reference stands for."""

    reference: Reference
    text: str
    vectors: Vectors
    """(pieces, dim): one vector, or one for each piece of a long passage."""


@dataclass(frozen=True)
class _Embedded:
    """A passage that was embedded here, piece by piece."""

    text: str
    vectors: Vectors


class Passages:
    """Refers to passages, and finds them again.

    What is in the source is read from there at each call, so a reference to a passage that was replaced or deleted is an error.
    Passages that are in no store, or whose text was changed on the way, are embedded, and kept in memory: the newest 4,096.

    Args:
        source: a :class:`rarebit.Collection` or a tenant of one; None where all passages are embedded.
        embed: gives the vectors of n texts, as the store has them, where a passage's is missing.
        split: parts long passages; each piece becomes a vector of its own, which needs ``embed``.
        belonging: names the source: references to passages of others are not read.
        secret: as in :class:`References`, for references that other processes write or read.
    """

    def __init__(
        self,
        source: PassageSource | None = None,
        *,
        embed: Embed | None = None,
        split: Callable[[str], list[str]] | None = None,
        belonging: str = "",
        secret: bytes | None = None,
    ) -> None:
        """Check that vectors can be had.

        Raises:
            InputError: neither source nor ``embed``, or ``split`` without ``embed``.
        """
        if source is None and embed is None:
            raise InputError("got neither source nor embed, wanted at least one of them, for the passages' vectors")
        if split is not None and embed is None:
            raise InputError("got split without embed, wanted both: the store has one vector for a whole passage")
        self.source, self.references = source, References(belonging, secret)
        self._embed, self._split = embed, split
        self._known: OrderedDict[str, _Embedded] = OrderedDict()
        self._lock = Lock()

    def refer(self, texts: Sequence[str], ids: Sequence[str | None], labels: Sequence[str] | None = None) -> list[str]:
        """Refer to passages.

        Args:
            texts: n passages.
            ids: of those in the store; None for others.
            labels: for people, and for models that cannot read references.

        Raises:
            InputError: a passage is not in the store with this text, and there is no ``embed``.
        """
        stored = self._stored([key for key in ids if key is not None])
        there = [key is not None and stored.get(key) == text for text, key in zip(texts, ids, strict=True)]
        self._embed_all([text for text, known in zip(texts, there, strict=True) if not known])
        keys = [key if known else _loose(text) for text, key, known in zip(texts, ids, there, strict=True)]
        labels = [""] * len(texts) if labels is None else labels
        return [self.references.write(str(key), text, label) for key, text, label in zip(keys, texts, labels, strict=True)]

    @classmethod
    def of(
        cls,
        rows: Any,
        *,
        embed: Embed | None = None,
        split: Callable[[str], list[str]] | None = None,
        belonging: str | None = None,
        secret: bytes | None = None,
    ) -> Passages:
        """Take those of a :class:`rarebit.Collection` or of a tenant, to whom references are then bound.

        Args:
            rows: the collection, or the handle of a tenant.
            embed: as for :class:`Passages`, and so the others.
            split: parts long passages.
            belonging: names what references are bound to; by default the file's path and the tenant, which differ where
                another process has the file elsewhere.
            secret: for references that other processes write or read.
        """
        own = rows.identity if belonging is None else belonging
        return cls(rows, embed=embed, split=split, belonging=own, secret=secret)

    def pieces(self, text: str) -> int:
        """Count the vectors of a passage."""
        return len(self._parted(text))

    def read(self, text: str) -> list[str | Reference]:
        """Part a text into what is text, and references to passages of this source."""
        return self.references.read(text)

    def resolve(self, references: Sequence[Reference]) -> list[Passage]:
        """Find the passages that references stand for.

        Raises:
            MissingRowError: one is no longer there, or has another text now.
        """
        keys = list(dict.fromkeys(reference.id for reference in references))
        texts = self._stored(keys)
        texts |= {key: known.text for key in keys if key.startswith(LOOSE) and (known := self._recalled(key)) is not None}
        for reference in references:
            if reference.id not in texts or digest_of(texts[reference.id]) != reference.digest:
                raise MissingRowError(_gone(reference, changed=reference.id in texts))
        vectors = self._vectors(texts)
        now = self._stored(keys)
        for reference in references:  # that were read before their vectors
            if not reference.id.startswith(LOOSE) and now.get(reference.id) != texts[reference.id]:
                raise MissingRowError(_gone(reference, changed=reference.id in now))
        return [Passage(reference, texts[reference.id], vectors[reference.id]) for reference in references]

    def _stored(self, keys: Sequence[str]) -> dict[str, str]:
        """Give the texts of those that the store has."""
        unique = [key for key in dict.fromkeys(keys) if not key.startswith(LOOSE)]
        return {row.id: row.text for row in self.source.get(unique)} if unique and self.source is not None else {}

    def _vectors(self, texts: dict[str, str]) -> dict[str, Vectors]:
        """Give the store's vectors, and those of the pieces of long passages and of passages in no store."""
        whole = [key for key, text in texts.items() if not key.startswith(LOOSE) and len(self._parted(text)) == 1]
        apart = {key: text for key, text in texts.items() if key not in set(whole)}
        found = {}
        if whole and self.source is not None:
            found = {key: vector[np.newaxis] for key, vector in zip(whole, self.source.vectors(whole), strict=True)}
        return found | dict(zip(apart, self._embed_all(list(apart.values())), strict=True))

    def _parted(self, text: str) -> list[str]:
        parts = [] if self._split is None else [part for part in self._split(text) if part.strip()]
        return parts or [text]

    def _embed_all(self, texts: Sequence[str]) -> list[Vectors]:
        """Give the vectors of each text's pieces; what is not remembered is embedded, in one call."""
        known = {text: self._recalled(_loose(text)) for text in texts}
        pieces = {text: self._parted(text) for text, found in known.items() if found is None}
        if pieces and self._embed is None:
            raise InputError(
                f"got a passage that the store does not hold with this text ({next(iter(pieces))[:60]!r}), wanted its id and "
                "its text unchanged: pass the store that it is from, or embed= to embed such passages"
            )
        if pieces and self._embed is not None:
            vectors = as_vectors(self._embed([piece for parts in pieces.values() for piece in parts]))
            ends = np.cumsum([len(parts) for parts in pieces.values()])
            if len(vectors) != ends[-1]:
                raise InputError(f"got {len(vectors)} vectors of embed, wanted {ends[-1]}, one for each text")
            for text, own in zip(pieces, np.split(vectors, ends[:-1]), strict=True):
                known[text] = self._remembered(_Embedded(text, own))
        return [found.vectors for text in texts if (found := known[text]) is not None]

    def _recalled(self, key: str) -> _Embedded | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def _remembered(self, new: _Embedded) -> _Embedded:
        with self._lock:
            self._known[_loose(new.text)] = new
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return new

    def __repr__(self) -> str:
        """Name the source."""
        return f"<Passages of {self.source!r}>"


def _loose(text: str) -> str:
    return f"{LOOSE}{digest_of(text)}"


def _gone(reference: Reference, *, changed: bool) -> str:
    if reference.id.startswith(LOOSE):
        return (
            f"got {reference.written!r}, a reference to a passage that is in no store and is not remembered any more, of which "
            f"the newest {KEPT} are: retrieve it again"
        )
    what = "has another text now" if changed else "is not there any more, or is not of this store"
    return f"got {reference.written!r}, a reference to passage {reference.id!r}, which {what}: retrieve it again"
