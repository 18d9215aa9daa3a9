"""Metadata of elsewhere: what becomes JSON, and what is refused."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from rarebit.errors import MetadataError
from rarebit.retrievers.importing.plain import plain_metadata


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


KEPT: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    ("é", "é"),
    (2**70, 2**70),
    (0.1, 0.1),
    (np.float32(0.5), 0.5),
    (np.float64(0.1), 0.1),
    (np.int64(7), 7),
    (np.uint8(7), 7),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array([[1, 2], [3, 4]], dtype=np.int16), [[1, 2], [3, 4]]),
    (np.array(5), 5),
    (np.array(["2020-01-01"], dtype="datetime64[D]"), ["2020-01-01"]),
    (np.datetime64("2020-01-01T10:00:00.123456789"), "2020-01-01T10:00:00.123456789"),
    (dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), "2020-01-02T03:04:05.000006+00:00"),
    (dt.date(2020, 1, 2), "2020-01-02"),
    (dt.time(3, 4), "03:04:00"),
    (Decimal("1.50"), 1.5),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (PurePosixPath("a/b"), "a/b"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    ((1, (2, [dt.date(2020, 1, 2)])), [1, [2, ["2020-01-02"]]]),
    ({"a": {"b": np.int8(1)}}, {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("given", "wanted"), KEPT, ids=[repr(given)[:40] for given, _ in KEPT])
def test_what_loses_nothing_is_converted(given: Any, wanted: Any) -> None:
    found = plain_metadata({"it": given}, "row")["it"]
    assert found == wanted
    assert type(found) is type(wanted) or isinstance(given, str)
    assert json.loads(json.dumps(found, allow_nan=False)) == wanted


@pytest.mark.unchecked
@pytest.mark.parametrize("given", [{1: "a", "b": 2}, {"b": 2, (1, 2): "a"}, {None: 1}, {"deep": [{1: 2}]}], ids=str)
def test_keys_are_strings(given: Any) -> None:
    with pytest.raises(MetadataError, match=r"row 'r7' has the metadata .*key (1|\(1, 2\)|None) is a "):
        plain_metadata(given, "r7")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
REFUSED: list[Any] = [
    *(float("nan"), float("inf"), np.float32("nan"), np.array([1.0, np.nan]), np.datetime64("NaT"), np.timedelta64(1, "s")),
    *(b"bytes", {1, 2}, object(), 1j, np.complex64(1j), dt.timedelta(1), np.longdouble(1), CYCLE),
    *(Decimal("0.1000000000000000000001"), Decimal("NaN")),
]


@pytest.mark.parametrize("given", REFUSED, ids=[f"{type(given).__name__} {place}" for place, given in enumerate(REFUSED)])
def test_what_would_lose_something_is_refused_by_name(given: Any) -> None:
    with pytest.raises(MetadataError, match=r"row 'r7' has the metadata 'field', which JSON cannot hold"):
        plain_metadata({"fine": 1, "field": {"deep": [given]}}, "r7")


def test_nothing_is_empty_and_what_is_given_stays_as_it_is() -> None:
    assert plain_metadata(None, "row") == {}
    given = {"inner": {"list": (1, 2)}}
    plain_metadata(given, "row")["inner"]["list"].append(3)
    assert given == {"inner": {"list": (1, 2)}}
