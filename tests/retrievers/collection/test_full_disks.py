"""No space at any point of any kind of write: an error of ours, nothing lost, and the same call works with space again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from support import killing

from rarebit import Collection
from rarebit.errors import StorageError, StorageFullError

resource = pytest.importorskip("resource")

pytestmark = [pytest.mark.slow, pytest.mark.unchecked]

SHARES = (0.1, 0.4, 0.7)
"""Of the space that the steps take, how much there is."""

Filling: TypeAlias = Callable[[Collection, Path, float], AbstractContextManager[None]]


@contextmanager
def limited(collection: Collection, reference: Path, share: float) -> Iterator[None]:
    """Have the operating system refuse to let a file grow beyond a share of the log of all steps."""
    log = reference.with_name(f"{reference.name}-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * log), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def few_pages(collection: Collection, reference: Path, share: float) -> Iterator[None]:
    """Have SQLite refuse to let its file grow."""
    connection = collection._engine.storage._main
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + int(10 * share)}")
    try:
        yield
    finally:
        connection.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def filled(collection: Collection, reference: Path, share: float) -> Iterator[None]:
    """Fill the file system of the collection, but for a share of the log of all steps."""
    assert collection.path is not None
    log = reference.with_name(f"{reference.name}-wal").stat().st_size
    filler = collection.path.with_name("filler")
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(4096, shutil.disk_usage(filler).free - int(share * log)))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where we may have one."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount, options = shutil.which("mount"), ["-t", "tmpfs", "-o", "size=8m", "tmpfs"]
    if not mount or not sys.platform.startswith("linux") or subprocess.run([mount, *options, folder], check=False).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", folder], check=True)  # noqa: S607


def assert_survived(kind: str, folder: Path, reference_folder: Path, filling: Filling) -> None:
    """Do the steps of a kind with too little space, each again with enough."""
    prepared, reference = reference_folder / "prepared.rarebit", reference_folder / "reference.rarebit"
    killing.prepare(kind, prepared)
    shutil.copy(prepared, reference)
    with killing.opened(reference) as whole:
        states = [killing.content(whole)]
        for step in killing.STEPS[kind]:
            step(whole)
            states.append(killing.content(whole))
        refused = 0
        for share in SHARES:
            path = folder / f"{share}.rarebit"
            shutil.copy(prepared, path)
            with killing.opened(path) as collection:
                for number, step in enumerate(killing.STEPS[kind]):
                    try:
                        with filling(collection, reference, share):
                            step(collection)
                    except (StorageError, StorageFullError):
                        refused += 1
                        assert killing.content(collection) == states[number]
                        assert not list(folder.glob(".*.tmp")), "half a backup is left"
                        step(collection)
                    assert killing.content(collection) == states[number + 1]
                assert collection.check() == []
            for used in folder.glob(f"{share}*"):
                used.unlink()
    assert refused, "there was space enough"


KINDS = [kind for kind in killing.STEPS if kind != "creation"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_may_not_grow(tmp_path: Path, kind: str) -> None:
    assert_survived(kind, tmp_path, tmp_path, limited)


@pytest.mark.parametrize("kind", ["new rows", "recompression", "tenants"])
def test_a_file_of_few_pages(tmp_path: Path, kind: str) -> None:
    assert_survived(kind, tmp_path, tmp_path, few_pages)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_file_system(tmp_path: Path, tiny: Path, kind: str) -> None:
    assert_survived(kind, tiny, tmp_path, filled)
