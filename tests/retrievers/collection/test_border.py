"""Where a collection meets its users: whatever is passed, the answer is a result or an error of ours."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarebit import And, Collection, Compare, Ids, Or, Where
from rarebit.errors import (
    DamagedFileError,
    FilterError,
    FingerprintError,
    InputError,
    MetadataError,
    RarebitError,
    StorageError,
)

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.lists(st.one_of(st.none(), st.integers(-3, 3), st.floats(), st.text(max_size=2)), max_size=3),
    st.lists(st.lists(st.floats(), max_size=3), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=2), st.integers()), st.one_of(st.floats(), st.text(max_size=2)), max_size=2),
    st.just(object()),
    st.just(float),
    st.builds(lambda: (each for each in ["a", "b"])),
)
CALLS: list[Callable[[Collection, Any], object]] = [
    lambda c, x: c.add(x),
    lambda c, x: c.add([[1.0, 2.0]], texts=x),
    lambda c, x: c.add([[1.0, 2.0]], texts=[x]),
    lambda c, x: c.add([[1.0, 2.0]], metadatas=x),
    lambda c, x: c.add([[1.0, 2.0]], metadatas=[x]),
    lambda c, x: c.add([[1.0, 2.0]], metadatas=[{"f": x}]),
    lambda c, x: c.add([[1.0, 2.0]], ids=x),
    lambda c, x: c.add([[1.0, 2.0]], ids=[x]),
    lambda c, x: c.add([[1.0, 2.0]], batch_size=x),
    lambda c, x: c.get(x),
    lambda c, x: c.get([x]),
    lambda c, x: c.get(filter=x),
    lambda c, x: c.vectors(x),
    lambda c, x: c.delete(x),
    lambda c, x: c.delete(filter=x),
    lambda c, x: c.count(x),
    lambda c, x: x in c,
    lambda c, x: c.search(x),
    lambda c, x: c.search([1.0, 2.0], x),
    lambda c, x: c.search([1.0, 2.0], filter=x),
    lambda c, x: c.search([1.0, 2.0], candidates=x),
    lambda c, x: c.search_many(x),
    lambda c, x: c.search_mmr([1.0, 2.0], fetch_k=x),
    lambda c, x: c.search_mmr([1.0, 2.0], lambda_mult=x),
    lambda c, x: c.search_lexical(x),
    lambda c, x: c.search_lexical("x", x),
    lambda c, x: c.search_hybrid([1.0, 2.0], x),
    lambda c, x: c.search_hybrid([1.0, 2.0], "x", fusion=x),
    lambda c, x: c.search_hybrid([1.0, 2.0], "x", alpha=x),
    lambda _, x: Collection.open(dim=x),
    lambda _, x: Collection.open(metric=x),
    lambda _, x: Collection.open(codec=x),
    lambda _, x: Collection.open(fine=x),
    lambda _, x: Collection.open(tokenizer=x),
    lambda _, x: Collection.open(training_minimum=x),
    lambda _, x: Collection.open(lock_timeout=x),
    lambda _, x: Compare("f", "eq", x),
    lambda _, x: Compare("f", x, 1),
    lambda c, x: c.count(Compare("f", "in", x)),
    lambda c, x: c.count(Compare("f", "gt", x)),
    lambda _, x: And(x),
    lambda _, x: Ids(x),
]


@pytest.mark.unchecked
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(call=st.sampled_from(CALLS), passed=ANYTHING)
def test_every_error_is_ours(call: Callable[[Collection, Any], object], passed: Any) -> None:
    with Collection.open(dim=2) as collection:
        collection.add([[1.0, 2.0], [2.0, 1.0]], ids=["a", "b"], metadatas=[{"f": 1}, {"f": "x"}])
        with suppress(RarebitError):
            call(collection, passed)
        assert len(collection.search([1.0, 2.0], 1)) <= 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.rarebit"


@pytest.mark.parametrize("nothing", [And(), And(And(), And()), Or(Compare("f", "eq", 1), And())])
def test_a_filter_that_says_nothing_deletes_nothing(nothing: And | Or) -> None:
    collection = Collection.open()
    collection.add([[1.0]])
    with pytest.raises(InputError, match="delete_all"):
        collection.delete(filter=nothing)
    assert collection.count() == 1


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with Collection.open("c.rarebit") as collection:
        collection.add([[1.0, 2.0]], ids=["a"])
        monkeypatch.chdir(tmp_path / "other")
        pickled = pickle.dumps(collection)
        collection._engine.storage._idle.clear()
        assert collection.search([1.0, 2.0])[0].id == "a"
    assert pickle.loads(pickled).count() == 1
    assert list((tmp_path / "other").iterdir()) == []


def test_a_vanished_file_is_an_error_and_not_an_empty_collection(path: Path) -> None:
    collection = Collection.open(path)
    collection.add([[1.0, 2.0]])
    path.unlink()
    collection._engine.storage._idle.clear()
    with pytest.raises(StorageError, match="removed"):
        collection.get(["a"])
    assert not path.exists()


def test_a_refused_fingerprint_leaves_the_handle_usable(path: Path) -> None:
    with Collection.open(path, fingerprint="one") as collection:
        with pytest.raises(FingerprintError):
            collection.check_fingerprint("two")
        collection.check_fingerprint("one")
        assert pickle.loads(pickle.dumps(collection)).settings.fingerprint.name == "one"


def test_metadata_may_be_nested_but_not_endlessly() -> None:
    collection = Collection.open()
    deep: Any = "leaf"
    for _ in range(60):
        deep = {"k": deep}
    collection.add([[1.0]], metadatas=[deep], ids=["a"])
    assert collection.count(Compare(".".join(["k"] * 60), "eq", "leaf")) == 1
    with pytest.raises(MetadataError, match="64 levels"):
        collection.add([[1.0]], metadatas=[{"k": {"k": [[[[[deep]]]]]}}])
    assert collection.delete(["a"]) == 1


def test_filters_may_be_nested_but_not_endlessly() -> None:
    collection = Collection.open()
    collection.add([[1.0]])
    tree: Any = Compare("f", "eq", None)
    for _ in range(100):
        tree = And(tree)
    assert collection.count(tree) == 1
    with pytest.raises(FilterError, match="100 levels"):
        Or(tree)


def test_a_function_that_fails_says_so_itself(path: Path) -> None:
    collection = Collection.open(path)
    collection.add([[1.0]])

    def fail(_: object) -> bool:
        raise KeyError("my own mistake")

    with pytest.raises(KeyError, match="my own mistake"):
        collection.search([1.0], filter=Where(fail))
    assert collection.count() == 1


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_function_cannot_write_while_it_filters_a_deletion(where: str, path: Path) -> None:
    collection = Collection.open(path if where == "file" else None)
    collection.add([[1.0]], ids=["a"])
    with pytest.raises(InputError, match="write it afterwards"):
        collection.delete(filter=Where(lambda _: bool(collection.add([[2.0]]))))
    assert [row.id for row in collection] == ["a"]


def test_a_function_may_ask_the_collection_while_others_search() -> None:
    collection = Collection.open(lock_timeout=2)
    collection.add(np.eye(8), ids=[str(number) for number in range(8)])
    failures: list[BaseException] = []

    def search(filtered: Where | None) -> None:
        try:
            for _ in range(30):
                collection.search(np.ones(8), 3, filter=filtered)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    asking = Where(lambda row: row.id in collection)
    threads = [threading.Thread(target=search, args=(given,)) for given in (asking, None, asking, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_two_backups_to_one_place_at_once_leave_a_whole_file(path: Path, tmp_path: Path) -> None:
    with Collection.open(path) as collection:
        collection.add(np.eye(64))
        target = tmp_path / "copy.rarebit"
        threads = [threading.Thread(target=collection.backup, args=(target,), kwargs={"overwrite": True}) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Collection.open(target) as copy:
            assert copy.count() == 64
        with pytest.raises(InputError, match="folder"):
            collection.backup(tmp_path, overwrite=True)


def test_many_threads_create_one_file(path: Path) -> None:
    failures: list[BaseException] = []

    def create() -> None:
        try:
            with Collection.open(path) as collection:
                collection.add([[1.0, 2.0]])
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Collection.open(path) as collection:
        assert collection.count() == 12


def test_after_delete_all_the_codec_is_trained_anew() -> None:
    collection = Collection.open()
    rng = np.random.default_rng(0)
    collection.add(0.05 * rng.standard_normal((2000, 32)) + np.eye(32)[0])
    collection.delete_all()
    assert not collection.stats().trained
    collection.add(0.05 * rng.standard_normal((2000, 32)) + np.eye(32)[1])
    assert collection.stats().trained
    mean = collection._engine.index._view.codec._arrays()["mean"]  # type: ignore[union-attr]
    assert mean[1] > 0.8
    assert abs(mean[0]) < 0.1


def test_hits_of_different_queries_share_nothing() -> None:
    collection = Collection.open()
    collection.add([[1.0, 0.0]], metadatas=[{"tags": ["x"]}])
    first, second = collection.search_many([[1.0, 0.0], [1.0, 0.1]], 1)
    first[0].metadata["tags"].append("y")
    assert second[0].metadata == {"tags": ["x"]}


@pytest.mark.parametrize("damage", ["DELETE FROM rows", "UPDATE rows SET metadata = '{'", "DROP TABLE fine"])
def test_rows_that_are_damaged_are_said_to_be(path: Path, damage: str) -> None:
    with Collection.open(path, training_minimum=1) as collection:
        collection.add([[1.0, 2.0]])
        collection._engine.storage._main.execute(damage)  # type: ignore[union-attr]
        with pytest.raises(DamagedFileError, match="backup"):
            collection.search([1.0, 2.0])


def test_codecs_that_need_no_finer_tier_have_none() -> None:
    assert Collection.open(codec="float32").settings.fine == "none"
    assert Collection.open(codec="float16").settings.fine == "none"
    assert Collection.open(codec="sq8").settings.fine == "residual8"
    assert Collection.open(codec="rabitq").settings.fine == "int8", "its scores are not those of its decoded vectors"
    with pytest.raises(InputError, match="float32"):
        Collection.open(codec="float16", fine="int8")


def test_lexical_search_in_scripts_without_spaces_and_decomposed_accents() -> None:
    collection = Collection.open(tokenizer="trigram")
    collection.add([[1.0]], texts=["東京都の天気は晴れです"], ids=["weather"])
    assert [hit.id for hit in collection.search_lexical("東京都の人口はどのくらいですか")] == ["weather"]
    words = Collection.open()
    words.add([[1.0]], texts=["a r\u00e9sum\u00e9"], ids=["a"])
    assert [hit.id for hit in words.search_lexical("re\u0301sume\u0301")] == ["a"]


class Key(str, Enum):  # noqa: UP042 -- a StrEnum formats as itself
    """A string that formats as another one, up to Python 3.11."""

    ACME = "acme"

    __format__ = Enum.__format__

    def __str__(self) -> str:
        return "Key.ACME"


@pytest.mark.parametrize("key", [Key.ACME, np.str_("acme")], ids=["enum", "numpy"])
def test_kinds_of_strings_are_kept_as_strings(path: Path, key: str) -> None:
    with Collection.open(path, near_duplicates=0.9) as collection:
        for rows in (collection, collection.tenant(key)):
            for _ in range(2):
                assert [type(given) for given in rows.add([[1.0], [2.0]], texts=[key, "y"], ids=[key, "b"])] == [str, str]
            assert key in rows
            assert [(row.id, row.text) for row in rows.get([key])] == [("acme", "acme")]
            assert len(rows.vectors([key])) == 1
            assert rows.stand_ins([key], ["new"]) == ["acme"]
        assert collection.tenants() == ["acme"]
        assert collection.check() == []
    with Collection.open(path) as collection:
        for rows in (collection, collection.tenant("acme")):
            assert {row.id: row.text for row in rows} == {"acme": "acme", "b": "y"}
            assert rows.delete([key]) == 1
            rows.add([[1.0]], ids=["acme"])
