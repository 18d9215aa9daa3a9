"""Names in Milvus: of the collections that one of ours is made of, and the keys of rows."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from rarebit.errors import InputError

PREFIX: Final = "rarebit_"
LONGEST_NAME: Final = 40
"""Bytes; Milvus takes names of 255 characters, and each of these may take four or more."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9]")
_KEY_BYTES: Final = 20


class Names:
    """The collections of Milvus that one of ours is made of.

    Letters and digits stay, every other character becomes its code between underlines, and a part's name begins with a letter
    that no code has: no two names come out the same.

    Args:
        name: of the collection.

    Raises:
        InputError: the name cannot be one.
    """

    def __init__(self, name: str) -> None:
        """Check the name."""
        if not isinstance(name, str) or not name or len(name.encode("utf-8", "replace")) > LONGEST_NAME:
            raise InputError(f"got name={name!r:.100} for a collection, wanted a string of 1 to {LONGEST_NAME} bytes")
        if not name.isprintable():
            raise InputError(f"got name={name!r} for a collection, wanted characters that can be printed")
        written = "".join(each if _PLAIN.match(each) else f"_{ord(each):x}_" for each in name)
        self._stem = f"{PREFIX}{written}"
        self.learned = f"{self._stem}__learned"
        """Holds codecs and bits."""

    def step(self, number: int) -> str:
        """Name the collection that says what held from one change on."""
        return f"{self._stem}__step_{number}"

    def rows(self, token: str) -> str:
        """Name a collection of rows."""
        return f"{self._stem}__rows_{token}"

    def number_of(self, found: str) -> int:
        """Give the number of a step; 0 for what is none of this collection's steps."""
        number = found.removeprefix(f"{self._stem}__step_")
        return int(number) if number != found and number.isdecimal() else 0

    def is_rows(self, found: str) -> bool:
        """Whether a collection of Milvus holds rows of this collection."""
        return found.startswith(f"{self._stem}__rows_")


def owner_of(tenant: str) -> str:
    """Give what stands for a tenant in expressions: its name could say anything."""
    return _digest(tenant)


def key_of(tenant: str, key: str) -> str:
    """Give the primary key of a row: ids may be longer than Milvus takes, and hold any character."""
    return _digest(tenant, key)


def _digest(*parts: str) -> str:
    told = blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        written = part.encode()
        told.update(len(written).to_bytes(8, "little") + written)
    return urlsafe_b64encode(told.digest()).decode().rstrip("=")
