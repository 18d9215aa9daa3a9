"""Which chunks belong together, and in which order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from rarebit.errors import InputError


def places_by_document(
    count: int, documents: Sequence[Hashable], order: Sequence[float] | None = None
) -> dict[Hashable, list[int]]:
    """Give the places of each document's chunks, in their order.

    Args:
        count: how many chunks there are.
        documents: for each the name of its document.
        order: for each a number by which a document's chunks are put in order; as they are given if left out.

    Raises:
        InputError: there is not one name and number for each chunk.
    """
    if not len(documents) == count == (count if order is None else len(order)):
        raise InputError(
            f"got {count} chunks, {len(documents)} names of documents"
            f"{'' if order is None else f' and {len(order)} numbers of their order'}, wanted one of each a chunk"
        )
    ranked = range(count) if order is None else np.argsort(np.asarray(order, dtype=float), kind="stable").tolist()
    places: dict[Hashable, list[int]] = {}
    for place in ranked:
        places.setdefault(documents[place], []).append(place)
    return places
