from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rarebit.cookbook.benchmarks import embedded, figures, index
from rarebit.errors import InputError

COLUMNS = ["benchmark", "collection", "method", "setting", "metric", "value", "low", "high", "n"]
TEXTS = [f"Passage number {number}: {'the kettle is on, ' * (5 + number % 7)}and so on." for number in range(60)]


class FakeEncoder:
    """Gives each text a direction of its own; fails at a call if it is told to."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.texts: list[str] = []
        self.calls = 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.texts += texts
        return np.stack([np.random.default_rng(list(text.encode())).standard_normal(32) for text in texts]).astype(np.float32)


Use = Callable[[FakeEncoder], FakeEncoder]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    def use(encoder: FakeEncoder) -> FakeEncoder:
        monkeypatch.setattr(embedded, "load_encoder", lambda: encoder)
        return encoder

    return use


def write_corpus(folder: Path, texts: list[str], *, packed: bool = False) -> Path:
    folder.mkdir(parents=True)
    records = [{"_id": f"p-{number}", "title": "T", "text": text} for number, text in enumerate(texts)]
    records[0]["metadata"] = {"page": 1}
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    (folder / ("corpus.jsonl.gz" if packed else "corpus.jsonl")).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_corpus_is_read_plain_and_packed(tmp_path: Path, packed: bool) -> None:
    passages = list(embedded.read_corpus(write_corpus(tmp_path / "c", TEXTS, packed=packed)))
    assert [passage.text for passage in passages] == TEXTS
    assert passages[0] == embedded.Passage("p-0", "T", TEXTS[0], {"page": 1})
    assert passages[1].metadata == {}


def test_a_folder_without_a_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check --data"):
        list(embedded.read_corpus(tmp_path))


def test_passages_are_chosen_in_a_seeded_order_each_text_once() -> None:
    texts = ["short", *TEXTS, *TEXTS]
    passages = [embedded.Passage(str(number), "", text) for number, text in enumerate(texts)]
    drawn = embedded.chosen(passages, 1000, shortest=10)
    assert sorted(passage.text for passage in drawn) == sorted(TEXTS)
    assert embedded.chosen(passages, 7, shortest=10) == drawn[:7]
    assert embedded.chosen(passages, 7, shortest=10, seed=1) != drawn[:7]


def test_embeddings_are_kept_in_the_order_of_the_texts(tmp_path: Path, use: Use) -> None:
    encoder = use(FakeEncoder())
    first = embedded.embedded(TEXTS, tmp_path, block=16)
    expected = FakeEncoder()(TEXTS)
    np.testing.assert_allclose(first, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)
    assert sorted(encoder.texts) == sorted(TEXTS)
    again = use(FakeEncoder())
    np.testing.assert_array_equal(embedded.embedded(TEXTS, tmp_path), first)
    assert again.calls == 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
    embedded.embedded([*TEXTS[:-1], "another"], tmp_path)
    assert again.calls > 0


def test_a_killed_embedding_goes_on_where_it_was(tmp_path: Path, use: Use) -> None:
    killed = use(FakeEncoder(fails_at=3))
    with pytest.raises(KeyboardInterrupt):
        embedded.embedded(TEXTS, tmp_path / "killed", block=16)
    resumed = use(FakeEncoder())
    vectors = embedded.embedded(TEXTS, tmp_path / "killed", block=16)
    assert len(killed.texts) == 32
    assert sorted(killed.texts + resumed.texts) == sorted(TEXTS)
    use(FakeEncoder())
    np.testing.assert_array_equal(vectors, embedded.embedded(TEXTS, tmp_path / "whole"))


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert embedded.default_cache() == tmp_path / "rarebit" / "benchmarks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded.default_cache() == Path.home() / ".cache" / "rarebit" / "benchmarks"


def test_the_bootstrap_is_seeded_and_has_the_width_of_the_standard_error() -> None:
    sample = np.random.default_rng(0).standard_normal(400)
    low, high = figures.bootstrap(sample)
    assert figures.bootstrap(sample) == (low, high)
    assert low < sample.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * sample.std() / 20, rel=0.1)
    assert figures.bootstrap(sample, seed=1) != (low, high)


def test_the_bootstrap_of_what_never_varies_is_a_point() -> None:
    assert figures.bootstrap(np.ones(5)) == (1.0, 1.0)
    assert figures.bootstrap(np.array([3.0]), figures.p95) == (3.0, 3.0)


def test_a_table_has_a_line_for_each_method_and_intervals_where_wanted() -> None:
    about = figures.Subject("b", "c").of("m", "s")
    rows = [
        about.sampled("recall", np.array([0.5, 1.0])),
        about.counted("rows", 12345.0, 12345),
        about.of("other").counted("rows", 7.0, 7),
    ]
    lines = figures.table(rows, ["recall"]).splitlines()
    assert lines[0].split() == ["method", "setting", "recall", "rows"]
    assert lines[2].split() == ["m", "s", "0.75", "[0.5,", "1]", "12,345"]
    assert lines[3].split() == ["other", "s", "7"]


def test_recall_counts_the_best_rows_and_accepts_ties() -> None:
    vectors = np.eye(16, dtype=np.float32)
    data = index.Data([embedded.Passage(str(number), "", "") for number in range(16)], vectors, 16)
    query = np.linspace(1, 0.25, 16, dtype=np.float32)
    assert data.recall(query, np.arange(10)) == 1.0
    assert data.recall(query, np.arange(5, 15)) == 0.5
    assert data.recall(query, np.zeros(10, dtype=np.int64)) == 0.1
    assert data.recall(query, np.array([12, 14]), among=np.array([12, 14])) == 1.0
    assert data.recall(query, np.array([1, 14]), among=np.array([12, 14])) == 0.5
    query[10] = query[9]
    assert data.recall(query, np.array([*range(9), 10])) == 1.0


def test_the_benchmark_runs(tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "data" / "tiny", TEXTS, packed=True)
    encoder = use(FakeEncoder())
    arguments = ["--data", str(tmp_path / "data"), "--collections", "tiny", "--quick"]
    arguments += ["--json", str(tmp_path / "out" / "figures.json"), "--cache", str(tmp_path / "cache")]
    assert index.main(arguments) == 0
    assert len(encoder.texts) == len(TEXTS)
    rows = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert all(list(row) == COLUMNS for row in rows)
    keys = [(row["method"], row["setting"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    found = {(method, metric): row["value"] for (method, _, metric), row in zip(keys, rows, strict=True)}
    recalls = {method: value for (method, metric), value in found.items() if metric == "recall@10"}
    assert {"faiss IndexFlatIP", "rarebit", "rarebit via LangChain", "rarebit via LlamaIndex"} < set(recalls)
    assert recalls["faiss IndexFlatIP"] == recalls["rarebit, exact"] == 1.0
    assert recalls["rarebit"] == 1.0  # too few rows to train: exact
    assert found["faiss IndexFlatIP", "ratio_to_flat"] == 1.0
    assert found["rarebit", "complete"] == 1.0
    printed = capsys.readouterr().out
    assert "tiny has only 60 such passages" in printed
    assert "54 rows, 6 queries" in printed
    again = use(FakeEncoder())
    assert index.main(arguments) == 0
    assert again.calls == 0


@pytest.mark.models
def test_minilm_embeds(tmp_path: Path) -> None:
    near, also_near, far = embedded.embedded(["The kettle boils.", "Water boils in a kettle.", "Stock prices fell."], tmp_path)
    assert np.linalg.norm(near) == pytest.approx(1, abs=1e-5)
    assert near @ also_near > near @ far + 0.3
