"""Roaring bitmaps and numpy arrays of row ids, made of each other without a Python object a row.

Many rows are written in the portable format of roaring bitmaps (RoaringFormatSpec), which is what the library reads fastest:
containers of 2^16 numbers each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from rarebit.arrays import Mask, RowIds

FEW = 4096
"""Row ids up to which a bitmap is made from a list, and members up to which a container of the format is one."""

CHUNK = 1 << 16
NO_RUNS = 12346
"""The format's first word where no container holds runs."""


class Container(NamedTuple):
    """The members whose numbers divided by 2^16 are ``key``, encoded."""

    key: int
    size: int
    encoded: bytes


def bitmap_of(row_ids: RowIds) -> BitMap64:
    """Make a bitmap of row ids that are in order, each once."""
    return BitMap64(row_ids.tolist()) if len(row_ids) <= FEW else _joined(_of_row_ids(row_ids))


def bitmap_where(row_ids: RowIds, holds: Mask) -> BitMap64:
    """Make a bitmap of those row ids, which are in order, that are marked; fastest where none is missing between them."""
    if not len(row_ids) or int(row_ids[-1]) - int(row_ids[0]) + 1 > len(row_ids):
        return bitmap_of(row_ids.take(np.flatnonzero(holds)))
    return _joined(_of_mask(int(row_ids[0]), holds))


def array_of(bitmap: BitMap64) -> RowIds:
    """Give the row ids of a bitmap, in order."""
    row_ids: RowIds = np.asarray(bitmap.to_array(), dtype=np.uint64).view(np.int64)
    return row_ids


def _joined(containers: Iterable[Container]) -> BitMap64:
    """Write containers, whose keys ascend, as the format wants them: in bitmaps of 32 bits."""
    by_high = groupby(containers, lambda container: container.key >> 16)
    parts = [struct.pack("<I", high) + _of_32_bits(list(part)) for high, part in by_high]
    return BitMap64.deserialize(struct.pack("<Q", len(parts)) + b"".join(parts))


def _of_32_bits(containers: list[Container]) -> bytes:
    headers = b"".join(struct.pack("<HH", each.key & (CHUNK - 1), each.size - 1) for each in containers)
    sizes = np.array([len(each.encoded) for each in containers])
    first = 8 + 8 * len(containers)
    offsets = (first + np.concatenate([[0], np.cumsum(sizes)[:-1]])).astype("<u4").tobytes()
    return struct.pack("<II", NO_RUNS, len(containers)) + headers + offsets + b"".join(each.encoded for each in containers)


def _of_row_ids(row_ids: RowIds) -> Iterator[Container]:
    start = 0
    while start < len(row_ids):
        key = int(row_ids[start]) >> 16
        stop = int(np.searchsorted(row_ids, (key + 1) << 16))
        lows = row_ids[start:stop].astype("<u2")  # the last 16 bits
        if len(lows) <= FEW:
            yield Container(key, len(lows), lows.tobytes())
        else:
            members = np.zeros(CHUNK, dtype=np.bool_)
            members[lows] = True
            yield Container(key, len(lows), _bits(members))
        start = stop


def _of_mask(first: int, holds: Mask) -> Iterator[Container]:
    """Read off which of the numbers from ``first`` on are marked."""
    key, before = divmod(first, CHUNK)
    whole = np.zeros(-(-(before + len(holds)) // CHUNK) * CHUNK, dtype=np.bool_)
    whole[before : before + len(holds)] = holds
    for place, members in enumerate(whole.reshape(-1, CHUNK)):
        count = int(np.count_nonzero(members))
        if count:
            encoded = np.flatnonzero(members).astype("<u2").tobytes() if count <= FEW else _bits(members)
            yield Container(key + place, count, encoded)


def _bits(members: npt.NDArray[np.bool_]) -> bytes:
    return np.packbits(members, bitorder="little").tobytes()
