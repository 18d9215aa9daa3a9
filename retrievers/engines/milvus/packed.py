"""A row as Milvus keeps it: codes, id, text and metadata are one string, ``packed``.

The client of Milvus decodes answers cell by cell, and a search has hundreds of candidates: what each of them needs is one cell.
It begins with the row's number, its codes, and the lengths of the other three, with spaces behind them. What is longer than a
string of Milvus goes on in ``more``, which is asked for only where it is needed.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from rarebit.errors import EngineLimitError
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.engines.engine import NewRow, StoredCode
from rarebit.retrievers.engines.milvus.forms import stored_forms
from rarebit.retrievers.engines.milvus.names import key_of, owner_of

Found: TypeAlias = dict[str, Any]
"""A row, as Milvus takes and gives it."""

PACKED: Final = "packed"
LONGEST: Final = 65_535
"""Bytes of a string."""

BYTES: Final = 4
"""No character takes more."""

LONGEST_CODE: Final = LONGEST - 135
"""Characters of codes: numbers and lengths are in the same string."""

NO_BITS: Final = b"\0"
"""Before there are bits."""


def stored(tenant: str, new: Sequence[NewRow], row_ids: Sequence[int]) -> list[Found]:
    """Give rows as Milvus keeps them, with their numbers.

    Raises:
        EngineLimitError: a code is longer than a string of Milvus.
    """
    owner = owner_of(tenant)
    rows = []
    for row_id, row in zip(row_ids, new, strict=True):
        packed, more = _packed(row_id, row)
        own = {"key": key_of(tenant, row.id), **owner, "tenant": tenant, "row_id": row_id, PACKED: packed, "more": more}
        rows.append({**own, **stored_forms(json.loads(row.metadata)), "plane": row.plane or NO_BITS})
    return rows


def _packed(row_id: int, row: NewRow) -> tuple[str, list[str]]:
    """Give the first string of a row, and the others."""
    codes = b".".join(map(b64encode, [row.code, *([] if row.fine is None else [row.fine])])).decode()
    if len(codes) > LONGEST_CODE:
        raise EngineLimitError(
            f"got a code of {len(row.code):,} bytes, and Milvus keeps {LONGEST_CODE * 3 // 4:,}: use fewer dimensions"
        )
    head = f"{row_id} {codes} {len(row.id)} {len(row.text)} {len(row.metadata)} "
    texts = f"{row.id}{row.text}{row.metadata}"
    room, piece = (LONGEST - len(head)) // BYTES, LONGEST // BYTES
    return head + texts[:room], [texts[start : start + piece] for start in range(room, len(texts), piece)]


def number_of(row: Found) -> int:
    """Read a row's number."""
    return int(row[PACKED].partition(" ")[0])


def code_of(row: Found) -> StoredCode:
    """Read a row's codes."""
    number, codes, _ = row[PACKED].split(" ", 2)
    code, _, fine = codes.partition(".")
    return StoredCode(int(number), b64decode(code), b64decode(fine) if fine else None)


def is_cut(row: Found) -> bool:
    """Whether a row goes on in ``more``."""
    lengths, texts = _texts(row)
    return sum(lengths) > len(texts)


def _texts(row: Found) -> tuple[list[int], str]:
    """Give the lengths of id, text and metadata, and all three behind each other."""
    *lengths, texts = row[PACKED].split(" ", 5)[2:]
    return list(map(int, lengths)), texts


def new_row_of(row: Found) -> NewRow:
    """Read a row with its codes, without bits."""
    _, code, fine = code_of(row)
    return NewRow(*_parts(row), code, fine, None)


def row_of(row: Found) -> Row:
    """Read a row."""
    key, text, metadata = _parts(row)
    return Row(key, text, json.loads(metadata))


def _parts(row: Found) -> tuple[str, str, str]:
    """Read id, text and metadata."""
    (of_id, of_text, _), texts = _texts(row)
    end = of_id + of_text
    return texts[:of_id], texts[of_id:end], texts[end:]
