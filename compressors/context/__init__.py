"""A passage as one token: bridge, generator, budget, training. Loading this package loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from rarebit.extras import Extra, require

if TYPE_CHECKING:
    from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
    from rarebit.compressors.context.budget import Allotment, ContextBudget
    from rarebit.compressors.context.checkpoints import bridge_of_checkpoint
    from rarebit.compressors.context.fidelity import Given
    from rarebit.compressors.context.generation import Generation, Sampling
    from rarebit.compressors.context.generator import OneTokenGenerator
    from rarebit.compressors.context.lessons import Lessons, Reading
    from rarebit.compressors.context.passages import Passage, Passages, PassageSource
    from rarebit.compressors.context.prompts import BACKGROUND, Prompt
    from rarebit.compressors.context.references import Reference, References
    from rarebit.compressors.context.served import ServedGenerator
    from rarebit.compressors.context.training import Stage, train_bridge

__all__ = [
    "BACKGROUND",
    "Allotment",
    "BridgeConfig",
    "ContextBudget",
    "Generation",
    "Given",
    "Lessons",
    "ModalityBridge",
    "OneTokenGenerator",
    "Passage",
    "PassageSource",
    "Passages",
    "Prompt",
    "Reading",
    "Reference",
    "References",
    "Sampling",
    "ServedGenerator",
    "Stage",
    "bridge_of_checkpoint",
    "train_bridge",
]

_HOMES: Final = {
    "BACKGROUND": "prompts",
    "Allotment": "budget",
    "BridgeConfig": "bridge",
    "ContextBudget": "budget",
    "Generation": "generation",
    "Given": "fidelity",
    "Lessons": "lessons",
    "ModalityBridge": "bridge",
    "OneTokenGenerator": "generator",
    "Passage": "passages",
    "PassageSource": "passages",
    "Passages": "passages",
    "Prompt": "prompts",
    "Reading": "lessons",
    "Reference": "references",
    "References": "references",
    "Sampling": "generation",
    "ServedGenerator": "served",
    "Stage": "training",
    "bridge_of_checkpoint": "checkpoints",
    "train_bridge": "training",
}
_NEEDED: Final[dict[str, tuple[str, Extra]]] = {
    "bridge": ("torch", "models"),
    "checkpoints": ("torch", "models"),
    "generator": ("transformers", "models"),
    "served": ("httpx", "serve"),
    "training": ("transformers", "models"),
}
"""What a module needs beyond the core, and the extra that brings it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home in _NEEDED:
        require(*_NEEDED[home])
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
