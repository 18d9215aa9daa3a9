"""The benchmark of situated embeddings: how documents and judgements are read, and what is computed of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit.cookbook.benchmarks import documents, embedded, situated
from rarebit.errors import InputError

pytest.importorskip("torch", reason="the heads are trained")


@pytest.fixture(autouse=True)
def _fake_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed a text as the sum of a direction for each of its words, so that texts that share words are near."""

    def direction(word: str) -> np.ndarray:
        return np.random.default_rng(list(word.encode())).standard_normal(32)

    def encode(texts: list[str]) -> np.ndarray:
        return np.stack([np.sum([direction(word) for word in text.split()], axis=0) for text in texts]).astype(np.float32)

    monkeypatch.setattr(embedded, "load_encoder", lambda: encode)


def write(folder: Path, corpus: Sequence[dict[str, Any]], queries: Sequence[dict[str, Any]], **qrels: Sequence[str]) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))


def stories(data: Path, count: int = 30, sections: int = 4) -> None:
    """Write stories whose sections name their hero in the first one only, and the questions name hero and matter."""
    matters = ("sword", "horse", "feast", "storm")
    corpus, queries, train, test = [], [], [], []
    for story in range(count):
        for section in reversed(range(sections)):
            key = f"story{story}#{section}"
            said = f"hero{story} went out." if section == 0 else "He went on."
            text = f"{said} There was a {matters[section]} that day. He said many words about it to them all."
            place = {"story": f"story{story}", "section": section}
            corpus.append({"_id": key, "title": "", "text": text, "metadata": place})
            queries.append({"_id": f"q{key}", "text": f"hero{story} {matters[section]}"})
            (test if story % 3 == 0 else train).append(f"q{key}\t{key}\t1")
    write(data / "fairytaleqa", corpus, queries, test=test, train=train)


def test_passages_are_put_back_into_their_documents(tmp_path: Path) -> None:
    stories(tmp_path)
    (collection,) = documents.load(tmp_path / "fairytaleqa")
    assert [document.name for document in collection.documents] == [f"story{number}" for number in range(30)]
    assert all("sword" in document.chunks[0] and "storm" in document.chunks[3] for document in collection.documents)
    assert collection.document_of.tolist() == [number // 4 for number in range(120)]
    assert (len(collection.test), len(collection.train)) == (40, 80)
    for questions in (collection.test, collection.train):
        for text, relevant in zip(questions.texts, questions.relevant, strict=True):
            hero, matter = text.split()
            (chunk,) = relevant.tolist()
            assert matter in collection.chunks[chunk]
            assert collection.documents[collection.document_of[chunk]].name == hero.replace("hero", "story")


@pytest.mark.parametrize(
    ("name", "ids", "metadatas", "wanted"),
    [
        (
            "anthropic-codebase",
            ["a", "b", "c"],
            [{"doc": "x", "index": 10}, {"doc": "y", "index": 0}, {"doc": "x", "index": 9}],
            ["ca", "b"],
        ),
        ("squadshifts-newwiki", ["0-1", "1-0", "0-0"], [{"para": 1}, {"para": 0}, {"para": 0}], ["0-00-1", "1-0"]),
        ("medquad", ["1_2-10", "1_2-9~2", "1_2-9~1", "1_3-1"], [{}] * 4, ["1_2-9~11_2-9~21_2-10", "1_3-1"]),
    ],
)
def test_each_collection_says_in_its_own_way_where_a_passage_stands(
    tmp_path: Path, name: str, ids: list[str], metadatas: list[dict[str, Any]], wanted: list[str]
) -> None:
    corpus = [
        {"_id": key, "title": key[0], "text": key, "metadata": metadata} for key, metadata in zip(ids, metadatas, strict=True)
    ]
    write(tmp_path / name, corpus, [{"_id": "q", "text": "?"}], test=[f"q\t{ids[0]}\t1"])
    (collection,) = documents.load(tmp_path / name)
    assert sorted("".join(document.chunks) for document in collection.documents) == sorted(wanted)


def test_whole_documents_are_cut_anew_and_chunks_that_hold_the_answer_are_relevant(tmp_path: Path) -> None:
    folder = tmp_path / "chunking-eval"
    sentences = [f"Sentence number {number} is about the matter {number * 7}." for number in range(60)]
    text = " ".join(sentences)
    (folder / "documents").mkdir(parents=True)
    (folder / "documents" / "b.md").write_text(text)
    (folder / "documents" / "a.md").write_text("Something else.")
    start = text.index(sentences[30])
    reference = {"start_index": start, "end_index": start + len(sentences[30]) + 1 + len(sentences[31])}
    write(folder, [], [{"_id": "q", "text": "?", "metadata": {"corpus": "b", "references": [reference]}}])
    for collection, size in zip(documents.load(folder), documents.SIZES, strict=True):
        assert collection.name == f"chunking-eval-{size}"
        assert all(len(chunk) <= size for chunk in collection.chunks)
        (relevant,) = collection.test.relevant
        held = [number for number, chunk in enumerate(collection.chunks) if sentences[30] in chunk or sentences[31] in chunk]
        assert relevant.tolist() == held


def test_unknown_collections_and_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got the collection other, wanted one whose documents are known"):
        documents.load(tmp_path / "other")
    with pytest.raises(InputError, match="got the method 'magic'"):
        situated.main(["--data", str(tmp_path), "--methods", "plain,magic"])


def test_questions_are_judged_among_all_chunks_and_in_their_document(tmp_path: Path) -> None:
    stories(tmp_path, count=15)
    (collection,) = documents.load(tmp_path / "fairytaleqa")
    bench = situated.Bench(collection, tmp_path, tmp_path / "cache")
    found = bench.judged(bench.chunks)
    scores = bench.questions @ bench.chunks.T
    for place, relevant in enumerate(collection.test.relevant):
        (chunk,) = relevant.tolist()
        own = scores[place, chunk]
        rank = int((scores[place] > own).sum() + (scores[place, :chunk] == own).sum())  # equal ones are in order
        inside = np.flatnonzero(bench.document_of == bench.document_of[chunk])
        assert found["recall@5"][place] == (rank < 5)
        assert found["nDCG@10"][place] == pytest.approx(1 / np.log2(rank + 2) if rank < 10 else 0)
        assert found["recall@5 in its document"][place] == ((scores[place, inside] > own).sum() < 5)


def test_every_method_is_measured_beside_plain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(situated, "_tokens", lambda texts: sum(len(text.split()) for text in texts))
    monkeypatch.setattr(situated, "FEWEST_COMPRESSED", 100)
    monkeypatch.setattr(situated, "CODEC", "sq8")
    stories(tmp_path)
    written = tmp_path / "figures.json"
    methods = "plain,headers,window,concatenation,shipped,unlabelled,labelled"
    arguments = ["--data", str(tmp_path), "--collections", "fairytaleqa", "--methods", methods]
    situated.main([*arguments, "--cache", str(tmp_path / "cache"), "--json", str(written)])
    figures = {(each["method"], each["setting"], each["metric"]): each["value"] for each in json.loads(written.read_text())}
    assert {method for method, _, _ in figures} == set(methods.split(",")) - {"headers"}  # there are no titles
    assert figures["plain", "exact", "vs plain"] == 0
    assert figures["window", "exact", "cost"] > 2
    assert figures["shipped", "exact", "cost"] == 1
    for method in ("unlabelled", "labelled"):
        gain = figures[method, "exact", "recall@10"] - figures["plain", "exact", "recall@10"]
        assert figures[method, "exact", "vs plain"] == pytest.approx(100 * gain)
        assert gain > 0.2  # only the first section says whose story it is
    assert "fairytaleqa: 30 documents, 120 chunks, 40 questions" in capsys.readouterr().out


@pytest.mark.usefixtures("_one_thread")
def test_fine_tuned_encoders_are_compared_with_the_one_that_reads_chunks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    pytest.importorskip("datasets", reason="fine-tuning needs the extra train")
    tiny_encoders = pytest.importorskip("support.tiny_encoders")
    from rarebit.cookbook import models
    from rarebit.cookbook.benchmarks import tuned

    encoder = tiny_encoders.encoder(folders["bert"], normalize=True)
    monkeypatch.setattr(models, "load_minilm", lambda: encoder)
    monkeypatch.setattr(tuned, "LONGER", tiny_encoders.POSITIONS)
    monkeypatch.setattr(tuned, "SETTINGS", {"batch_size": 16, "learning_rate": 1e-3, "eval_steps": 3, "save_steps": 3})
    stories(tmp_path)
    methods, written = ["plain", *situated.TUNED], tmp_path / "figures.json"
    arguments = ["--data", str(tmp_path), "--collections", "fairytaleqa", "--methods", ",".join(methods)]
    with pytest.raises(InputError, match="wanted --tuned FOLDER"):
        situated.main(arguments)
    situated.main(
        [*arguments, "--cache", str(tmp_path / "cache"), "--json", str(written), "--tuned", str(tmp_path / "encoders")]
    )
    figures = {(each["method"], each["setting"], each["metric"]): each["value"] for each in json.loads(written.read_text())}
    assert {method for method, _, _ in figures} == set(methods)
    assert figures["tuned alone", "exact", "vs tuned"] == 0
    for method in situated.TUNED:
        gain = figures[method, "exact", "recall@10"] - figures["tuned alone", "exact", "recall@10"]
        assert figures[method, "exact", "vs tuned"] == pytest.approx(100 * gain)
    assert [figures[method, "exact", "cost"] for method in ("tuned alone", "tuned twice", "tuned head")] == [1, 2, 1]
    assert figures["tuned situated", "exact", "cost"] > 2
    assert {path.name for path in (tmp_path / "encoders").iterdir()} == {"alone", "twice", "situated"}
