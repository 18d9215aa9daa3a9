"""Roaring bitmaps and numpy arrays of row ids, made of each other without a Python object a row."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from rarebit.arrays import RowIds

FEW = 4096
"""Row ids up to which a bitmap is made from a list, and members up to which a container of the format is one."""

CHUNK = 1 << 16
NO_RUNS = 12346
"""The format's first word where no container holds runs."""


def bitmap_of(row_ids: RowIds) -> BitMap64:
    """Make a bitmap of row ids that are in order, each once.

    Many are written in the portable format of roaring bitmaps (RoaringFormatSpec), which is what the library reads fastest.
    """
    if len(row_ids) <= FEW:
        return BitMap64(row_ids.tolist())
    highs = row_ids >> 32
    parts = [(int(row_ids[part.start] >> 32), row_ids[part]) for part in _runs(highs)]
    encoded = b"".join(struct.pack("<I", high) + _of_32_bits(lows & 0xFFFFFFFF) for high, lows in parts)
    return BitMap64.deserialize(struct.pack("<Q", len(parts)) + encoded)


def array_of(bitmap: BitMap64) -> RowIds:
    """Give the row ids of a bitmap, in order."""
    row_ids: RowIds = np.asarray(bitmap.to_array(), dtype=np.uint64).astype(np.int64)
    return row_ids


def _of_32_bits(row_ids: RowIds) -> bytes:
    keys = row_ids >> 16
    headers, containers = [], []
    for part in _runs(keys):
        lows = (row_ids[part] & (CHUNK - 1)).astype("<u2")
        headers.append(struct.pack("<HH", int(keys[part.start]), len(lows) - 1))
        containers.append(lows.tobytes() if len(lows) <= FEW else _bits(lows))
    sizes = np.array([len(container) for container in containers])
    first = 8 + 8 * len(containers)
    offsets = (first + np.concatenate([[0], np.cumsum(sizes)[:-1]])).astype("<u4").tobytes()
    return struct.pack("<II", NO_RUNS, len(containers)) + b"".join(headers) + offsets + b"".join(containers)


def _bits(lows: npt.NDArray[np.uint16]) -> bytes:
    members = np.zeros(CHUNK, dtype=np.bool_)
    members[lows] = True
    return np.packbits(members, bitorder="little").tobytes()


def _runs(keys: RowIds) -> Iterator[slice]:
    """Give the slices in which a sorted array has one value."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(keys)) + 1, [len(keys)]])
    yield from (slice(int(start), int(stop)) for start, stop in pairwise(starts))
