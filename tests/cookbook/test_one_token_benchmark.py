"""The benchmark of one-token context, and the training of its bridge, on a few passages with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from support.tiny_language_model import HIDDEN, chat_tokenizer, language_model, sentence

from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.lessons import Reading
from rarebit.compressors.context.prompts import token_ids
from rarebit.cookbook import train_bridge
from rarebit.cookbook.benchmarks import one_token, one_token_measures, reading_sets
from rarebit.cookbook.benchmarks.context_methods import Shelf, others_of
from rarebit.errors import InputError

DIM = 384


def embedded(texts: list[str], cache: Path, *, block: int = 0) -> np.ndarray:
    """Make unit vectors, near to each other where texts share words."""
    del cache, block
    words = {
        word: np.random.default_rng(sum(word.encode()) * 977).standard_normal(DIM) for text in texts for word in text.split()
    }
    vectors = np.array([sum((words[word] for word in text.split()), np.full(DIM, 1e-3)) for text in texts], np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_squadshifts(folder: Path, articles: int = 12) -> None:
    """Write a collection of articles with two passages and two questions each."""
    (folder / "qrels").mkdir(parents=True)
    passages, questions, lines = [], [], []
    for article in range(articles):
        for part in range(2):
            key, text = f"{article}-{part}", sentence(article * 2 + part)
            passages.append({"_id": key, "title": f"title{article}", "text": text})
            answer = [{"text": " ".join(text.split()[:2]), "start": 0}, {"text": text.split()[0], "start": 0}]
            questions.append(
                {"_id": f"q{key}", "text": f"what {text.split()[-1]}?", "metadata": {"answers": answer, "doc": key}}
            )
            lines.append(f"q{key}\t{key}\t1\n")
    for name, records in (("corpus", passages), ("queries", questions)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_squadshifts(tmp_path / "squadshifts-newwiki")
    for module in (reading_sets, one_token_measures):
        monkeypatch.setattr(module, "embedded", embedded)
    return tmp_path / "squadshifts-newwiki"


def test_articles_are_learned_from_or_measured_with(collection: Path) -> None:
    loaded = reading_sets.load(collection, collection)
    titles = [
        {loaded.texts[place].split()[0] for reading in own for place in reading.passages} for own in (loaded.train, loaded.test)
    ]
    assert titles[0]
    assert titles[1]
    assert not titles[0] & titles[1]
    assert len(loaded.train) + len(loaded.test) == 24


def test_the_shortest_answer_is_taken_and_others_do_not_answer(collection: Path) -> None:
    loaded = reading_sets.load(collection, collection)
    for reading in (*loaded.train, *loaded.test):
        (right,) = reading.passages
        assert reading.answer == loaded.texts[right].split()[1]  # the first word behind the title
        assert right not in reading.others
        assert 0 < len(reading.others) <= reading_sets.FOUND


def test_passages_that_are_asked_about_in_the_test_are_not_trained_with(collection: Path) -> None:
    loaded = reading_sets.load(collection, collection)
    asked = {loaded.texts[place] for reading in loaded.test for place in reading.passages}
    more = (["alone"], embedded(["alone"], collection))
    copied = (["another", *asked], embedded(["another", *asked], collection))
    lessons = reading_sets.joined([loaded, loaded], [copied, more], [])
    assert asked.isdisjoint(lessons.texts)
    assert lessons.texts[-2:] == ["another", "alone"]
    tested = {reading.question for reading in loaded.test}
    left = [reading for reading in loaded.train * 2 if reading.question not in tested]
    assert len(left) == len(lessons.readings) > 0
    for reading, own in zip(lessons.readings, left, strict=True):
        assert [lessons.texts[place] for place in reading.passages] == [loaded.texts[place] for place in own.passages]
        assert {lessons.texts[place] for place in reading.others} <= {loaded.texts[place] for place in own.others}


def test_collections_without_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted one with answers"):
        reading_sets.load(tmp_path / "npl", tmp_path)


def test_budgets_are_kept() -> None:
    texts = [sentence(seed, words=20) + ". " + sentence(seed + 50) + "." for seed in range(6)]
    shelf = Shelf(texts, chat_tokenizer(), lambda some: embedded(some, Path()))
    query = embedded([texts[3]], Path())[0]
    for budget in (4, 16, 64, 256):
        for context in (
            shelf.truncated(range(6), budget),
            shelf.mixed(range(6), budget),
            shelf.sentences(range(6), budget, query),
        ):
            costs = [1 if isinstance(piece, int) else len(token_ids(chat_tokenizer(), piece)) for piece in context]
            assert sum(costs) + shelf.between * len(context) <= budget


def test_mixed_contexts_have_text_first_and_tokens_behind() -> None:
    texts = [sentence(seed) for seed in range(6)]
    shelf = Shelf(texts, chat_tokenizer(), lambda some: embedded(some, Path()))
    cost = shelf.length(texts[0]) + shelf.between
    assert shelf.mixed(range(6), cost + 5 * (1 + shelf.between)) == [texts[0], 1, 2, 3, 4, 5]
    assert shelf.mixed(range(6), 2 * (1 + shelf.between)) == [0, 1]


def test_the_nearest_sentences_are_given() -> None:
    texts = ["bab beck. dong dull.", "gidge gong."]
    shelf = Shelf(texts, chat_tokenizer(), lambda some: embedded(some, Path()))
    query = embedded(["dong dull."], Path())[0]
    assert shelf.sentences([0, 1], shelf.length("dong dull.") + shelf.between, query) == ["dong dull."]


def test_what_another_collection_is_measured_with_is_not_trained_with(collection: Path) -> None:
    loaded = reading_sets.load(collection, collection)
    asked = loaded.train[0]
    other = reading_sets.ReadingSet("other", loaded.texts, loaded.vectors, [], [asked], loaded.articles)
    lessons = reading_sets.joined([loaded], [], [other])
    assert loaded.texts[asked.passages[0]] not in lessons.texts
    assert asked.question not in {reading.question for reading in lessons.readings}


def test_others_are_of_other_questions() -> None:
    assert others_of([(0,), (1,), (2,)]) == [[1], [2], [0]]
    assert others_of([(0, 1), (1, 2), (3,)]) == [[2, 3], [3, 0], [0]]
    assert others_of([(0,)]) == [[]]


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_everything_is_measured(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = language_model()
    monkeypatch.setattr(one_token, "load_smollm", lambda: SimpleNamespace(model=model, tokenizer=chat_tokenizer()))
    monkeypatch.setattr(one_token_measures, "BUDGETS", (8, 32))
    monkeypatch.setattr(one_token_measures, "WRITTEN", 3)
    monkeypatch.setattr(one_token_measures, "FOUND", 3)
    monkeypatch.setattr(one_token_measures, "MEMORY", 400)
    for name, tokens in (("one", 1), ("four", 4)):
        ModalityBridge(BridgeConfig(DIM, HIDDEN, tokens)).save_pretrained(tmp_path / name)
    written = str(tmp_path / "figures.json")
    asked = ["--data", str(tmp_path), "--collections", collection.name, "--answered", "2", "--json", written]
    one_token.main([*asked, "--bridge", str(tmp_path / "one"), "--bridges", f"4 tokens={tmp_path / 'four'}"])
    figures = {
        (figure["setting"], figure["method"], figure["metric"]): figure
        for figure in json.loads((tmp_path / "figures.json").read_text())
    }
    printed = capsys.readouterr().out
    assert "passages that answer" in printed
    right = "passages that answer"
    assert {method for setting, method, _ in figures if setting == right} == {
        *("no passage", "text", "1 token", "other's token", "1 token, store", "4 tokens"),
    }
    value = {key: figure["value"] for key, figure in figures.items()}
    none = value[right, "no passage", "nll"]
    for method in ("text", "1 token", "4 tokens"):
        assert value[right, method, "vs none"] == pytest.approx(value[right, method, "nll"] - none, abs=1e-5)
    assert value[right, "no passage", "vs none"] == 0
    assert value[right, "1 token", "vs other"] == pytest.approx(
        value[right, "1 token", "nll"] - value[right, "other's token", "nll"], abs=1e-5
    )
    gains = [none - value[right, method, "nll"] for method in ("1 token", "text")]
    assert value[right, "1 token", "share"] == pytest.approx(gains[0] / gains[1], rel=1e-4)
    assert value[right, "1 token, store", "nll"] == pytest.approx(value[right, "1 token", "nll"], abs=0.05)
    assert value[right, "1 token", "prompt"] < value[right, "text", "prompt"]
    assert 0 < value["10 found, cost", "1 token", "flops"] < 1
    assert value["10 found, cost", "1 token", "flops, profiler"] < 1
    assert ("10 found, 8 tokens", "mixed", "vs cut") in figures
    assert all(figure["n"] > 0 for figure in figures.values())


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_a_bridge_is_trained_by_the_command(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        train_bridge, "language_model", lambda *, device: (language_model(), chat_tokenizer()) if device == "cpu" else None
    )
    monkeypatch.setattr(train_bridge, "READ", (collection.name,))
    monkeypatch.setattr(train_bridge, "MEASURED", ())
    monkeypatch.setattr(train_bridge, "PARAPHRASED", {collection.name: 5})
    monkeypatch.setattr(train_bridge, "WIDTH", HIDDEN)
    asked = [
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--paraphrases",
        "2",
        "--readings",
        "2",
    ]
    train_bridge.main([*asked, "--checkpoint", str(tmp_path / "kept")])
    made = ModalityBridge.from_pretrained(tmp_path / "out")
    assert made.config.embedding_model == "all-MiniLM-L6-v2"
    train_bridge.main([*asked, "--checkpoint", str(tmp_path / "kept")])  # nothing is left to do
    assert ModalityBridge.from_pretrained(tmp_path / "out").fingerprint == made.fingerprint
    assert json.loads((tmp_path / "out" / "training.json").read_text())["readings"] == 2


def test_names_of_bridges_are_read() -> None:
    assert one_token._named("a=x,b c=y/z") == [("a", "x"), ("b c", "y/z")]
    with pytest.raises(InputError, match="wanted names and folders"):
        one_token._named("a")


def test_overlap_of_words() -> None:
    assert one_token_measures._f1("The two delegates.", "two delegates") == 1
    assert one_token_measures._f1("nothing", "two delegates") == 0
    assert one_token_measures._stands_in("It has Two Delegates, it says.", "the two delegates")
    assert not one_token_measures._stands_in("It has two.", "two delegates")


def test_readings_are_whole() -> None:
    with pytest.raises(InputError, match="by their places"):
        reading_sets.Lessons(["a"], np.ones((1, 2), np.float32), [Reading("q", "a", (1,))])
