"""Operations by formula are those that torch counts."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.tiny_language_model import language_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rarebit.compressors.context.costs import prefill_flops

SHAPE: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def counted(model: Any, tokens: int) -> int:
    """Let torch count a prefill; what is read as embeddings and as tokens takes the same.

    Attention is counted in full, as the formula has it, though half of it is masked; and the output layer runs for the last
    token alone, as ``generate`` lets it. torch does not count what its fused attention for CPUs does, so that is left out here.
    """
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.zeros(1, tokens, model.config.hidden_size), logits_to_keep=1, use_cache=True)
    return counter.get_total_flops()


@pytest.mark.parametrize("tokens", [1, 2, 17, 200])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_formula_counts_as_torch_does(tokens: int, attention: str) -> None:
    model = language_model()
    model.set_attn_implementation(attention)
    assert prefill_flops(model, tokens) == pytest.approx(counted(model, tokens), rel=0.01)


@pytest.mark.parametrize(
    "model",
    [
        LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=1, tie_word_embeddings=True)),
        LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=4, attention_bias=True)),
        Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)),
    ],
    ids=["tied", "biased", "wide heads"],
)
def test_so_it_does_for_other_shapes(model: Any) -> None:
    for tokens in (3, 120):
        assert prefill_flops(model.eval(), tokens) == pytest.approx(counted(model, tokens), rel=0.01)
