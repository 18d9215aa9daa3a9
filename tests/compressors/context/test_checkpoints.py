"""Published checkpoints: whatever files they come in, the bridge is the same, and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="bridges need the extra models")

import safetensors.torch
import torch
from support.tiny_language_model import DIM, HIDDEN, bridge, embed, language_model

from rarebit.compressors.context import BridgeConfig, ModalityBridge, bridge_of_checkpoint
from rarebit.errors import InputError

CONFIG = {
    "architectures": ["XMistralForCausalLM"],
    "hidden_size": HIDDEN,
    "projector_type": "mlp2x_gelu",
    "retriever_hidden_size": DIM,
}
VECTORS = torch.from_numpy(embed(["one", "two"]))


def published(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Name tensors as the publishers do: those of a language model, and the projector's beside them."""
    own = bridge().state_dict()
    projector = {
        f"projector.projector.{number}.{kind}": own[f"{layer}.{kind}"]
        for number, layer in ((0, "first"), (2, "last"))
        for kind in ("weight", "bias")
    }
    return {name: weight.to(dtype).clone() for name, weight in (dict(language_model().state_dict()) | projector).items()}


def halves(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    names = sorted(tensors)
    return [{name: tensors[name] for name in names[place::2]} for place in (0, 1)]


def one_safetensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def many_safetensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    for number, own in enumerate(halves(tensors), 1):
        safetensors.torch.save_file(own, folder / f"model-{number:05}-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")


def one_pickle(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    torch.save(tensors, folder / "pytorch_model.bin")


def many_pickles(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    for number, own in enumerate(halves(tensors), 1):
        torch.save(own, folder / f"pytorch_model-{number:05}-of-00002.bin")
    torch.save({"seed": 1}, folder / "training_args.bin")


Write = Callable[[Path, dict[str, torch.Tensor]], None]
WRITERS: list[Write] = [one_safetensors, many_safetensors, one_pickle, many_pickles]


def checkpoint(folder: Path, write: Write = one_safetensors, config: Any = CONFIG, **changed: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config | changed if isinstance(config, dict) else config))
    write(folder, published())
    return folder


@pytest.mark.parametrize("write", WRITERS)
def test_the_bridge_is_the_projector(tmp_path: Path, write: Write) -> None:
    read = bridge_of_checkpoint(checkpoint(tmp_path, write), embedding_model="SFR", language_model="Mistral")
    assert read.config == BridgeConfig(DIM, HIDDEN, embedding_model="SFR", language_model="Mistral")
    assert read.fingerprint == bridge().fingerprint
    assert torch.equal(read(VECTORS), bridge()(VECTORS))
    read.save_pretrained(tmp_path / "own")
    assert ModalityBridge.from_pretrained(tmp_path / "own").fingerprint == read.fingerprint


@pytest.mark.parametrize("write", [one_safetensors, one_pickle])
def test_half_precision_is_read_as_float32(tmp_path: Path, write: Write) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write(tmp_path, published(torch.bfloat16))
    read = bridge_of_checkpoint(tmp_path)
    assert read.first.weight.dtype == torch.float32
    assert torch.equal(read.first.weight, bridge().first.weight.bfloat16().float())


class Malicious:
    """Runs something when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["inside", "alone"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, how: str) -> None:
    folder, target = tmp_path / "checkpoint", tmp_path / "run"
    folder.mkdir()
    checkpoint(folder, one_pickle)
    file = folder / "pytorch_model.bin"
    if how == "inside":
        torch.save(published() | {"projector.projector.9.weight": Malicious(target)}, file)
    else:
        file.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        bridge_of_checkpoint(folder)
    assert not target.exists()
    if how == "inside":
        torch.load(file, weights_only=False)
        assert target.exists()  # it does run for who lets it


@pytest.mark.parametrize("content", [b"", b"x" * 300, pickle.dumps({"a": 1})], ids=["empty", "bytes", "bare"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_files_that_hold_no_weights_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} cannot be read as weights alone"):
        bridge_of_checkpoint(tmp_path)


def test_a_pickle_of_no_dictionary_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save([torch.zeros(3)], tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="it holds a list"):
        bridge_of_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["mlp3x_gelu", "linear", None])
def test_another_projector_is_refused(tmp_path: Path, kind: str | None) -> None:
    with pytest.raises(InputError, match=f"projector of type {kind!r}, wanted 'mlp2x_gelu'"):
        bridge_of_checkpoint(checkpoint(tmp_path, projector_type=kind))


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    def without_one(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        one_safetensors(folder, {name: tensor for name, tensor in tensors.items() if name != "projector.projector.2.bias"})

    with pytest.raises(InputError, match=r"wanted \{.*last\.bias"):
        bridge_of_checkpoint(checkpoint(tmp_path, without_one))


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got weights"):
        bridge_of_checkpoint(checkpoint(tmp_path, retriever_hidden_size=DIM + 1))


@pytest.mark.parametrize(
    "config",
    [*({name: value for name, value in CONFIG.items() if name != missing} for missing in list(CONFIG)[1:]), [1], "text", None],
    ids=str,
)
def test_a_config_of_something_else_is_named(tmp_path: Path, config: Any) -> None:
    with pytest.raises(InputError, match="retriever_hidden_size, hidden_size and projector_type"):
        bridge_of_checkpoint(checkpoint(tmp_path, config=config))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted weights in it"):
        bridge_of_checkpoint(checkpoint(tmp_path, lambda *_: None))
    with pytest.raises(InputError, match="names retriever_hidden_size"):
        bridge_of_checkpoint(tmp_path / "nowhere")
