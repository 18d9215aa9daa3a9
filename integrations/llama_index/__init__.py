"""Rarebit in LlamaIndex."""

from rarebit.extras import require

require("llama_index.core", "llama-index")

from rarebit.integrations.llama_index.near_duplicates import NearDuplicatePostprocessor  # noqa: E402
from rarebit.integrations.llama_index.one_token import OneTokenPostprocessor  # noqa: E402
from rarebit.integrations.llama_index.one_token_llm import OneTokenLLM  # noqa: E402
from rarebit.integrations.llama_index.relevance import CosineAdapterPostprocessor, RelevanceJudgedEvent  # noqa: E402
from rarebit.integrations.llama_index.situated import SituatedEmbedding, SituateNodes  # noqa: E402
from rarebit.integrations.llama_index.vector_store import RarebitVectorStore  # noqa: E402

__all__ = [
    "CosineAdapterPostprocessor",
    "NearDuplicatePostprocessor",
    "OneTokenLLM",
    "OneTokenPostprocessor",
    "RarebitVectorStore",
    "RelevanceJudgedEvent",
    "SituateNodes",
    "SituatedEmbedding",
]
