"""One token a passage in LangChain: ``python -m rarebit.cookbook.one_token_langchain``.

Functions of Python's standard library are searched, what is not relevant is dropped, and a small language model answers from
the rest: once each passage is one token, once the surest is text beside the tokens of the others, once all are text. Above each
answer stands what it took to read. The model has 135 million parameters, and is often wrong, whatever it reads. A question that
no passage answers does not reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnableParallel, RunnablePassthrough

from rarebit.compressors.context import BACKGROUND, ContextBudget, ModalityBridge, OneTokenGenerator, Passages
from rarebit.cookbook.models import LONGEST_ANSWER, MiniLMEmbeddings, load_smollm
from rarebit.cookbook.relevance_langchain import NOTHING, functions
from rarebit.integrations.langchain import (
    ChatOneToken,
    ContextualRetriever,
    CosineAdapterFilter,
    OneTokenCompressor,
    RarebitVectorStore,
)
from rarebit.integrations.langchain.relevance import NOTHING_RELEVANT
from rarebit.retrievers.engines import AnyCollection
from rarebit.retrievers.relevance import CosineAdapter

QUESTIONS = (
    "How do I convert a Python object to JSON text?",
    "What is the median of an even number of values?",
)
UNANSWERED = "Which vaccines does a newborn child need?"
BUDGETS = {
    "tokens": ContextBudget(text_top=0),
    "mixed": ContextBudget(max_tokens=256, text_top=1),
    "text": ContextBudget(text_top=None),
}
ENTRIES = 1200
"""Functions that are searched, about half of them: more take longer to embed."""

FOUND = 10
STOP = "\n\n"
"""A model this small goes on with code that does not run; its first paragraph answers."""


def generator_for(collection: AnyCollection) -> OneTokenGenerator:
    """Make a generator that reads the passages of a collection."""
    smollm = load_smollm()
    return OneTokenGenerator(smollm.model, smollm.tokenizer, ModalityBridge.shipped(), Passages.of(collection))


def chat_of(generator: OneTokenGenerator) -> ChatOneToken:
    """Make a chat model."""
    return ChatOneToken(generator=generator, max_tokens=LONGEST_ANSWER, stop=[STOP])


def retriever_of(store: RarebitVectorStore, generator: OneTokenGenerator, budget: ContextBudget) -> ContextualRetriever:
    """Make a retriever of what is relevant, as tokens and text."""
    adapter = CosineAdapter.shipped().for_collection(store.collection)
    relevant = ContextualRetriever(
        base_retriever=store.as_retriever(search_kwargs={"k": FOUND}),
        base_compressor=CosineAdapterFilter(adapter=adapter, store=store, when_empty=NOTHING),
    )
    one_token = OneTokenCompressor(generator=generator, budget=budget, label_key="name")
    return ContextualRetriever(base_retriever=relevant, base_compressor=one_token)


def chain_of(retriever: ContextualRetriever, chat: ChatOneToken) -> Runnable[str, AIMessage]:
    """Make a chain from a question to an answer."""
    answered = (
        RunnablePassthrough.assign(context=lambda given: joined(given["documents"]))
        | ChatPromptTemplate.from_template(BACKGROUND)
        | chat
    )
    told: Runnable[Any, AIMessage] = RunnableLambda(lambda given: AIMessage(given["documents"][0].page_content))
    found: Runnable[str, Any] = RunnableParallel(documents=retriever, question=RunnablePassthrough())
    return found | RunnableBranch((lambda given: nothing_in(given["documents"]), told), answered)


def nothing_in(documents: Sequence[Document]) -> bool:
    """Tell whether nothing is relevant."""
    return any(NOTHING_RELEVANT in document.metadata for document in documents)


def joined(documents: Sequence[Document]) -> str:
    """Join documents as the prompt takes them."""
    return "\n".join(document.page_content for document in documents)


def on_one_line(text: str) -> str:
    """Join the lines of an answer."""
    return " ".join(text.split())


def cost_of(answer: AIMessage) -> str:
    """Say what an answer cost."""
    read = 0 if answer.usage_metadata is None else answer.usage_metadata["input_tokens"]
    if not read:
        return "nothing read"
    took = answer.response_metadata
    return (
        f"{read} tokens read, {took['passage_tokens']} of them passages, {took['prefill_flops'] / 1e9:.0f} GFLOP, first token "
        f"after {took['first_token_seconds']:.2f} s"
    )


def main(count: int | None = ENTRIES) -> None:
    """Fill a store, and ask."""
    store = RarebitVectorStore(MiniLMEmbeddings())
    store.add_documents(functions(count))
    generator = generator_for(store.collection)
    chat = chat_of(generator)
    chains = {name: chain_of(retriever_of(store, generator, budget), chat) for name, budget in BUDGETS.items()}
    for question in QUESTIONS:
        print(f"\n{question}")
        for name, chain in chains.items():
            answer = chain.invoke(question)
            print(f"  {name:6} {cost_of(answer)}\n         {on_one_line(answer.text)}")
    for question in (QUESTIONS[0], UNANSWERED):
        print(f"\n{question} (streamed)\n        ", end="")
        for piece in chains["mixed"].stream(question):
            print(f"|{piece.text}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
