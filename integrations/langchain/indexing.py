"""Whole documents into a store: split, embedded together, and brought up to date when a document changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias

from langchain_core.documents import BaseDocumentTransformer, Document

from rarebit.errors import InputError
from rarebit.integrations.langchain.situated import SituatedEmbeddings
from rarebit.integrations.langchain.vector_store import RarebitVectorStore
from rarebit.retrievers.collection import Compare

Chunked: TypeAlias = tuple[str | int, list[Document]]
"""A document's name and its chunks."""

CHUNKS_AT_ONCE = 2048
"""Chunks of whole documents that are embedded and kept together, about."""

CHUNK = "chunk"
"""Metadata key of a chunk's number in its document."""


class Indexed(NamedTuple):
    """What became of the documents."""

    added: int
    """Documents that are new."""
    changed: int
    """Documents of which a chunk was added, removed or moved; all of their chunks were embedded and situated again."""
    unchanged: int
    """Documents that were left as they are: nothing was embedded."""
    deleted_chunks: int
    """Chunks that their documents do not have any more."""


def index_documents(
    store: RarebitVectorStore,
    documents: Iterable[Document],
    splitter: BaseDocumentTransformer,
    *,
    document_key: str | None = None,
) -> Indexed:
    """Split documents and keep their chunks, each document in one piece; call again with what has changed.

    A document is known by its name, and a chunk by its document and its text, so that documents that are the same as before
    cost nothing. A document that has changed is embedded and situated as a whole. Documents that are not passed stay.

    Args:
        store: where to keep them; with or without :class:`SituatedEmbeddings`.
        documents: whole ones, whose metadata names them.
        splitter: any of LangChain's that transforms documents, such as a text splitter.
        document_key: metadata key of a document's name; by default that of the store's situated embeddings, else ``"source"``.

    Returns:
        How many documents were added, changed and left as they are.

    Raises:
        InputError: a document has no name, or two have the same one. What came before it is kept, and nothing after it.
    """
    embedding = store.embeddings
    key = document_key or (embedding.document_key if isinstance(embedding, SituatedEmbeddings) else "source")
    counts = dict.fromkeys(Indexed._fields, 0)
    waiting: list[Document] = []
    stale: list[str] = []

    def write() -> None:
        # First what is new: a run that is killed in between leaves too much rather than too little, and the next one mends it.
        if waiting:
            # The stale chunk that a new one nearly duplicates goes away, so it cannot stand for it.
            store.add_documents(waiting, near_duplicates="keep")
        if stale:
            counts["deleted_chunks"] += store._rows.delete(stale)
        waiting.clear()
        stale.clear()

    for name, chunks in _until_refused(_split(documents, splitter, key), write):
        known = {row.id: row.metadata for row in store._rows.get(filter=Compare(key, "eq", name))}
        if known == {chunk.id: _as_kept(chunk.metadata) for chunk in chunks}:
            counts["unchanged"] += 1
            continue
        counts["changed" if known else "added"] += 1
        waiting += chunks
        stale += set(known).difference(str(chunk.id) for chunk in chunks)
        if len(waiting) >= CHUNKS_AT_ONCE:
            write()
    write()
    return Indexed(**counts)


def _until_refused(chunked: Iterator[Chunked], write: Callable[[], None]) -> Iterator[Chunked]:
    """Pass on what there is, and write what waits before the error of a document that is refused goes its way."""
    try:
        yield from chunked
    except InputError:
        write()
        raise


def _as_kept(metadata: Mapping[str, Any]) -> Any:
    """Give metadata as a row gives it back; what is no JSON as it is, since the store refuses it."""
    try:
        return json.loads(json.dumps(metadata))
    except (TypeError, ValueError):
        return metadata


def _split(documents: Iterable[Document], splitter: BaseDocumentTransformer, key: str) -> Iterator[Chunked]:
    """Give each document's name and chunks, which have ids and know their place."""
    seen = set()
    for document in documents:
        name = document.metadata.get(key)
        if not isinstance(name, str | int) or name in seen:
            reason = "that another one has too" if name in seen else "which is none"
            raise InputError(
                f"got a document that is called {name!r} under the metadata key {key!r}, {reason}, wanted names that tell "
                "documents apart: set this key, or pass document_key= for another one"
            )
        seen.add(name)
        yield name, _named(splitter.transform_documents([document]), name, key)


def _named(chunks: Sequence[Document], name: str | int, key: str) -> list[Document]:
    named, copies = [], Counter[str]()
    for number, chunk in enumerate(chunks):
        text = chunk.page_content
        copies[text] += 1
        digest = sha256("\0".join((repr(name), text, str(copies[text]))).encode("utf-8", "surrogatepass")).hexdigest()
        named.append(Document(id=digest, page_content=text, metadata={**chunk.metadata, key: name, CHUNK: number}))
    return named
