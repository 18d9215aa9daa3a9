"""Relevance in LlamaIndex, without training: ``python -m rarebit.cookbook.relevance_llama_index``.

The adapter that comes with Rarebit, told about the collection that is searched, drops nodes in a query engine and in a chat
engine. A question that no node answers reaches no language model.
"""

from __future__ import annotations

from llama_index.core import VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode

from rarebit.cookbook.models import MiniLMEmbedding
from rarebit.cookbook.relevance_langchain import QUESTIONS, functions
from rarebit.integrations.llama_index import CosineAdapterPostprocessor, RarebitVectorStore
from rarebit.retrievers.relevance import CosineAdapter

FOUND = 10


def main(count: int | None = None) -> None:
    """Fill a store, and ask both engines."""
    model, store = MiniLMEmbedding(), RarebitVectorStore(fingerprint="all-MiniLM-L6-v2")
    nodes = [TextNode(text=each.page_content, id_=str(each.id), metadata=each.metadata) for each in functions(count)]
    for node, vector in zip(nodes, model.get_text_embedding_batch([node.text for node in nodes]), strict=True):
        node.embedding = vector
    store.add(nodes)
    index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    adapter = CosineAdapter.shipped().for_collection(store.client)
    relevant = CosineAdapterPostprocessor(adapter=adapter, embed_model=model)
    llm = MockLLM(max_tokens=8)  # yours answers; this one says what it was asked
    engine = index.as_query_engine(llm=llm, similarity_top_k=FOUND, node_postprocessors=[relevant])
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)  # LlamaIndex's default one leaves a connection open
    chat = index.as_chat_engine(
        chat_mode=ChatMode.CONTEXT, llm=llm, memory=memory, similarity_top_k=FOUND, node_postprocessors=[relevant]
    )
    for question in QUESTIONS:
        response = engine.query(question)
        print(
            f"\n{question}: {len(response.source_nodes)} of {FOUND} nodes, {len(chat.chat(question).source_nodes)} in the chat"
        )
        for found in response.source_nodes:
            print(f"  {found.node.metadata['relevance']:.3f}  {found.node.metadata['name']}")
        if not response.source_nodes:
            print(f"  {response}")


if __name__ == "__main__":
    main()
