"""Encoders of sentence-transformers with random weights: small enough for any test, with tokenizers of both common kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

POSITIONS = 64
HIDDEN = 32

WORDS = [f"{first}{last}" for first in "bdfglmnprt" for last in ("ab", "eck", "idge", "ong", "ull")]
"""What documents of the tests are made of; a tokenizer knows their parts."""


def word_pieces() -> PreTrainedTokenizerFast:
    """Make a tokenizer as BERT has one: lower case, pieces of words, [CLS] before and [SEP] behind."""
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    pieces = [f"{before}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for before in ("", "##")]
    vocabulary = {piece: number for number, piece in enumerate([*names.values(), ".", *pieces, *WORDS[::2], "##ab", "##ong"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def bytes_pairs(*, end: bool = True) -> PreTrainedTokenizerFast:
    """Make a tokenizer as Qwen has one: bytes, spaces part of the next word, padded on the left, an end token if wanted."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    steps: list[Any] = [processors.ByteLevel(trim_offsets=False)]
    if end:
        steps.append(processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)]))
    tokenizer.post_processor = processors.Sequence(steps)
    names = {"pad_token": "<end>", "eos_token": "<end>", "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def bert(folder: Path) -> Path:
    """Write a BERT and its tokenizer into a folder."""
    tokenizer = word_pieces()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    return _written(BertModel, config, tokenizer, folder)


def qwen(folder: Path, *, end: bool = True) -> Path:
    """Write a causal Qwen3 and its tokenizer into a folder."""
    tokenizer = bytes_pairs(end=end)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    return _written(Qwen3Model, config, tokenizer, folder)


def encoder(
    folder: Path, *, pooling: Any = "mean", dense: bool = False, normalize: bool = False, **settings: Any
) -> SentenceTransformer:
    """Load a model from a folder as an encoder, with the modules wanted behind it."""
    torch.manual_seed(1)
    modules: list[Any] = [Transformer(str(folder)), Pooling(HIDDEN, pooling_mode=pooling)]
    modules += [Dense(HIDDEN, 12)] * dense + [Normalize()] * normalize
    return SentenceTransformer(modules=modules, device="cpu", **settings)


def _written(kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    torch.manual_seed(0)
    kind(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
