"""The embeddings of the last questions, so that what stands after a retriever need not embed them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from os import getpid
from threading import Lock
from typing import Final

from rarebit.arrays import Vector, VectorsLike, as_vector

KEPT: Final = 64


class RecentQueries:
    """Remembers the embeddings of the last 64 questions; any thread may ask. Pickled, it has forgotten them."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: OrderedDict[str, Vector] = OrderedDict()
        self._begin()

    def get(self, text: str, embed: Callable[[str], VectorsLike]) -> Vector:
        """Give the embedding of a question, made by ``embed`` if it is not known."""
        known = self._recalled(text)
        return self._remembered(text, as_vector(embed(text))) if known is None else known

    async def aget(self, text: str, embed: Callable[[str], Awaitable[VectorsLike]]) -> Vector:
        """Do as :meth:`get`, with an asynchronous function."""
        known = self._recalled(text)
        return self._remembered(text, as_vector(await embed(text))) if known is None else known

    def _begin(self) -> None:
        """Take a lock of this process: one that was held while another forked is never let go of."""
        self._process, self._lock = getpid(), Lock()

    def _held(self) -> Lock:
        if self._process != getpid():
            self._begin()
        return self._lock

    def _recalled(self, text: str) -> Vector | None:
        with self._held():
            if text in self._known:
                self._known.move_to_end(text)
            return self._known.get(text)

    def _remembered(self, text: str, vector: Vector) -> Vector:
        vector = vector.copy()
        vector.setflags(write=False)
        with self._held():
            self._known[text] = vector
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return vector

    def __reduce__(self) -> tuple[type[RecentQueries], tuple[()]]:
        """Pickle as one that remembers nothing."""
        return RecentQueries, ()
