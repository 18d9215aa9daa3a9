"""SelfExtend: attention by groups is what the model itself computes when every token is put where a query sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="longer windows need the extra models")
import torch
from support.tiny_positions import READS, ROTARY, Tiny, text

from rarebit.retrievers.situating import extend_context, self_extend
from rarebit.retrievers.situating.self_extend import SETTINGS, SUPPORTED, Grouping

pytestmark = pytest.mark.usefixtures("_one_thread")

CLOSE = 2e-5
LONGER = 61


def seen_distance(grouping: Grouping, query: int, key: int) -> int:
    """Write the paper's rule once more, for one pair of tokens and with the sides apart."""
    if abs(query - key) < grouping.neighbours:
        return query - key
    moved = grouping.neighbours - grouping.neighbours // grouping.group
    apart = abs(query // grouping.group - key // grouping.group) + moved
    return apart if query > key else -apart


def query_by_query(model: Any, ids: torch.Tensor, grouping: Grouping) -> np.ndarray:
    """Encode a text once for each of its tokens: with plain attention, and the others as far away as that one sees them."""
    count, states = ids.shape[1], []
    for query in range(count):
        positions = [READS - seen_distance(grouping, query, key) for key in range(count)]
        with torch.no_grad():
            found = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=torch.tensor([positions])
            ).last_hidden_state
        states.append(found[0, query].numpy())
    return np.array(states)


def test_every_kind_that_is_supported_is_tested() -> None:
    assert SUPPORTED == ROTARY


@pytest.mark.parametrize("kind", ROTARY)
def test_one_layer_by_its_own_attention_at_other_positions(tiny: Tiny, kind: str) -> None:
    encoder = tiny(kind, layers=1)
    longer = extend_context(encoder, LONGER, method="self_extend")
    grouping = Grouping(**getattr(longer[0].auto_model.config, SETTINGS))
    assert grouping == Grouping(READS, 5, 3)
    for tokens in (READS + 1, 40, LONGER):
        ids = encoder.tokenizer(text(tokens), return_tensors="pt", verbose=False)["input_ids"]
        assert ids.shape == (1, tokens)
        wanted = query_by_query(encoder[0].auto_model, ids, grouping)
        with torch.no_grad():
            alone = longer[0].auto_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        assert np.allclose(alone.numpy(), wanted, atol=CLOSE)
        beside = longer.encode([text(tokens), text(LONGER, 1), text(5, 2)], output_value="token_embeddings")[0]
        assert np.allclose(beside, wanted, atol=CLOSE)
        plain = encoder[0].auto_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        assert not np.allclose(plain.detach(), wanted, atol=1e-3), "what is grouped differs from plain attention"


@pytest.mark.parametrize("kind", ROTARY)
def test_neighbours_alone_are_plain_attention(tiny: Tiny, kind: str) -> None:
    encoder = tiny(kind)
    longer = extend_context(encoder, LONGER, method="self_extend")
    longer[0].group(Grouping(READS, 7, LONGER))
    encoder.max_seq_length = LONGER
    texts = [text(LONGER), text(30, 1), text(READS, 2)]
    assert np.allclose(longer.encode(texts), encoder.encode(texts), atol=CLOSE)


@pytest.mark.parametrize("kind", ["qwen3", "nomic_bert"])
def test_blocks_of_queries_change_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    longer = extend_context(tiny(kind), LONGER, method="self_extend")
    texts = [text(LONGER), text(30, 1), text(4, 2)]
    wanted = longer.encode(texts)
    for block in (1, 7, LONGER):
        monkeypatch.setattr(self_extend, "BLOCK", block)
        assert np.allclose(longer.encode(texts), wanted, atol=CLOSE)


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_padding_on_the_left_moves_no_group(tiny: Tiny, kind: str) -> None:
    longer, other = (extend_context(tiny(kind, side=side), LONGER, method="self_extend") for side in ("right", "left"))
    texts = [text(LONGER), *(text(READS + more, more) for more in range(1, 9)), text(6, 9)]
    alone = np.array([longer.encode(each) for each in texts])
    assert np.allclose(longer.encode(texts), alone, atol=CLOSE)
    assert np.allclose(other.encode(texts), alone, atol=CLOSE)


def test_a_layer_with_a_sliding_window_keeps_its_attention(tiny: Tiny) -> None:
    encoder = tiny("mistral", sliding_window=6)
    longer = extend_context(encoder, LONGER, method="self_extend")
    encoder.max_seq_length = LONGER
    assert np.allclose(longer.encode(text(LONGER)), encoder.encode(text(LONGER)), atol=CLOSE)


@pytest.mark.parametrize(
    ("trained", "length"), [(512, 4096), (4096, 32768), (512, 8192), (16, 17), (16, 61), (100, 250), (8, 640)]
)
def test_no_distance_is_larger_than_those_of_training(trained: int, length: int) -> None:
    grouping = Grouping.for_length(trained, length)
    largest = max(seen_distance(grouping, length - 1, key) for key in range(length))
    assert largest <= trained - 1
    more = Grouping(trained, grouping.group, grouping.neighbours + 1)
    assert max(seen_distance(more, length - 1, key) for key in range(length)) > trained - 1, "as many neighbours as fit"


def test_groups_are_those_of_the_papers_experiments() -> None:
    """LongEmbed groups by 9 with 512 neighbours to read 32,768 for 4,096, and by 17 with 32 to read 8,192 for 512."""
    for trained, length, group, neighbours in ((4096, 32768, 9, 512), (512, 8192, 17, 32)):
        grouping = Grouping.for_length(trained, length)
        assert grouping.group == group
        assert abs(grouping.neighbours - neighbours) <= 2


def test_half_precision_stays_near(tiny: Tiny) -> None:
    longer = extend_context(tiny("qwen3"), LONGER, method="self_extend")
    texts = [text(LONGER), text(9, 1)]
    wanted = longer.encode(texts)
    assert np.allclose(longer.to(torch.bfloat16).encode(texts, convert_to_tensor=True).float(), wanted, atol=0.1)
