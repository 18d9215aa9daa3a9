"""Codes laid out for search: what a codec's :meth:`~rarebit.compressors.vectors.codec.SearchableCodec.scanner` gives.

A scanner holds the codes of some vectors, in their order, and finds those with the highest estimated inner products. Scanning
is left to faiss's SIMD kernels: through an index of faiss's own here, through :mod:`.fast_scan` for codes of four-bit parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Lists, ListSizes, Mask, Prepared, RowIdMatrix, RowIds, ScoreMatrix

NOWHERE = -1
"""The place in parts of a result that nothing fills; its score is minus infinity."""


FEW = 256


@dataclass(frozen=True)
class Division:
    """Which inverted list each code lies in.

    Args:
        sizes: how many codes each list has.
        order: (n,) the places of the codes, list after list; None where they are given in this order.
    """

    sizes: ListSizes
    order: RowIds | None = None

    @classmethod
    def of(cls, lists: RowIds, count: int) -> Division:
        """Divide by the number of each code's list, below ``count``."""
        return cls(np.bincount(lists, minlength=count), np.argsort(lists, kind="stable"))


class Scanner(ABC):
    """Codes in memory, searched for the highest estimated inner products."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes in memory, everything that is not shared with other scanners counted."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the codes."""

    @property
    def list_count(self) -> int:
        """How many lists can be searched by themselves; 1 where the codes are not kept in lists."""
        return 1

    @abstractmethod
    def search(
        self, prepared: Prepared, k: int, allowed: Mask | None = None, lists: Lists | None = None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Find the k best codes for each query.

        Args:
            prepared: what the codec's ``prepare_queries`` gave.
            k: how many.
            allowed: (n,) which places may be found; None for all.
            lists: for each query, the lists to look in; None for all. Of no meaning where there is one list.

        Returns:
            Estimated inner products (q, k), descending, equal ones in the order of their places; and the places (q, k):
            ``-inf`` and ``NOWHERE`` beyond the last found.
        """

    def lists_with(self, places: RowIds) -> npt.NDArray[np.int64]:
        """Give the lists, in order, that hold some of these places."""
        return np.arange(min(len(places), 1))

    @property
    def few(self) -> int:
        """Places up to which :meth:`among` is as fast as :meth:`search`."""
        return FEW

    def among(self, prepared: Prepared, k: int, places: RowIds) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Find the k best among some places, which ascend: as :meth:`search`, for few of them."""
        allowed = np.zeros(len(self), dtype=np.bool_)
        allowed[places] = True
        return self.search(prepared, k, allowed)

    def candidates(
        self, prepared: Prepared, k: int, allowed: Mask | None = None, lists: Lists | None = None
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Find k codes to be scored again by finer vectors: as :meth:`search`, with rougher scores where that is faster."""
        return self.search(prepared, k, allowed, lists)


def in_order(scores: ScoreMatrix, places: RowIdMatrix) -> tuple[ScoreMatrix, RowIdMatrix]:
    """Put what faiss found in the order that :meth:`Scanner.search` promises; what is nowhere gets the lowest score."""
    scores = np.where(places < 0, np.float32(-np.inf), scores)
    order = np.lexsort((places, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


class FaissScanner(Scanner):
    """A faiss index that takes selectors, and gives inner products.

    Args:
        index: with the codes in it.
        code_size: bytes of a code, for counting.
    """

    def __init__(self, index: Any, code_size: int) -> None:
        """Wrap the index."""
        self._index = index
        self._code_size = code_size

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return int(self._index.ntotal) * self._code_size

    def __len__(self) -> int:
        """Count the codes."""
        return int(self._index.ntotal)

    def search(
        self,
        prepared: Prepared,
        k: int,
        allowed: Mask | None = None,
        lists: Lists | None = None,  # noqa: ARG002
    ) -> tuple[ScoreMatrix, RowIdMatrix]:
        """Let faiss scan the allowed codes."""
        import faiss

        library: Any = faiss  # its stubs know the C++ signatures, not the Python ones
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        parameters = None if bits is None else library.SearchParameters(sel=library.IDSelectorBitmap(bits))
        scores, places = self._index.search(prepared, k, params=parameters)
        return in_order(scores, places)
