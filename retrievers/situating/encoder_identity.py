"""What decides about the vectors of an encoder: its weights, and how it reads. Two encoders that differ in it are two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Final

SAMPLED: Final = 64
"""Numbers of each weight that a short hash is made of: encoders that were trained apart differ everywhere."""

UNTOLD: Final = ("_name_or_path", "_commit_hash", "transformers_version", "torch_dtype", "dtype", "architectures")
"""What a configuration says of where a model came from, or of what its weights say themselves."""

ABOUT_READING: Final = ("max_seq_length", "prompts", "default_prompt_name", "truncate_dim")


def hash_of(models: Sequence[Any]) -> str:
    """Hash some models of torch, those of sentence-transformers among them: eight hexadecimal digits."""
    hashed = sha256()
    for model in models:
        hashed.update(how_it_reads(model))
        for name, numbers in _numbers(model):
            hashed.update(name.encode() + numbers[:: max(1, len(numbers) // SAMPLED)].float().cpu().numpy().tobytes())
    return hashed.hexdigest()[:8]


def how_it_reads(model: Any) -> bytes:
    """Describe what is no weight: modules, their settings and configurations, limits and prompts."""
    about = [[name, getattr(model, name, None)] for name in ABOUT_READING]
    modules = [_module(name, module) for name, module in model.named_modules()]
    return json.dumps([about, modules], sort_keys=True, default=repr).encode()


def weights_of(model: Any) -> Iterator[bytes]:
    """Give the names and numbers of a model's parameters, every one."""
    for name, parameter in model.named_parameters():
        yield name.encode()
        yield parameter.detach().cpu().contiguous().view(-1).float().numpy().tobytes()


def _numbers(model: Any) -> Iterator[tuple[str, Any]]:
    """Give parameters and buffers, flat; the frequencies of rotary positions are in buffers."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        yield name, tensor.detach().reshape(-1)


def _module(name: str, module: Any) -> list[Any]:
    """Name a module, its class, and what it says of itself where it is a model or one of sentence-transformers' modules."""
    own = module.get_config_dict() if hasattr(module, "get_config_dict") else None
    config = module.config.to_dict() if hasattr(getattr(module, "config", None), "to_dict") and _is_root(module) else {}
    return [name, type(module).__name__, own, {key: value for key, value in config.items() if key not in UNTOLD}]


def _is_root(module: Any) -> bool:
    """Whether a module is a model of transformers: its layers have the same configuration."""
    return hasattr(module, "save_pretrained")
