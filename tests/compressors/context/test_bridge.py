"""The bridge: a projection of two layers that knows what it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="bridges need the extra models")

import safetensors.torch
import torch
from scipy.special import erf
from support.tiny_language_model import DIM, HIDDEN, bridge, embed

from rarebit.compressors.context import BridgeConfig, ModalityBridge
from rarebit.compressors.context.bridge import CONFIG_FILE, WEIGHTS_FILE
from rarebit.errors import DimensionError, InputError

VECTORS = torch.from_numpy(embed(["one", "two", "three"]))


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("input_length", [None, 5.0])
def test_it_computes_the_published_formula(tokens: int, input_length: float | None) -> None:
    made = bridge(tokens, input_length=input_length, hidden=20)
    weights = {name: weight.double().numpy() for name, weight in made.state_dict().items()}
    vectors = 3 * VECTORS.double().numpy()
    if input_length is not None:
        vectors = input_length * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hidden = vectors @ weights["first.weight"].T + weights["first.bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    wanted = (hidden @ weights["last.weight"].T + weights["last.bias"]).reshape(3, tokens, HIDDEN)
    np.testing.assert_allclose(made(3 * VECTORS).numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_it_computes_in_its_own_dtype(dtype: torch.dtype) -> None:
    assert bridge()(VECTORS.to(dtype)).dtype == torch.float32
    assert bridge().to(dtype)(VECTORS).dtype == dtype


def test_no_vectors_are_no_embeddings() -> None:
    assert bridge(2)(torch.zeros(0, DIM)).shape == (0, 2, HIDDEN)


def test_an_input_length_makes_lengths_irrelevant() -> None:
    scaled, as_it_is = bridge(input_length=4.0), bridge()
    torch.testing.assert_close(scaled(VECTORS), scaled(VECTORS * torch.tensor([[0.01], [7.0], [1e4]])))
    torch.testing.assert_close(scaled(VECTORS), as_it_is(VECTORS * 4))
    assert not torch.allclose(as_it_is(VECTORS), as_it_is(2 * VECTORS))
    assert scaled(torch.zeros(1, DIM)).isfinite().all()


@pytest.mark.parametrize("dim", [DIM - 1, DIM + 1])
def test_vectors_of_another_dimension_are_refused(dim: int) -> None:
    with pytest.raises(DimensionError, match=f"dimension {dim}, wanted {DIM}"):
        bridge()(torch.zeros(2, dim))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made = bridge(2, hidden=7, input_length=1.5, embedding_model="an embedding model", language_model="a language model")
    made.save_pretrained(tmp_path / "new" / "folder")
    loaded = ModalityBridge.from_pretrained(str(tmp_path / "new" / "folder"))
    assert loaded.config == made.config
    assert loaded.fingerprint == made.fingerprint
    assert torch.equal(loaded(VECTORS), made(VECTORS))
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert "a language model" in repr(loaded)


def test_bfloat16_is_loaded_as_float32(tmp_path: Path) -> None:
    made = bridge().to(torch.bfloat16)
    made.save_pretrained(tmp_path)
    loaded = ModalityBridge.from_pretrained(tmp_path)
    assert loaded.first.weight.dtype == torch.float32
    assert torch.equal(loaded.first.weight, made.first.weight.float())
    assert loaded.fingerprint == made.fingerprint


def test_the_fingerprint_is_that_of_the_weights() -> None:
    made = bridge()
    assert made.fingerprint == bridge().fingerprint
    assert made.fingerprint != bridge(seed=2).fingerprint
    with torch.no_grad():
        made.last.bias[3] += 1e-3
    assert made.fingerprint != bridge().fingerprint
    assert len(made.fingerprint) == 8
    assert int(made.fingerprint, 16) >= 0


def config_of(text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / CONFIG_FILE).write_bytes(text if isinstance(text, bytes) else text.encode())


def weights_of(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        changed = change(safetensors.torch.load_file(folder / WEIGHTS_FILE))
        safetensors.torch.save_file(changed, folder / WEIGHTS_FILE)

    return write


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / CONFIG_FILE).unlink(),
    "no weights": lambda folder: (folder / WEIGHTS_FILE).unlink(),
    "no JSON": config_of("{"),
    "no text": config_of(b"\xff\xfe\xfa"),
    "a list": config_of("[1, 2]"),
    "another key": config_of(json.dumps({"dim": DIM, "width": HIDDEN, "colour": "red"})),
    "a missing key": config_of(json.dumps({"dim": DIM})),
    "a wrong number": config_of(json.dumps({"dim": str(DIM), "width": HIDDEN})),
    "another shape": config_of(json.dumps({"dim": DIM, "width": HIDDEN + 1})),
    "cut weights": lambda folder: (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-100]),
    "other bytes": lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"x" * 500),
    "a missing tensor": weights_of(lambda own: {name: tensor for name, tensor in own.items() if name != "last.bias"}),
    "one more tensor": weights_of(lambda own: own | {"more": torch.zeros(2)}),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_folder_is_named(tmp_path: Path, how: str) -> None:
    bridge().save_pretrained(tmp_path)
    DAMAGE[how](tmp_path)
    with pytest.raises(InputError) as caught:
        ModalityBridge.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "save the bridge again" in str(caught.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        ModalityBridge.from_pretrained(tmp_path / "nowhere")


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("dim", "width", "tokens", "hidden") for value in (0, -1, 1.5, True, "3")),
        {"tokens": 65},
        *({"input_length": value} for value in (0, -1.0, float("nan"), float("inf"), "1")),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        BridgeConfig(**({"dim": 4, "width": 4} | wrong))
