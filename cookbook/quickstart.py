"""The main job, end to end: Python's own documentation, compressed, asked through LangChain and through LlamaIndex.

    python -m rarebit.cookbook.quickstart        (or: rarebit demo)

It embeds the documentation that every CPython carries, situates each passage among those of its module, keeps it in one SQLite
file with small codes in memory, asks a dozen questions through a LangChain chain and a LlamaIndex query engine, and prints a
ledger of what was saved and what was lost. Passages that are not relevant are dropped before they are read, and a question that
the documentation does not answer is told so. The others are read as text, mixed, and as one token each. Everything runs on this
machine. A second run reuses the index.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from rarebit import Collection
from rarebit.arrays import Vectors
from rarebit.cookbook import ledger, python_docs
from rarebit.cookbook.asking import ASKERS, BUDGETS, Answer, WatchedGenerator
from rarebit.cookbook.benchmarks.embedded import default_cache, embedded
from rarebit.cookbook.models import MiniLMEmbeddings, load_minilm, smollm_folder
from rarebit.cookbook.one_token_langchain import FOUND, generator_for
from rarebit.integrations.langchain import SituatedEmbeddings
from rarebit.retrievers.relevance import Background, CosineAdapter, ScoreSource
from rarebit.retrievers.situating import SituatingHead

MEMORY = 56
"""Bytes that a passage may take in memory: 48 for its code, 4 for its row id."""

WIDTH = 112
"""Of what is printed."""

ASKED = 6
"""Questions that are asked through the frameworks, unless it is said otherwise; each is answered six times."""

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
        generator = WatchedGenerator.of(generator_for(collection))
        answers = ask_all(collection, adapter, generator, (*QUESTIONS[: arguments.questions], UNANSWERED[0]))
        rows += ledger.answer_rows(answers)
        rows += ledger.cost_rows(collection, generator, QUESTIONS[:ASKED], questions[:ASKED])
        ledger.show(rows)
    if arguments.json:
        told = {name: {way: list(map(asdict, given)) for way, given in ways.items()} for name, ways in answers.items()}
        ledger.write(arguments.json, rows, told)


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
    return CosineAdapter.shipped(background).with_source(ScoreSource.of(collection), unit=background.length)


def ask_all(
    collection: Collection, adapter: CosineAdapter, generator: WatchedGenerator, questions: Sequence[str]
) -> dict[str, dict[str, list[Answer]]]:
    """Ask every question through both frameworks, in each way to give passages, and print the answers with their sources."""
    asked = {name: {way: build(collection, adapter, generator, way) for way in BUDGETS} for name, build in ASKERS.items()}
    answers: dict[str, dict[str, list[Answer]]] = {name: {way: [] for way in BUDGETS} for name in ASKERS}
    for question in questions:
        print(f"\n{question}")
        for name, ways in asked.items():
            for way, ask in ways.items():
                answer = ask(question)
                answers[name][way].append(answer)
                show(name, way, answer)
                if not answer.sources:
                    break  # whatever the way
    return answers


def show(framework: str, way: str, answer: Answer) -> None:
    """Print an answer, and with the first way of each framework what it was made of."""
    read = f"{way}, {answer.prompt_tokens} tokens" if answer.sources else ""
    print(fill(answer.text, width=WIDTH, initial_indent=f"  {framework:10} {read:22} ", subsequent_indent=" " * 36))
    if way == next(iter(BUDGETS)):
        sources = ", ".join(dict.fromkeys(answer.sources)) or "no passage is relevant"
        told = f"[{sources}; best relevance {answer.best_relevance:.3f}]"
        print(fill(told, width=WIDTH, initial_indent=" " * 36, subsequent_indent=" " * 36))


def _answers(entry: python_docs.Entry, names: Sequence[str]) -> bool:
    return any(entry.name == name or entry.name.startswith(f"{name}.") for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rarebit demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_cache().with_name("quickstart"), help="(default: %(default)s)")
    counts = range(len(QUESTIONS) + 1)
    parser.add_argument(
        "--questions", type=int, choices=counts, default=ASKED, metavar="N", help="how many to ask (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ledger and answers as JSON")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
