"""Sizes, copies, pickles, vectors, iteration."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection, Compare, Row
from rarebit.errors import CollectionNotFoundError, InputError, StorageError
from rarebit.retrievers.collection import And, Ids, Where, asides, storage
from rarebit.retrievers.collection.asides import written_aside
from rarebit.retrievers.collection.checksums import CHECKSUM_BYTES


@pytest.fixture(params=["memory", "file"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Collection:
    opened = Collection.open(None if request.param == "memory" else tmp_path / "c.rarebit")
    ids = [str(number) for number in range(2000)]
    opened.add(clustered(2000), texts=["text"] * 2000, metadatas=[{"n": number % 10} for number in range(2000)], ids=ids)
    return opened


def test_every_byte_is_counted(collection: Collection) -> None:
    stats = collection.stats()
    assert (stats.count, stats.dim, stats.trained) == (2000, 64, True)
    blocks_of_64, parts, table, places, one_tenant = 32 * 64, 14, 16 * 16 * 4, 8, 3 * 8
    codec = collection._engine.index._view.codec  # type: ignore[union-attr]
    assert stats.memory == {
        "codes": blocks_of_64 * 7 + 2000 + 2000 * places + parts * table,
        "row_ids": one_tenant,
        "filters": 0,
        "codec": codec.state_bytes,  # type: ignore[union-attr]
        "database": 0 if collection.path else collection._engine.storage.file_bytes(),
    }
    assert stats.memory_per_vector == pytest.approx(sum(stats.memory.values()) / 2000)
    assert stats.disk["codes"] == 2000 * (8 + CHECKSUM_BYTES)
    assert stats.disk["fine"] == 2000 * (68 + CHECKSUM_BYTES)
    assert stats.disk["text"] == 2000 * len("text")
    assert stats.disk["ids"] == sum(len(str(number)) for number in range(2000))
    assert stats.disk["metadata"] == 2000 * len('{"n":1}')
    assert stats.disk["file"] > sum(size for part, size in stats.disk.items() if part not in {"file", "cache"})
    assert stats.float32_per_vector == 256
    collection.search(np.ones(64), filter=Compare("n", "eq", 3))
    assert collection.stats().memory["filters"] > 0


def test_the_codes_in_memory_are_what_the_scanners_hold(collection: Collection) -> None:
    collection.search(np.ones(64))
    view = collection._engine.index._view
    assert view is not None
    assert sum(segment.scanner.nbytes for segment in view.segments) == view.code_bytes
    assert sum(len(segment.scanner) for segment in view.segments) == 2000


def test_stats_of_an_empty_collection() -> None:
    stats = Collection.open().stats()
    assert (stats.count, stats.memory_per_vector, stats.disk_per_vector, stats.dim) == (0, 0, 0, None)


def test_small_adds_do_not_leave_many_segments() -> None:
    collection = Collection.open(dim=2, codec="float32")
    for number in range(300):
        collection.add([[1.0, float(number)]], ids=[str(number)])
        assert len(collection.search([1.0, 0.0], 1)) == 1
    view = collection._engine.index._view
    assert view is not None
    assert len(view.segments) <= 12
    assert view.count == 300


def test_deleted_rows_are_given_back() -> None:
    collection = Collection.open(dim=2, codec="float32")
    collection.add(np.random.default_rng(0).standard_normal((1000, 2)), ids=[str(number) for number in range(1000)])
    collection.search([1.0, 0.0])
    collection.delete([str(number) for number in range(0, 1000, 10)])
    collection.search([1.0, 0.0])
    assert collection.stats().memory["codes"] == 1000 * 8  # marked, not yet written anew
    collection.delete([str(number) for number in range(0, 1000, 3)])
    assert collection.stats().memory["codes"] == collection.count() * 8
    assert len(collection.search([1.0, 0.0], 2000)) == collection.count()


def test_a_backup_is_the_same_collection(collection: Collection, tmp_path: Path) -> None:
    target = tmp_path / "copy.rarebit"
    collection.backup(target)
    with pytest.raises(InputError, match="exists already"):
        collection.backup(target)
    collection.backup(target, overwrite=True)
    query = clustered(1, seed=1)[0]
    with Collection.open(target) as copy:
        assert list(copy) == list(collection)
        assert copy.search(query) == collection.search(query)
        assert copy.search_lexical("text", 3) == collection.search_lexical("text", 3)
        copy.add([query], ids=["new"])
        assert copy.search(query, 1)[0].id == "new"
    assert "new" not in collection
    assert not list(tmp_path.glob("*.tmp"))


def backed_up(collection: Collection, target: Path, tenant: str | None) -> None:
    (collection if tenant is None else collection.tenant(tenant)).backup(target, overwrite=True)


OWNERS = pytest.mark.parametrize("tenant", [None, "ann"])


@OWNERS
@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_backup_may_be_read_by_those_who_may_read_the_file(tmp_path: Path, tenant: str | None) -> None:
    with Collection.open(tmp_path / "c.rarebit") as collection:
        collection.add([[1.0, 2.0]])
        for mode in (0o600, 0o664):
            (tmp_path / "c.rarebit").chmod(mode)
            backed_up(collection, tmp_path / "copy", tenant)
            assert (tmp_path / "copy").stat().st_mode & 0o777 == mode


@OWNERS
def test_a_backup_into_no_folder_says_so(collection: Collection, tmp_path: Path, tenant: str | None) -> None:
    with pytest.raises(StorageError, match=r"the copy \S*/nowhere/x.db cannot be written \(No such file"):
        backed_up(collection, tmp_path / "nowhere" / "x.db", tenant)


@OWNERS
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_killed_backup_leaves_goes_with_the_next(tmp_path: Path, tenant: str | None) -> None:
    def left() -> list[Path]:
        return list(tmp_path.glob(".copy.*"))

    with Collection.open(tmp_path / "c.rarebit") as collection:
        collection.add([[1.0, 2.0]])
        child = os.fork()
        if not child:
            storage.Storage.copy_to = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
            with written_aside(tmp_path / "copy", mode_of=None):
                backed_up(collection, tmp_path / "copy", tenant)
        os.waitpid(child, 0)
        assert len(left()) == (1 if tenant is None else 2)
        with written_aside(tmp_path / "copy", mode_of=None) as alive:
            backed_up(collection, tmp_path / "copy", tenant)
            assert len(left()) > 1, "another machine may have the process"
            for path in left():
                os.utime(path, (0, time.time() - 2 * asides.QUIET))
            backed_up(collection, tmp_path / "copy", tenant)
            assert left() == [alive]


def test_a_long_name_can_be_backed_up_to(collection: Collection, tmp_path: Path) -> None:
    target = tmp_path / ("é" * 120)  # 240 bytes of 255; a log beside it has a few more
    collection.backup(target)
    collection.tenant("ann").backup(target, overwrite=True)
    assert target.exists()


def test_a_collection_is_not_backed_up_onto_itself(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c.rarebit") as collection, pytest.raises(InputError, match="itself"):
        collection.backup(tmp_path / "c.rarebit", overwrite=True)


def test_pickled_it_is_the_same_collection(collection: Collection) -> None:
    query = clustered(1, seed=1)[0]
    copy = pickle.loads(pickle.dumps(collection))
    assert copy.search(query) == collection.search(query)
    collection.add([query], ids=["new"])
    assert ("new" in copy) == (collection.path is not None)


def test_pickled_with_its_file_gone_it_is_not_an_empty_collection(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c.rarebit") as collection:
        pickled = pickle.dumps(collection)
    (tmp_path / "c.rarebit").unlink()
    with pytest.raises(CollectionNotFoundError, match="no file"):
        pickle.loads(pickled)
    assert not (tmp_path / "c.rarebit").exists()


def test_a_backup_does_not_go_over_a_collection_in_use(collection: Collection, tmp_path: Path) -> None:
    with Collection.open(tmp_path / "other.rarebit") as other:
        other.add([[1.0, 2.0]], ids=["own"])
        with pytest.raises(InputError, match="open elsewhere"):
            collection.backup(tmp_path / "other.rarebit", overwrite=True)
        assert "own" in other
    collection.backup(tmp_path / "other.rarebit", overwrite=True)
    with Collection.open(tmp_path / "other.rarebit") as other:
        assert list(other) == list(collection)


def test_loaded_into_memory_it_leaves_the_file_alone(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c.rarebit", metric="inner_product", tokenizer="trigram") as collection:
        collection.add(clustered(1500) * 2, ids=[str(number) for number in range(1500)])
        copy = Collection.load(tmp_path / "c.rarebit")
        assert copy.path is None
        assert copy.settings == collection.settings
        assert copy.search(np.ones(64)) == collection.search(np.ones(64))
        copy.delete_all()
        assert collection.count() == 1500
        assert pickle.loads(pickle.dumps(copy)).settings == collection.settings


def test_vectors(collection: Collection) -> None:
    vectors = clustered(2000)
    assert collection.vectors(["5", "3", "5"]) == pytest.approx(vectors[[5, 3, 5]], abs=0.005)
    assert collection.vectors([]).shape[0] == 0
    hits = collection.search(vectors[5], 2, include_vectors=True)
    assert hits[0].vector == pytest.approx(vectors[5], abs=0.005)
    assert collection.search(vectors[5], 1)[0].vector is None


def test_iteration_in_batches_and_by_filter(collection: Collection) -> None:
    assert [row.id for row in collection.iterate(batch_size=7)] == [str(number) for number in range(2000)]
    assert [row.id for row in collection.iterate(Compare("n", "eq", 3), batch_size=99)] == [str(n) for n in range(3, 2000, 10)]
    seen = 0
    for row in collection.iterate(batch_size=10):  # deleting while iterating neither stops nor repeats
        collection.delete([row.id])
        seen += 1
    assert (seen, collection.count()) == (2000, 0)


def test_get_by_filter_and_both(collection: Collection) -> None:
    assert [row.id for row in collection.get(filter=Compare("n", "eq", 3))] == [str(number) for number in range(3, 2000, 10)]
    assert collection.get(["4", "13", "3"], filter=Compare("n", "eq", 3)) == [
        Row("13", "text", {"n": 3}),
        Row("3", "text", {"n": 3}),
    ]
    assert len(collection.get()) == 2000
    assert collection.count(Compare("n", "in", [1, 2])) == 400


def test_delete_by_filter_by_ids_and_by_both(collection: Collection) -> None:
    assert collection.delete(filter=Compare("n", "eq", 3)) == 200
    assert collection.delete(["4", "14", "5"], filter=Compare("n", "eq", 4)) == 2
    assert collection.delete(filter=Where(lambda row: row.id.endswith("00"))) == 19
    assert collection.count() == 2000 - 200 - 2 - 19


def test_ids_and_functions_as_filters(collection: Collection) -> None:
    query = clustered(1, seed=1)[0]
    hits = collection.search(query, 10, filter=And(Ids(("3", "7", "nothing")), Where(lambda row: row.metadata["n"] == 7)))
    assert [hit.id for hit in hits] == ["7"]


def test_many_queries_are_the_same_as_one_by_one(collection: Collection) -> None:
    queries = clustered(150, seed=2)
    assert collection.search_many(queries, 5) == [collection.search(query, 5) for query in queries]
    assert collection.search_many(np.empty((0, 64)), 5) == []


def test_a_row_without_text_or_metadata(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c.rarebit") as collection:
        (key,) = collection.add([[1.0, 2.0]])
        assert collection.get([key]) == [Row(key, "", {})]
        assert key in collection
        assert "other" not in collection
        assert 7 not in collection
        assert bool(Collection.open())
