"""Rarebit for LangChain: a vector store, a retriever, filters from structured queries, and a filter of near-duplicates."""

from rarebit.extras import require

require("langchain_core", "langchain")

# What follows needs langchain-core, and is imported only once it is known to be there.
from rarebit.integrations.langchain.filters import RarebitTranslator  # noqa: E402
from rarebit.integrations.langchain.near_duplicates import NearDuplicateFilter  # noqa: E402
from rarebit.integrations.langchain.retriever import RarebitRetriever  # noqa: E402
from rarebit.integrations.langchain.vector_store import RarebitVectorStore  # noqa: E402

__all__ = ["NearDuplicateFilter", "RarebitRetriever", "RarebitTranslator", "RarebitVectorStore"]
