"""Noticing that a file was removed or replaced while it is open: SQLite goes on with what nobody else can find."""

from __future__ import annotations

import os
from typing import TypeAlias

from rarebit.errors import StorageError

Identity: TypeAlias = tuple[int, int]
"""Device and inode."""


class FilesInPlace:
    """Remembers which files were found under their names at first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[str, Identity] = {}

    def check(self, name: str) -> None:
        """Raise StorageError if a file is another one than at first."""
        found, known = identity(name), self._known.get(name)
        if known is None and found is not None:
            self._known[name] = found
        elif known != found:
            raise StorageError(
                f"{name} was {'removed' if found is None else 'replaced by another file'} while it was open, and what is "
                "written now would be lost: put it back, or close the collection and open it again"
            )

    def forget(self, name: str) -> None:
        """Take what is found next for the first."""
        self._known.pop(name, None)

    def first(self, name: str) -> Identity | None:
        """Tell which file was found at first, or is there now if none was looked for."""
        return self._known.get(name) or identity(name)


def identity(name: str) -> Identity | None:
    """Tell a file from every other one that there is at the same time; None where there is none."""
    try:
        status = os.stat(name)  # noqa: PTH116 -- for each call: half the time of Path.stat
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
