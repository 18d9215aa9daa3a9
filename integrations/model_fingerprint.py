"""Which embedding model is this? Asked of an object of any framework, and answered only where it can be known.

A wrong answer would refuse vectors that are fine, so whatever is doubtful is left unknown, which agrees with everything.
The answer depends on the name alone, never on what is on this machine's disk: the same name gives the same answer anywhere.
"""

from __future__ import annotations

import re

from rarebit.retrievers.collection import EmbeddingFingerprint

NAME_ATTRIBUTES = ("model_name", "model", "model_id", "repo_id")
"""Where embedding models keep their name, the most telling first."""

PLACEHOLDERS = ("", "unknown", "default", "none")
"""What some frameworks put where a name should stand."""

_SNAPSHOT = re.compile(r"models--(?P<name>[^/]+)/snapshots/[^/]+$")
_PATH = re.compile(r"^([/~.]|[A-Za-z]:/)|/.*/")
"""A path begins like one, or has more slashes than the one of ``owner/model``."""


def fingerprint_of(model: object) -> EmbeddingFingerprint:
    """Read the name of an embedding model off the object.

    Args:
        model: an embedding model of any framework.

    Returns:
        A fingerprint with the model's name, without the folder it was loaded from; or one that knows nothing.
    """
    told = getattr(model, "fingerprint", None)
    if isinstance(told, EmbeddingFingerprint):
        return told
    candidates = (getattr(model, attribute, None) for attribute in NAME_ATTRIBUTES)
    names = (_plain_name(given) for given in candidates if isinstance(given, str))
    return EmbeddingFingerprint(name=next((name for name in names if name.lower() not in PLACEHOLDERS), None))


def _plain_name(given: str) -> str:
    name = given.strip().replace("\\", "/").rstrip("/")
    snapshot = _SNAPSHOT.search(name)
    if snapshot:  # a folder of the hub's cache is named after a commit, the model above it
        return snapshot["name"].replace("--", "/")
    name = name.rpartition("/")[2] if _PATH.search(name) else name
    return name.removesuffix(":latest")
