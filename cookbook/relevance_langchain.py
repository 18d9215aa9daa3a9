"""Relevance in LangChain, learned from a log of feedback: ``python -m rarebit.cookbook.relevance_langchain``.

The functions of Python's standard library are searched. What people clicked is written to a log, a JSON object a line; an
adapter is trained on it, a threshold is chosen on questions that were held out, and a retriever drops what is not relevant. The
log is made up here: somebody who asks for what an entry's first sentence says is shown ten entries, and clicks on that one.
Yours is what your users did.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.documents import Document

from rarebit.cookbook import python_docs
from rarebit.cookbook.models import MiniLMEmbeddings
from rarebit.integrations.langchain import ContextualRetriever, CosineAdapterFilter, RarebitVectorStore
from rarebit.integrations.langchain.relevance import NOTHING_RELEVANT
from rarebit.retrievers.relevance import CosineAdapter, from_feedback, read_feedback

QUESTIONS = ("How can I compute the median of some data?", "Which vaccines does a newborn child need?")
NOTHING = "Nothing here answers that."
SHOWN = 10
SHORTEST = 30
"""Characters of a sentence that is asked for."""


def functions(count: int | None = None) -> list[Document]:
    """Give the documentation of functions."""
    entries = [entry for entry in python_docs.corpus() if entry.kind == "function"]
    step = 1 if count is None else max(1, len(entries) // count)
    return [Document(entry.text, id=str(place), metadata={"name": entry.name}) for place, entry in enumerate(entries[::step])]


def clicks(store: RarebitVectorStore, documents: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """Make up what people did: one in three entries was looked for."""
    for document in documents[::3]:
        name = document.metadata["name"]
        sentence = re.split(r"\.\s", document.page_content.removeprefix(f"{name}: "))[0]
        question = " ".join(sentence.split())
        if len(question) >= SHORTEST:
            shown = [found.id for found in store.similarity_search(question, k=SHOWN)]
            yield {"query": question, "shown": shown, "liked": [document.id] if document.id in shown else []}


def trained(store: RarebitVectorStore, log: Path) -> CosineAdapter:
    """Train an adapter on a log, and choose its threshold on questions that it has not seen."""
    model = store.embeddings
    labelled = from_feedback(store.collection, read_feedback(log), lambda texts: [model.embed_query(text) for text in texts])
    learned, held_out = labelled.split(0.7)
    shipped = CosineAdapter.shipped().for_collection(store.collection)
    adapter = CosineAdapter.fit(learned, start=shipped).choose_threshold(held_out, recall=0.95)
    print(adapter, adapter.fit_report, adapter.report(held_out), sep="\n")
    return adapter


def main(count: int | None = None) -> None:
    """Train on a log, keep the adapter, and ask."""
    documents = functions(count)
    store = RarebitVectorStore(MiniLMEmbeddings())
    store.add_documents(documents)
    with TemporaryDirectory() as folder:
        log = Path(folder) / "feedback.jsonl"
        log.write_text("".join(f"{json.dumps(line)}\n" for line in clicks(store, documents)), encoding="utf-8")
        trained(store, log).save_pretrained(Path(folder) / "adapter")
        adapter = CosineAdapter.from_pretrained(Path(folder) / "adapter")
    retriever = ContextualRetriever(
        base_retriever=store.as_retriever(search_kwargs={"k": SHOWN}),
        base_compressor=CosineAdapterFilter(adapter=adapter, store=store, when_empty=NOTHING),
    )
    for question in QUESTIONS:
        found = retriever.invoke(question)
        if NOTHING_RELEVANT in found[0].metadata:
            print(f"\n{question}: 0 of {SHOWN} passages\n  {found[0].page_content}")
            continue
        print(f"\n{question}: {len(found)} of {SHOWN} passages")
        for each in found:
            print(f"  {each.metadata['relevance']:.3f}  {' '.join(each.page_content.split())[:90]}")


if __name__ == "__main__":
    main()
