"""Copies of a collection's file: of all of it, or of what one tenant sees."""

from __future__ import annotations

import os
from pathlib import Path

from rarebit.errors import InputError
from rarebit.retrievers.collection import recompression, rows, tenants
from rarebit.retrievers.collection.asides import folder_beside
from rarebit.retrievers.collection.engine import Engine
from rarebit.retrievers.collection.storage import Storage


def copy_whole(engine: Engine, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write the newest commit to another file, whole or not at all.

    Raises:
        InputError: the path cannot be written to, or must not.
    """
    engine.storage.copy_to(_target(engine, path, overwrite=overwrite))


def copy_of_tenant(engine: Engine, tenant: str, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write what a tenant sees of the newest commit to another file, as :func:`copy_whole`.

    A whole copy is made in a folder beside the target and cut down there. What is left is written anew: pages that were freed
    would keep what was deleted.
    """
    target = _target(engine, path, overwrite=overwrite)
    with folder_beside(target) as folder:
        whole = folder / "copy"
        engine.storage.copy_to(whole)
        storage = Storage(
            whole,
            read_only=False,
            tokenizer=engine.settings.tokenizer,
            lock_timeout=engine.storage.lock_timeout,
            must_exist=True,
        )
        copied = Engine(storage, dict.fromkeys(engine.asked))
        try:
            _cut_down(copied, tenant)
            storage.copy_to(target)
        finally:
            copied.close()


def _cut_down(engine: Engine, tenant: str) -> None:
    with engine.write() as connection:
        snapshot = engine.snapshot_in(connection, tenant)
        others = snapshot.live - snapshot.visible()
        number = snapshot.tenant
        for owner in (tenants.OWN, *tenants.numbers(connection)):
            theirs = others & tenants.own_rows(connection, owner)
            rows.delete(connection, owner, list(theirs), snapshot.settings.near_duplicate_index)
        tenants.forget_others(connection, number)
        recompression.drop_tables(connection)  # one that was running when the copy was made
        # Deleting marks words as gone; they would still be read in the index.
        connection.execute("INSERT INTO lexical (lexical) VALUES ('rebuild')")


def _target(engine: Engine, path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Check where a copy is to go."""
    target, own = Path(path).resolve(), engine.storage.path
    if target.is_dir():
        raise InputError(f"{target} is a folder, wanted the path of a file")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already: choose another path, or pass overwrite=True")
    if own is not None and target.exists() and target.samefile(own):
        raise InputError(f"{target} is the collection itself: choose another path")
    if Path(f"{target}-wal").exists():
        raise InputError(
            f"{target} is open elsewhere, or was not closed properly, and its log {target.name}-wal would change the copy: "
            "close it (or open and close it once), or choose another path"
        )
    return target
