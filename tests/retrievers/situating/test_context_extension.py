"""Longer windows: rows of tables and frequencies by their formulas, short texts as they were, long ones read to the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="longer windows need the extra models")
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from support.tiny_positions import OTHERS, READS, ROTARY, TABLES, Tiny, text, tokenizer
from transformers import AutoModel

from rarebit.errors import InputError
from rarebit.retrievers.situating import extend_context
from rarebit.retrievers.situating.spread_positions import table_of

pytestmark = pytest.mark.usefixtures("_one_thread")

CLOSE = 1e-5
LONGER = 50
STEP = 4
"""Of 16 positions, in 50."""

OF_TABLES = ("interpolation", "grouped", "recurrent")
EVERY = [*((kind, method) for kind in TABLES for method in OF_TABLES), *((kind, "self_extend") for kind in ROTARY)]
BY_LENGTH = [("bert", "interpolation"), ("mpnet", "grouped"), ("qwen3", "self_extend")]
ALIKE = [("bert", "recurrent"), ("roberta", "recurrent"), ("qwen3", "ntk"), ("modernbert", "ntk"), ("nomic_bert", "ntk")]


def rows(encoder: SentenceTransformer) -> np.ndarray:
    found = table_of(encoder[0].auto_model)
    assert found is not None
    return found[1].weight.detach().numpy()


@pytest.mark.parametrize(("kind", "before"), TABLES.items())
@pytest.mark.parametrize("method", OF_TABLES)
@pytest.mark.parametrize("length", [17, 2 * READS, LONGER])
def test_rows_of_the_longer_table(tiny: Tiny, kind: str, before: int, method: str, length: int) -> None:
    encoder = tiny(kind)
    old, new = rows(encoder), rows(extend_context(encoder, length, method=method))
    own, step = old[before:], -(-length // READS)
    assert len(own) == READS
    assert np.array_equal(new[:before], old[:before]), "rows that stand for no token stay as they are"
    for place, row in enumerate(new[before:]):
        if method == "recurrent":
            wanted = own[place % READS]
        elif method == "grouped":
            wanted = own[place // step]
        else:
            wanted = np.array([np.interp(place / step, range(READS), column) for column in own.T])
        assert np.allclose(row, wanted, atol=1e-6)
    if method == "recurrent":
        assert len(new) == before + length
    else:
        assert len(new) == before + step * READS >= before + length
        assert np.array_equal(new[before::step], own), "the trained rows are there exactly, a step apart"


@pytest.mark.parametrize(("kind", "method"), EVERY)
def test_texts_that_fit_the_old_window_have_the_vectors_that_they_had(tiny: Tiny, kind: str, method: str) -> None:
    encoder = tiny(kind)
    longer = extend_context(encoder, LONGER, method=method)
    short = [text(READS, 1), text(5, 2), text(READS - 1, 3), text(3, 4)]
    wanted = encoder.encode(short)
    assert np.allclose(longer.encode(short), wanted, atol=CLOSE)
    beside_long_ones = longer.encode([text(LONGER), *short, text(LONGER - 9)], batch_size=6)[1:-1]
    assert np.allclose(beside_long_ones, wanted, atol=CLOSE)


@pytest.mark.parametrize(("kind", "method"), [*EVERY, *((kind, "ntk") for kind in ROTARY)])
def test_long_texts_are_read_to_the_end_and_no_farther(tiny: Tiny, kind: str, method: str) -> None:
    encoder = tiny(kind)
    longer = extend_context(encoder, LONGER, method=method)
    whole = text(LONGER).split()
    other = [*whole[:-1], "bab" if whole[-1] != "bab" else "dab"]
    assert np.array_equal(encoder.encode(" ".join(whole)), encoder.encode(" ".join(other)))
    before, after = longer.encode(" ".join(whole)), longer.encode(" ".join(other))
    assert np.abs(before - after).max() > 1e-3
    assert np.allclose(longer.encode(" ".join([*whole, *whole])), before, atol=CLOSE)


@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind in ("bert", "mpnet") for method in OF_TABLES])
def test_a_long_text_by_the_model_alone(tiny: Tiny, tmp_path: Path, kind: str, method: str) -> None:
    longer = extend_context(tiny(kind), LONGER, method=method)
    longer.save_pretrained(str(tmp_path))
    ids = tokenizer()(text(LONGER), return_tensors="pt", verbose=False)["input_ids"]
    assert ids.shape == (1, LONGER)
    with torch.no_grad():
        states = AutoModel.from_pretrained(tmp_path)(input_ids=ids).last_hidden_state[0]
    assert np.allclose(longer.encode([text(LONGER), text(4)])[0], states.mean(0).numpy(), atol=CLOSE)


@pytest.mark.parametrize(("kind", "method"), [*BY_LENGTH, *ALIKE])
def test_the_encoder_given_is_left_as_it_is(tiny: Tiny, kind: str, method: str) -> None:
    encoder = tiny(kind)
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    config, texts = encoder[0].auto_model.config.to_dict(), [text(LONGER), text(7)]
    before = encoder.encode(texts)
    extend_context(encoder, LONGER, method=method).encode(texts)
    assert np.array_equal(encoder.encode(texts), before)
    assert encoder[0].auto_model.config.to_dict() == config
    assert encoder.max_seq_length == READS
    assert state.keys() == encoder.state_dict().keys()
    assert all(torch.equal(tensor, encoder.state_dict()[name]) for name, tensor in state.items())


@pytest.mark.parametrize(("kind", "method"), [*BY_LENGTH, *ALIKE])
def test_everything_that_counts_positions_agrees(tiny: Tiny, kind: str, method: str) -> None:
    longer = extend_context(tiny(kind), LONGER, method=method)
    assert longer.max_seq_length == longer.tokenizer.model_max_length == LONGER
    model: Any = longer[0].auto_model
    counted = model.config.max_position_embeddings
    assert counted == (len(rows(longer)) if kind in TABLES else LONGER)
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            assert torch.equal(buffer, torch.arange(counted)[None])
        if name.endswith("token_type_ids"):
            assert torch.equal(buffer, torch.zeros(1, counted, dtype=torch.long))


@pytest.mark.parametrize(("kind", "method"), [*BY_LENGTH, *ALIKE])
def test_save_then_load_is_the_identity(tiny: Tiny, tmp_path: Path, kind: str, method: str) -> None:
    longer = extend_context(tiny(kind), LONGER, method=method)
    longer.save_pretrained(str(tmp_path))
    trusted = {"trust_remote_code": True} if (kind, method) in BY_LENGTH else {}
    loaded = SentenceTransformer(str(tmp_path), device="cpu", **trusted)
    assert loaded.max_seq_length == loaded.tokenizer.model_max_length == LONGER
    texts = [text(LONGER), text(LONGER + 7, 1), text(9, 2), text(READS + 1, 3)]
    assert np.array_equal(loaded.encode(texts), longer.encode(texts))
    if trusted:
        with pytest.raises(ValueError, match="trust_remote_code"):
            SentenceTransformer(str(tmp_path), device="cpu")


@pytest.mark.parametrize("kind", [*ROTARY, "olmo2"])
@pytest.mark.parametrize("length", [READS + 1, LONGER, 8 * READS])
def test_frequencies_of_a_scaled_base(tiny: Tiny, kind: str, length: int) -> None:
    encoder = tiny(kind)
    old, new = (each[0].auto_model for each in (encoder, extend_context(encoder, length)))
    name = "full_attention_inv_freq" if kind == "modernbert" else "inv_freq"
    before, after = (getattr(model.rotary_emb, name).numpy() for model in (old, new))
    rope = old.config.rope_parameters
    theta = rope.get("full_attention", rope)["rope_theta"] * (length / READS) ** (16 / 14)
    assert np.allclose(after, [theta ** (-number / 16) for number in range(0, 16, 2)], rtol=1e-5)
    assert np.isclose(after[0], before[0])
    assert np.isclose(after[-1], before[-1] * READS / length)
    if kind == "modernbert":
        assert torch.equal(new.rotary_emb.sliding_attention_inv_freq, old.rotary_emb.sliding_attention_inv_freq)


@pytest.mark.parametrize("method", [None, "self_extend"])
def test_rotary_positions_that_were_trained_need_a_higher_limit_alone(tiny: Tiny, method: str | None) -> None:
    encoder = tiny("qwen3")
    wanted = encoder.encode([text(READS), text(6)])
    encoder.max_seq_length = 8
    longer = extend_context(encoder, READS, method=method)
    assert np.array_equal(longer.encode([text(READS), text(6)]), wanted)
    assert encoder.max_seq_length == 8


def test_a_table_is_extended_from_what_the_encoder_was_made_to_read(tiny: Tiny) -> None:
    encoder = tiny("roberta")
    encoder.max_seq_length = 10
    own = rows(encoder)[2:12]
    assert np.array_equal(rows(extend_context(encoder, 30))[2::3], own)
    encoder.max_seq_length = 18  # as tokenizers of RoBERTa may say, who count the rows that stand for no token
    assert np.array_equal(rows(extend_context(encoder, 32))[2::2], rows(encoder)[2:])


def test_what_is_extended_twice_is_extended_from_the_longer_window(tiny: Tiny) -> None:
    encoder = tiny("qwen3")
    once, twice = extend_context(encoder, 64), extend_context(extend_context(encoder, 32), 64)
    texts = [text(60), text(20, 1)]
    assert np.allclose(twice.encode(texts), once.encode(texts), atol=CLOSE)
    for kind, method in BY_LENGTH:
        longer = extend_context(tiny(kind), 32, method=method)
        with pytest.raises(InputError, match="extend the original encoder"):
            extend_context(longer, 64, method=method)


@pytest.mark.unchecked
@pytest.mark.parametrize("length", [READS, 3, 0, -5, 20.0, "20", None, True])
def test_a_length_that_is_no_larger_window_is_refused(tiny: Tiny, length: Any) -> None:
    with pytest.raises(InputError, match=r"reads 16 tokens, wanted a whole number above") as caught:
        extend_context(tiny("bert"), length)
    assert repr(length) in str(caught.value)


@pytest.mark.unchecked
def test_whole_numbers_of_numpy_are_lengths(tiny: Tiny) -> None:
    longer = extend_context(tiny("bert"), np.int64(20))  # type: ignore[arg-type]
    assert type(longer.max_seq_length) is int
    assert longer.max_seq_length == 20


@pytest.mark.parametrize(
    ("kind", "method", "fitting"),
    [
        ("bert", "ntk", "interpolation, grouped, recurrent"),
        ("roberta", "Interpolation", "interpolation, grouped, recurrent"),
        ("qwen3", "interpolation", "ntk, self_extend"),
        ("modernbert", "", "ntk, self_extend"),
        ("olmo2", "self_extend", "ntk"),
    ],
)
def test_a_method_that_does_not_fit_is_refused(tiny: Tiny, kind: str, method: str, fitting: str) -> None:
    with pytest.raises(InputError, match=rf"{method!r}.*: {fitting}$"):
        extend_context(tiny(kind), LONGER, method=method)


@pytest.mark.parametrize("kind", sorted(OTHERS.keys() - {"olmo2"}))
def test_other_positions_are_refused(tiny: Tiny, kind: str) -> None:
    with pytest.raises(InputError, match=f"{kind!r}.*relative positions"):
        extend_context(tiny(kind), LONGER)


def test_positions_that_are_extended_already_are_refused(tiny: Tiny) -> None:
    encoder = tiny("qwen3")
    encoder[0].auto_model.config.rope_parameters.update(rope_type="linear", factor=2.0)
    with pytest.raises(InputError, match=r"extended already \(linear\)"):
        extend_context(encoder, LONGER)


@pytest.mark.unchecked
def test_what_has_no_positions_is_refused() -> None:
    words = SentenceTransformer(modules=[StaticEmbedding(tokenizer().backend_tokenizer, embedding_dim=8)], device="cpu")
    for other in (words, "all-MiniLM-L6-v2", None):
        with pytest.raises(InputError, match="begins with a transformer"):
            extend_context(other, LONGER)  # type: ignore[arg-type]


def test_importing_the_package_loads_no_torch() -> None:
    script = (
        "import rarebit.retrievers.situating as situating, sys; situating.passkey_report; "
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_sentence_transformers_the_extra_is_named() -> None:
    script = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "sentence_transformers" else found(name, *rest)
import rarebit.retrievers.situating as situating
try:
    situating.extend_context
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "rarebit[models]" in done.stdout
