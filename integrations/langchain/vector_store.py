"""The vector store: LangChain's interface on a collection; its searches are in :mod:`.searching`."""

# ruff: noqa: A002 -- `filter` is LangChain's word

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor

from rarebit.arrays import Vectors
from rarebit.errors import InputError
from rarebit.integrations.langchain.bound_store import file_in
from rarebit.integrations.langchain.documents import NewPassages, columns_of, document_of
from rarebit.integrations.langchain.embedding import aembed, embed
from rarebit.integrations.langchain.filters import FilterLike, as_filter
from rarebit.integrations.langchain.importing import filled
from rarebit.integrations.langchain.opening import CollectionSettings, collection_for
from rarebit.integrations.langchain.searching import SearchableStore, checked_relevance, refuse_unknown
from rarebit.integrations.langchain.situated import SituatedEmbeddings
from rarebit.integrations.recent_queries import RecentQueries
from rarebit.retrievers.collection.row_operations import Handling
from rarebit.retrievers.engines import AnyRows
from rarebit.retrievers.relevance import RelevanceModel

BATCH_SIZE = 256
"""Texts handed to the embedding model at once."""

Store = TypeVar("Store", bound="RarebitVectorStore")


class RarebitVectorStore(SearchableStore):
    """Vector store on a Rarebit collection: one SQLite file, or memory, searched through small codes.

    Setup:
        Install the extra:

        .. code-block:: bash

            pip install "rarebit[langchain]"

    Key init args:
        embedding: Embeddings
            The embedding model.
        path: str | os.PathLike | None
            The file; created on first use. None keeps everything in memory.
        collection: Collection | Tenant | None
            An open collection, or a tenant's handle, instead of ``path`` and settings.
        tenant: str | None
            The tenant to whom every read and write of the store is bound: it sees its own documents and those shared with it,
            and its ids are its own. None is the collection itself, which does not see the documents of tenants.
        relevance: RelevanceModel | None
            What gives documents their relevance, such as a :class:`~rarebit.retrievers.relevance.CosineAdapter`: a
            ``score_threshold`` is then a probability, and means the same for every question.
        relevance_score_fn: Callable[[float], float] | None
            Without such a model: maps a score to a relevance in [0, 1]. By default a cosine is its own relevance and 0 where it
            is negative, so a ``score_threshold`` means the cosine that scores show; an inner product x, which has no bounds,
            becomes 1 / (1 + exp(-x)).
        score_key: str | None
            Metadata key under which each found document carries its score.
        ids_from_content: bool
            Derive missing ids from text and metadata, so that adding the same again changes nothing.
        batch_size: int
            Texts handed to the embedding model at once.
        progress: bool
            Show a progress bar while embedding.
        dim, metric, codec, fine, memory_per_vector, target_recall, tokenizer, training_minimum, near_duplicates, fingerprint,
        read_only, create, lock_timeout:
            Settings of the collection, explained at :meth:`rarebit.Collection.open`. The fingerprint is by default the name
            of the embedding model, where it can be known.

    Instantiate:
        .. code-block:: python

            from rarebit.integrations.langchain import RarebitVectorStore

            store = RarebitVectorStore(embedding, path="docs.rarebit")

    Add:
        .. code-block:: python

            from langchain_core.documents import Document

            store.add_documents([Document("The kettle is on.", metadata={"page": 1})], ids=["kettle"])

        A document whose id exists already is replaced. One call is kept whole or not at all. With ``near_duplicates=0.9``, a
        document that nearly duplicates another is neither embedded nor kept, and the id of that other one is the answer.
        LangChain's ``index()`` deletes the old version of a document after it has added the new one, and so must not skip it:
        ``index(..., upsert_kwargs={"near_duplicates": "keep"})``.

    Delete:
        .. code-block:: python

            store.delete(["kettle"])
            store.delete(filter={"page": {"$lt": 3}})
            store.delete(delete_all=True)

    Search:
        .. code-block:: python

            store.similarity_search("tea", k=4)
            store.max_marginal_relevance_search("tea", k=4, lambda_mult=0.5)
            store.hybrid_search("tea", k=4)

    with filter:
        .. code-block:: python

            store.similarity_search("tea", filter={"page": {"$gte": 1}, "lang": "en"})
            store.similarity_search("tea", filter=lambda document: "kettle" in document.page_content)

        Filters run before the search: k documents are found whenever k match.

    with score:
        .. code-block:: python

            store.similarity_search_with_score("tea")  # cosines in [-1, 1], higher is nearer
            store.similarity_search_with_relevance_scores("tea", score_threshold=0.5)

    Async:
        .. code-block:: python

            await store.aadd_documents(documents)
            await store.asimilarity_search("tea")

    Tenants:
        .. code-block:: python

            store.for_tenant("acme").add_texts(["The kettle is on."])  # one file, one open collection
            store.collection.share(filter=Compare("kind", "eq", "manual"))  # stored once, seen by every tenant

    Use as Retriever:
        .. code-block:: python

            store.as_retriever(search_type="mmr", search_kwargs={"k": 4})

        Hybrid and lexical search are in :class:`~rarebit.integrations.langchain.RarebitRetriever`.
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        path: str | os.PathLike[str] | None = None,
        collection: AnyRows | None = None,
        tenant: str | None = None,
        relevance: RelevanceModel | None = None,
        relevance_score_fn: Callable[[float], float] | None = None,
        score_key: str | None = None,
        ids_from_content: bool = False,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
        **settings: Unpack[CollectionSettings],
    ) -> None:
        """Open a collection, or use one that is open; the class explains the arguments.

        Raises:
            InputError: an unknown keyword, or a collection together with a path or settings.
            FingerprintError, SettingsError: the file was filled by another model, or made with other settings.
        """
        self._embedding = embedding
        self._collection, self._rows = collection_for(embedding, path, collection, tenant, settings)
        self._relevance, self._relevance_score_fn = checked_relevance(relevance, relevance_score_fn), relevance_score_fn
        self._recent = RecentQueries()
        self._score_key = score_key
        self._ids_from_content = ids_from_content
        self._batch_size = batch_size
        self._progress = progress

    @classmethod
    def from_texts(
        cls: type[Store],
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Store:
        """Make a store and add texts; keywords as in the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls: type[Store],
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Store:
        """Make a store and add texts; keywords as in the class."""
        store = await run_in_executor(None, cls, embedding, **kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_store(
        cls: type[Store],
        source: Any,
        embedding: Embeddings | None = None,
        *,
        overwrite: bool = False,
        progress: bool = False,
        **kwargs: Any,
    ) -> Store:
        """Make a store of what another one holds, with the vectors that it has: nothing is embedded.

        Cut off and called again with the same ``path``, it goes on where it was.

        Args:
            source: a FAISS store, an InMemoryVectorStore or a Chroma store of LangChain, a collection of chromadb, or what
                :func:`rarebit.retrievers.importing.source_of` takes.
            embedding: the model that made the vectors; the source's own if left out.
            overwrite: let what the source has replace what is in the store under the same id.
            progress: show progress bars.
            **kwargs: as in the class.

        Raises:
            InputError: and its kinds, for what cannot be imported; see :func:`rarebit.retrievers.importing.import_into`.
            FingerprintError: the source was filled by another model.
        """
        return filled(cls, source, embedding, overwrite=overwrite, progress=progress, keywords=kwargs)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        near_duplicates: Handling | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts and keep them; a text whose id exists already replaces the old one. All are kept, or none.

        Args:
            texts: n passages.
            metadatas: n dictionaries of JSON values.
            ids: n ids; those that are None are filled in.
            near_duplicates: ``"skip"`` or ``"keep"``, as in :meth:`rarebit.Collection.add`.
            batch_size: texts handed to the embedding model at once; the store's own if left out.
            progress: show a progress bar; the store's own choice if left out.
            **kwargs: ignored; LangChain's indexing hands over what other stores take.

        Returns:
            The n ids; for a text that was skipped as a near-duplicate, that of the document which stands for it.

        Raises:
            InputError: and its kinds, for what cannot be kept; nothing is changed then.
        """
        del kwargs
        new = self._checked(texts, metadatas, ids).without_near_duplicates(self._rows, near_duplicates)
        return self._keep(new, embed(*self._to_embed(new, batch_size), progress=self._shown(progress)), near_duplicates)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        near_duplicates: Handling | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do as :meth:`add_texts`, with the embedding model's own asynchronous method."""
        del kwargs
        checked = self._checked(texts, metadatas, ids)
        new = await run_in_executor(None, checked.without_near_duplicates, self._rows, near_duplicates)
        vectors = await aembed(*self._to_embed(new, batch_size), progress=self._shown(progress))
        return await run_in_executor(None, self._keep, new, vectors, near_duplicates)

    def add_documents(
        self, documents: Iterable[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Embed documents and keep them; arguments as in :meth:`add_texts`.

        Args:
            documents: n documents, from a list or a generator such as a loader's.
            ids: n ids; the documents' own if left out.
            **kwargs: of :meth:`add_texts`.
        """
        texts, metadatas, own = columns_of(documents)
        return self.add_texts(texts, metadatas, ids=own if ids is None else ids, **kwargs)

    async def aadd_documents(
        self, documents: Iterable[Document], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Do as :meth:`add_documents`."""
        texts, metadatas, own = columns_of(documents)
        return await self.aadd_texts(texts, metadatas, ids=own if ids is None else ids, **kwargs)

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Read documents by their ids, in that order; missing ones are left out."""
        return [document_of(row) for row in self._rows.get(ids)]

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: FilterLike | None = None, delete_all: bool = False, **kwargs: Any
    ) -> bool:
        """Delete documents by ids, by a filter, or those of the ids that match it; missing ids are no error.

        Args:
            ids: of the documents.
            filter: which documents; an empty one counts as none.
            delete_all: delete every document; then neither ids nor a filter may be given.
            **kwargs: none; an unknown keyword is refused, lest more is deleted than was meant.

        Returns:
            True.

        Raises:
            InputError: nothing says what to delete, or too much does.
        """
        refuse_unknown(kwargs, needless=())
        tree = as_filter(filter)
        nothing_named = ids is None and tree is None
        if delete_all is not nothing_named:
            raise InputError(
                f"got {'neither' if nothing_named else 'delete_all=True together with'} ids or a filter: "
                "pass ids=, filter= or both, or delete_all=True alone to delete every document"
            )
        if delete_all:
            self._rows.delete_all()
        else:
            self._rows.delete(ids, filter=tree)
        return True

    @classmethod
    def load_local(
        cls: type[Store],
        folder_path: str | os.PathLike[str],
        embeddings: Embeddings,
        index_name: str = "index",
        *,
        allow_dangerous_deserialization: bool = False,
        **kwargs: Any,
    ) -> Store:
        """Open what :meth:`save_local` wrote. The store works on that file: what is added later is kept in it.

        Args:
            folder_path: the folder.
            embeddings: the embedding model.
            index_name: name of the file, without its ending.
            allow_dangerous_deserialization: without meaning, as nothing is unpickled; accepted for code that passes it.
            **kwargs: as in the class; ``read_only=True`` leaves the file as it is, ``tenant=`` binds the store to a tenant.

        Raises:
            CollectionNotFoundError: the file does not exist.
        """
        del allow_dangerous_deserialization
        return cls(embeddings, path=file_in(folder_path, index_name), create=False, **kwargs)

    def _checked(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any] | None] | None,
        ids: Sequence[str | None] | None,
    ) -> NewPassages:
        return NewPassages.of(texts, metadatas, ids, from_content=self._ids_from_content)

    def _to_embed(self, new: NewPassages, batch_size: int | None) -> tuple[Embeddings, list[str], int | None, int]:
        model, texts, dim = self._embedding, new.texts, self._rows.settings.dim
        if isinstance(model, SituatedEmbeddings):
            texts = model.to_embed(model.chunks(texts, new.metadatas))
            model = model.embeddings or model
        return model, texts, dim, self._batch_size if batch_size is None else batch_size

    def _shown(self, progress: bool | None) -> bool:
        return self._progress if progress is None else progress

    def _keep(self, new: NewPassages, vectors: Vectors, near_duplicates: Handling | None) -> list[str]:
        model = self._embedding
        if isinstance(model, SituatedEmbeddings):
            vectors = model.situate(model.chunks(new.texts, new.metadatas), vectors)
        stands = self._rows.add(vectors, new.texts, new.metadatas, new.ids, near_duplicates=near_duplicates)
        return new.answers(stands)
