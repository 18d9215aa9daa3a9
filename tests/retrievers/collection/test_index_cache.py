"""The file beside the database: it makes opening fast, and can say nothing wrong."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from support.vectors import clustered

from rarebit import Collection, Compare
from rarebit.retrievers.collection import index_cache, stored_codes

ROWS = 1500


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "FEWEST_ROWS", 100)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.rarebit"
    with Collection.open(path) as collection:
        collection.add(clustered(ROWS), metadatas=[{"n": n % 7} for n in range(ROWS)], ids=[str(n) for n in range(ROWS)])
        collection.tenant("t").add(clustered(300, seed=5), ids=[str(n) for n in range(300)])
        collection.search(clustered(1)[0])
    assert cache_of(path).exists()
    return path


def cache_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-index")


def answers(path: Path, *, read_only: bool = True) -> list[list[tuple[str, float]]]:
    """Search in all ways that ask the codes."""
    queries = clustered(5, seed=3)
    with Collection.open(path, read_only=read_only) as opened:
        found = [*opened.search_many(queries, 20), opened.search(queries[0], 20, filter=Compare("n", "eq", 3))]
        found.append(opened.tenant("t").search(queries[0], 20))
    return [[(hit.id, hit.score) for hit in hits] for hits in found]


def codes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the codes that are read row by row from now on."""
    counts: list[int] = []
    read = stored_codes.codes_between

    def counted(*arguments: object) -> stored_codes.StoredCodes:
        found = read(*arguments)  # type: ignore[arg-type]
        counts.append(len(found.codes))
        return found

    monkeypatch.setattr(stored_codes, "codes_between", counted)
    return counts


def test_opening_reads_the_file_and_what_came_since(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_of(file).rename(file.with_name("aside"))
    without = answers(file)
    file.with_name("aside").rename(cache_of(file))
    counts = codes_read(monkeypatch)
    assert answers(file) == without
    assert sum(counts) == 0
    with Collection.open(file) as collection:
        collection.add(clustered(3, seed=9), ids=["1", "2", "new"], metadatas=[{"n": 3}] * 3)
        collection.delete([str(n) for n in range(50, 90)])
        collection.tenant("t").delete(["7"])
    counts.clear()
    followed = answers(file)
    assert sum(counts) == 3
    cache_of(file).unlink()
    assert answers(file) == followed != without


def test_every_flipped_bit_is_passed_over(file: Path) -> None:
    right, content, rng = answers(file), cache_of(file).read_bytes(), random.Random(0)
    places = [*range(0, 400, 3), *(rng.randrange(len(content)) for _ in range(60))]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        cache_of(file).write_bytes(flipped)
        assert answers(file) == right, place


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"{}", b"\xff" * 5000])
def test_what_is_no_such_file_is_passed_over_and_written_anew(file: Path, content: bytes) -> None:
    right = answers(file)
    cache_of(file).write_bytes(content)
    assert answers(file) == right
    assert cache_of(file).read_bytes() == content, "opened read-only"
    assert answers(file, read_only=False) == right
    assert len(cache_of(file).read_bytes()) > len(content)


def test_a_file_that_is_cut_off_is_passed_over(file: Path) -> None:
    right, content = answers(file), cache_of(file).read_bytes()
    for size in (8, 100, len(content) // 2, len(content) - 1):
        cache_of(file).write_bytes(content[:size])
        assert answers(file) == right


def test_the_file_of_another_database_or_another_version_is_passed_over(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = answers(file)
    other = tmp_path / "other.rarebit"
    with Collection.open(other) as collection:
        collection.add(clustered(ROWS, seed=8), ids=[str(n) for n in range(ROWS)])
        collection.tenant("t").add(clustered(300, seed=7))
        collection.search(clustered(1)[0])
    shutil.copy(cache_of(other), cache_of(file))
    assert answers(file) == right
    monkeypatch.setattr(index_cache, "FORMAT", "rarebit-index-0")
    cache_of(file).unlink()
    answers(file, read_only=False)
    monkeypatch.undo()
    assert answers(file) == right


def test_a_database_that_went_back_and_went_another_way_is_not_followed(file: Path, tmp_path: Path) -> None:
    with Collection.open(file) as collection:
        collection.backup(tmp_path / "backup")
        collection.add(clustered(200, seed=11), ids=[f"first {n}" for n in range(200)])
    cache_of(file).unlink()
    answers(file, read_only=False)
    shutil.copy(tmp_path / "backup", file)
    with Collection.open(file) as collection:
        collection.add(clustered(200, seed=12), ids=[f"second {n}" for n in range(200)])
    with_cache = answers(file)
    cache_of(file).unlink()
    assert answers(file) == with_cache


def test_codes_that_changed_since_are_read_anew(file: Path) -> None:
    with Collection.open(file) as collection:
        collection.recompress(codec="sq8")
    with_cache = answers(file)
    cache_of(file).unlink()
    assert answers(file) == with_cache


def test_where_it_cannot_be_written_everything_works(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_of(file).unlink()
    right = answers(file)
    assert not cache_of(file).exists(), "opened read-only"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_cache, "save_file", full)
    assert answers(file, read_only=False) == right
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".tmp"] == []
    assert not cache_of(file).exists()
    cache_of(file).mkdir()
    monkeypatch.undo()
    monkeypatch.setattr(index_cache, "FEWEST_ROWS", 100)
    assert answers(file, read_only=False) == right


def test_it_may_be_read_by_who_may_read_the_database(file: Path) -> None:
    assert cache_of(file).stat().st_mode & 0o777 == file.stat().st_mode & 0o666


def test_small_collections_and_those_in_memory_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with Collection.open(tmp_path / "small.rarebit") as collection:
        collection.add(clustered(ROWS))
        collection.search(clustered(1)[0])
        assert collection.stats().disk["cache"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"small.rarebit"}
    assert Collection.open().stats().disk["cache"] == 0
