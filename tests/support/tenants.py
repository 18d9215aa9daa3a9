"""What tenants mean, written a second time as plain dictionaries, without a look at the implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

COLLECTION = ""
"""The collection itself among the tenants; no tenant can have this name."""


@dataclass(frozen=True)
class Kept:
    """A row as it was given; ``turn`` grows with every row that comes."""

    id: str
    vector: list[float]
    text: str
    metadata: dict[str, Any]
    turn: int

    @property
    def shown(self) -> tuple[str, str, dict[str, Any]]:
        return self.id, self.text, self.metadata


@dataclass
class World:
    """The rows of everybody, and who was told that he sees, or does not see, a row of the collection."""

    rows: dict[str, dict[str, Kept]] = field(default_factory=lambda: {COLLECTION: {}})
    names: list[str] = field(default_factory=list)
    everyone: set[str] = field(default_factory=set)
    told: dict[tuple[str, str], bool] = field(default_factory=dict)
    turns: Any = field(default_factory=count)

    def own(self, who: str) -> dict[str, Kept]:
        return self.rows.setdefault(who, {})

    def shared(self, who: str) -> list[str]:
        """Give the ids of the collection that a tenant sees."""
        if who == COLLECTION:
            return []
        own = self.own(who)
        return [key for key in self.own(COLLECTION) if key not in own and self.told.get((who, key), key in self.everyone)]

    def visible(self, who: str) -> list[Kept]:
        shared = [self.own(COLLECTION)[key] for key in self.shared(who)]
        return sorted([*self.own(who).values(), *shared], key=lambda kept: kept.turn)

    def come(self, who: str) -> None:
        if who != COLLECTION and who not in self.names:
            self.names.append(who)

    def add(self, who: str, given: Iterable[tuple[str, list[float], str, dict[str, Any]]]) -> None:
        """Add rows; a replaced row of the collection stays shared as it was, a shared one is replaced for one tenant alone."""
        for key, vector, text, metadata in given:
            self.come(who)
            if key in self.shared(who):
                self.told[who, key] = False
            self.own(who)[key] = Kept(key, vector, text, metadata, next(self.turns))

    def delete(self, who: str, wanted: Callable[[Kept], bool]) -> int:
        gone = [kept.id for kept in self.visible(who) if wanted(kept)]
        for key in gone:
            if key in self.own(who):
                del self.own(who)[key]
                if who == COLLECTION:
                    self.tell_everyone([key], seen=False)
            else:
                self.come(who)
                self.told[who, key] = False
        return len(gone)

    def delete_tenant(self, who: str) -> int:
        gone = self.rows.pop(who, {})
        self.told = {pair: seen for pair, seen in self.told.items() if pair[0] != who}
        if who in self.names:
            self.names.remove(who)
        return len(gone)

    def tell(self, keys: Iterable[str], names: Iterable[str], *, seen: bool) -> None:
        """Share with some, or take back from some; who has a row of his own under the id goes on with that one.

        Nobody comes because something is taken back from him that he did not see.
        """
        keys = list(keys)
        for who in names:
            if keys if seen else self.everyone.intersection(keys):
                self.come(who)
            for key in keys:
                self.told[who, key] = seen and key not in self.own(who)

    def tell_everyone(self, keys: Iterable[str], *, seen: bool) -> None:
        for key in keys:
            self.told = {pair: told for pair, told in self.told.items() if pair[1] != key}
            (self.everyone.add if seen else self.everyone.discard)(key)
            if seen:
                for who in self.names:
                    if key in self.own(who):
                        self.told[who, key] = False


def cosine(one: list[float], other: list[float]) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))
