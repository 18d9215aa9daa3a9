"""The quickstart's ledger: what the compressed collection saves against float32, and what it loses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from rarebit import Collection, Hit, Stats
from rarebit.arrays import Queries, Vectors
from rarebit.compressors.context import BACKGROUND, ContextBudget, Generation, OneTokenGenerator, Sampling
from rarebit.cookbook.asking import READ, Answer
from rarebit.retrievers.relevance import Asked, RelevanceModel

K = 10

ROUNDS = 20


Strange: TypeAlias = Float32[npt.NDArray[np.float32], "s dim"]
"""Questions of other things."""


@dataclass(frozen=True)
class Row:
    """One line: what it is, with Rarebit, and without: float32 in memory, passages by themselves, or all of them as text."""

    what: str
    rarebit: float
    without: float | None = None
    note: str = ""


def retrieval_rows(collection: Collection, vectors: Vectors, ids: Sequence[str], queries: Queries) -> list[Row]:
    """Measure size, recall and time of one query against faiss's exact index over the same float32 vectors."""
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    _, places = exact.search(queries, K)
    found = collection.search_many(queries, K)
    k = min(K, len(ids))
    shares = [
        len({hit.id for hit in hits} & {ids[place] for place in row[:k]}) / k for hits, row in zip(found, places, strict=True)
    ]
    stats = collection.stats()
    float32 = float(stats.float32_per_vector)
    ours, theirs = _times(
        [lambda query: collection.search(query, K), lambda query: exact.search(query[np.newaxis], K)], queries
    )
    return [
        Row("passages", stats.count),
        Row("bytes a vector in memory, all counted", stats.memory_per_vector, float32, _breakdown(stats.memory, stats.count)),
        Row(
            "bytes a vector on disk, both tiers", stats.disk_per_vector, float32, f"codec {stats.codec}, fine tier {stats.fine}"
        ),
        Row("recall@10 against exact search", mean(shares), 1.0, f"{len(queries)} questions"),
        Row("milliseconds a query", ours, theirs, "with texts and metadata read; exact: row numbers alone"),
    ]


def situating_rows(plain: Vectors, situated: Vectors, queries: Queries, answering: npt.NDArray[np.bool_]) -> list[Row]:
    """Measure what situating does to what an exact search finds, beside the passages' own vectors.

    Args:
        plain: (n, dim) vectors of the passages by themselves.
        situated: (n, dim) those in the collection.
        queries: (q, dim).
        answering: (q, n) which passages answer each query.
    """
    ours, theirs = (
        np.take_along_axis(answering, np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :K], axis=1)
        for vectors in (situated, plain)
    )
    shares = [float(found.mean()) for found in (ours, theirs)]
    answered = [float(found[:, :READ].any(axis=1).mean()) for found in (ours, theirs)]
    note = "situated among their module's; compared with each by itself"
    return [
        Row("first ten passages that answer", shares[0], shares[1], note),
        Row("questions that the first three answer", answered[0], answered[1], note),
    ]


def choice_rows(stats: Stats) -> list[Row]:
    """Tell which code was chosen, and what was measured then; nothing where none was chosen."""
    if stats.choice is None:
        return []
    chosen, float32 = stats.choice["chosen"], float(stats.float32_per_vector)
    codecs = f"{stats.codec}, the best of {len(stats.choice['measured'])} codecs measured"
    asked = f"{stats.choice['queries']} held-out passages as questions"
    reranked = f"{chosen['candidates']} candidates re-ranked by {chosen['fine']}"
    return [
        Row("bytes of a code", chosen["code_size"], float32, codecs),
        Row("recall@10 measured for the choice", chosen["recall"], 1.0, f"{asked}, {reranked}"),
        Row("recall@10 by the codes alone", chosen["recall_of_codes"], 1.0, "measured for the choice as well"),
    ]


def relevance_rows(
    collection: Collection, adapter: RelevanceModel, found: int, queries: Queries, strange: Strange
) -> list[Row]:
    """Count the passages that a model of relevance drops, of so many found for questions with an answer and for others."""
    dropped, emptied = zip(
        *(_dropped(adapter.keeping(), vectors, collection.search_many(vectors, found)) for vectors in (queries, strange)),
        strict=True,
    )
    note = f"{len(queries)} questions with an answer, {len(strange)} without, from a relevance of {adapter.threshold:.3f} on"
    return [
        Row(f"passages dropped, of {found} found", dropped[0], 0.0, note),
        Row("the same of questions without an answer", dropped[1], 0.0, note),
        Row("questions with an answer left with none", emptied[0], 0.0, note),
        Row("questions without one left with none", emptied[1], 0.0, note),
    ]


def _dropped(adapter: RelevanceModel, queries: Queries, found: Sequence[Sequence[Hit]]) -> tuple[float, float]:
    """Give how many passages of a question are dropped on average, and the share of questions that are left with none."""
    verdicts = [adapter.judge(Asked.of([hit.score for hit in hits], query)) for query, hits in zip(queries, found, strict=True)]
    counts = [len(verdict.relevances) - len(verdict.kept) for verdict in verdicts]
    return float(mean(counts)), float(mean(verdict.nothing_is_relevant for verdict in verdicts))


def answer_rows(answers: Mapping[str, Mapping[str, Sequence[Answer]]]) -> list[Row]:
    """Count what the language model read for a question that has an answer, in each framework, beside passages as text."""
    rows = []
    for framework, ways in answers.items():
        answered = {way: [answer for answer in given if answer.sources] for way, given in ways.items()}
        tokens = {way: mean(answer.prompt_tokens for answer in given) for way, given in answered.items() if given}
        passages = {way: mean(len(answer.sources) for answer in given) for way, given in answered.items() if given}
        rows += [
            Row(
                f"prompt tokens a question, {framework}, {way}",
                tokens[way],
                tokens["text"],
                f"{passages[way]:.1f} passages, {passages['text']:.1f} as text",
            )
            for way in tokens
            if way != "text"
        ]
    return rows


def cost_rows(collection: Collection, generator: OneTokenGenerator, questions: Sequence[str], queries: Queries) -> list[Row]:
    """Measure what it takes to read ten passages as one token each, beside their texts; times in turns."""
    budgets = (ContextBudget(text_top=0), ContextBudget(text_top=None))
    taken: list[list[Generation]] = [[], []]
    for question, hits in zip(questions, collection.search_many(queries, K), strict=True):
        for place, budget in enumerate(budgets):
            given = generator.give([hit.text for hit in hits], [hit.id for hit in hits], budget)
            asked = BACKGROUND.format(context="\n".join(each.text for each in given), question=question)
            taken[place] += generator.generate([asked], Sampling(max_new_tokens=1))
    tokens = [mean(each.prompt_tokens for each in own) for own in taken]
    flops = [mean((each.prefill_flops or 0) / 1e9 for each in own) for own in taken]
    seconds = [median(each.first_token_seconds for each in own) for own in taken]
    note = f"{len(questions)} questions; ten passages as one token each, beside their texts"
    return [
        Row("prompt tokens", tokens[0], tokens[1], note),
        Row("GFLOP to read the prompt", flops[0], flops[1], "by formula, of the same prompts"),
        Row("seconds to the first token", seconds[0], seconds[1], "of the same prompts, in turns"),
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the ledger."""
    print(f"\n{'':44}{'Rarebit':>10}{'without':>10}{'ratio':>8}")
    for row in rows:
        ratio = f"{row.rarebit / row.without:>8.2f}" if row.without else ""
        compared = "" if row.without is None else f"{_number(row.without):>10}{ratio}"
        print(f"{row.what:44}{_number(row.rarebit):>10}{compared:18}  {row.note}".rstrip())


def write(path: Path, rows: Sequence[Row], answers: Mapping[str, Any]) -> None:
    """Write ledger and answers as JSON, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"ledger": [asdict(row) for row in rows], "answers": answers}, indent=2) + "\n", encoding="utf-8"
    )


def _times(searches: Sequence[Callable[[Any], Any]], queries: Queries) -> list[float]:
    """Give the median milliseconds of each search over all queries; the searches take turns, so noise meets them alike."""
    seconds: list[list[float]] = [[] for _ in searches]
    for _ in range(ROUNDS):
        for query in queries:
            for search, own in zip(searches, seconds, strict=True):
                start = perf_counter()
                search(query)
                own.append(perf_counter() - start)
    return [1000 * median(own) for own in seconds]


def _breakdown(memory: Mapping[str, int], count: int) -> str:
    return ", ".join(f"{name} {size / max(count, 1):.1f}" for name, size in memory.items() if size)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
