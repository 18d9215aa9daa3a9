"""Files that are written beside the place that they take in the end: they are there whole, or not at all.

What a killed process leaves behind is named after its target, and goes when the same target is written again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rarebit.errors import RarebitError, StorageError

NAME_KEPT = 40
"""Characters of the target's name: a file's name has 255 bytes at most."""

QUIET, VERY_QUIET = 60, 3600
"""Seconds without a change after which something is abandoned: of a process that this machine has not, or seems to have."""


@contextmanager
def written_aside(target: Path, *, mode_of: Path | None, synced: bool = True) -> Iterator[Path]:
    """Give an empty file to fill, which takes the target's place when the block ends without an error.

    Args:
        target: the path to write to.
        mode_of: who may use this file may use the new one, from before anything is in it; None leaves it to the system.
        synced: have it on the disk at the end.

    Raises:
        StorageError: the operating system refuses.
    """
    with _refused(target):
        mode = None if mode_of is None else mode_of.stat().st_mode & 0o666
        _remove_abandoned(target)
        aside = _name_beside(target)
        try:
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else 0o600))
            if mode is not None:
                aside.chmod(mode)
            yield aside
            if mode is not None:
                aside.chmod(mode)  # some who fill a file make it anew
            if synced:
                _sync(aside)
            aside.replace(target)
            if synced:
                _sync(target.parent)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Give a folder of one's own beside a target, and remove it in the end; errors are those of :func:`written_aside`."""
    with _refused(target):
        _remove_abandoned(target)
        folder = _name_beside(target)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _refused(target: Path) -> Iterator[None]:
    """Raise our errors instead of the system's, which would name the file aside."""
    try:
        yield
    except RarebitError:
        raise
    except OSError as error:
        raise StorageError(
            f"the copy {target} cannot be written ({error.strerror}): check its folder, the permissions and the space"
        ) from error


def _name_beside(target: Path) -> Path:
    return target.with_name(f"{_beginning(target)}{os.getpid()}.{uuid.uuid4().hex}.tmp")


def _beginning(target: Path) -> str:
    return f".{target.name[:NAME_KEPT]}."


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of the same target."""
    ours = re.compile(re.escape(_beginning(target)) + r"(\d{1,9})\.[0-9a-f]{32}\.tmp")
    for path in target.parent.iterdir():
        named = ours.fullmatch(path.name)
        if named and _is_abandoned(path, int(named[1])):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_abandoned(path: Path, process: int) -> bool:
    """Whether nobody writes; another machine, or a container, may have a process that is not to be seen from here."""
    with suppress(OSError):
        changed: float = max(part.stat().st_mtime for part in (path, *(path.iterdir() if path.is_dir() else ())))
        return time.time() - changed > (VERY_QUIET if _is_running(process) else QUIET)
    return False


def _is_running(process: int) -> bool:
    if os.name != "posix":  # there, asking would end it
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _sync(path: Path) -> None:
    """Have the operating system write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
