"""The table of costs: read from figures, multiplied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rarebit.cookbook.benchmarks import scaling


def rows(method: str, setting: str, **metrics: float) -> list[dict[str, Any]]:
    return [{"method": method, "setting": setting, "metric": metric, "value": value} for metric, value in metrics.items()]


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    times = {"recall@10": 0.99, "p50_ms": 2.0}
    stores = [
        *rows("rarebit via LangChain", "50,000 rows", memory=1.0, disk=1.0, **times),
        *rows("rarebit via LangChain", "1,000,000 rows, 800,000 of them mixed", memory=100.0, disk=1000.0, **times),
        *rows("rarebit via LangChain", "1,000,000 rows, 1 %", p50_ms=9.0),
    ]
    engines = rows("on a server", "200,000 rows", index=400.0, tables=1200.0, **{"other indexes": 400.0}, **times)
    (tmp_path / "stores.json").write_text(json.dumps(stores), encoding="utf-8")
    (tmp_path / "engines.json").write_text(json.dumps(engines), encoding="utf-8")
    return tmp_path


def test_bytes_are_those_of_the_largest_measured_collection(figures: Path) -> None:
    file, server = scaling.measured(figures)
    assert (file.rows, file.memory, file.disk) == (1_000_000, 100, 1000)
    assert (server.name, server.rows, server.memory, server.disk) == ("on a server", 200_000, 400, 2000)


def test_costs(figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--memory-price", "2", "--disk-price", "0.5", "--machine-memory", "64"]
    assert scaling.main(["--figures", str(figures), *prices]) == 0
    printed = capsys.readouterr().out
    # 10^9 x 400 / 2^30 = 372.5 GiB in 48 of each machine's 64; 10^9 x 2000 / 2^30 = 1863 GiB on disk; 745 + 931 dollars.
    assert "| on a server | 372.5 GiB | 1,863 GiB | 8 | 1,676 |" in printed
    assert printed.count("not a plan") == 3
    assert "10,000,000 x 100 bytes / 2^30 = 0.9 GiB" in printed


def test_what_was_not_measured_is_left_out(figures: Path) -> None:
    (figures / "engines.json").unlink()
    assert [each.name for each in scaling.measured(figures)] == ["Rarebit in a file"]
