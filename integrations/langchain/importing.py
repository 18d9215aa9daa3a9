"""Stores of LangChain as sources: their vectors become rows of a collection, and nothing is embedded again.

Every store is known by what it has, so that none of their packages is needed here. A FAISS store on disk is a pickle, which
is never opened: its owner loads it and passes the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import faiss
import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import FingerprintError, InputError
from rarebit.integrations.langchain.searching import SearchableStore
from rarebit.integrations.model_fingerprint import fingerprint_of
from rarebit.retrievers import importing
from rarebit.retrievers.importing import Rows, Source
from rarebit.retrievers.importing.source import Ranking

Store = TypeVar("Store", bound=SearchableStore)

_DIRECT_MAP: Any = vars(faiss)["DirectMap"]  # faiss's stubs do not know it
METRICS: Mapping[int, Ranking] = {faiss.METRIC_INNER_PRODUCT: "inner_product", faiss.METRIC_L2: "l2"}


def filled(
    make: Callable[..., Store],
    given: Any,
    embedding: Embeddings | None,
    *,
    overwrite: bool,
    progress: bool,
    keywords: Mapping[str, Any],
) -> Store:
    """Make a store and import into it; it is closed again if that fails.

    Args:
        make: the store's class.
        given: what :func:`source_of` takes.
        embedding: the model that made the vectors; None takes the one that the source has.
        overwrite: let a row replace the one that has its id.
        progress: show progress bars.
        keywords: of the store.
    """
    source = source_of(given)
    store = make(_model(given, embedding), progress=progress, **keywords)
    try:
        importing.import_into(store._rows, source, overwrite=overwrite, progress=progress)
    except BaseException:
        if keywords.get("collection") is None:
            store._collection.close()
        raise
    return store


def source_of(given: Any) -> Source:
    """Make a source of a store of LangChain: FAISS, InMemoryVectorStore, Chroma; or of what the core knows.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, InMemoryVectorStore):
        return InMemorySource(given)
    if hasattr(given, "index_to_docstore_id"):
        return FaissSource(given)
    inner = getattr(given, "_collection", None)
    return importing.source_of(inner if type(inner).__module__.partition(".")[0] == "chromadb" else given)


class InMemorySource:
    """The rows of LangChain's InMemoryVectorStore, in the order in which they were added."""

    name = "InMemoryVectorStore"
    ranked_by: Ranking | None = "cosine"

    def __init__(self, store: InMemoryVectorStore) -> None:
        """Take the store."""
        self._rows = store.store
        self.count = len(self._rows)

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows."""
        ids = list(self._rows)
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            texts, metadatas, vectors = ([self._rows[key][name] for key in part] for name in ("text", "metadata", "vector"))
            yield Rows(part, as_vectors(vectors), texts, metadatas)


class FaissSource:
    """The rows of LangChain's FAISS store, in the order of the index: vectors as the index gives them back.

    A flat index gives what was added (at length 1 with ``normalize_L2``), one that compresses an approximation. An inverted
    file gets a direct map for the time of the import, if it has none.
    """

    name = "FAISS"

    def __init__(self, store: Any) -> None:
        """Take the store.

        Raises:
            InputError: the index is binary, or index and texts do not belong together.
        """
        self._index, self._docstore = store.index, store.docstore
        self._keys: dict[int, str] = dict(sorted(store.index_to_docstore_id.items()))
        if isinstance(self._index, faiss.IndexBinary):
            raise InputError(f"got a FAISS store on a {type(self._index).__name__}, wanted one of floats")
        self.count = len(self._keys)
        if self._index.ntotal != self.count:
            raise InputError(
                f"got a FAISS store with {self._index.ntotal} vectors and {self.count} ids, wanted one each: load the index "
                "and the texts that were saved together"
            )
        self.ranked_by: Ranking | None = METRICS.get(self._index.metric_type)

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows."""
        positions = list(self._keys)
        with _direct_map(self._index):
            for start in range(0, len(positions), size):
                part = positions[start : start + size]
                ids = [self._keys[position] for position in part]
                documents = [self._document(key) for key in ids]
                texts = [document.page_content for document in documents]
                yield Rows(ids, self._reconstructed(part), texts, [document.metadata for document in documents])

    def _document(self, key: str) -> Any:
        found = self._docstore.search(key)
        if not hasattr(found, "page_content"):  # a docstore answers with a message where there is nothing
            raise InputError(f"the docstore has no document {key!r}, whose vector is in the index: load those saved together")
        return found

    def _reconstructed(self, positions: Sequence[int]) -> Vectors:
        try:
            return as_vectors(self._index.reconstruct_batch(np.asarray(positions, dtype=np.int64)))
        except RuntimeError as error:
            reason = str(error).rpartition(":")[2].strip()
            raise InputError(
                f"the FAISS index ({type(self._index).__name__}) does not give its vectors back ({reason}), wanted one that "
                "reconstructs, such as a flat one or an inverted file: embed the texts again"
            ) from error


@contextmanager
def _direct_map(index: Any) -> Iterator[None]:
    """Give an inverted file a direct map, which finds a vector by its number, and take it away again."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None or lists.direct_map.type != _DIRECT_MAP.NoMap:
        yield
        return
    lists.set_direct_map_type(_DIRECT_MAP.Hashtable)
    try:
        yield
    finally:
        lists.set_direct_map_type(_DIRECT_MAP.NoMap)


def _model(given: Any, embedding: Embeddings | None) -> Embeddings:
    """Choose the model, and refuse one that is known not to have made the vectors."""
    own = getattr(given, "embeddings", None)
    if embedding is None:
        if not isinstance(own, Embeddings):
            raise InputError(
                f"got no embedding, and the {type(given).__name__} has none: pass the model that made its vectors as embedding="
            )
        return own
    differences = fingerprint_of(own).differences(fingerprint_of(embedding))
    if differences:
        raise FingerprintError(
            f"the {type(given).__name__} was filled by another embedding model ({'; '.join(differences)}), and the vectors of "
            "two models cannot be compared: pass the model that filled it, or leave embedding out"
        )
    return embedding
