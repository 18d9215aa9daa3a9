"""One token a passage in LlamaIndex: ``python -m rarebit.cookbook.one_token_llama_index``.

The same as ``one_token_langchain``, in a query engine, and in a chat engine that streams.
"""

from __future__ import annotations

from typing import Any

from llama_index.core import PromptTemplate, StorageContext, VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, TextNode

from rarebit.compressors.context import BACKGROUND
from rarebit.cookbook.models import LONGEST_ANSWER, MiniLMEmbedding
from rarebit.cookbook.one_token_langchain import (
    BUDGETS,
    ENTRIES,
    FOUND,
    QUESTIONS,
    STOP,
    UNANSWERED,
    generator_for,
    on_one_line,
)
from rarebit.cookbook.relevance_langchain import NOTHING, functions
from rarebit.integrations.llama_index import (
    CosineAdapterPostprocessor,
    OneTokenLLM,
    OneTokenPostprocessor,
    RarebitVectorStore,
)
from rarebit.retrievers.relevance import CosineAdapter

QUERIED = PromptTemplate(BACKGROUND, template_var_mappings={"context_str": "context", "query_str": "question"})
TALKED = BACKGROUND.partition("\n\nQuestion")[0].replace("{context}", "{context_str}")
"""The chat engine's system prompt; the question is the user's message."""


def indexed(count: int | None) -> tuple[VectorStoreIndex, RarebitVectorStore]:
    """Make an index of functions, and the store that it is on."""
    store = RarebitVectorStore(fingerprint="all-MiniLM-L6-v2")
    nodes = [
        TextNode(
            text=each.page_content, id_=str(each.id), metadata=each.metadata, excluded_embed_metadata_keys=[*each.metadata]
        )
        for each in functions(count)
    ]
    storage = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex(nodes, storage_context=storage, embed_model=MiniLMEmbedding(embed_batch_size=256)), store


def cost_of(nodes: list[NodeWithScore]) -> str:
    """Say what passages cost."""
    read, as_text = (sum(found.node.metadata[key] for found in nodes) for key in ("context_tokens", "text_tokens"))
    tokens = [found.node.metadata["fidelity"] for found in nodes].count("token")
    return f"{tokens} of {len(nodes)} passages as one token: {read} tokens read in place of {as_text}"


def main(count: int | None = ENTRIES) -> None:
    """Fill a store, and ask both engines."""
    index, store = indexed(count)
    generator = generator_for(store.client)
    adapter = CosineAdapter.shipped().for_collection(store.client)
    relevant = CosineAdapterPostprocessor(adapter=adapter, embed_model=MiniLMEmbedding())
    llm = OneTokenLLM(generator=generator, max_tokens=LONGEST_ANSWER, stop=(STOP,))
    parts: dict[str, dict[str, Any]] = {
        name: {
            "llm": llm,
            "similarity_top_k": FOUND,
            "node_postprocessors": [
                relevant,
                OneTokenPostprocessor(generator=generator, budget=budget, label_key="name"),
            ],
        }
        for name, budget in BUDGETS.items()
    }
    engines = {name: index.as_query_engine(text_qa_template=QUERIED, **own) for name, own in parts.items()}
    for question in QUESTIONS:
        print(f"\n{question}")
        for name, engine in engines.items():
            response = engine.query(question)
            print(f"  {name:6} {cost_of(response.source_nodes)}\n         {on_one_line(str(response))}")
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)  # LlamaIndex's default one leaves a connection open
    chat = index.as_chat_engine(chat_mode=ChatMode.CONTEXT, context_template=TALKED, memory=memory, **parts["mixed"])
    for question in (*QUESTIONS, UNANSWERED):
        streamed = chat.stream_chat(question)
        print(f"\n{question} (streamed)\n        ", end="")
        for piece in streamed.response_gen if streamed.source_nodes else [NOTHING]:
            print(f"|{piece}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
