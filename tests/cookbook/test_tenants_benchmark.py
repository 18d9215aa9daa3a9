from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rarebit.cookbook.benchmarks import embedded, tenants


def test_rows_are_dealt_out_in_mixed_sizes_each_once() -> None:
    vectors = np.eye(500, dtype=np.float32)
    dealt = tenants.Dealt.of(vectors, ["text"] * 500, vectors[:5], 40)
    assert dealt.sizes.sum() == 500
    assert dealt.sizes.min() >= 1
    assert dealt.sizes.max() > 50
    assert sorted(place for tenant in range(40) for place in range(500)[dealt.rows(tenant)]) == list(range(500))


def test_every_class_is_compared_with_collections_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(list(text.encode())).standard_normal(32) for text in texts]).astype(np.float32)

    monkeypatch.setattr(embedded, "load_encoder", lambda: encode)
    folder = tmp_path / "data" / "c"
    folder.mkdir(parents=True)
    lines = [json.dumps({"_id": str(n), "text": f"Passage number {n}, which says this and that."}) for n in range(900)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    written = tmp_path / "figures.json"
    arguments = ["--data", str(tmp_path / "data"), "--collections", "c", "--rows", "880", "--tenants", "30", "--queries", "20"]
    assert tenants.main([*arguments, "--cache", str(tmp_path / "cache"), "--json", str(written)]) == 0
    figures = json.loads(written.read_text())
    settings = {figure["setting"] for figure in figures if figure["metric"] == "ratio"}
    assert len(settings) >= 2
    assert {figure["value"] for figure in figures if figure["metric"] == "foreign"} == {0}
    assert min(figure["value"] for figure in figures if figure["metric"] == "recall@10") > 0.9
    own = [figure for figure in figures if figure["method"] == tenants.SHARED and figure["metric"] == "ratio"]
    assert {figure["value"] for figure in own} == {1}
