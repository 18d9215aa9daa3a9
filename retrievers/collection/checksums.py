"""Checksums of what the file holds, so that a flipped bit is an error and not an answer.

A row's are two CRC-32 in one number: of all but the text, which can be checked without reading the text, and of everything. A
code's stands in its last four bytes and can be checked for many codes at once: a weighted sum of its words modulo 2^32, in
which every weight is odd, so that no single flipped bit leaves the sum as it was; the row's number, its tenant and its list are
words of their own, so that a code cannot pass for another row's.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8, UInt32

from rarebit.arrays import Codes, RowIds
from rarebit.errors import DamagedFileError

CHECKSUM_BYTES: Final = 4

Sums: TypeAlias = UInt32[npt.NDArray[np.uint32], "n"]
Stored: TypeAlias = UInt8[npt.NDArray[np.uint8], "n stored_size"]
"""Codes with their checksums."""


def of_parts(*parts: str | int | bytes) -> int:
    """Give the CRC-32 of strings, numbers and bytes, in this order."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part if isinstance(part, bytes) else f"{part}\0".encode(), checksum)
    return checksum


def of_row(row_id: int, tenant: int, key: str, metadata: str, text: str) -> int:
    """Give the checksum of a row: the CRC-32 of all of it, and above it that of all but the text, halved to fit in 63 bits."""
    head = _of_head(row_id, tenant, key, metadata)
    return (head >> 1) << 32 | zlib.crc32(f"{text}".encode(), head)


def is_head(row_id: int, tenant: int, key: str, metadata: str, checksum: int) -> bool:
    """Whether a row's checksum is that of these parts of it, with whatever text."""
    return _of_head(row_id, tenant, key, metadata) >> 1 == checksum >> 32


def with_checksums(codes: Codes, *about: RowIds) -> Stored:
    """Append its checksum to each of (n, size) codes: (n, size + 4).

    ``about`` are numbers that stand beside each code, first of all its row id: a code belongs to them.
    """
    sums = _sums(codes, about).astype("<u4", copy=False)[:, np.newaxis].view(np.uint8)
    joined: Stored = np.concatenate([codes, sums], axis=1)
    return joined


def without_checksums(stored: Stored, what: str, *about: RowIds) -> Codes:
    """Check what :func:`with_checksums` gave, and cut the checksums off: (n, size).

    Raises:
        DamagedFileError: a code is not the one that was stored beside these numbers.
    """
    codes, kept = stored[:, :-CHECKSUM_BYTES], stored[:, -CHECKSUM_BYTES:]
    wrong = np.flatnonzero(np.ascontiguousarray(kept).view("<u4")[:, 0] != _sums(codes, about))
    if len(wrong):
        raise DamagedFileError(
            f"{len(wrong)} {what} of the file are not what was stored (first: that of row {about[0][wrong[0]]}): "
            "restore the file from a backup"
        )
    return codes


def _of_head(row_id: int, tenant: int, key: str, metadata: str) -> int:
    return zlib.crc32(f"{row_id} {tenant} {key}\0{metadata}\0".encode())


def _sums(codes: Codes, about: Sequence[RowIds]) -> Sums:
    count, size = codes.shape
    padded = np.zeros((count, -(-size // 4) * 4), np.uint8)
    padded[:, :size] = codes
    words = padded.shape[1] // 4
    weights = _weights(words + 2 * len(about))
    sums: Sums = (padded.view("<u4") * weights[:words]).sum(axis=1, dtype=np.uint32)
    for number, column in enumerate(about):
        low, high = (column & 0xFFFFFFFF).astype(np.uint32), (column >> 32).astype(np.uint32)
        sums += low * weights[words + 2 * number] + high * weights[words + 2 * number + 1]
    return sums


@lru_cache
def _weights(count: int) -> npt.NDArray[np.uint32]:
    """Give odd numbers that look random, the same ones for ever."""
    powers = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((powers >> np.uint64(32)) | np.uint64(1)).astype(np.uint32)
