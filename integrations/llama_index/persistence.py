"""Copies of a collection where LlamaIndex persists its stores.

A StorageContext hands every store a path such as ``storage/default__vector_store.json``. The copy is written beside it, as
``storage/default__vector_store.rarebit``: at the JSON's own place LlamaIndex would later try to read it as its own store.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from rarebit.errors import CollectionError, CollectionNotFoundError
from rarebit.retrievers.collection import Collection
from rarebit.retrievers.engines import AnyRows

JSON_SUFFIX = ".json"
SUFFIX = ".rarebit"


def beside(persist_path: str | os.PathLike[str]) -> str:
    """Give the place of the copy for the path that persist was given; a path that is no JSON's is taken as it is."""
    path = os.fspath(persist_path)
    return path.removesuffix(JSON_SUFFIX) + SUFFIX if path.endswith(JSON_SUFFIX) else path


def write(rows: AnyRows, persist_path: str | os.PathLike[str], fs: AbstractFileSystem | None) -> None:
    """Write a copy of the collection, or of what a tenant sees of it; nothing to do if the collection lives at that place."""
    target = beside(persist_path)
    if fs is not None and not isinstance(fs, LocalFileSystem):
        _upload(rows, target, fs)
        return
    local = _local(target)
    if rows.path is not None and local.exists() and local.samefile(rows.path):
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    rows.backup(local, overwrite=True)


def read(persist_path: str | os.PathLike[str], fs: AbstractFileSystem | None) -> Path | Collection:
    """Give the file of a local copy; of a copy on another file system, its content as a collection in memory.

    Raises:
        CollectionNotFoundError: there is no copy.
    """
    source = beside(persist_path)
    if fs is not None and not isinstance(fs, LocalFileSystem):
        _check_exists(source, exists=fs.exists(source))
        return _downloaded(source, fs)
    _check_exists(source, exists=_local(source).exists())
    return _local(source)


def _local(path: str) -> Path:
    """Accept what fsspec accepts for a local file: also ``file://`` and ``~``."""
    return Path(LocalFileSystem._strip_protocol(path))


def _check_exists(source: str, *, exists: bool) -> None:
    if not exists:
        raise CollectionNotFoundError(f"no persisted store at {source}, wanted one that persist() wrote: check the path")


def _upload(rows: AnyRows, target: str, fs: AbstractFileSystem) -> None:
    with TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        rows.backup(copy)
        fs.makedirs(fs._parent(target), exist_ok=True)
        fs.put_file(str(copy), target)


def _downloaded(source: str, fs: AbstractFileSystem) -> Collection:
    """Read a remote copy into memory, the one place that needs no file which must outlive this call."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        fs.get_file(source, str(copy))
        try:
            return Collection.load(copy)
        except CollectionError as error:
            raise type(error)(f"what was downloaded from {source} cannot be opened: {error}") from error
