"""Which files a build reads, in which order, and what tells whether they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final, NamedTuple

from rarebit.errors import InputError
from rarebit.retrievers.importing import parquet
from rarebit.retrievers.importing.passage_files import LINES_OF_JSON

GZIPPED: Final = ".gz"
SUFFIXES: Final = (*parquet.SUFFIXES, *LINES_OF_JSON, *(f"{suffix}{GZIPPED}" for suffix in LINES_OF_JSON))


class Input(NamedTuple):
    """A file, and what messages and the manifest call it: where it lies in the folder that was given, or its name."""

    path: Path
    name: str
    state: tuple[int, int]
    """Its bytes, and when it was written: what tells, without reading it again, whether it has changed since."""

    @classmethod
    def at(cls, path: Path, name: str) -> Input:
        """Look at a file."""
        return cls(path, name, _state(path))

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet; else it is lines of JSON."""
        return self.path.suffix.lower() in parquet.SUFFIXES


def inputs_of(paths: Sequence[Path], work: Path) -> list[Input]:
    """Give the files in the order in which they were given, and those below a folder in the order of their paths in it.

    Hidden files and folders are passed over.

    Raises:
        InputError: something is not there, of no kind that is known by its name, or given twice; or the work folder lies in a
            folder of inputs, where its own files would be read, or an input in the work folder.
    """
    work = work.resolve()
    for path in paths:
        if path.is_dir() and work.is_relative_to(path.resolve()) and not _is_hidden(work, path.resolve()):
            raise InputError(
                f"the work folder {work} lies in the inputs {path}, and what is written there would be read: choose a work "
                "folder elsewhere"
            )
    found = [each for path in paths for each in _at(path)]
    seen: set[Path] = set()
    for each in found:
        if (real := each.path.resolve()) in seen:
            raise InputError(f"got {each.path} twice, wanted each input once: leave one out")
        seen.add(real)
        if real.is_relative_to(work):
            raise InputError(
                f"the input {each.path} lies in the work folder {work}, which has the build's own files: choose another work "
                "folder, or move the input"
            )
    return found


def _at(path: Path) -> list[Input]:
    if path.is_dir():
        below = [each for each in path.rglob("*") if _is_known(each) and each.is_file() and not _is_hidden(each, path)]
        if not below:
            raise InputError(f"there is no file of {', '.join(SUFFIXES)} below {path}, wanted one at least: check the folder")
        named = [Input.at(each, each.relative_to(path).as_posix()) for each in below]
        return sorted(named, key=lambda each: each.name)
    if not path.is_file():
        raise InputError(f"{path} does not exist, wanted a file of {', '.join(SUFFIXES)}, or a folder of them")
    if not _is_known(path):
        raise InputError(f"got {path}, wanted a file that ends in one of {', '.join(SUFFIXES)}, or a folder of them")
    return [Input.at(path, path.name)]


def _is_known(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def described(found: Sequence[Input]) -> list[dict[str, Any]]:
    """Describe files for the manifest, by their content: reads them once."""
    return [{"file": each.name, "bytes": each.state[0], "digest": _digest(each.path)} for each in found]


def check_unchanged(found: Sequence[Input]) -> None:
    """Raise InputError where a file was written to since it was first looked at: what was read of it may be anything."""
    changed = [each.name for each in found if not each.path.is_file() or _state(each.path) != each.state]
    if changed:
        raise InputError(
            f"{', '.join(changed[:3])} changed while the build read it ({len(changed)} of {len(found)} files), wanted inputs "
            "that stay as they are: wait until they are written, and run the build again"
        )


def _state(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_size, told.st_mtime_ns


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), wanted a file of passages: check its rights") from error
