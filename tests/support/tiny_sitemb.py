"""Adapters of the layout that SitEmb v1.5 is published in, on a tiny causal model with random weights."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from rarebit.retrievers.situating import block_contexts
from support.tiny_encoders import WORDS

END = "<|endoftext|>"
HIDDEN = 32
POSITIONS = 128

SETTINGS: dict[str, Any] = {"instruction": "Around it:\n", "query_instruction": "Instruct: find\nQuery: ", "block": 3}
QUERIES = ["bab?", "dong teck", "fab gull lidge", ""]

PUBLISHED = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "base_model_name_or_path": "Qwen/Qwen3-Embedding-8B",
    "bias": "none",
    "corda_config": None,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 128,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 64,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["v_proj", "o_proj", "k_proj", "q_proj"],
    "task_type": "FEATURE_EXTRACTION",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_rslora": False,
}
"""What the published adapters' configurations hold, written by an older peft than that of the tests."""


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer as Qwen3-Embedding has one: bytes, padded on the left with the end token, which ends every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    ends = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), ends])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=END, eos_token=END, padding_side="left")


def base(folder: Path, *, seed: int = 0, hidden: int = HIDDEN) -> Path:
    """Write a causal Qwen3 and its tokenizer into a folder."""
    own = tokenizer()
    config = Qwen3Config(
        vocab_size=len(own),
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    Qwen3Model(config).eval().save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def adapter(folder: Path, on: Path, *, rank: int = 6, seed: int = 1) -> Any:
    """Write an adapter with random weights into a folder, with the configuration of a published one; give the model with it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings: dict[str, Any] = {name: PUBLISHED[name] for name in ("target_modules", "lora_dropout", "task_type", "bias")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # of peft's, by transformers
        model: Any = get_peft_model(Qwen3Model.from_pretrained(on), LoraConfig(r=rank, lora_alpha=2 * rank, **settings))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.eval().save_pretrained(folder)
    config = {**PUBLISHED, "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


@cache
def parts(folder: Path) -> tuple[Any, Any]:
    return AutoModel.from_pretrained(folder), tokenizer()


def prose(chunks: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice([*WORDS, "été", "狐狸"], rng.integers(1, 6))) + "." for _ in range(chunks)]


def at_ends(model: Any, text: str, max_length: int | None = None) -> list[np.ndarray]:
    """Give the unit vectors at the end tokens of a text, as the tokenizer itself writes and cuts it."""
    row = tokenizer()(text, truncation=max_length is not None, max_length=max_length, return_tensors="pt")
    with torch.no_grad():
        states = model(**row).last_hidden_state[0]
    ends = states[row["input_ids"][0] == 0].numpy()
    return list(ends / np.linalg.norm(ends, axis=1, keepdims=True))


def reference(model: Any, chunks: list[str], max_length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Give chunk-only and situated vectors, one sequence at a time."""
    contexts = block_contexts(chunks, block=SETTINGS["block"])
    texts = [f"{chunk}{END}{SETTINGS['instruction']}{context}" for chunk, context in zip(chunks, contexts, strict=True)]
    alone, situated = zip(*(at_ends(model, text, max_length) for text in texts), strict=True)
    return np.array(alone), np.array(situated)
