"""Damage is found and named, and what deleted rows took comes back to the disk."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from support.vectors import clustered

from rarebit import Collection, Compare
from rarebit.errors import LockedError, RarebitError, ReadOnlyError

COUNT = 1500


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
        ("UPDATE state SET row_count = 9", "there are 1500 rows, wanted 9"),
        ("UPDATE state SET next_row_id = 9", "the newest row has number 1500, wanted one below 9"),
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
    raw.execute(damage)
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


@pytest.mark.slow
@pytest.mark.unchecked
def test_flipped_bits_give_answers_or_errors_of_ours(file: Path) -> None:
    content, query, rng = file.read_bytes(), clustered(1, seed=3)[0], random.Random(0)
    refused = named = 0
    for turn in range(120):
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 1, 8])):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        copy = file.with_name(f"{turn}.rarebit")
        copy.write_bytes(flipped)
        try:
            with Collection.open(copy) as collection:
                named += bool(collection.check())
                collection.search(query, 10, filter=Compare("n", "eq", 3))
                collection.search_lexical("text 7", 5)
                assert len(list(collection)) > 0
        except RarebitError:
            refused += 1
    assert refused > 3
    assert named > 20


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


COMPACTING = """
import sys
from rarebit import Collection
collection = Collection.open(sys.argv[1])
print("ready", flush=True)
while True:
    collection.delete([str(next(iter(collection)).id)])
    collection.compact()
"""


@pytest.mark.slow
def test_a_kill_while_it_is_compacted_loses_nothing(file: Path) -> None:
    rng = random.Random(0)
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", COMPACTING, file], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
        with Collection.open(file) as collection:
            assert collection.check() == []
            rest = [int(row.id) for row in collection]
            assert rest == list(range(rest[0], COUNT)), "rows are deleted from the front, one by one"


def test_compacting_needs_to_write(file: Path) -> None:
    with Collection.open(file, read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.compact()
    raw = sqlite3.connect(file)
    raw.execute("BEGIN IMMEDIATE")
    with Collection.open(file, lock_timeout=0.1) as collection, pytest.raises(LockedError):
        collection.compact()
    raw.close()
