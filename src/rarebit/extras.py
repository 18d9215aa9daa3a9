"""Optional dependencies: one clear error that names the extra."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

from rarebit.errors import MissingExtraError

Extra: TypeAlias = Literal[
    "langchain",
    "llama-index",
    "milvus",
    "models",
    "parquet",
    "postgres",
    "ray",
    "serve",
    "sitemb",
    "train",
    "chroma",
    "demo",
    "all",
]
EXTRAS: tuple[Extra, ...] = get_args(Extra)


def require(module: str, extra: Extra) -> None:
    """Raise MissingExtraError, which names the extra to install, if a module cannot be found."""
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        found = False
    if not found:
        raise MissingExtraError(
            f"this part of Rarebit needs the package {module.partition('.')[0]!r}, which is not installed: "
            f"pip install 'rarebit[{extra}]'"
        )
