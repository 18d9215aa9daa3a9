"""Thousands of tenants, names, copies, other processes, and files that were altered."""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection, Compare, Tenant
from rarebit.errors import ClosedError, DamagedFileError, InputError, MissingRowError, ReadOnlyError

DIM = 16


def rows_of(who: str, count: int) -> dict[str, Any]:
    return {
        "texts": [f"{who} {place}" for place in range(count)],
        "metadatas": [{"even": place % 2 == 0} for place in range(count)],
        "ids": [str(place) for place in range(count)],
    }


COUNT = 2000


def size(number: int) -> int:
    return 1 + number % 20


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crowd") / "c.rarebit"
    with Collection.open(codec="sq8", training_minimum=500) as collection:
        vectors = clustered(COUNT * 20, DIM)
        for number in range(COUNT):
            collection.tenant(f"t{number}").add(vectors[20 * number :][: size(number)], **rows_of(f"t{number}", size(number)))
        collection.backup(path)
    return path


@pytest.mark.slow
class TestThousands:
    def test_each_has_its_own(self, crowd: Path) -> None:
        with Collection.open(crowd) as collection:
            assert len(collection.tenants()) == COUNT
            assert collection.count() == 0
            assert collection.search(np.ones(DIM), 5) == []
            assert collection.stats().count == sum(map(size, range(COUNT)))
            for number in range(0, COUNT, 37):
                tenant, count = collection.tenant(f"t{number}"), size(number)
                hits = tenant.search(np.ones(DIM), 50)
                assert sorted(hit.text for hit in hits) == sorted(f"t{number} {place}" for place in range(count))
                assert tenant.count(Compare("even", "eq", True)) == (count + 1) // 2
                assert len(tenant.search_lexical(f"t{number}", 50)) == count

    def test_a_tenant_takes_no_memory_of_its_own(self, crowd: Path) -> None:
        with Collection.open(crowd) as collection:
            for number in range(0, COUNT, 5):
                tenant = collection.tenant(f"t{number}")
                tenant.search(np.ones(DIM), 1)
                tenant.count()
            memory = collection.stats().memory
            rows = collection.stats().count
            # Where a tenant begins (two numbers of 8 bytes); what a row takes (its number twice, and its place in the scan).
            assert memory["row_ids"] <= 20 * COUNT + 8 * rows
            assert memory["filters"] < 100_000

    def test_one_of_them_is_deleted_and_comes_again(self, crowd: Path) -> None:
        with Collection.load(crowd) as collection:
            assert collection.delete_tenant("t7") == 8
            assert collection.delete_tenant("t7") == 0
            again = collection.tenant("t7")
            assert "t7" not in collection.tenants()
            assert (again.count(), again.search(np.ones(DIM), 9), again.get(["0"])) == (0, [], [])
            again.add(clustered(1, DIM), ["new"])
            assert [row.text for row in again] == ["new"]
            assert collection.tenants()[-1] == "t7"
            assert collection.tenant("t8").count() == 9


class TestUnknown:
    def test_it_sees_what_is_shared_with_everyone_and_no_more(self) -> None:
        with Collection.open() as collection:
            collection.add(np.eye(3), ["a", "b", "c"], ids=["a", "b", "c"])
            collection.tenant("ada").add(np.eye(3)[:1], ids=["a"])
            nobody = collection.tenant("nobody")
            assert list(nobody) == []
            assert nobody.search([1.0, 0.0, 0.0]) == []
            collection.share(["b"])
            collection.share(["c"], tenants=["ada"])
            assert [row.id for row in nobody] == ["b"]
            assert [hit.id for hit in nobody.search([1.0, 1.0, 1.0])] == ["b"]
            assert nobody.count() == 1
            assert collection.tenants() == ["ada"]
            with pytest.raises(MissingRowError):
                nobody.vectors(["a"])
            assert nobody.delete_all() == 1
            assert collection.tenants() == ["ada", "nobody"]
            assert [row.id for row in collection] == ["a", "b", "c"]

    @pytest.mark.unchecked
    @pytest.mark.parametrize("name", ["", "x" * 1025, "\ud800", None, 3, b"ada"])
    def test_what_is_no_name(self, name: Any) -> None:
        with Collection.open() as collection:
            for act in (collection.tenant, collection.delete_tenant, lambda given: collection.share(tenants=[given])):
                with pytest.raises(InputError):
                    act(name)
            with pytest.raises(InputError, match=r"wanted a list"):
                collection.share(tenants="ada")

    @pytest.mark.parametrize("name", ["x" * 1024, "Ada", "ada ", "日本語", "e\u0301", "é", "\u0000", "'; --", "0", "🦊"])
    def test_names_are_told_apart_to_the_letter(self, name: str) -> None:
        with Collection.open() as collection:
            for number, who in enumerate(["ada", "é" if name != "é" else "e\u0301", name]):
                collection.tenant(who).add([[1.0, number]], [who], ids=["same"])
            assert [row.text for row in collection.tenant(name)] == [name]
            assert [row.text for row in collection.tenant("ada")] == ["ada"]


class TestHandles:
    def test_a_handle_closes_with_its_collection(self) -> None:
        with Collection.open() as collection:
            tenant = collection.tenant("ada")
        with pytest.raises(ClosedError):
            tenant.count()

    def test_a_handle_of_a_file_that_is_read_only_reads(self, tmp_path: Path) -> None:
        with Collection.open(tmp_path / "c.rarebit") as collection:
            collection.tenant("ada").add([[1.0, 0.0]], ids=["a"])
        with Collection.open(tmp_path / "c.rarebit", read_only=True) as collection:
            assert "a" in collection.tenant("ada")
            with pytest.raises(ReadOnlyError):
                collection.tenant("ada").delete_all()

    def test_pickled_it_is_the_same_tenant(self, tmp_path: Path) -> None:
        for path in (None, tmp_path / "c.rarebit"):
            with Collection.open(path) as collection:
                collection.tenant("ada").add([[1.0, 0.0]], ["ada's"])
                collection.add([[1.0, 0.0]], ["ours"])
                copied: Tenant = pickle.loads(pickle.dumps(collection.tenant("ada")))
                assert (copied.name, [row.text for row in copied]) == ("ada", ["ada's"])

    def test_another_process_is_bound_too(self, tmp_path: Path) -> None:
        path = tmp_path / "c.rarebit"
        with Collection.open(path) as collection:
            collection.tenant("ada").add([[1.0, 0.0]], ["ada's"], ids=["a"])
            collection.tenant("bob").search([1.0, 0.0])
            script = (
                "import sys; from rarebit import Collection; bob = Collection.open(sys.argv[1]).tenant('bob');"
                "print(bob.count(), bob.delete(['a'])); bob.add([[0.0, 1.0]], ['bob'], ids=['a'])"
            )
            done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
            assert done.stdout.split() == ["0", "0"]
            assert [row.text for row in collection.tenant("ada")] == ["ada's"]
            assert [hit.text for hit in collection.tenant("bob").search([1.0, 0.0])] == ["bob"]

    def test_forked_children_are_bound_too(self, tmp_path: Path) -> None:
        with Collection.open(tmp_path / "c.rarebit") as collection:
            tenant = collection.tenant("ada")
            tenant.add([[1.0, 0.0]], ["ada's"])
            collection.tenant("bob").add([[1.0, 0.0]], ["bob's"])
            context = multiprocessing.get_context("fork")
            queue = context.Queue()
            child = context.Process(target=lambda: queue.put([hit.text for hit in tenant.search([1.0, 0.0])]))
            child.start()
            assert queue.get(timeout=60) == ["ada's"]
            child.join()


class TestCopies:
    @pytest.fixture(params=["memory", "file"])
    def shared(self, request: pytest.FixtureRequest, tmp_path: Path) -> Collection:
        path = None if request.param == "memory" else tmp_path / "c.rarebit"
        collection = Collection.open(path, codec="sq8", training_minimum=30)
        collection.add(
            clustered(20, DIM, seed=1), [f"quixotic {key}" for key in range(20)], ids=[f"common{key}" for key in range(20)]
        )
        for number, who in enumerate(["ada", "bob", "secretive"]):
            texts = [f"zymurgy{who} {key}" for key in range(10)]
            collection.tenant(who).add(clustered(10, DIM, seed=number + 2), texts, ids=[f"{who}{key}" for key in range(10)])
        collection.share([f"common{key}" for key in range(5)])
        collection.share(["common7"], tenants=["bob"])
        return collection

    def test_a_tenants_copy_has_its_rows_and_nothing_of_others(self, shared: Collection, tmp_path: Path) -> None:
        target = tmp_path / "ada.rarebit"
        ada = shared.tenant("ada")
        ada.delete(["common0"])
        ada.backup(target)
        with Collection.open(target) as copied:
            mine = copied.tenant("ada")
            assert list(mine) == list(ada)
            assert mine.count() == 14
            query = clustered(1, DIM, seed=9)[0]
            here, there = mine.search(query, 20), ada.search(query, 20)
            assert [hit.id for hit in here] == [hit.id for hit in there]
            assert [hit.score for hit in here] == pytest.approx([hit.score for hit in there])
            assert np.array_equal(mine.vectors(["ada3"]), ada.vectors(["ada3"]))
            assert [hit.id for hit in mine.search_lexical("zymurgyada", 3)] == ["ada0", "ada1", "ada2"]
            assert copied.tenants() == ["ada"]
            assert copied.tenant("bob").count() == 4
            assert copied.check() == []
            assert copied.stats().count == 14
        content = target.read_bytes()
        for foreign in (b"secretive", b"bob", b"common0", b"common7", b"quixotic 19"):
            assert foreign not in content
        assert b"zymurgyada" in content
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_where_it_is_not_written(self, shared: Collection, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="folder"):
            shared.tenant("ada").backup(tmp_path)
        (tmp_path / "there").touch()
        with pytest.raises(InputError, match="exists"):
            shared.tenant("ada").backup(tmp_path / "there")
        shared.tenant("ada").backup(tmp_path / "there", overwrite=True)
        if shared.path is not None:
            with pytest.raises(InputError, match="itself"):
                shared.tenant("ada").backup(shared.path, overwrite=True)

    def test_the_copy_of_an_unknown_tenant_has_what_everyone_sees(self, shared: Collection, tmp_path: Path) -> None:
        shared.tenant("nobody").backup(tmp_path / "n.rarebit")
        with Collection.open(tmp_path / "n.rarebit") as copied:
            assert copied.stats().count == copied.tenant("nobody").count() == 5
            assert copied.tenants() == []


class TestAlteredFiles:
    """Whoever moves rows between tenants with SQL is noticed where they would be shown."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "c.rarebit"
        with Collection.open(path, training_minimum=1000) as collection:
            collection.add(np.eye(4), ["ours"] * 4, ids=list("abcd"))
            for who in ("ada", "bob"):
                collection.tenant(who).add(np.eye(4), [who] * 4, ids=[f"{who}{key}" for key in range(4)])
            collection.share(["a"], tenants=["ada"])
            collection.share(["b"])
        return path

    def altered(self, path: Path, *statements: str) -> Collection:
        connection = sqlite3.connect(path)
        with connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0
        connection.close()
        return Collection.open(path)

    @pytest.mark.parametrize(
        "statements",
        [
            ["UPDATE rows SET tenant = 2 WHERE tenant = 1"],
            ["UPDATE rows SET tenant = 2 WHERE tenant = 1", "UPDATE codes SET tenant = 2 WHERE tenant = 1"],
            ["UPDATE rows SET tenant = 2 WHERE tenant = 0", "UPDATE codes SET tenant = 2 WHERE tenant = 0"],
            ["UPDATE shared SET tenant = 2 WHERE tenant = 1"],
            ["UPDATE shared SET row_id = 3 WHERE tenant = 1", "UPDATE shared SET tenant = 2 WHERE tenant = 1"],
            ["UPDATE tenants SET name = 'x' WHERE name = 'bob'", "UPDATE tenants SET name = 'bob' WHERE name = 'ada'"],
            ["DELETE FROM tenants WHERE name = 'bob'", "UPDATE tenants SET name = 'bob' WHERE name = 'ada'"],
        ],
    )
    def test_rows_that_were_moved_are_not_shown(self, path: Path, statements: list[str]) -> None:
        refused = 0
        with self.altered(path, *statements) as collection:
            bob = collection.tenant("bob")
            for read in (lambda: bob.search(np.ones(4), 20), lambda: bob.search_lexical("ada ours", 20), lambda: list(bob)):
                try:
                    shown = [found.text for found in read()]
                except DamagedFileError:
                    refused += 1
                    continue
                assert set(shown) <= {"bob", "ours"}
                assert shown.count("ours") <= 1
            assert refused > 0
            assert collection.check() != []

    def test_codes_that_were_moved_show_no_rows(self, path: Path) -> None:
        with Collection.open(path) as collection:
            collection.unshare()
        with self.altered(path, "UPDATE codes SET tenant = 2 WHERE tenant = 1") as collection:
            with pytest.raises(DamagedFileError, match="not what was stored"):
                collection.tenant("bob").search(np.ones(4), 20)
            assert [row.text for row in collection.tenant("bob")] == ["bob"] * 4
            assert any("another tenant" in problem for problem in collection.check())

    def test_what_is_shared_is_not_made_more(self, path: Path) -> None:
        with self.altered(path, "UPDATE shared SET row_id = 4 WHERE tenant = 0") as collection:
            with pytest.raises(DamagedFileError, match="sharing row 4"):
                list(collection.tenant("nobody"))
            assert any("sharing row 4" in problem for problem in collection.check())
