"""What it costs to read a prompt: floating-point operations of the prefill, by formula."""

from __future__ import annotations

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D


def prefill_flops(model: Any, tokens: int) -> int:
    """Count the operations with which a causal language model reads a prompt, up to the first new token's scores.

    Two for each weight of a matrix and token, and what attention does with the square of the length; the output layer is
    counted for the last token, where alone it is needed. As PyTorch's counter counts, so without norms and activations.

    Args:
        model: a causal language model of Hugging Face.
        tokens: of the prompt.
    """
    head = model.get_output_embeddings()
    layers = [layer for layer in model.modules() if layer is not head]
    weights = sum(layer.in_features * layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear))
    weights += sum(layer.nx * layer.nf for layer in layers if isinstance(layer, Conv1D))
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * width * tokens**2
    return int(2 * weights * tokens + attention + 2 * config.vocab_size * config.hidden_size)
