"""References: short texts that stand for a passage, signed, so that nobody else can write one.

Text is the only channel that survives both frameworks, their prompts, and agents' messages; so a passage that is to be read as
one token travels as a text such as ``[[rarebit:MTI.pGm2...|a few words]]``. It holds the id of the passage, a digest of its
text, and a signature over both and over what the passages belong to (a file, a tenant). What looks like a reference and was not
signed with the same secret is text like any other: a user, a passage or a model that writes one down gets nothing for it.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from rarebit.errors import InputError

DIGEST_BYTES: Final = 9
SIGNATURE_BYTES: Final = 15
LEAST_SECRET: Final = 16
LONGEST_LABEL: Final = 80

_PATTERN: Final = re.compile(
    r"\[\[rarebit:(?P<key>[A-Za-z0-9_-]*)\.(?P<digest>[A-Za-z0-9_-]{12})(?P<signature>[A-Za-z0-9_-]{20})(?:\|[^\[\]\n]*)?\]\]"
)
_OF_THIS_PROCESS: Final = secrets.token_bytes(32)


@dataclass(frozen=True)
class Reference:
    """A passage that a text refers to.

    Args:
        id: of the passage.
        digest: of its text, as :func:`digest_of` gives it.
        written: the reference as it stands in the text.
    """

    id: str
    digest: str
    written: str


class References:
    """Writes and reads references.

    Args:
        belonging: what the passages belong to, such as a file and a tenant: references to those of others are not read.
        secret: at least 16 bytes, for references that other processes write or read. By default one of this process.
    """

    def __init__(self, belonging: str = "", secret: bytes | None = None) -> None:
        """Take the secret of this process if none is given.

        Raises:
            InputError: a secret that is too short, or no bytes.
        """
        if secret is not None and (not isinstance(secret, bytes) or len(secret) < LEAST_SECRET):
            raise InputError(
                f"got a secret of {type(secret).__name__}, {len(secret)} long, wanted at least {LEAST_SECRET} bytes: "
                "secrets.token_bytes(32) makes one"
            )
        self._belonging = belonging
        self._key = hmac.digest(secret or _OF_THIS_PROCESS, b"rarebit reference\0" + belonging.encode(), "sha256")

    def write(self, key: str, text: str, label: str = "") -> str:
        """Refer to a passage.

        Args:
            key: id of the passage.
            text: of the passage; a reference to one that has changed since is noticed.
            label: for people, and for models that cannot read references; cut to 80 characters.
        """
        digest = digest_of(text)
        shown = f"|{_as_label(label)}" if label else ""
        return f"[[rarebit:{_encoded(key.encode())}.{digest}{self._signature(key, digest)}{shown}]]"

    def read(self, text: str) -> list[str | Reference]:
        """Part a text into what is text, and references; what was not written with this secret is text."""
        parts: list[str | Reference] = []
        end = 0
        for found in _PATTERN.finditer(text):
            reference = self._genuine(found)
            if reference is None:
                continue
            if found.start() > end:
                parts.append(text[end : found.start()])
            parts.append(reference)
            end = found.end()
        if end < len(text) or not parts:
            parts.append(text[end:])
        return parts

    def _genuine(self, found: re.Match[str]) -> Reference | None:
        try:
            key = _decoded(found["key"]).decode()
        except ValueError:
            return None
        written_so = _encoded(key.encode()) == found["key"]  # base64 has bits to spare, which are not signed
        if not written_so or not hmac.compare_digest(self._signature(key, found["digest"]), found["signature"]):
            return None
        return Reference(key, found["digest"], found[0])

    def _signature(self, key: str, digest: str) -> str:
        return _encoded(hmac.digest(self._key, f"{digest}{key}".encode(), "sha256")[:SIGNATURE_BYTES])

    def __repr__(self) -> str:
        """Say what the passages belong to; never the secret."""
        return f"References({self._belonging!r})"


def digest_of(text: str) -> str:
    """Give a short digest of a text, 12 characters: two passages with the same one are the same."""
    return _encoded(sha256(text.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES])


def _as_label(given: str) -> str:
    """Make a label of a text: one line without brackets, which end a reference."""
    plain = " ".join(given.translate({ord("["): "(", ord("]"): ")"}).split())
    return plain if len(plain) <= LONGEST_LABEL else f"{plain[: LONGEST_LABEL - 1].rstrip()}…"


def _encoded(given: bytes) -> str:
    return urlsafe_b64encode(given).rstrip(b"=").decode()


def _decoded(given: str) -> bytes:
    return urlsafe_b64decode(given + "=" * (-len(given) % 4))
