"""The benchmark of bulk builds, on few passages, without Ray and without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="builds need the extra parquet")
pytest.importorskip("ray", reason="workers need the extra ray")


def test_each_build_is_compared_with_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from rarebit.cli import main
    from rarebit.cookbook.benchmarks import bulk

    folder = tmp_path / "words"
    folder.mkdir()
    lines = [{"_id": str(row), "title": "", "text": f"{'word ' * 60}{row}"} for row in range(60)]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    vectors = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)
    monkeypatch.setattr(bulk, "embedded", lambda texts, cache: vectors[: len(texts)])
    asked = []

    def built(source: Path, work: Path, options: list[str], disturb: Any) -> tuple[float, dict[str, Any]]:
        """Build in this process; the last one with other codes."""
        asked.append((options[0], disturb is not None))
        here = [option for option in options if option not in {"--ray", "--workers=3"}] + ["--codec=float16"] * (
            disturb is not None
        )
        assert main(["build", str(source), "--work", str(work), "--to", f"{work}.rarebit", "--json", *here]) == 0
        return 2.0, json.loads(capsys.readouterr().out)

    monkeypatch.setattr(bulk, "_built", built)
    command = ["--data", str(tmp_path), "--collections", "words", "--rows", "60", "--embed", "0", "--workers", "3"]
    assert bulk.main([*command, "--json", str(tmp_path / "figures.json")]) == 0
    assert asked == [("--vector-column=vector", False), ("--ray", False), ("--ray", True)]
    figures = {(each["method"], each["metric"]): each["value"] for each in json.loads((tmp_path / "figures.json").read_text())}
    assert figures["in one process", "rows_per_s"] == 30
    assert [figures[method, "same"] for method in ("in one process", "3 workers", "3 workers, one killed")] == [1, 1, 0]
    assert "3 workers, one killed" in capsys.readouterr().out
