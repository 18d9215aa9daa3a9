"""The query modes of LlamaIndex, each a search of the collection. A mode that is not here is an error, never another search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from rarebit.arrays import VectorsLike
from rarebit.errors import InputError
from rarebit.integrations.llama_index.filters import restricted
from rarebit.retrievers.collection import Filter, Hit
from rarebit.retrievers.collection.searching import HYBRID_CANDIDATES, MMR_CANDIDATES
from rarebit.retrievers.engines import AnyRows

MMR_CANDIDATES_PER_HIT = 4
"""Of the candidates among which MMR chooses, for each one chosen: with as many as are wanted there is no choice."""

DEFAULT_MMR_THRESHOLD = 0.5

OPTIONS = ("mmr_threshold", "mmr_prefetch_k")
"""Keywords that a query takes beside the VectorStoreQuery."""


def search(rows: AnyRows, query: VectorStoreQuery, options: Mapping[str, Any], *, include_vectors: bool) -> list[Hit]:
    """Search as a query says, best first.

    Raises:
        InputError: an unsupported mode, an unknown option, or a query without what its mode needs.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InputError(f"got the query keywords {unknown}, wanted none but {list(OPTIONS)}: remove or correct them")
    tree = restricted(query.filters, query.node_ids, query.doc_ids)
    return _search_of(query.mode)(rows, query, tree, options, include_vectors)


def _dense(
    rows: AnyRows, query: VectorStoreQuery, tree: Filter | None, _: Mapping[str, Any], include_vectors: bool
) -> list[Hit]:
    return rows.search(_embedding(query), query.similarity_top_k, filter=tree, include_vectors=include_vectors)


def _mmr(
    rows: AnyRows, query: VectorStoreQuery, tree: Filter | None, options: Mapping[str, Any], include_vectors: bool
) -> list[Hit]:
    fetch_k = options.get("mmr_prefetch_k")
    return rows.search_mmr(
        _embedding(query),
        query.similarity_top_k,
        fetch_k=max(MMR_CANDIDATES, MMR_CANDIDATES_PER_HIT * query.similarity_top_k) if fetch_k is None else fetch_k,
        lambda_mult=_mmr_threshold(query, options),
        filter=tree,
        include_vectors=include_vectors,
    )


def _lexical(
    rows: AnyRows, query: VectorStoreQuery, tree: Filter | None, _: Mapping[str, Any], include_vectors: bool
) -> list[Hit]:
    k = query.similarity_top_k if query.sparse_top_k is None else query.sparse_top_k
    hits = rows.search_lexical(_words(query), k, filter=tree)
    if not (include_vectors and hits):
        return hits
    vectors = rows.vectors([hit.id for hit in hits])
    return [replace(hit, vector=vector) for hit, vector in zip(hits, vectors, strict=True)]


def _hybrid(
    rows: AnyRows, query: VectorStoreQuery, tree: Filter | None, _: Mapping[str, Any], include_vectors: bool
) -> list[Hit]:
    return rows.search_hybrid(
        _embedding(query),
        _words(query),
        query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k,
        fusion="rrf" if query.alpha is None else "weighted",
        alpha=0.5 if query.alpha is None else query.alpha,
        fetch_k=max(HYBRID_CANDIDATES, query.similarity_top_k, query.sparse_top_k or 0),
        filter=tree,
        include_vectors=include_vectors,
    )


Search: TypeAlias = Callable[[AnyRows, VectorStoreQuery, Filter | None, Mapping[str, Any], bool], list[Hit]]

MODES: Mapping[VectorStoreQueryMode, Search] = {
    VectorStoreQueryMode.DEFAULT: _dense,
    VectorStoreQueryMode.MMR: _mmr,
    VectorStoreQueryMode.TEXT_SEARCH: _lexical,
    VectorStoreQueryMode.SPARSE: _lexical,
    VectorStoreQueryMode.HYBRID: _hybrid,
}


def _search_of(mode: VectorStoreQueryMode | str) -> Search:
    if mode not in list(MODES):  # in the list, since a plain str equals its mode but has another hash
        wanted = [known.value for known in MODES]
        raise InputError(f"got mode={_spelled(mode)!r}, wanted one of {wanted}: this store has no other search")
    return MODES[VectorStoreQueryMode(mode)]


def _embedding(query: VectorStoreQuery) -> VectorsLike:
    if query.query_embedding is None:
        raise InputError(
            f"got a query without query_embedding, which mode={_spelled(query.mode)!r} needs: embed the query with the "
            "model that filled the store, or use mode='text_search'"
        )
    return query.query_embedding


def _words(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise InputError(
            f"got a query without query_str, which mode={_spelled(query.mode)!r} needs: pass the words to look for"
        )
    return query.query_str


def _mmr_threshold(query: VectorStoreQuery, options: Mapping[str, Any]) -> float:
    given = (query.mmr_threshold, options.get("mmr_threshold"), DEFAULT_MMR_THRESHOLD)
    threshold: float = next(value for value in given if value is not None)
    if not 0 <= threshold <= 1:
        raise InputError(f"got mmr_threshold={threshold!r}, wanted a number from 0 (diversity alone) to 1 (relevance alone)")
    return threshold


def _spelled(mode: VectorStoreQueryMode | str) -> str:
    return mode.value if isinstance(mode, VectorStoreQueryMode) else mode
