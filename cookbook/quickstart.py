"""The main job, end to end: Python's own documentation, compressed, asked through LangChain and through LlamaIndex.

    python -m rarebit.cookbook.quickstart        (or: rarebit demo)

It embeds the documentation that every CPython carries, situates each passage among those of its module, keeps it in one SQLite
file with small codes in memory, asks a dozen questions through a LangChain chain and a LlamaIndex query engine, and prints a
ledger of what was saved and what was lost. Passages that are not relevant are dropped before they are read, and a question that
the documentation does not answer is told so. Everything runs on this machine. A second run reuses the index.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from textwrap import fill
from time import perf_counter
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableBranch, RunnablePassthrough
from llama_index.core import PromptTemplate, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import MetadataMode

from rarebit import Collection
from rarebit.arrays import Vectors
from rarebit.cookbook import ledger, python_docs
from rarebit.cookbook.benchmarks.embedded import default_cache, embedded
from rarebit.cookbook.models import (
    MiniLMEmbedding,
    MiniLMEmbeddings,
    SmolChat,
    SmolLLM,
    load_minilm,
    load_smollm,
    smollm_folder,
)
from rarebit.integrations.langchain import ContextualRetriever, CosineAdapterFilter, SituatedEmbeddings
from rarebit.integrations.langchain import RarebitVectorStore as LangChainStore
from rarebit.integrations.langchain.relevance import NOTHING_RELEVANT
from rarebit.integrations.llama_index import CosineAdapterPostprocessor, RelevanceJudgedEvent, SituatedEmbedding
from rarebit.integrations.llama_index import RarebitVectorStore as LlamaIndexStore
from rarebit.retrievers.relevance import Background, CosineAdapter, ScoreSource
from rarebit.retrievers.situating import SituatingHead

MEMORY = 56
"""Bytes that a passage may take in memory: 48 for its code, 4 for its row id."""

BLOCK = 512
"""Passages whose embeddings are kept together: at most this many are lost when the first run is interrupted."""

ANSWERED_IN = {
    "How can I be sure that a cleanup function runs when the with statement ends?": ("with", "contextlib", "context-managers"),
    "What does a yield expression do to a function?": ("yield", "generator-types"),
    "How do I run a callable in a pool of threads?": ("concurrent.futures", "multiprocessing.pool.ThreadPool", "asyncio"),
    "What is the difference between a shallow and a deep copy?": ("copy",),
    "How do I cache the results of a function that was called with the same arguments?": ("functools",),
    "How can I compute the median of some data?": ("statistics",),
    "How do I create a temporary directory that is removed afterwards?": ("tempfile",),
    "What happens when a class defines __slots__?": ("attribute-access", "specialnames"),
    "How do I walk through all files below a directory?": ("os.walk", "os.fwalk", "pathlib", "glob"),
    "How do I convert a Python object to JSON text?": ("json",),
    "How do I split a string at a separator?": ("builtins.str", "builtins.bytes", "re", "string-methods"),
    "How can I get all permutations of the elements of a list?": ("itertools.permutations",),
}
"""Question -> names, or beginnings of names, of the passages that answer it."""

QUESTIONS = tuple(ANSWERED_IN)

UNANSWERED = (
    "Which vaccines does a newborn child need?",
    "Who won the football World Cup in 1998?",
    "How do I bake sourdough bread?",
    "What is the capital of France?",
    "How high is Mount Everest?",
    "How do I file my income tax return?",
)
"""Questions that the documentation does not answer; the first is asked through the frameworks."""

NOTHING = "Nothing in the documentation answers this."
FOUND = 8
"""Passages that are found for a question, and judged; the language model reads the best of those that are relevant."""

PROMPT = "Answer the question in one short sentence without code, using only this context.\n\n{context}\n\nQuestion: {question}"


@dataclass(frozen=True)
class Answer:
    """What one framework answered, from which passages, and what the language model read: nothing, if none was relevant."""

    text: str
    sources: list[str]
    best_relevance: float
    prompt_tokens: int
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the main job; see ``--help``."""
    arguments = _parser().parse_args(argv)
    smollm_folder()  # if it is missing, say so before minutes of embedding
    arguments.folder.mkdir(parents=True, exist_ok=True)
    entries = python_docs.corpus()
    print(f"{len(entries)} passages from the documentation of {python_docs.version()}")
    plain = embedded([entry.text for entry in entries], arguments.folder, block=BLOCK)
    vectors = SituatingHead.shipped(plain.shape[1]).situate_grouped(plain, [document_of(entry) for entry in entries])
    name = SituatedEmbeddings(MiniLMEmbeddings()).model_name
    with Collection.open(arguments.folder / "situated.rarebit", metric="inner_product", fingerprint=name) as collection:
        changed = fill_collection(collection, entries, vectors)
        if changed or collection.settings.memory_per_vector != MEMORY:
            print(f"choosing a code for {MEMORY} bytes a passage, by measuring on the passages themselves")
            collection.recompress(memory_per_vector=MEMORY, progress=True)
        rows = ledger.choice_rows(collection.stats())
        questions = load_minilm().encode(list(QUESTIONS))
        rows += ledger.retrieval_rows(collection, vectors, ids_of(entries), questions)
        answering = [[_answers(entry, names) for entry in entries] for names in ANSWERED_IN.values()]
        rows += ledger.situating_rows(plain, vectors, questions, np.array(answering))
        adapter = adapter_for(collection)
        strange = load_minilm().encode(list(UNANSWERED))
        rows += ledger.relevance_rows(collection, adapter, FOUND, questions, strange)
        answers = ask_all(collection, adapter, (*QUESTIONS[: arguments.questions], UNANSWERED[0]))
        rows += ledger.answer_rows(
            {name: [answer.prompt_tokens for answer in given if answer.sources] for name, given in answers.items()}
        )
        ledger.show(rows)
    if arguments.json:
        ledger.write(arguments.json, rows, {name: [asdict(answer) for answer in given] for name, given in answers.items()})


def ids_of(entries: Sequence[python_docs.Entry]) -> list[str]:
    """Name each passage by its text and its document's, which its vector is made of, so that a second run finds it."""
    documents: dict[str, Any] = {}
    for entry in entries:
        documents.setdefault(document_of(entry), sha256()).update(entry.text.encode())
    return [sha256(documents[document_of(entry)].digest() + entry.text.encode()).hexdigest()[:32] for entry in entries]


def document_of(entry: python_docs.Entry) -> str:
    """Name what a passage is a part of: a topic of the language reference, or a module with everything in it."""
    return entry.name if entry.kind == "topic" else entry.module


def fill_collection(collection: Collection, entries: Sequence[python_docs.Entry], vectors: Vectors) -> bool:
    """Keep what is not there yet, and delete what is not in the corpus any more; tell whether anything changed."""
    ids = ids_of(entries)
    stored = {row.id for row in collection}
    missing = [place for place, key in enumerate(ids) if key not in stored]
    collection.add(
        vectors[missing],
        texts=[entries[place].text for place in missing],
        metadatas=[
            {"name": entries[place].name, "module": entries[place].module, "kind": entries[place].kind} for place in missing
        ],
        ids=[ids[place] for place in missing],
        progress=bool(missing),
    )
    deleted = collection.delete(list(stored.difference(ids)))
    print(f"{collection.path}: {len(missing)} passages added, {deleted} deleted, {len(ids) - len(missing)} were there")
    return bool(missing or deleted)


def adapter_for(collection: Collection) -> CosineAdapter:
    """Take the shipped adapter to the collection, whose scores are inner products with vectors of about one length.

    It is calibrated on cosines: divided by that length, the scores are near to some.
    """
    background = Background.of_collection(collection)
    adapter = CosineAdapter.shipped(background).with_source(ScoreSource.of(collection), unit=background.length)
    return adapter.keeping(most=ledger.READ)


def ask_all(collection: Collection, adapter: CosineAdapter, questions: Sequence[str]) -> dict[str, list[Answer]]:
    """Ask every question through both frameworks, and print the answers with their sources."""
    asked = {"LangChain": langchain_asker(collection, adapter), "LlamaIndex": llama_index_asker(collection, adapter)}
    answers: dict[str, list[Answer]] = {name: [] for name in asked}
    for question in questions:
        print(f"\n{question}")
        for name, ask in asked.items():
            answer = ask(question)
            answers[name].append(answer)
            print(fill(answer.text, width=112, initial_indent=f"  {name:10} ", subsequent_indent=" " * 13))
            sources = ", ".join(dict.fromkeys(answer.sources)) or "no passage is relevant"
            print(f"{'':13}[{sources}; best relevance {answer.best_relevance:.3f}]")
    return answers


def langchain_asker(collection: Collection, adapter: CosineAdapter) -> Callable[[str], Answer]:
    """Build a LangChain chain: retriever, filter of relevance, prompt, chat model; without relevant passages it reads none."""
    store = LangChainStore(SituatedEmbeddings(MiniLMEmbeddings()), collection=collection)
    retriever = ContextualRetriever(
        base_retriever=store.as_retriever(search_kwargs={"k": FOUND}),
        base_compressor=CosineAdapterFilter(adapter=adapter, store=store, when_empty=NOTHING),
    )
    answered = ChatPromptTemplate.from_template(PROMPT) | SmolChat() | StrOutputParser()
    chain: Any = (
        RunnablePassthrough.assign(documents=lambda given: retriever.invoke(given["question"]))
        | RunnablePassthrough.assign(context=lambda given: _joined(given["documents"]))
        | RunnablePassthrough.assign(answer=RunnableBranch((_nothing_found, lambda _: NOTHING), answered))
    )

    def ask(question: str) -> Answer:
        start = perf_counter()
        given = chain.invoke({"question": question})
        if _nothing_found(given):
            best = given["documents"][0].metadata["best_relevance"]
            return Answer(given["answer"], [], best, 0, perf_counter() - start)
        tokens = load_smollm().count_tokens(PROMPT.format(context=given["context"], question=question))
        sources = [document.metadata["name"] for document in given["documents"]]
        best = max(document.metadata["relevance"] for document in given["documents"])
        return Answer(given["answer"], sources, best, tokens, perf_counter() - start)

    return ask


def llama_index_asker(collection: Collection, adapter: CosineAdapter) -> Callable[[str], Answer]:
    """Build a LlamaIndex query engine on the same collection."""
    model = SituatedEmbedding(MiniLMEmbedding())
    index = VectorStoreIndex.from_vector_store(LlamaIndexStore(collection=collection), embed_model=model)
    template = PromptTemplate(PROMPT.replace("{context}", "{context_str}").replace("{question}", "{query_str}"))
    engine = index.as_query_engine(
        llm=SmolLLM(),
        similarity_top_k=FOUND,
        node_postprocessors=[CosineAdapterPostprocessor(adapter=adapter, embed_model=model)],
        text_qa_template=template,
    )
    judged = _Judged()
    get_dispatcher().add_event_handler(judged)

    def ask(question: str) -> Answer:
        start = perf_counter()
        response: Any = engine.query(question)
        if not response.source_nodes:
            return Answer(NOTHING, [], judged.best_relevance, 0, perf_counter() - start)
        context = "\n\n".join(found.node.get_content(MetadataMode.LLM) for found in response.source_nodes)
        tokens = load_smollm().count_tokens(PROMPT.format(context=context, question=question))
        sources = [found.node.metadata["name"] for found in response.source_nodes]
        return Answer(str(response), sources, judged.best_relevance, tokens, perf_counter() - start)

    return ask


class _Judged(BaseEventHandler):
    """Hears what the postprocessor found."""

    best_relevance: float = 0.0

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Keep the highest relevance of the last query."""
        del kwargs
        if isinstance(event, RelevanceJudgedEvent):
            self.best_relevance = event.best_relevance


def _nothing_found(given: dict[str, Any]) -> bool:
    return NOTHING_RELEVANT in given["documents"][0].metadata


def _answers(entry: python_docs.Entry, names: Sequence[str]) -> bool:
    return any(entry.name == name or entry.name.startswith(f"{name}.") for name in names)


def _joined(documents: Sequence[Document]) -> str:
    return "\n\n".join(document.page_content for document in documents)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rarebit demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_cache().with_name("quickstart"), help="(default: %(default)s)")
    counts = range(len(QUESTIONS) + 1)
    parser.add_argument("--questions", type=int, choices=counts, default=len(QUESTIONS), metavar="N", help="how many to ask")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ledger and answers as JSON")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
