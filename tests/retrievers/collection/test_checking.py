"""Damage is found and named, and what deleted rows took comes back to the disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Thread

import pytest
from support.vectors import clustered

from rarebit import Collection, Compare
from rarebit.errors import LockedError, ReadOnlyError
from rarebit.retrievers.collection.checksums import of_parts
from rarebit.retrievers.collection.state import State

COUNT = 1500

STATE = f"UPDATE state SET checksum = checksum_of({', '.join(State._fields)})"


def filled(path: Path | None = None, **settings: object) -> Collection:
    collection = Collection.open(path, **settings)  # type: ignore[arg-type]
    metadatas = [{"n": n % 7, "tags": ["a", "b"], "inner": {"x": None}, "long": "y" * 300} for n in range(COUNT)]
    ids = [str(n) for n in range(COUNT)]
    collection.add(clustered(COUNT), texts=[f"text {key} äß漢" for key in ids], metadatas=metadatas, ids=ids)
    return collection


@pytest.fixture
def file(tmp_path: Path) -> Path:
    filled(tmp_path / "c.rarebit").close()
    return tmp_path / "c.rarebit"


@pytest.mark.parametrize(
    "settings",
    [{}, {"fine": "none"}, {"codec": "float32"}, {"fine": "int4", "codec": "pq4"}, {"metric": "inner_product"}],
    ids=str,
)
def test_a_sound_collection_has_no_problems(settings: dict[str, str]) -> None:
    collection = filled(**settings)
    assert collection.check() == []
    collection.delete(filter=Compare("n", "lt", 3))
    collection.add(clustered(20, seed=1), texts=["new"] * 20)
    if settings != {"fine": "none"}:
        collection.recompress()
    assert collection.check() == []
    collection.delete_all()
    assert collection.check() == []
    assert Collection.open().check() == []


def test_read_only_and_while_others_write(file: Path) -> None:
    with Collection.open(file, read_only=True) as reader, Collection.open(file) as writer:
        writer.add(clustered(3, seed=4))
        assert reader.check() == []
        assert writer.check() == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM codes WHERE row_id = 7", "1 rows have nothing in codes"),
        ("DELETE FROM fine WHERE row_id IN (7, 8)", "2 rows have nothing in fine"),
        ("INSERT INTO fine VALUES (9999, x'00')", "1 entries of fine belong to no row"),
        ("UPDATE fine SET code = x'0102' WHERE row_id = 3", "1 entries of fine have not 72 bytes"),
        ("UPDATE state SET row_count = 9", "the collection's state row is not what was stored"),
        (f"UPDATE state SET row_count = 9; {STATE}", "there are 1500 rows, wanted 9"),
        (f"UPDATE state SET next_row_id = 9; {STATE}", "the newest row has number 1500, wanted one below 9"),
        (f"UPDATE state SET tenant_rows = 9; {STATE}", "there are 0 rows of tenants, wanted 9"),
        ("INSERT INTO tenants VALUES (7, 'ghost', 0, 0)", "what the file says about a tenant is not what was stored"),
        ("INSERT INTO tenants VALUES (7, 'ghost', 2, checksum_of(7, 'ghost', 2))", "the rows of the tenants are not as many"),
        ("UPDATE rows SET metadata = '{' WHERE row_id = 5", "row 5 of the file (id '4') is not what was stored"),
        ("UPDATE rows SET metadata = '[1]' WHERE row_id = 5", "row 5 of the file (id '4') is not what was stored"),
        ("UPDATE rows SET id = 'x' WHERE row_id = 5", "row 5 of the file (id 'x') is not what was stored"),
        ("UPDATE rows SET tenant = 3 WHERE row_id = 5", "1 codes are kept under another tenant than their rows"),
        (
            "UPDATE codes SET code = (SELECT code FROM codes WHERE row_id = 6) WHERE row_id = 5",
            "1 entries of codes of the file are not what was stored (first: that of row 5)",
        ),
        ("INSERT INTO shared VALUES (0, 5, 1, 0)", "sharing row 5 is not what was stored"),
        ("INSERT INTO shared VALUES (0, 9999, 1, 0)", "1 entries of shared belong to no row"),
        (
            "UPDATE fine SET code = CAST(x'0000c07f' || substr(code, 5) AS BLOB) WHERE row_id = 6",
            "1 entries of fine of the file are not what was stored (first: that of row 6)",
        ),
        ("UPDATE rows SET text = 'other words' WHERE row_id = 5", "lexical index does not agree"),
        ("INSERT INTO lexical (rowid, text) VALUES (77777, 'ghost')", "lexical index does not agree"),
    ],
)
def test_what_is_damaged_is_named(file: Path, damage: str, problem: str) -> None:
    raw = sqlite3.connect(file)
    raw.create_function("checksum_of", -1, of_parts)
    raw.executescript(damage)
    raw.commit()
    raw.close()
    with Collection.open(file) as collection:
        found = collection.check()
    assert any(problem in sentence for sentence in found), found


def test_pages_that_are_damaged_are_named(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for start in range(len(content) // 2, len(content) // 2 + 3 * 4096):
        content[start] ^= 0xFF
    file.write_bytes(content)
    with Collection.open(file) as collection:
        assert collection.check()


def test_compacting_gives_the_space_of_deleted_rows_back(file: Path) -> None:
    with Collection.open(file) as collection:
        query = clustered(1, seed=3)[0]
        collection.delete(filter=Compare("n", "ne", 0))
        before, hits = file.stat().st_size, collection.search(query, 5)
        freed = collection.compact()
        assert freed > before / 2
        assert collection.stats().disk["file"] < before / 2
        assert collection.search(query, 5) == hits
        assert collection.check() == []
        with Collection.open(file) as other:
            other.add(clustered(1, seed=9), ids=["after"])
        assert "after" in collection
    memory = filled()
    memory.delete(filter=Compare("n", "ne", 0))
    assert memory.compact() > 0
    assert memory.check() == []


def test_searches_go_on_while_it_is_compacted(file: Path) -> None:
    query = clustered(1, seed=3)[0]
    with Collection.open(file) as collection, Collection.open(file, read_only=True) as reader:
        collection.delete(filter=Compare("n", "eq", 0))
        hits, failures, stop = collection.search(query, 5), [], False

        def search() -> None:
            while not stop:
                failures.extend(searched for searched in (collection, reader) if searched.search(query, 5) != hits)

        threads = [Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            collection.compact()
        stop = True
        for thread in threads:
            thread.join()
        assert not failures


def test_compacting_needs_to_write(file: Path) -> None:
    with Collection.open(file, read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.compact()
    raw = sqlite3.connect(file)
    raw.execute("BEGIN IMMEDIATE")
    with Collection.open(file, lock_timeout=0.1) as collection, pytest.raises(LockedError):
        collection.compact()
    raw.close()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE codec SET learned = x'00'", "the codec 'trellis' in the file cannot be read"),
        ("DELETE FROM codec", "have not 260 bytes"),
        ("UPDATE settings SET value = '7' WHERE name = 'metric'", "that of 'metric' is not what was stored"),
        ("DELETE FROM settings", "the settings are missing from the file"),
    ],
)
def test_what_is_damaged_while_it_is_open_is_named(file: Path, damage: str, problem: str) -> None:
    with Collection.open(file) as collection:
        collection.search(clustered(1)[0])
        with sqlite3.connect(file) as raw:
            raw.execute(damage)
        raw.close()
        found = collection.check()
    assert any(problem in sentence for sentence in found), found
