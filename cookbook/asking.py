"""Questions asked through LangChain and LlamaIndex, with the passages given as text, mixed, or as one token each.

The chain and the query engine are the same each time, but for the budget of the last compressor, or postprocessor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnablePassthrough
from llama_index.core import VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from rarebit import Collection
from rarebit.compressors.context import BACKGROUND, ContextBudget, Generation, OneTokenGenerator, Prompt, Sampling
from rarebit.compressors.context.generation import GREEDY
from rarebit.cookbook.models import LONGEST_ANSWER, MiniLMEmbedding, MiniLMEmbeddings
from rarebit.cookbook.one_token_langchain import FOUND, STOP, chat_of, joined, nothing_in
from rarebit.cookbook.one_token_llama_index import QUERIED
from rarebit.integrations.langchain import (
    ContextualRetriever,
    CosineAdapterFilter,
    OneTokenCompressor,
    SituatedEmbeddings,
)
from rarebit.integrations.langchain import RarebitVectorStore as LangChainStore
from rarebit.integrations.llama_index import (
    CosineAdapterPostprocessor,
    OneTokenLLM,
    OneTokenPostprocessor,
    RelevanceJudgedEvent,
    SituatedEmbedding,
)
from rarebit.integrations.llama_index import RarebitVectorStore as LlamaIndexStore
from rarebit.retrievers.relevance import CosineAdapter

Way: TypeAlias = Literal["text", "mixed", "one token"]

READ: Final = 3
"""Of those that are relevant, the language model reads so many as text; as tokens it reads them all."""

BUDGETS: Final[Mapping[Way, ContextBudget]] = {
    "text": ContextBudget(text_top=None),
    "mixed": ContextBudget(text_top=1),
    "one token": ContextBudget(text_top=0),
}
"""How passages are given: as text, the surest as text and the others as one token each, or each as one token."""

NOTHING: Final = "Nothing in the documentation answers this."


class WatchedGenerator(OneTokenGenerator):
    """Remembers what the last answer took, which not every framework passes on."""

    last: Generation | None = None

    @classmethod
    def of(cls, given: OneTokenGenerator) -> WatchedGenerator:
        """Watch a generator."""
        return cls(given.model, given.tokenizer, given.bridge, given.passages)

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, start: float | None = None) -> list[Generation]:
        """Answer prompts."""
        found = super().answer(prompts, sampling, start)
        self.last = found[-1]
        return found


@dataclass(frozen=True)
class Answer:
    """What one framework answered, from which passages, and what it took; nothing was read if none was relevant."""

    text: str
    sources: list[str]
    best_relevance: float
    seconds: float
    prompt_tokens: int = 0
    passage_tokens: int = 0
    prefill_flops: int = 0
    first_token_seconds: float = 0.0

    def having_read(self, took: Generation | None) -> Answer:
        """Give the answer with what it took to read."""
        if took is None:
            return self
        return replace(
            self,
            prompt_tokens=took.prompt_tokens,
            passage_tokens=took.passage_tokens,
            prefill_flops=took.prefill_flops or 0,
            first_token_seconds=took.first_token_seconds,
        )


Ask: TypeAlias = Callable[[str], Answer]


def langchain_asker(collection: Collection, adapter: CosineAdapter, generator: WatchedGenerator, way: Way) -> Ask:
    """Build a LangChain chain: retriever, filter of relevance, prompt, chat model; without relevant passages it reads none."""
    store = LangChainStore(SituatedEmbeddings(MiniLMEmbeddings()), collection=collection)
    relevant = ContextualRetriever(
        base_retriever=store.as_retriever(search_kwargs={"k": FOUND}),
        base_compressor=CosineAdapterFilter(adapter=_reading(adapter, way), store=store, when_empty=NOTHING),
    )
    retriever = ContextualRetriever(
        base_retriever=relevant, base_compressor=OneTokenCompressor(generator=generator, budget=BUDGETS[way])
    )
    answered = ChatPromptTemplate.from_template(BACKGROUND) | chat_of(generator)
    chain: Runnable[dict[str, Any], dict[str, Any]] = (
        RunnablePassthrough.assign(documents=RunnableLambda(lambda given: retriever.invoke(given["question"])))
        | RunnablePassthrough.assign(context=lambda given: joined(given["documents"]))
        | RunnablePassthrough.assign(
            message=RunnableBranch((lambda given: nothing_in(given["documents"]), lambda _: None), answered)
        )
    )

    def ask(question: str) -> Answer:
        start = perf_counter()
        given = chain.invoke({"question": question})
        seconds, documents, message = perf_counter() - start, given["documents"], given["message"]
        if message is None:
            return Answer(NOTHING, [], documents[0].metadata["best_relevance"], seconds)
        names = [document.metadata["name"] for document in documents]
        best = max(document.metadata["relevance"] for document in documents)
        return Answer(message.text.strip(), names, best, seconds).having_read(generator.last)

    return ask


def llama_index_asker(collection: Collection, adapter: CosineAdapter, generator: WatchedGenerator, way: Way) -> Ask:
    """Build a LlamaIndex query engine on the same collection."""
    model = SituatedEmbedding(MiniLMEmbedding())
    engine = VectorStoreIndex.from_vector_store(LlamaIndexStore(collection=collection), embed_model=model).as_query_engine(
        llm=OneTokenLLM(generator=generator, max_tokens=LONGEST_ANSWER, stop=(STOP,)),
        similarity_top_k=FOUND,
        node_postprocessors=[
            CosineAdapterPostprocessor(adapter=_reading(adapter, way), embed_model=model),
            OneTokenPostprocessor(generator=generator, budget=BUDGETS[way]),
        ],
        text_qa_template=QUERIED,
    )

    def ask(question: str) -> Answer:
        start = perf_counter()
        with _listening() as judged:
            response: Any = engine.query(question)
        seconds = perf_counter() - start
        if not response.source_nodes:
            return Answer(NOTHING, [], judged.best_relevance, seconds)
        names = [found.node.metadata["name"] for found in response.source_nodes]
        return Answer(str(response).strip(), names, judged.best_relevance, seconds).having_read(generator.last)

    return ask


ASKERS: Final = {"LangChain": langchain_asker, "LlamaIndex": llama_index_asker}


class _Judged(BaseEventHandler):
    """Hears what the postprocessor found."""

    best_relevance: float = 0.0

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Keep the highest relevance of the last query."""
        del kwargs
        if isinstance(event, RelevanceJudgedEvent):
            self.best_relevance = event.best_relevance


@contextmanager
def _listening() -> Iterator[_Judged]:
    dispatcher, judged = get_dispatcher(), _Judged()
    dispatcher.add_event_handler(judged)
    try:
        yield judged
    finally:
        dispatcher.event_handlers.remove(judged)


def _reading(adapter: CosineAdapter, way: Way) -> CosineAdapter:
    return adapter.keeping(most=READ if way == "text" else None)
