"""Where training begins: at embeddings that lie where those of telling tokens do."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.tiny_language_model import HIDDEN, chat_tokenizer

from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.prompts import token_ids
from rarebit.compressors.context.warm_start import LETTERS, warm_start

COUNT, DIM = 6, 16


def telling_tokens() -> list[int]:
    """Give tokens that are words, or long pieces of such."""
    tokenizer = chat_tokenizer()
    special = set(tokenizer.all_special_ids)
    return [token for token in range(len(tokenizer)) if token not in special and len(tokenizer.decode([token]).strip()) >= 4]


def words(number: int) -> list[int]:
    return telling_tokens()[2 * number : 2 * number + 2]


def passages(beside: list[int]) -> list[list[int]]:
    """Make passages of two words each, every one of them twice."""
    return [words(number) + beside for number in range(COUNT)] * 2


def vectors() -> torch.Tensor:
    """Give each passage a direction of its own."""
    return torch.eye(DIM)[:COUNT].repeat(2, 1)


def begun(given: list[list[int]], table: torch.nn.Embedding, tokens: int = 1) -> torch.Tensor:
    torch.manual_seed(0)
    bridge = ModalityBridge(BridgeConfig(DIM, HIDDEN, tokens, hidden=64, input_length=4.0))
    warm_start(bridge, table, chat_tokenizer(), given, vectors())
    return bridge(vectors()[:COUNT]).detach()


@pytest.fixture
def table() -> torch.nn.Embedding:
    torch.manual_seed(1)
    return torch.nn.Embedding(len(chat_tokenizer()), HIDDEN)


def test_a_passage_lies_where_its_telling_tokens_do(table: torch.nn.Embedding) -> None:
    found = begun(passages([]), table)[:, 0]
    used = sorted({token for own in passages([]) for token in own})
    centre = table.weight[used].mean(0)
    usual = (table.weight[used] - centre).norm(dim=-1).median()
    told = torch.stack([table.weight[words(number)].mean(0) for number in range(COUNT)]) - centre
    cosines = torch.nn.functional.cosine_similarity((found - centre)[:, None], told[None], dim=-1)
    assert cosines.argmax(1).tolist() == list(range(COUNT))
    assert cosines.diagonal().min() > 0.95
    assert ((found - centre).norm(dim=-1) / usual).tolist() == pytest.approx([1.0] * COUNT, abs=0.15)


def test_marks_and_short_pieces_give_no_direction(table: torch.nn.Embedding) -> None:
    short = token_ids(chat_tokenizer(), ", . a !")
    assert max(len(chat_tokenizer().decode([token]).strip()) for token in short) < LETTERS
    alone, beside = begun(passages([]), table), begun(passages(short[:1]), table)
    centres = [alone.mean(0), beside.mean(0)]  # that of tokens in use moves, the directions do not
    cosines = torch.nn.functional.cosine_similarity(alone - centres[0], beside - centres[1], dim=-1)
    assert cosines.min() > 0.98


def test_tokens_that_are_not_in_use_do_not_matter(table: torch.nn.Embedding) -> None:
    seen_once = telling_tokens()[-1]
    given = passages([])
    given[0] = [*given[0], seen_once]
    before = begun(passages([]), table)
    with torch.no_grad():
        table.weight[seen_once] = 1e4
        table.weight[telling_tokens()[-2]] = -1e4
    torch.testing.assert_close(begun(given, table), before)


def test_each_part_of_a_passage_has_its_own(table: torch.nn.Embedding) -> None:
    found = begun(passages([]), table, tokens=2)
    used = sorted({token for own in passages([]) for token in own})
    told = torch.stack([table.weight[words(number)] for number in range(COUNT)]) - table.weight[used].mean(0)
    cosines = torch.nn.functional.cosine_similarity(found - table.weight[used].mean(0), told, dim=-1)
    assert cosines.min() > 0.9


@pytest.mark.parametrize("tokens", [1, 3])
def test_passages_without_a_telling_token_begin_at_the_centre(table: torch.nn.Embedding, tokens: int) -> None:
    assert torch.isfinite(begun([[] for _ in range(2 * COUNT)], table, tokens)).all()
