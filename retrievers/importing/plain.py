"""Metadata of other stores as JSON: converted where nothing is lost, refused where something would be."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from rarebit.errors import MetadataError
from rarebit.retrievers.collection.records import Metadata


def plain_metadata(given: Mapping[str, Any] | None, key: str) -> Metadata:
    """Make JSON values of metadata.

    Args:
        given: the metadata; it is not changed. None is empty.
        key: id of the row, for messages.

    Returns:
        A dictionary in which dates and times are ISO 8601 strings, numpy's scalars and arrays numbers and lists, tuples lists,
        UUIDs and paths strings, decimals floats (where that is exact).

    Raises:
        MetadataError: what JSON cannot hold without loss: values such as NaN, bytes or a set, and keys that are no strings.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise MetadataError(f"row {key!r} has a {type(given).__name__} as metadata, wanted a dictionary: convert it first")
    return {name: _field(name, value, key) for name, value in given.items()}


def _field(name: Any, value: Any, key: str) -> Any:
    try:
        return _plain({name: value})[name]
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(
            f"row {key!r} has the metadata {name!r}, which JSON cannot hold without loss ({error}): convert it in the source, "
            "or leave it out"
        ) from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {_key(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (dt.date, dt.time)):
        return _date(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return _of_numpy(value)
    if isinstance(value, Decimal):
        return _exact(value)
    if isinstance(value, (UUID, PurePath)):
        return str(value)
    if isinstance(value, Enum):
        return _plain(value.value)
    raise TypeError(f"it holds a {type(value).__name__}")


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"key {name!r} is a {type(name).__name__}")
    return name


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"it holds {number}")
    return number


def _exact(number: Decimal) -> float:
    found = _finite(float(number))
    if Decimal(repr(found)) != number:
        raise ValueError(f"it holds {number!r}, which is no float")
    return found


def _date(value: dt.date | dt.time) -> str:
    if value != value:  # noqa: PLR0124 -- pandas' "not a time" is a datetime, and differs from itself
        raise ValueError(f"it holds {value}")
    return value.isoformat()


def _of_numpy(value: np.generic | npt.NDArray[Any]) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(inner) for inner in value] if value.ndim else _plain(value[()])
    if isinstance(value, np.datetime64):
        if np.isnat(value):
            raise ValueError(f"it holds {value}")
        return str(value)
    item = value.item()
    if isinstance(item, np.generic):
        raise TypeError(f"it holds a {type(value).__name__}")
    return _plain(item)
