"""Rarebit as a vector store of LlamaIndex."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import DEFAULT_PERSIST_DIR, DEFAULT_PERSIST_FNAME

from rarebit.errors import InputError
from rarebit.integrations.llama_index import persistence
from rarebit.integrations.llama_index.async_twins import AsyncTwins
from rarebit.integrations.llama_index.filters import restricted
from rarebit.integrations.llama_index.importing import source_of
from rarebit.integrations.llama_index.nodes import REF_DOC_ID, marks, to_node, to_row
from rarebit.integrations.llama_index.querying import search
from rarebit.integrations.situated_name import check_metric
from rarebit.integrations.tenancy import bound, tenant_of
from rarebit.retrievers.collection import Collection, Compare, EmbeddingFingerprint
from rarebit.retrievers.collection.collection import LOCK_TIMEOUT
from rarebit.retrievers.collection.filters import matches_everything
from rarebit.retrievers.collection.row_operations import BATCH_ROWS, Handling
from rarebit.retrievers.collection.settings import CHANGEABLE, Metric
from rarebit.retrievers.collection.tenants import checked_name
from rarebit.retrievers.engines import AnyCollection, AnyRows
from rarebit.retrievers.importing import import_into

DEFAULT_NAMESPACE = "default"
NAMESPACE_SEPARATOR = "__"
_DEFAULTS = {"read_only": False, "lock_timeout": LOCK_TIMEOUT}


class RarebitVectorStore(AsyncTwins):
    """A vector store in one SQLite file, or in memory, that searches small codes and keeps the nodes.

    Setup:
        ``pip install 'rarebit[llama-index]'``

    Instantiate:
        .. code-block:: python

            from llama_index.vector_stores.rarebit import RarebitVectorStore

            store = RarebitVectorStore("docs.rarebit")  # RarebitVectorStore() is in memory
            index = VectorStoreIndex.from_documents(documents, storage_context=StorageContext.from_defaults(vector_store=store))

    Open again:
        .. code-block:: python

            index = VectorStoreIndex.from_vector_store(RarebitVectorStore("docs.rarebit"))

    Query modes:
        ``default`` (similarities are cosines in [-1, 1], or inner products), ``mmr``, ``text_search`` and ``sparse`` (BM25),
        ``hybrid`` (``alpha`` weighs the vectors; without it, reciprocal rank fusion). Any other mode is an error.

    Filters:
        All operators of LlamaIndex, and / or / not, nested; together with ``node_ids`` and ``doc_ids``, every one must hold.
        A key ``"a.b"`` also reaches into dictionaries. A row's document id is the key ``"_ref_doc_id"``.

    Tenants:
        ``RarebitVectorStore("docs.rarebit", tenant="acme")``, or ``store.for_tenant("acme")`` over the same open collection.
        ``store.client.share(...)`` lets tenants see nodes of the collection, which are stored once.

    Note:
        ``VectorStoreIndex.as_retriever()`` asks only for the image and index nodes of an index that was filled with any in this
        process. ``VectorIndexRetriever(index)`` searches all of them.
    """

    # Left out of to_dict, so that from_dict can pass it on as arguments.
    stores_text: bool = Field(default=True, exclude=True)
    is_embedding_query: bool = Field(default=True, exclude=True)
    flat_metadata: bool = Field(default=False, exclude=True)

    path: str | None = Field(default=None, description="File of the collection; None is in memory.")
    tenant: str | None = Field(default=None, description="Tenant to whom every read and write is bound.")
    include_embeddings: bool = Field(default=False, description="Put the decoded embeddings on the nodes that come back.")
    batch_size: int = Field(default=BATCH_ROWS, ge=1, description="Nodes encoded and written at once.")
    progress: bool = Field(default=False, description="Show a progress bar while adding.")
    metric: str = Field(default="cosine", description="'cosine' or 'inner_product'.")
    # None where they are chosen by measuring.
    codec: str | None = Field(default=None, description="Codec of the codes in memory.")
    fine: str | None = Field(default=None, description="What is kept on disk to re-rank.")
    memory_per_vector: int | None = Field(default=None, description="Bytes of memory a row, to choose the codec for.")
    target_recall: float | None = Field(default=None, description="Recall@10 to choose the codec for.")
    dim: int | None = Field(default=None, description="Dimension of the embeddings, if it was known when the store was opened.")
    tokenizer: str = Field(default="porter", description="Tokenizer of lexical search.")
    training_minimum: int | None = Field(default=None, description="AnyRows at which the codec is trained.")
    near_duplicates: float | None = Field(default=None, description="Jaccard similarity of texts from which a node is skipped.")
    fingerprint: EmbeddingFingerprint = Field(default=EmbeddingFingerprint(), description="What embedded the nodes.")
    read_only: bool = Field(default=False, description="Refuse to write.")
    lock_timeout: float = Field(default=LOCK_TIMEOUT, description="Seconds to wait for another writer.")

    _collection: AnyCollection = PrivateAttr()
    _rows: AnyRows = PrivateAttr()

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        collection: AnyRows | None = None,
        tenant: str | None = None,
        include_embeddings: bool = False,
        batch_size: int = BATCH_ROWS,
        progress: bool = False,
        metric: Metric | None = None,
        codec: str | None = None,
        fine: str | None = None,
        memory_per_vector: int | None = None,
        target_recall: float | None = None,
        dim: int | None = None,
        tokenizer: str | None = None,
        training_minimum: int | None = None,
        near_duplicates: float | None = None,
        fingerprint: EmbeddingFingerprint | Mapping[str, Any] | str | None = None,
        read_only: bool = False,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        """Open a store; create it on first use.

        Args:
            path: of the file; None keeps the store in memory.
            collection: an open collection, or a tenant's handle, to use instead; then neither a path nor settings can be given.
            tenant: to whom every read and write of the store is bound: it sees its own nodes and those shared with it, and its
                ids are its own. None is the collection itself, which does not see the nodes of tenants.
            include_embeddings: put the embeddings on the nodes that come back, as they are kept: under cosine at length 1.
            batch_size: nodes encoded and written at once.
            progress: show a progress bar while adding.
            metric: ``"cosine"`` (default) or ``"inner_product"``.
            codec: of the codes in memory; see :meth:`rarebit.Collection.open` for it and all that follow.
            fine: what is kept on disk to re-rank.
            memory_per_vector: instead of a codec, the bytes of memory that a row may take.
            target_recall: instead of a codec, the recall to reach.
            dim: dimension of the embeddings; taken from the first ones added if left out.
            tokenizer: of lexical search.
            training_minimum: nodes at which the codec is trained.
            near_duplicates: skip nodes whose text is this similar to that of another.
            fingerprint: of the embedding model, or its name, or the dictionary of a fingerprint.
            read_only: refuse to write, and to create the file.
            lock_timeout: seconds to wait for another writer.

        Raises:
            InputError: a collection together with a path or settings, or a setting that does not exist.
            CollectionError: and its kinds, as :meth:`rarebit.Collection.open` raises them.
        """
        asked: dict[str, Any] = {
            "path": path,
            "metric": metric,
            "codec": codec,
            "fine": fine,
            "memory_per_vector": memory_per_vector,
            "target_recall": target_recall,
            "dim": dim,
            "tokenizer": tokenizer,
            "training_minimum": training_minimum,
            "near_duplicates": near_duplicates,
            "fingerprint": EmbeddingFingerprint(**fingerprint) if isinstance(fingerprint, Mapping) else fingerprint,
            "read_only": read_only,
            "lock_timeout": lock_timeout,
        }
        tenant = None if tenant is None else checked_name(tenant)  # before a file is made
        opened, rows = bound(Collection.open(**asked) if collection is None else _alone(collection, asked), tenant)
        chosen = ("codec", "fine") if opened.settings.is_chosen else ()
        kept = {name: getattr(opened.settings, name) for name in asked if name not in chosen and hasattr(opened.settings, name)}
        own = {"include_embeddings": include_embeddings, "batch_size": batch_size, "progress": progress}
        where = {
            "path": None if opened.path is None else str(opened.path),
            "tenant": tenant_of(rows),
        }
        super().__init__(**{**asked, **kept, **own, **where})
        self._collection, self._rows = opened, rows

    @classmethod
    def class_name(cls) -> str:
        """Name the class in serialized components."""
        return "RarebitVectorStore"

    @classmethod
    def from_store(
        cls, source: Any, *, docstore: Any = None, overwrite: bool = False, progress: bool = False, **settings: Any
    ) -> RarebitVectorStore:
        """Make a store of what another one holds, with the embeddings that it has: nothing is embedded.

        Cut off and called again with the same ``path``, it goes on where it was.

        Args:
            source: a VectorStoreIndex or StorageContext on a SimpleVectorStore or a ChromaVectorStore; one of these stores; or
                what :func:`rarebit.retrievers.importing.source_of` takes, such as a persisted folder.
            docstore: with the nodes, for a SimpleVectorStore by itself.
            overwrite: let what the source has replace what is in the store under the same id.
            progress: show progress bars.
            settings: keywords of the store.

        Raises:
            InputError: and its kinds, for what cannot be imported; see :func:`rarebit.retrievers.importing.import_into`.
        """
        found = source_of(source, docstore)
        store = cls(progress=progress, **settings)
        try:
            import_into(store._rows, found, overwrite=overwrite, progress=progress)
        except BaseException:
            if settings.get("collection") is None:
                store.close()
            raise
        return store

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> RarebitVectorStore:
        """Open the store that :meth:`to_dict` described; a file knows itself which codec it has by now."""
        path = data.get("path")
        if path is not None and Path(path).exists():
            data = {name: value for name, value in data.items() if name not in CHANGEABLE}
        store: RarebitVectorStore = super().from_dict(data, **kwargs)
        return store

    @property
    def client(self) -> AnyCollection:
        """The collection behind the store; it is not bound to a tenant."""
        return self._collection

    def for_tenant(self, tenant: str) -> RarebitVectorStore:
        """Give a store of another tenant over the same open collection; closing either closes the collection of both."""
        return type(self)(**{**self.__getstate__(), "tenant": tenant})

    def close(self) -> None:
        """Close the collection behind the store, also one that was given, for every tenant."""
        self._collection.close()

    def __enter__(self) -> RarebitVectorStore:
        """Use the store in a ``with`` block, which closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the collection behind the store."""
        self.close()

    def add(self, nodes: Sequence[BaseNode], *, near_duplicates: Handling | None = None, **add_kwargs: Any) -> list[str]:  # noqa: ARG002
        """Add nodes with their embeddings; a node whose id is there already is replaced. All are kept, or none.

        Args:
            nodes: each with an embedding; of two with one id the last is kept.
            near_duplicates: ``"skip"`` or ``"keep"``, as in :meth:`rarebit.Collection.add`.
            add_kwargs: ignored; an index passes on what its constructor was given.

        Returns:
            The ids, in the order of the nodes; also of those that are skipped as near-duplicates, since an index files each
            node of its docstore under what it gets here. ``client.stand_ins`` tells which row stands for them.

        Raises:
            InputError: and its kinds, for a node without embedding or with one of another dimension, or for metadata that
                JSON cannot hold; or, in a store that compares by cosine, for nodes whose embeddings are situated. The store is
                unchanged.
            FingerprintError: what situated the nodes is not what filled the store.
        """
        for name in marks(nodes):
            check_metric(self._collection.settings.metric)
            if name and self._collection.settings.fingerprint.name != name:
                self._collection.check_fingerprint(EmbeddingFingerprint(name=name))
        last = {node.node_id: node for node in nodes}
        rows = [to_row(node) for node in last.values()]
        self._rows.add(
            [_embedding(node) for node in last.values()],
            texts=[row.text for row in rows],
            metadatas=[row.metadata for row in rows],
            ids=[row.id for row in rows],
            near_duplicates=near_duplicates,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        return [node.node_id for node in nodes]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the nodes that answer a query, best first.

        Args:
            query: ``mode`` says which search; ``filters``, ``node_ids`` and ``doc_ids`` must all hold, and empty ones restrict
                nothing. ``similarity_top_k`` nodes are found; ``hybrid_top_k`` in mode hybrid, and ``sparse_top_k`` in modes
                text_search and sparse, go before it where they are given.
            kwargs: ``mmr_threshold`` (1 is relevance alone, 0 diversity alone; one in the query goes before it) and
                ``mmr_prefetch_k`` (how many of the nearest MMR chooses among).

        Returns:
            Nodes, similarities (cosine in [-1, 1] or inner product; BM25 or the fused score for the lexical and hybrid modes;
            higher is nearer) and ids.

        Raises:
            InputError: an unsupported mode, an unknown keyword, a query without the embedding or the words that its mode needs,
                or, as FilterError, a filter that cannot be understood.
        """
        hits = search(self._rows, query, kwargs, include_vectors=self.include_embeddings)
        return VectorStoreQueryResult(
            nodes=[to_node(hit, None if hit.vector is None else hit.vector.tolist()) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def get_nodes(self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Read nodes by their ids, in that order, leaving out the missing; or those that match filters; or both at once.

        With neither, all nodes; with an empty list of ids, none.
        """
        rows = self._rows.get(node_ids, filter=restricted(filters))
        if not (self.include_embeddings and rows):
            return [to_node(row) for row in rows]
        vectors = self._rows.vectors([row.id for row in rows])
        return [to_node(row, vector.tolist()) for row, vector in zip(rows, vectors, strict=True)]

    def delete(self, ref_doc_id: str | None, **delete_kwargs: Any) -> None:  # noqa: ARG002
        """Delete the nodes of a document, and the document itself if it is stored whole; None deletes nothing."""
        if ref_doc_id is not None:
            self._rows.delete(filter=Compare(REF_DOC_ID, "eq", ref_doc_id))

    def delete_nodes(
        self,
        node_ids: Sequence[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Delete nodes by their ids, by filters, or those of the ids that match the filters; missing ids are no error.

        Without ids and without any filter nothing is deleted: :meth:`clear` deletes everything.
        """
        tree = restricted(filters)
        if node_ids is not None or (tree is not None and not matches_everything(tree)):
            self._rows.delete(node_ids, filter=tree)

    def clear(self) -> None:
        """Delete every node that the store sees; settings and the trained codec stay."""
        self._rows.delete_all()

    def persist(self, persist_path: str | os.PathLike[str], fs: AbstractFileSystem | None = None) -> None:
        """Write a copy of the store to a path; a store that lives there is durable already, and nothing is done.

        Args:
            persist_path: where :meth:`from_persist_path` will look. For ``x.json``, which a StorageContext passes, the copy is
                ``x.rarebit``; at the JSON's place LlamaIndex would take it for a store of its own.
            fs: an fsspec file system; None is the local one.

        The copy of a tenant's store has the rows that this tenant sees, and no others.
        """
        persistence.write(self._rows, persist_path, fs)

    @classmethod
    def from_persist_path(
        cls, persist_path: str | os.PathLike[str], fs: AbstractFileSystem | None = None, **settings: Any
    ) -> RarebitVectorStore:
        """Open what :meth:`persist` wrote to the same path.

        A local copy is opened as a file: what is added later is kept in it. A copy on another file system is read into memory.

        Args:
            persist_path: as it was given to :meth:`persist`.
            fs: an fsspec file system; None is the local one.
            settings: keywords of the store.

        Raises:
            CollectionNotFoundError: nothing was persisted there.
        """
        found = persistence.read(persist_path, fs)
        return cls(found, **settings) if isinstance(found, Path) else cls(collection=found, **settings)

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | os.PathLike[str] = DEFAULT_PERSIST_DIR,
        namespace: str = DEFAULT_NAMESPACE,
        fs: AbstractFileSystem | None = None,
        **settings: Any,
    ) -> RarebitVectorStore:
        """Open what ``StorageContext.persist`` wrote to a folder, as :meth:`from_persist_path` does."""
        name = f"{namespace}{NAMESPACE_SEPARATOR}{DEFAULT_PERSIST_FNAME}"
        return cls.from_persist_path(f"{os.fspath(persist_dir).rstrip('/')}/{name}", fs, **settings)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as the collection does: a file as its path, a store in memory with its content."""
        own = {"include_embeddings": self.include_embeddings, "batch_size": self.batch_size, "progress": self.progress}
        return {"collection": self._collection, "tenant": self.tenant, **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open again what was pickled."""
        self.__init__(**state)  # type: ignore[misc]


def _alone(collection: AnyRows, asked: Mapping[str, Any]) -> AnyRows:
    """Refuse settings beside a collection, which has its own."""
    given = [name for name, value in asked.items() if value != _DEFAULTS.get(name)]
    if given:
        raise InputError(
            f"got collection= together with {given}, wanted one or the other: give them to Collection.open, or "
            "leave out collection="
        )
    return collection


def _embedding(node: BaseNode) -> list[float]:
    if node.embedding is None:
        raise InputError(
            f"node {node.node_id!r} has no embedding, wanted one: let a VectorStoreIndex or a pipeline with an embedding model "
            "add the nodes, or set node.embedding first"
        )
    return node.embedding
