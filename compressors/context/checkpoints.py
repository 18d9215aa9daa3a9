"""Bridges from published checkpoints: a stock language model with a projector's tensors beside its own.

The layout is xRAG's: ``projector.projector.{0,2}.{weight,bias}``, and in ``config.json`` ``retriever_hidden_size``,
``hidden_size`` and ``projector_type`` (``mlp2x_gelu``). The language model was frozen, so the model of its name that everybody
has, quantised or not, and the bridge alone are the whole of it.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open

from rarebit.compressors.context.bridge import CONFIG_FILE, BridgeConfig, ModalityBridge
from rarebit.errors import InputError

LAYERS: Final = {"projector.projector.0.": "first.", "projector.projector.2.": "last."}
"""Beginnings of the names of the published tensors, and of ours."""

PROJECTOR: Final = "mlp2x_gelu"


def bridge_of_checkpoint(
    folder: str | os.PathLike[str], *, embedding_model: str | None = None, language_model: str | None = None
) -> ModalityBridge:
    """Read the bridge out of a checkpoint's folder, of safetensors or PyTorch pickles, in one file or many.

    Pickles are read with ``weights_only``, which runs nothing that they hold. Save the bridge with ``save_pretrained`` and load
    it from there in future: a few megabytes in place of the whole model.

    Args:
        folder: with ``config.json`` and the weights, as the hub gives it.
        embedding_model: name of the model whose vectors it takes, of their own lengths: xRAG's are not of length 1.
        language_model: name of the model that reads the tokens.

    Raises:
        InputError: the folder holds no such checkpoint.
    """
    path = Path(folder)
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        kind = config["projector_type"]
        shape = BridgeConfig(
            config["retriever_hidden_size"],
            config["hidden_size"],
            embedding_model=embedding_model,
            language_model=language_model,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"got {path}, wanted a folder with a {CONFIG_FILE} that names retriever_hidden_size, hidden_size and "
            f"projector_type ({error!r})"
        ) from error
    if kind != PROJECTOR:
        raise InputError(f"got a projector of type {kind!r}, wanted {PROJECTOR!r}, two layers with GELU")
    return ModalityBridge.of_weights(shape, {own: weight for name, weight in _tensors(path) if (own := _own_name(name))})


def _own_name(name: str) -> str:
    """Give our name of a published tensor; nothing for those of the language model."""
    found = [own + name.removeprefix(theirs) for theirs, own in LAYERS.items() if name.startswith(theirs)]
    return found[0] if found else ""


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Give the projector's tensors; a model's others are not read where the files allow it."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"got {folder}, wanted weights in it: *.safetensors or pytorch_model*.bin")
    for file in files:
        try:
            yield from _of_safetensors(file) if file.suffix == ".safetensors" else _of_pickle(file)
        except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
            raise InputError(f"{file} cannot be read as weights alone ({error}): download it again") from error


def _of_safetensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 -- it is no dictionary
            if _own_name(name):
                yield name, opened.get_tensor(name)


def _of_pickle(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    held: Any = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    if not isinstance(held, dict):
        raise pickle.UnpicklingError(f"it holds a {type(held).__name__}, no dictionary")
    for name, weight in held.items():
        if _own_name(name):
            yield name, weight.clone()
