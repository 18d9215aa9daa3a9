"""Rarebit for LangChain: a vector store, a retriever, situated embeddings, filters, and passages as one token each."""

from rarebit.extras import require

require("langchain_core", "langchain")

# What follows needs langchain-core, and is imported only once it is known to be there.
from rarebit.integrations.langchain.chat_one_token import ChatOneToken  # noqa: E402
from rarebit.integrations.langchain.filters import RarebitTranslator  # noqa: E402
from rarebit.integrations.langchain.indexing import Indexed, index_documents  # noqa: E402
from rarebit.integrations.langchain.near_duplicates import NearDuplicateFilter  # noqa: E402
from rarebit.integrations.langchain.one_token import OneTokenCompressor  # noqa: E402
from rarebit.integrations.langchain.relevance import ContextualRetriever, CosineAdapterFilter  # noqa: E402
from rarebit.integrations.langchain.retriever import RarebitRetriever  # noqa: E402
from rarebit.integrations.langchain.situated import SituatedEmbeddings  # noqa: E402
from rarebit.integrations.langchain.vector_store import RarebitVectorStore  # noqa: E402

__all__ = [
    "ChatOneToken",
    "ContextualRetriever",
    "CosineAdapterFilter",
    "Indexed",
    "NearDuplicateFilter",
    "OneTokenCompressor",
    "RarebitRetriever",
    "RarebitTranslator",
    "RarebitVectorStore",
    "SituatedEmbeddings",
    "index_documents",
]
