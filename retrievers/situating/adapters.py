"""LoRA adapters on their base models, as SitEmb v1.5 is published: from safetensors alone. Needs torch and peft."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from rarebit.errors import InputError

WRAPPER: Final = "base_model.model."
"""Where the layers of the base are in a model of peft's, by whose names an adapter is saved."""

HEADED: Final = "model."
"""Where the layers are in a model with a head for the next token."""

CONFIG_FILE: Final = "adapter_config.json"
ARRAYS_FILE: Final = "adapter_model.safetensors"
PICKLE_FILE: Final = "adapter_model.bin"


def adapted(
    adapter: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load an adapter on its base model, not merged, and the base's tokenizer, which pads on the left.

    Args:
        adapter: a folder or a repository on the hub.
        base: a folder or name of the base; the one that the adapter names if left out.
        device: to compute on; an accelerator if there is one.
        dtype: of the weights of the base; as they were saved if left out.

    Raises:
        InputError: one of them cannot be loaded, or they do not fit each other.
    """
    folder = _folder(adapter)
    config = _config(folder)
    name, revision = str(base or config.base_model_name_or_path or ""), None if base else config.revision
    if not name:
        raise InputError(f"the adapter in {folder} does not name its base model, wanted a name or a folder: pass base")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, revision=revision or "main", padding_side="left")
        model: Any = AutoModel.from_pretrained(name, revision=revision or "main", dtype=dtype or "auto", use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the base model {name!r} cannot be loaded ({reason}), wanted a folder or the name of a model in safetensors: "
            "check the spelling and the network, or pass the folder of a copy as base"
        ) from error
    config.inference_mode = True
    try:
        inject_adapter_in_model(config, model)
        _fill(model, folder)
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the adapter in {folder} does not fit the base model {name!r} ({reason}): pass the base it is for"
        ) from error
    return model.to(_device() if device is None else device).eval(), tokenizer


def _folder(adapter: str | os.PathLike[str]) -> Path:
    """Give the folder of an adapter; of a repository on the hub nothing but its two files is fetched."""
    folder = Path(adapter)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(adapter), allow_patterns=[CONFIG_FILE, ARRAYS_FILE]))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"the adapter {str(adapter)!r} cannot be loaded ({reason}), wanted a folder or the name of a repository on the "
                "hub: check the spelling and the network"
            ) from error
    if not (folder / ARRAYS_FILE).is_file() and (folder / PICKLE_FILE).is_file():
        raise InputError(
            f"got {folder} with {PICKLE_FILE}, wanted {ARRAYS_FILE}: a pickled file may run any code when it is loaded, so it "
            "is never read; save the adapter again with safe_serialization=True where you trust it"
        )
    missing = [name for name in (CONFIG_FILE, ARRAYS_FILE) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"got {folder}, wanted a folder of a PEFT adapter: it has no {' and no '.join(missing)}")
    return folder


def _config(folder: Path) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / CONFIG_FILE} is no configuration of an adapter ({error}): fetch it again") from error
    if not isinstance(config, LoraConfig):
        raise InputError(f"got an adapter of kind {config.peft_type}, wanted LORA: other kinds change what the model reads")
    return config


def _fill(model: PreTrainedModel, folder: Path) -> None:
    """Load an adapter's weights; each has to find its place, since one that does not would be left out without a word."""
    try:
        arrays = load_file(folder / ARRAYS_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / ARRAYS_FILE} is damaged ({error}): fetch it again") from error
    arrays = {name.removeprefix(WRAPPER): array for name, array in arrays.items()}
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if not wanted & set(arrays):
        arrays = {name.removeprefix(HEADED): array for name, array in arrays.items()}
    if set(arrays) != wanted:
        unknown, missing = sorted(set(arrays) - wanted), sorted(wanted - set(arrays))
        raise InputError(
            f"the adapter in {folder} does not fit its base model: {len(missing)} weights are missing and {len(unknown)} have "
            f"no place (first: {(missing + unknown)[0]}): pass the base that it is for"
        )
    set_peft_model_state_dict(model, arrays)


def _device() -> torch.device:
    return (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None) or torch.device("cpu")
