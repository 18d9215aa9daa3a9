"""What a remote collection and the handle of a tenant have in common: asking with the codes of the newest training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np

from rarebit.arrays import Queries, Scores, VectorsLike, as_vectors, normalized
from rarebit.errors import EngineError
from rarebit.retrievers.collection.filters import And, Filter, Ids, Not, Or, Where, holds_a
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.engines.coding import Coding
from rarebit.retrievers.engines.engine import RemoteEngine, StaleCodesError

Answer = TypeVar("Answer")

TRAININGS: Final = 4
"""That may come between a question and its answer."""

READ_AT_ONCE: Final = 1024


class RemoteHandle:
    """The engine, and the tenant as whom it is asked; the empty one is the collection itself."""

    _engine: RemoteEngine
    _tenant: str = ""

    def _with_codes(self, ask: Callable[[Coding], Answer]) -> Answer:
        """Ask with the codes of the last training that is known, and again if there was another meanwhile."""
        for _ in range(TRAININGS):
            kept = self._engine.kept()
            try:
                return ask(Coding(self._engine.kept(fresh=True) if kept.settings.dim is None else kept))
            except StaleCodesError:
                self._engine.kept(fresh=True)
        raise EngineError(f"{self._engine.where} was trained again and again meanwhile: try again")

    def _prepared(self, queries: VectorsLike) -> Queries:
        """Check (q, dim) queries, and normalise them for cosine."""
        settings = self._engine.kept().settings
        if settings.dim is None:
            settings = self._engine.kept(fresh=True).settings
        matrix = as_vectors(queries, dim=settings.dim)
        return normalized(matrix) if settings.metric == "cosine" else matrix

    def _resolved(self, tree: Filter | None) -> Filter | None:
        """Put ids in the place of Python predicates: every row is read for them."""
        if tree is None or not holds_a(Where, tree):
            return tree
        match tree:
            case And(children=children):
                return And(*(child for given in children if (child := self._resolved(given)) is not None))
            case Or(children=children):
                return Or(*(child for given in children if (child := self._resolved(given)) is not None))
            case Not(child=child):
                return Not(self._resolved(child) or And())
            case Where(predicate=predicate):
                return Ids(tuple(row.id for _, row in self._read(None) if predicate(row)))
        return tree

    def _read(self, tree: Filter | None, size: int = READ_AT_ONCE) -> Iterator[tuple[int, Row]]:
        """Give rows that match, in the order of insertion, some at a time."""
        last = 0
        while found := self._engine.rows(self._tenant, tree, after=last, limit=size):
            last = found[-1][0]
            yield from found


def nearest(scores: Scores, k: int) -> list[int]:
    """Give the places of the k best scores, the first of equal ones first."""
    order: list[int] = np.argsort(-scores, kind="stable")[:k].tolist()
    return order
