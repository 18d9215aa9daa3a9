"""The retriever: any search of the store, with its settings as fields that an invocation may override."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import ConfigDict, model_validator

from rarebit.errors import InputError
from rarebit.integrations.langchain.searching import Fusion
from rarebit.integrations.langchain.vector_store import RarebitVectorStore

SearchType: TypeAlias = Literal["similarity", "mmr", "hybrid", "lexical"]

TAKEN: dict[SearchType, tuple[str, ...]] = {
    "similarity": ("score_threshold",),
    "mmr": ("fetch_k", "lambda_mult"),
    "hybrid": ("alpha", "fusion", "fetch_k"),
    "lexical": (),
}
"""The settings that each search takes, besides ``k`` and ``filter``."""

OPTIONS = ("alpha", "fusion", "fetch_k", "lambda_mult", "score_threshold")
OVERRIDABLE = ("search_type", "k", "filter", *OPTIONS)


class RarebitRetriever(BaseRetriever):
    """Retrieves from a Rarebit store by meaning, by words, or by both.

    Every field but the store may also be given to ``invoke``, where it replaces the field for that call. A setting that the
    search type does not take is an InputError, in the constructor (inside pydantic's ValidationError) and in ``invoke``.

    .. code-block:: python

        retriever = RarebitRetriever(store=store, search_type="hybrid", k=5)
        retriever.invoke("tea", filter={"lang": "en"})
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: RarebitVectorStore
    """What to search."""

    search_type: SearchType = "similarity"
    """``"similarity"`` (by meaning), ``"mmr"`` (diverse), ``"hybrid"`` (meaning and words) or ``"lexical"`` (words)."""

    k: int = 4
    """How many documents."""

    filter: Any = None
    """Which documents to search among: a dictionary, a function of a Document, or a filter tree."""

    alpha: float | None = None
    """Hybrid: weight of the meaning in the weighted fusion, from 0 to 1."""

    fusion: Fusion | None = None
    """Hybrid: ``"rrf"`` (default, unless alpha is given) or ``"weighted"``."""

    fetch_k: int | None = None
    """Diverse and hybrid: how many candidates."""

    lambda_mult: float | None = None
    """Diverse: 1 is relevance alone, 0 diversity alone."""

    score_threshold: float | None = None
    """Similarity: the lowest relevance, in [0, 1], of a document that is given."""

    @model_validator(mode="after")
    def _complete(self) -> RarebitRetriever:
        self._search({})
        if self.tags is None:
            self.tags = self.store._get_retriever_tags()
        return self

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager
        search_type, arguments = self._search(kwargs)
        return self.store.search(query, search_type, **arguments)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        del run_manager
        search_type, arguments = self._search(kwargs)
        return await self.store.asearch(query, search_type, **arguments)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Name the store and the model to tracers."""
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = type(self.store).__name__
        params["ls_embedding_provider"] = type(self.store.embeddings).__name__
        return params

    def _search(self, overrides: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Join the fields and an invocation's keywords into a search type and the keywords of the store's search."""
        asked = {name: getattr(self, name) for name in OVERRIDABLE} | _known(overrides)
        search_type = asked["search_type"]
        if search_type not in TAKEN:
            raise InputError(f"got search_type={search_type!r}, wanted one of {list(TAKEN)}")
        options = {name: asked[name] for name in OPTIONS if asked[name] is not None}
        needless = [name for name in options if name not in TAKEN[search_type]]
        if needless:
            raise InputError(f"got {needless} with search_type={search_type!r}, wanted only {[*TAKEN[search_type]]}")
        arguments = {"k": asked["k"], "filter": asked["filter"], **options}
        return ("similarity_score_threshold" if "score_threshold" in options else search_type), arguments


def _known(overrides: dict[str, Any]) -> dict[str, Any]:
    """Check an invocation's keywords; LangChain itself hands ``verbose`` through."""
    unknown = [name for name in overrides if name not in (*OVERRIDABLE, "verbose")]
    if unknown:
        raise InputError(f"got the unknown keywords {unknown}, wanted some of {list(OVERRIDABLE)}")
    return {name: value for name, value in overrides.items() if name in OVERRIDABLE}
