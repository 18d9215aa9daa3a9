"""Tiny models with random weights, of every kind of positions: for longer windows."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from support.tiny_encoders import HIDDEN, WORDS

Tiny: TypeAlias = Callable[..., SentenceTransformer]
"""The fixture that loads one of them by its type."""

READS = 16
"""Tokens that each of them reads."""

TABLES = {"albert": 0, "bert": 0, "distilbert": 0, "electra": 0, "mpnet": 2, "roberta": 2, "xlm-roberta": 2}
"""Type of model -> rows of its table before that of the first token."""

ROTARY = ("eurobert", "gte", "llama", "mistral", "modernbert", "nomic_bert", "qwen2", "qwen3")

PADDED = 1
"""The number that all of the tokenizers give to padding, because RoBERTa and MPNet count positions from behind it."""

ENDS = dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), PADDED)
"""Types whose own numbers are beyond this vocabulary; nothing here uses them."""

OTHERS: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 1, "n_head": 2},  # ALiBi
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},  # and a table
    "gpt2": {"n_layer": 1, "n_head": 2, "n_embd": HIDDEN, **ENDS},
    "olmo2": {"eos_token_id": PADDED},
    "t5": {"d_model": HIDDEN, "num_heads": 2, "num_layers": 1, "d_kv": 16},
}
"""Models whose positions are something else, or rotary in a way that is not known to SelfExtend."""


def tokenizer(side: str = "right") -> PreTrainedTokenizerFast:
    """Make one that knows words, with one token before a text and one behind."""
    names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {word: number for number, word in enumerate([*names.values(), *WORDS])}
    own = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    own.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made = PreTrainedTokenizerFast(tokenizer_object=own, padding_side=side, model_max_length=READS, **names)
    made.model_input_names = ["input_ids", "attention_mask"]
    return made


def config(kind: str, layers: int = 2, **settings: Any) -> Any:
    """Make a configuration of 32 numbers and two heads."""
    common = {
        "vocab_size": len(tokenizer()),
        "hidden_size": HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": READS + TABLES.get(kind, 0),
        "initializer_range": 0.3,
        "pad_token_id": PADDED,
    }
    other_names = {
        "albert": {"embedding_size": HIDDEN},
        "distilbert": {"dim": HIDDEN, "n_layers": layers, "n_heads": 2, "hidden_dim": 48},
        "electra": {"embedding_size": HIDDEN},
        "eurobert": {"num_key_value_heads": 1, "head_dim": 16, **ENDS, "mask_token_id": PADDED},
        "gte": {"type_vocab_size": 1},
        "llama": {"num_key_value_heads": 1},
        "mistral": {"num_key_value_heads": 1, "sliding_window": None, "head_dim": 16},
        "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2, **ENDS},
        "qwen2": {"num_key_value_heads": 1},
        "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
    }
    return AutoConfig.for_model(kind, **{**common, **other_names.get(kind, {}), **OTHERS.get(kind, {}), **settings})


def written(folder: Path, kind: str, side: str = "right", **settings: Any) -> Path:
    """Write a model and its tokenizer into a folder."""
    torch.manual_seed(0)
    model: Any = AutoModel.from_config(config(kind, **settings))
    for parameter in model.parameters():
        # Some types of models ignore the range above, and small weights hardly tell positions apart.
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    tokenizer(side).save_pretrained(folder)
    return folder


def text(tokens: int, seed: int = 0) -> str:
    """Make a text of so many tokens, with those before it and behind."""
    rng = random.Random(seed)
    return " ".join(rng.choices(WORDS, k=tokens - 2))
