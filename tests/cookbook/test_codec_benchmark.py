"""The codec benchmark: what it reads, how it judges, and that a killed run goes on; with a fake encoder."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rarebit.cookbook.benchmarks import codecs, embedded, judged, plots
from rarebit.cookbook.benchmarks.codec_methods import FaissIndex, our_entries
from rarebit.cookbook.benchmarks.codec_rivals import FLAT, rival_entries
from rarebit.cookbook.benchmarks.figures import Figure
from rarebit.errors import InputError

DIM = 32
WORDS = ["kettle", "parrot", "river", "engine", "garden", "letter", "window", "candle"]


def fake_encoder(texts: list[str]) -> np.ndarray:
    """Give texts with the same first word vectors that are near each other."""
    rows = []
    for text in texts:
        topic = np.random.default_rng(list(text.split()[0].encode())).standard_normal(DIM)
        rows.append(topic + 0.7 * np.random.default_rng(list(text.encode())).standard_normal(DIM))
    return np.array(rows, dtype=np.float32)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out one collection with judgements and one without."""
    monkeypatch.setattr(embedded, "load_encoder", lambda: fake_encoder)
    for name in ("judged", "plain"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        passages = [f"{WORDS[number % 8]} {number} is what this passage of some length tells about" for number in range(400)]
        records = [{"_id": f"d{number}", "title": "", "text": text} for number, text in enumerate(passages)]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    folder = tmp_path / "data" / "judged"
    queries = [{"_id": f"q{number}", "text": f"{WORDS[number % 8]} {number}?"} for number in range(30)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "qrels").mkdir()
    for split, numbers in (("test", range(12)), ("train", range(10, 30))):
        lines = [f"q{number}\td{place}\t{1 + (place == number)}" for number in numbers for place in (number, number + 8, 9999)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\nq0\td5\t0\n")
    return tmp_path / "data"


def run(data: Path, *more: str) -> list[dict[str, object]]:
    """Run the benchmark, and give the figures that it wrote."""
    target = data.parent / "figures.json"
    arguments = ["--data", str(data), "--cache", str(data.parent / "cache"), "--json", str(target), *more]
    assert codecs.main(arguments) == 0
    rows: list[dict[str, object]] = json.loads(target.read_text())
    return rows


FEW = ("--collections", "judged,plain", "--sizes", "8", "--methods", "variance,pq,faiss IndexFlatIP,faiss PQ fast scan")


def test_every_method_is_measured_beside_exact_search(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(data, *FEW)
    values = {(row["collection"], row["method"], row["metric"]): row["value"] for row in rows}
    assert {row["method"] for row in rows} == {FLAT, "rarebit variance", "rarebit pq", "faiss PQ fast scan"}
    for collection in ("judged", "plain"):
        assert values[collection, FLAT, "recall@10"] == 1
        assert values[collection, FLAT, "bytes"] == 4 * DIM
        for method in ("rarebit variance", "rarebit pq", "faiss PQ fast scan"):
            assert values[collection, method, "bytes"] == 8
            assert 0.2 < values[collection, method, "recall@10"] < 1
            assert values[collection, method, "recall@10, re-ranked"] > values[collection, method, "recall@10"]
            assert values[collection, method, "ratio_to_flat"] > 0
    assert values["judged", FLAT, "ndcg@10_share"] == 1
    assert 0 < values["judged", "rarebit pq", "ndcg@10"] <= 1
    assert ("plain", "rarebit pq", "ndcg@10") not in values
    out = capsys.readouterr().out
    assert "judged: 400 documents, 12 queries" in out
    assert "plain: 360 documents, 40 queries" in out
    assert not list(data.parent.glob("*.part"))


def test_a_killed_run_goes_on_behind_what_is_finished(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: Counter[str] = Counter()
    measure = codecs.measure

    def counted(judge: judged.Judge, method: object, about: codecs.Subject) -> Iterator[Figure]:
        measured[f"{about.collection} {about.method}"] += 1
        if sum(measured.values()) == 6:
            raise KeyboardInterrupt
        return measure(judge, method, about)  # type: ignore[arg-type]

    monkeypatch.setattr(codecs, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(data, *FEW)
    part = data.parent / "figures.json.part"
    part.write_text(part.read_text() + '[{"benchmark": "cut o')  # and the file system lost half a line
    rows = run(data, *FEW)
    assert len(measured) == 8
    assert sum(measured.values()) == 9, "one was begun twice"
    assert len({(row["collection"], row["method"]) for row in rows}) == 8
    part.write_text(json.dumps({"benchmark": "other"}) + "\n")
    with pytest.raises(InputError, match="another kind of run"):
        run(data, *FEW)


def test_what_cannot_be_is_left_out_with_a_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(data, "--collections", "judged", "--sizes", "24", "--methods", "pq,variance")
    assert {row["method"] for row in rows} == {"rarebit variance"}
    assert "left out: rarebit pq, 24 bytes: got vectors of 32 dimensions" in capsys.readouterr().out


def test_the_ablation_takes_parts_away(data: Path) -> None:
    rows = run(data, "--ablation", "--collections", "judged", "--sizes", "8", "--methods", "trellis")
    values = {row["method"]: row["value"] for row in rows if row["metric"] == "recall@10"}
    assert set(values) >= {"trellis", "trellis: no factor", "trellis: nothing carried over", "trellis: weight 0"}
    assert {row["value"] for row in rows if row["metric"] == "bytes"} == {8}
    assert {row["benchmark"] for row in rows} == {codecs.ABLATION}
    assert values["trellis"] > values["trellis: nothing carried over"]


def test_names_and_settings_are_unique() -> None:
    entries = [*our_entries(384, codecs.SIZES), *rival_entries(384, codecs.SIZES)]
    assert len({(entry.name, entry.setting) for entry in entries}) == len(entries)


def test_quick_keeps_the_relevant_documents(data: Path) -> None:
    small = judged.load(data / "judged", data.parent / "cache", judged.Limits(40, 5, quick=True))
    assert (len(small.docs), len(small.queries)) == (40, 5)
    assert small.gains is not None
    assert [sorted(gains.values()) for gains in small.gains] == [[1.0, 2.0]] * 5


def test_train_queries_are_no_test_queries(data: Path) -> None:
    whole = judged.load(data / "judged", data.parent / "cache", judged.Limits())
    assert (len(whole.queries), len(whole.train_queries)) == (12, 18)
    similar = whole.train_queries @ whole.queries.T
    assert similar.max() < 0.9999


def test_a_collection_whose_judgements_name_nothing_is_refused(data: Path) -> None:
    (data / "judged" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tnowhere\t1\n")
    with pytest.raises(InputError, match="check --data"):
        judged.load(data / "judged", data.parent / "cache", judged.Limits())


def test_ndcg_discounts_by_the_logarithm_of_the_place() -> None:
    places = np.array([[7, 3, 5, -1], [1, 2, 3, 4]])
    found = judged.ndcg(places, [{3: 2.0, 9: 1.0}, {8: 1.0}], k=4)
    assert found[0] == pytest.approx((2 / math.log2(3)) / (2 + 1 / math.log2(3)))
    assert found[1] == 0
    pairs = np.array([[0.5, 1.0], [0.25, 0.5]])
    assert judged.share(pairs) == pytest.approx(0.5)
    assert judged.share(np.zeros((3, 2))) == 1


def test_ties_count_and_fewer_documents_than_wanted_are_no_loss() -> None:
    docs = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    queries = np.eye(4, dtype=np.float32)[:1]
    judge = judged.Judge(judged.Judged("c", docs, queries, None, queries[:0]))
    first = np.full((1, 100), -1)
    first[0, :4] = [1, 0, 3, 2]
    assert judge.recall(first, 10)[0] == 1
    first[0, 0] = -1
    assert judge.recall(first, 10)[0] == 0.75
    assert judge.re_ranked(np.array([[2, 3, 1, -1]])).tolist() == [[1, 2, 3, -1]]


def figure(collection: str, method: str, setting: str, metric: str, value: float) -> Figure:
    return Figure("codecs", collection, method, setting, metric, value, None, None, 1)


def test_a_line_is_the_mean_over_collections_that_all_have() -> None:
    figures = [
        figure(collection, method, setting, metric, value)
        for collection, recall in (("a", 0.5), ("b", 0.7))
        for method, setting, size in (("rarebit x", "8 bytes", 8.0), ("rarebit x", "4 bytes", 4.0), ("y", "1 bit", 6.0))
        for metric, value in (("bytes", size), ("recall@10", recall))
        if not (collection == "b" and method == "y")
    ]
    assert plots.lines(figures, "recall@10") == {"rarebit x": [(4.0, pytest.approx(0.6)), (8.0, pytest.approx(0.6))]}


def test_a_faiss_index_is_a_method() -> None:
    import faiss

    docs = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    method = FaissIndex(faiss.IndexFlatIP(8), 32)
    method.train(docs)
    method.fill(docs)
    assert method.code_size == 32
    assert np.array_equal(method.search(docs[:3], 4), np.argsort(-(docs[:3] @ docs.T), axis=1)[:, :4])
