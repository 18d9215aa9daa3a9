"""The work folder of a build: what was asked, what is done already, and where everything lies.

::

    manifest.json            what was asked, and how far it is: inputs with their sizes and digests, settings, rows, checksums
    passages/000000.parquet  ids, texts, metadata
    vectors/000000.parquet   (n, dim) float32
    codec.json               settings, and what the codec is; what it learned lies beside it
    shards/000000.parquet    ids, texts, metadata, codes, fine codes
    ids.sqlite               which row has which id
    lock                     held by the run that is at work

Every file is written aside and renamed, so that what has its name is whole; what is there needs not be done again. On a cluster
the folder is one that every node sees.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from rarebit.errors import DamagedFileError, InputError, SettingsError, StorageError
from rarebit.retrievers.building.tables import UNFINISHED, Stamp, write_bytes

PASSAGES: Final = "passages"
VECTORS: Final = "vectors"
SHARDS: Final = "shards"
STAGES: Final = (PASSAGES, VECTORS, SHARDS)

MANIFEST: Final = "manifest.json"
INPUTS: Final = "inputs"
READ: Final = "read"
COUNTED: Final = {"rows": 0, "unchanged": 0, "differing": 0}
"""What was read, where nothing was."""


@dataclass(frozen=True)
class WorkFolder:
    """The files of one build; small, and can be sent to other processes.

    Args:
        path: of the folder.
        build: digest of everything that was asked.
    """

    path: Path
    build: str

    @classmethod
    def at(cls, path: Path, asked: Mapping[str, Any]) -> WorkFolder:
        """Give the folder of a build that is begun or goes on.

        Raises:
            InputError: the build there began with other inputs.
            SettingsError: it began with other settings.
            DamagedFileError: its manifest cannot be read.
        """
        asked = json.loads(json.dumps(asked))
        canonical = json.dumps(asked, sort_keys=True).encode()
        folder = cls(path.resolve(), blake2b(canonical, digest_size=16).hexdigest())
        before = folder.manifest()
        if before is not None:
            _check_same(folder.path, before["asked"], asked)
        return folder

    def create(self) -> None:
        """Make the folder.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be made ({error.strerror}), wanted a work folder: choose another"
            ) from error

    def file(self, stage: str, shard: int) -> Path:
        """Name the file of a shard."""
        return self.path / stage / f"{shard:06d}.parquet"

    def stamp(self, stage: str, shard: int) -> Stamp:
        """Say what the file of a shard is."""
        return Stamp(self.build, stage, shard)

    def missing(self, stage: str, count: int) -> list[int]:
        """Say which of so many shards a stage has still to make."""
        there = {found.name for found in (self.path / stage).glob("*.parquet")}
        return [shard for shard in range(count) if self.file(stage, shard).name not in there]

    def manifest(self) -> dict[str, Any] | None:
        """Read the manifest; None where no build has begun."""
        path = self.path / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            _check_sound(found)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise DamagedFileError(f"{path} cannot be read ({error}): build in another folder, or delete this one") from error
        known: dict[str, Any] = found
        return known

    def note(self, **parts: Any) -> None:
        """Write parts of the manifest, beside those that are there; None takes one away."""
        now = {name: part for name, part in {**(self.manifest() or {}), **parts}.items() if part is not None}
        write_bytes(self.path / MANIFEST, json.dumps(now, ensure_ascii=False, indent=1).encode())

    def sweep(self) -> None:
        """Delete what runs that were killed have left unfinished."""
        for stage in STAGES:
            for found in (self.path / stage).glob(f"*{UNFINISHED}"):
                found.unlink(missing_ok=True)


def _check_sound(manifest: Any) -> None:
    """Raise ValueError for what no build has noted."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("asked"), dict):
        raise ValueError("it does not say what was asked")  # noqa: TRY004 -- as other JSON that cannot be used
    if not all(isinstance(each, dict) and {"file", "digest"} <= each.keys() for each in manifest["asked"].get(INPUTS, [None])):
        raise ValueError("it does not say which files are read")
    read = manifest.get(READ, COUNTED)
    if not isinstance(read, dict) or not all(type(read.get(name)) is int for name in COUNTED):
        raise ValueError("it does not say how many rows were read")
    if not isinstance(manifest.get(SHARDS, []), list):
        raise ValueError("it does not say which shards there are")  # noqa: TRY004 -- likewise


def _check_same(path: Path, before: dict[str, Any], asked: Mapping[str, Any]) -> None:
    changed = _changed_inputs(before[INPUTS], asked[INPUTS])
    if changed:
        raise InputError(
            f"the build in {path} began with other inputs ({'; '.join(changed)}), wanted those: put them back, or build in "
            "another folder"
        )
    other = [
        f"{name}: {before.get(name)!r} instead of {asked.get(name)!r}"
        for name in sorted({*before, *asked} - {INPUTS})
        if before.get(name) != asked.get(name)
    ]
    if other:
        raise SettingsError(
            f"the build in {path} began with other settings ({'; '.join(other)}), wanted the same: ask for those, or build in "
            "another folder"
        )


def _changed_inputs(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    names, given = [each["file"] for each in before], [each["file"] for each in now]
    if names != given:
        return [f"it had {names[:3]} and so on, {len(names)} in all, and now {given[:3]}, {len(given)} in all"]
    return [f"{new['file']} has changed since" for old, new in zip(before, now, strict=True) if old["digest"] != new["digest"]]
