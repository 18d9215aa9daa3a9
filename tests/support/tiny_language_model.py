"""A causal language model with random weights that reads chats: small enough for any test, with logits far apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.generator import OneTokenGenerator
from rarebit.compressors.context.passages import Passages
from support.tiny_encoders import WORDS

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
HIDDEN = 32
POSITIONS = 256
DIM = 12

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('no such role') }}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer as SmolLM2 has one: bytes, spaces part of the next word, turns between special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=[START, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS), "system user assistant Background Question the answer"] * 3, trainer)
    names = {"pad_token": PAD, "eos_token": END, "bos_token": START, "padding_side": "left"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=TEMPLATE, clean_up_tokenization_spaces=False, **names
    )


def _shape() -> dict[str, Any]:
    tokenizer = chat_tokenizer()
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def language_model(seed: int = 0) -> LlamaForCausalLM:
    """Make the model of :func:`chat_tokenizer`, new each time."""
    config = LlamaConfig(**_shape(), initializer_range=0.3, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def scaling_model(seed: int = 0) -> Gemma3ForCausalLM:
    """Make one whose module of input embeddings multiplies what its weight holds, with layers that look back a little way."""
    config = Gemma3TextConfig(
        **_shape(),
        head_dim=8,
        query_pre_attn_scalar=8,
        initializer_range=0.3,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Gemma3ForCausalLM(config).eval()


def bridge(tokens: int = 1, seed: int = 1, dim: int = DIM, **settings: Any) -> ModalityBridge:
    """Make a bridge to the model with random weights, whose embeddings are as long as the model's own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = ModalityBridge(BridgeConfig(dim, HIDDEN, tokens, **settings))
        for weight in made.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        return made.requires_grad_(requires_grad=False).eval()


def embed(texts: Sequence[str]) -> np.ndarray:
    """Give any text a direction of its own."""
    seeds = [int.from_bytes(sha256(text.encode()).digest()[:4], "big") for text in texts]
    vectors = np.stack([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class CountingEmbed:
    """Embeds, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return embed(texts)


def sentence(seed: int, words: int = 12) -> str:
    """Make a text of words that the tokenizer knows."""
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(WORDS, size=words))


def generator(tokens: int = 1, seed: int = 0, model: Any = None, **settings: Any) -> OneTokenGenerator:
    """Make a generator of all this, with passages in no store."""
    passages = Passages(embed=embed, secret=b"x" * 32, **settings)
    return OneTokenGenerator(model or language_model(seed), chat_tokenizer(), bridge(tokens), passages)


def ending(given: OneTokenGenerator, prompts: Sequence[str], steps: int) -> tuple[int, int]:
    """Let the model end its answers at a token that it comes to in the first prompt, and never in others.

    Returns:
        The token, and how many there are up to it.
    """
    written, *others = [naive_tokens(given, prompt, steps) for prompt in prompts]
    seen = {token for other in others for token in other}
    place = next(place for place, token in enumerate(written) if place and token not in {*seen, *written[:place]})
    given.model.generation_config.eos_token_id = [written[place]]
    return written[place], place + 1


def naive_tokens(given: OneTokenGenerator, prompt: str, steps: int) -> list[int]:
    """Write the likeliest tokens, one full forward pass each, without cache or padding."""
    read = naive_embeddings(given, prompt)
    written: list[int] = []
    table = given.model.get_input_embeddings()
    with torch.no_grad():
        for _ in range(steps):
            logits = given.model(inputs_embeds=torch.cat([read, table(torch.tensor(written).long())])[None]).logits
            written.append(int(logits[0, -1].argmax()))
    return written


def naive_embeddings(given: OneTokenGenerator, prompt: str) -> torch.Tensor:
    """Embed a user's message by hand: the template written out, references looked for one after the other."""
    assert given.passages is not None
    assert given.bridge is not None
    table = given.model.get_input_embeddings()
    parts: list[Any] = [f"{START}user\n", *given.passages.read(prompt), f"{END}\n{START}assistant\n"]
    rows = []
    with torch.no_grad():
        for place, part in enumerate(parts):
            if isinstance(part, str):
                special = place in {0, len(parts) - 1}
                ids = given.tokenizer(part, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
                rows += [table(torch.tensor(token)) for token in ids]
            else:
                for vector in given.passages.resolve([part])[0].vectors:
                    rows += given.bridge(torch.from_numpy(vector)[None])[0].unbind()
    return torch.stack(rows)
