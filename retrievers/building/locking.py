"""One run at a time in a work folder: two would write and sweep the same files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rarebit.errors import LockedError, StorageError

FILE: Final = "lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of a work folder that is there; a process that is killed lets go of it.

    The file stays, so that all runs lock the same one. Where the system or the disk knows no such locks, nobody is kept out.

    Raises:
        LockedError: another run is at work there.
        StorageError: the folder cannot be written.
    """
    path = folder / FILE
    try:
        file = path.open("ab")
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror}), wanted a work folder: check its rights, or choose another"
        ) from error
    with file:
        if not _is_ours(file.fileno()):
            raise LockedError(
                f"another run is building in {folder}, and two would damage what is there: wait for it or end it, or build in "
                "another folder"
            )
        yield


def _is_ours(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return True
    return True
