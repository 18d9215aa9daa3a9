"""Embeddings to codes: one file a codec, one protocol.

A codec is given as an object, or named by a short text: ``"sq4"``, ``"trellis48"`` (48 bytes a vector), ``"pq48x8"`` (48 bytes
of 8-bit sub-quantisers), ``"pca128,sq8"`` (stages, with commas between). The tables below are lazy: importing this package
loads no codec, and so not faiss.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarebit.compressors.vectors.codec import ARRAYS_FILE, CONFIG_FILE, Codec, SearchableCodec
from rarebit.errors import FormatVersionError, InputError

if TYPE_CHECKING:
    from rarebit.compressors.vectors.choosing import Choice, choose
    from rarebit.compressors.vectors.exact import Exact
    from rarebit.compressors.vectors.float16 import Float16
    from rarebit.compressors.vectors.int4 import Int4
    from rarebit.compressors.vectors.int8 import Int8
    from rarebit.compressors.vectors.matryoshka import Matryoshka
    from rarebit.compressors.vectors.opq import OPQ
    from rarebit.compressors.vectors.pca import PCA
    from rarebit.compressors.vectors.pipeline import Pipeline
    from rarebit.compressors.vectors.product import Product
    from rarebit.compressors.vectors.rabitq import RaBitQ
    from rarebit.compressors.vectors.ranked_product import RankedProduct
    from rarebit.compressors.vectors.recurrent_binary import RecurrentBinary
    from rarebit.compressors.vectors.rotation import Rotation
    from rarebit.compressors.vectors.scalar import Scalar
    from rarebit.compressors.vectors.trellis import TrellisCode
    from rarebit.compressors.vectors.variance import VarianceCode
    from rarebit.compressors.vectors.verification import QueryMap

__all__ = [
    "OPQ",
    "PCA",
    "Choice",
    "Codec",
    "Exact",
    "Float16",
    "Int4",
    "Int8",
    "Matryoshka",
    "Pipeline",
    "Product",
    "QueryMap",
    "RaBitQ",
    "RankedProduct",
    "RecurrentBinary",
    "Rotation",
    "Scalar",
    "SearchableCodec",
    "TrellisCode",
    "VarianceCode",
    "choose",
    "codec_named",
    "load_codec",
    "restore_codec",
]

_CLASSES = {
    "Choice": "choosing",
    "Exact": "exact",
    "Float16": "float16",
    "Int4": "int4",
    "Int8": "int8",
    "Matryoshka": "matryoshka",
    "OPQ": "opq",
    "PCA": "pca",
    "Pipeline": "pipeline",
    "Product": "product",
    "QueryMap": "verification",
    "RaBitQ": "rabitq",
    "RankedProduct": "ranked_product",
    "RecurrentBinary": "recurrent_binary",
    "Rotation": "rotation",
    "Scalar": "scalar",
    "TrellisCode": "trellis",
    "VarianceCode": "variance",
    "choose": "choosing",
}
"""Class or function -> the file that holds it."""

_REGISTERED = {
    "float32": "Exact",
    "float16": "Float16",
    "int4": "Int4",
    "int8": "Int8",
    "matryoshka": "Matryoshka",
    "opq": "OPQ",
    "pca": "PCA",
    "pipeline": "Pipeline",
    "product": "Product",
    "rabitq": "RaBitQ",
    "ranked": "RankedProduct",
    "recurrent": "RecurrentBinary",
    "rotation": "Rotation",
    "scalar": "Scalar",
    "trellis": "TrellisCode",
    "variance": "VarianceCode",
}
"""The name that a codec or transform is saved under -> its class."""

_SPELLINGS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "distilled": ("TrellisCode", ("code_size",), {"distilled": True}),
    "float32": ("Exact", (), {}),
    "float16": ("Float16", (), {}),
    "int4": ("Int4", (), {}),
    "int8": ("Int8", (), {}),
    "matryoshka": ("Matryoshka", ("out_dim",), {}),
    "opq": ("OPQ", ("parts",), {}),
    "pca": ("PCA", ("out_dim",), {}),
    "pq": ("Product", ("code_size", "bits"), {}),
    "rabitq": ("RaBitQ", ("bits",), {}),
    "ranked": ("RankedProduct", ("code_size", "bits"), {}),
    "recurrent": ("RecurrentBinary", ("code_size", "bits_per_dim"), {}),
    "rotation": ("Rotation", (), {}),
    "sq": ("Scalar", ("bits",), {}),
    "trellis": ("TrellisCode", ("code_size",), {}),
    "variance": ("VarianceCode", ("code_size",), {}),
}
"""What users may write -> the class, what the numbers after the name mean (``48x8`` are two), and fixed arguments."""

_STAGE = re.compile(r"(?P<name>float32|float16|int8|int4|[a-z]+)(?P<first>\d+)?(?:x(?P<second>\d+))?")


def codec_named(spelling: str) -> Codec:
    """Create the unfitted codec that a user named, such as ``"sq4"``, ``"trellis48"`` or ``"pca128,sq8"``.

    Raises:
        InputError: no codec is spelled so, or not with these numbers.
    """
    stages = [_stage(stage.strip(), spelling) for stage in str(spelling).split(",")]
    if len(stages) > 1:
        return registered("pipeline")(*stages)  # type: ignore[no-any-return]
    if not isinstance(stages[0], Codec):
        raise InputError(f"got codec {spelling!r}, which only transforms, wanted a codec behind it, as in '{spelling},sq8'")
    return stages[0]


def _stage(stage: str, spelling: str) -> Any:
    matched = _STAGE.fullmatch(stage)
    if matched is None or matched["name"] not in _SPELLINGS:
        raise InputError(f"got codec {spelling!r}, wanted one of {sorted(_SPELLINGS)}, some with a number behind, as in 'sq4'")
    class_name, meanings, fixed = _SPELLINGS[matched["name"]]
    numbers = [int(number) for number in (matched["first"], matched["second"]) if number is not None]
    if len(numbers) > len(meanings):
        raise InputError(f"got codec {spelling!r}, wanted at most {len(meanings)} numbers after {matched['name']!r}")
    try:
        return __getattr__(class_name)(**fixed, **dict(zip(meanings, numbers, strict=False)))
    except TypeError as error:
        raise InputError(f"got codec {spelling!r}, wanted a number after {matched['name']!r} ({meanings[0]})") from error


def restore_codec(name: str, *, dim: int, config: Mapping[str, Any], learned: bytes) -> Codec:
    """Rebuild a fitted codec from its registered name, its configuration and its learned arrays (safetensors)."""
    codec: type[Codec] = registered(name)
    return codec.restore(dim=dim, config=config, learned=learned)


def load_codec(folder: str | os.PathLike[str]) -> Codec:
    """Load what ``codec.save_pretrained(folder)`` wrote."""
    source = Path(folder)
    described = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    learned = (source / ARRAYS_FILE).read_bytes()
    return restore_codec(described["codec"], dim=described["dim"], config=described["config"], learned=learned)


def registered(name: str) -> Any:
    """Give the class of a codec or transform that is saved under a name."""
    if name not in _REGISTERED:
        raise FormatVersionError(
            f"got codec {name!r}, which this version does not know (it knows {sorted(_REGISTERED)}): upgrade rarebit"
        )
    return __getattr__(_REGISTERED[name])


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
