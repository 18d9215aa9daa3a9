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
_NUMBER_BYTES: Final = 8

OWNER: Final = ("owner_1", "owner_2", "owner_3")
"""The fields of what stands for a tenant."""


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


def owner_of(tenant: str) -> dict[str, int]:
    """Give the fields of what stands for a tenant in expressions: its name could say anything.

    Numbers, since every search compares them and Milvus takes twenty times as long for strings. They are three of 63 bits, so
    that no two tenants have the same ones, and not negative, since the sign of a number is an operator in expressions.
    """
    told = _digest(tenant, size=_NUMBER_BYTES * len(OWNER))
    parts = (told[start : start + _NUMBER_BYTES] for start in range(0, len(told), _NUMBER_BYTES))
    return {name: int.from_bytes(part, "little") >> 1 for name, part in zip(OWNER, parts, strict=True)}


def key_of(tenant: str, key: str) -> str:
    """Give the primary key of a row: ids may be longer than Milvus takes, and hold any character."""
    return urlsafe_b64encode(_digest(tenant, key, size=_KEY_BYTES)).decode().rstrip("=")


def digest_of(*parts: str, bits: int) -> int:
    """Give so many bits of a digest, at most 64."""
    return int.from_bytes(_digest(*parts, size=8), "little") >> (64 - bits)


def _digest(*parts: str, size: int) -> bytes:
    told = blake2b(digest_size=size)
    for part in parts:
        written = part.encode()
        told.update(len(written).to_bytes(8, "little") + written)
    return told.digest()
