"""Full disks, damaged files, held locks: nothing acknowledged is lost, and errors are clear."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.vectors import clustered

from rarebit import Collection
from rarebit.errors import (
    CollectionError,
    DamagedFileError,
    ForeignFileError,
    FormatVersionError,
    LockedError,
    ReadOnlyError,
    StorageError,
    StorageFullError,
)
from rarebit.retrievers.collection.checksums import of_parts


def assert_whole(path: Path) -> None:
    """Every table agrees with every other, by SQLite's and FTS5's own checks and by counting."""
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        raw.execute("INSERT INTO lexical (lexical) VALUES ('integrity-check')")
        counts = {table: raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("rows", "codes", "fine")}
        counts["state"] = raw.execute("SELECT row_count FROM state").fetchone()[0]
        if not raw.execute("SELECT count(*) FROM codec").fetchone()[0]:
            assert counts.pop("fine") == 0, "before training the codes are the vectors"
        assert len(set(counts.values())) == 1, counts
    raw.close()


def content(collection: Collection) -> dict[str, str]:
    return {row.id: row.text for row in collection}


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    collection = Collection.open(tmp_path / "c.rarebit")
    collection.add(clustered(100), texts=["kept"] * 100, ids=[str(number) for number in range(100)])
    pages = collection._engine.storage._main.execute("PRAGMA page_count").fetchone()[0]
    collection._engine.storage._main.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(StorageFullError, match="no space left"):
        collection.add(clustered(5000), texts=["lost"] * 5000)
    assert set(content(collection).values()) == {"kept"}
    assert len(collection.search(clustered(1)[0], 200)) == 100
    collection._engine.storage._main.execute("PRAGMA max_page_count = 1000000")
    collection.add(clustered(5000))
    assert collection.count() == 5100
    collection.close()
    assert_whole(tmp_path / "c.rarebit")


def test_a_writer_waits_its_turn_and_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path, lock_timeout=0.1) as collection:
        collection.add([[1.0, 2.0]])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedError, match="lock_timeout"):
            collection.add([[3.0, 4.0]])
        assert collection.count() == 1  # readers do not wait
        assert len(collection.search([1.0, 2.0])) == 1
        other.execute("ROLLBACK")
        other.close()
        collection.add([[3.0, 4.0]])
        assert collection.count() == 2


DAMAGES: dict[str, str] = {
    "a row without its code": "DELETE FROM codes WHERE row_id = 5",
    "a code of another length": "UPDATE codes SET code = x'00' WHERE row_id = 5",
    "a row without its fine vector": "DELETE FROM fine",
    "a fine vector of another length": "UPDATE fine SET code = x'00'",
    "no state": "DELETE FROM state",
    "settings that are no JSON": "UPDATE settings SET value = '{'",
    "settings that are missing": "DELETE FROM settings WHERE name = 'fingerprint'",
    "a metric that does not exist": """UPDATE settings SET value = '"l3"' WHERE name = 'metric'""",
    "a codec that cannot be read": "UPDATE codec SET learned = x'0102'",
}


@pytest.mark.unchecked
@pytest.mark.parametrize("damage", DAMAGES)
def test_content_that_contradicts_itself_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path) as collection:
        collection.add(clustered(1200))
    with sqlite3.connect(path) as raw:
        raw.execute(DAMAGES[damage])
    raw.close()
    with pytest.raises(DamagedFileError, match="backup"):
        Collection.open(path).search(clustered(1)[0], 5)


@pytest.mark.parametrize(
    "newer",
    [
        "UPDATE codec SET name = 'other', checksum = checksum_of('other', config, learned)",
        "INSERT INTO settings VALUES ('new_setting', '1', checksum_of('new_setting', '1'))",
    ],
)
def test_what_a_newer_version_wrote_is_no_damage(tmp_path: Path, newer: str) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path) as collection:
        collection.add(clustered(1200))
    with sqlite3.connect(path) as raw:
        raw.create_function("checksum_of", -1, of_parts)
        raw.execute(newer)
    raw.close()
    with pytest.raises(FormatVersionError, match="upgrade rarebit"):
        Collection.open(path).search(clustered(1)[0], 5)


def truncate(content: bytearray) -> bytearray:
    return content[: len(content) // 2]


def zero_the_schema(content: bytearray) -> bytearray:
    content[100:4096] = bytes(3996)
    return content


def overwrite_the_middle(content: bytearray) -> bytearray:
    for page in range(4, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    return content


@pytest.mark.parametrize("damage", [truncate, zero_the_schema, overwrite_the_middle])
def test_damaged_bytes_are_a_clear_error(tmp_path: Path, damage: Callable[[bytearray], bytearray]) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path) as collection:
        collection.add(clustered(1200), texts=["text"] * 1200)
    path.write_bytes(damage(bytearray(path.read_bytes())))
    with pytest.raises(CollectionError, match=r"c\.rarebit|backup"):
        Collection.open(path).search(clustered(1)[0], 5)


def filled(path: Path, name: str = "row") -> Collection:
    collection = Collection.open(path)
    collection.add(clustered(1200), texts=["text"] * 1200, ids=[f"{name} {number}" for number in range(1200)])
    return collection


@pytest.mark.parametrize("ending", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_gone_is_written_to_no_more(tmp_path: Path, ending: str, *, replaced: bool) -> None:
    path = tmp_path / "c.rarebit"
    collection = filled(path)
    part = path.with_name(path.name + ending)
    if replaced:
        (tmp_path / "another").write_bytes(part.read_bytes())
        (tmp_path / "another").replace(part)
    else:
        part.unlink()
    for use in (
        lambda: collection.add(clustered(1), ids=["lost"]),
        lambda: collection.search(clustered(1)[0]),
        collection.delete_all,
        collection.compact,
        lambda: collection.backup(tmp_path / "backup.rarebit"),
    ):
        with pytest.raises(StorageError, match=f"c.rarebit{ending} was re(moved|placed).*open it again"):
            use()
    collection.close()


def test_another_collection_under_the_same_name_is_not_taken_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    filled(tmp_path / "other.rarebit", "other").close()
    with filled(path) as collection:
        collection.search(clustered(1)[0])
        (tmp_path / "other.rarebit").replace(path)
        with pytest.raises(StorageError, match="replaced by another file"):
            collection.search(clustered(1)[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("length", [0, 50, 4096, 10_000, 40_960])
def test_a_file_that_is_cut_off_while_it_is_open_is_an_error(tmp_path: Path, length: int) -> None:
    path = tmp_path / "c.rarebit"
    filled(path).close()
    child = os.fork()  # what reads behind the end of a mapped file is killed
    if not child:
        collection = Collection.open(path)
        collection.search(clustered(1)[0])
        os.truncate(path, length)
        refused = 0
        for use in (collection.get, lambda: collection.search(clustered(1)[0]), lambda: list(collection)):
            try:
                use()
            except CollectionError:
                refused += 1
        try:
            collection.add(clustered(1))
        except CollectionError:
            refused += 1
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) >= 3


def test_an_empty_file_is_no_collection_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    path.touch()
    for settings in ({"create": False}, {"read_only": True}):
        with pytest.raises(ForeignFileError, match="is empty"):
            Collection.open(path, **settings)  # type: ignore[arg-type]
    assert path.stat().st_size == 0


def test_a_folder_is_no_collection(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)):
        Collection.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do everything")
def test_what_may_not_be_read_or_written_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "c.rarebit"
    filled(path).close()
    path.chmod(0o400)
    with pytest.raises(ReadOnlyError, match="permissions"):
        Collection.open(path).add(clustered(1))
    path.chmod(0o000)
    with pytest.raises(StorageError, match="permissions"):
        Collection.open(path)
    path.chmod(0o600)
    folder.chmod(0o500)
    try:
        with pytest.raises(StorageError):
            Collection.open(folder / "new.rarebit")
        with Collection.open(path, read_only=True) as collection:
            assert len(collection.search(clustered(1)[0])) == 10
    finally:
        folder.chmod(0o700)
