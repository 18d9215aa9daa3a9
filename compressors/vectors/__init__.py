"""Embeddings to codes: one file a codec, one protocol.

A codec is named by a short text (``"rabitq"``, ``"sq4"``) or given as an object. The table below is lazy: importing this
package loads no codec, and so not faiss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarebit.compressors.vectors.codec import ARRAYS_FILE, CONFIG_FILE, Codec, SearchableCodec
from rarebit.errors import FormatVersionError, InputError

if TYPE_CHECKING:
    from rarebit.compressors.vectors.exact import Exact
    from rarebit.compressors.vectors.float16 import Float16
    from rarebit.compressors.vectors.int8 import Int8
    from rarebit.compressors.vectors.rabitq import RaBitQ
    from rarebit.compressors.vectors.scalar import Scalar

__all__ = [
    "SEARCHABLE",
    "Codec",
    "Exact",
    "Float16",
    "Int8",
    "RaBitQ",
    "Scalar",
    "SearchableCodec",
    "codec_named",
    "load_codec",
    "restore_codec",
]

_CLASSES = {"Exact": "exact", "Float16": "float16", "Int8": "int8", "RaBitQ": "rabitq", "Scalar": "scalar"}
"""Class -> the file that holds it."""

_REGISTERED = {"float32": "Exact", "float16": "Float16", "int8": "Int8", "scalar": "Scalar", "rabitq": "RaBitQ"}
"""The name that a codec is saved under -> its class."""

_SPELLINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "float16": ("float16", {}),
    "int8": ("int8", {}),
    "sq8": ("scalar", {"bits": 8}),
    "sq4": ("scalar", {"bits": 4}),
    "rabitq": ("rabitq", {}),
}
"""What users may write -> the registered codec and its arguments."""

SEARCHABLE = ("float32", "float16", "sq8", "sq4", "rabitq")
"""The spellings of those that faiss can scan."""


def codec_named(spelling: str) -> Codec:
    """Create the unfitted codec that a user named, such as ``"rabitq"`` or ``"sq4"``."""
    if spelling not in _SPELLINGS:
        raise InputError(f"got codec {spelling!r}, wanted one of {sorted(_SPELLINGS)}")
    name, config = _SPELLINGS[spelling]
    return _registered(name)(**config)


def restore_codec(name: str, *, dim: int, config: Mapping[str, Any], learned: bytes) -> Codec:
    """Rebuild a fitted codec from its registered name, its configuration and its learned arrays (safetensors)."""
    return _registered(name).restore(dim=dim, config=config, learned=learned)


def load_codec(folder: str | os.PathLike[str]) -> Codec:
    """Load what ``codec.save_pretrained(folder)`` wrote."""
    source = Path(folder)
    described = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    learned = (source / ARRAYS_FILE).read_bytes()
    return restore_codec(described["codec"], dim=described["dim"], config=described["config"], learned=learned)


def _registered(name: str) -> type[Codec]:
    if name not in _REGISTERED:
        raise FormatVersionError(
            f"got codec {name!r}, which this version does not know (it knows {sorted(_REGISTERED)}): upgrade rarebit"
        )
    codec: type[Codec] = __getattr__(_REGISTERED[name])
    return codec


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
