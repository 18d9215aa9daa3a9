"""Rows of Milvus that others write meanwhile, that share numbers, that are named in many, or that come back in parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

from pymilvus import MilvusException
from support.milvus import SERVER, asked_as_server, client_of, connected
from support.servers import IDS, METADATAS, ROWS, TEXTS, VECTORS

from rarebit import And, Collection, Compare, Ids
from rarebit.errors import AccessError, EngineError, EngineUnreachableError, InputError, RarebitError, StorageFullError
from rarebit.retrievers.engines.milvus import rows as rows_
from rarebit.retrievers.engines.milvus.connections import Connections, TooLargeError, translated
from rarebit.retrievers.engines.milvus.packed import PACKED, row_of
from rarebit.retrievers.engines.milvus.rows import SESSION, Rows

METHODS = ["query", *([] if SERVER in os.environ else ["search"])]
LARGE = MilvusException(65535, "query results exceed the maxOutputSize Limit 104857600")


@pytest.fixture(scope="module")
def many(milvus: str) -> Iterator[Any]:
    """Give rows that are not trained."""
    with connected(milvus) as given:
        given.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
        yield given


def around(
    monkeypatch: pytest.MonkeyPatch, collection: Any, method: str, work: Callable[[Callable[..., Any], Any], Any]
) -> None:
    """Do something in place of a method of the client, which is given along with what it was called with by name."""
    plain = getattr(client_of(collection), method)
    monkeypatch.setattr(client_of(collection), method, lambda *given, **named: work(lambda: plain(*given, **named), named))


def through(monkeypatch: pytest.MonkeyPatch, collection: Any, method: str, work: Callable[..., Any]) -> None:
    """Do something in place of the method by which rows are found by their keys."""
    if method == "query":
        asked_as_server(monkeypatch)
    around(monkeypatch, collection, method, work)


class TestManyIds:
    NESTED = And(And(Ids(tuple(IDS)), Compare("half", "eq", 1)), Compare("row", "gte", 0))

    def test_in_a_nested_filter(self, many: Any) -> None:
        assert many.count(self.NESTED) == ROWS // 2
        assert many.count(And(And(Ids(tuple(IDS))), Compare("row", "gte", 0))) == ROWS
        assert [row.id for row in many.iterate(And(And(Ids(tuple(IDS)), And()), And()))] == IDS
        assert [row.id for row in many.iterate(self.NESTED)] == IDS[1::2]

    def test_beside_fewer(self, many: Any) -> None:
        assert many.count(And(Ids(tuple(IDS)), And(Ids(tuple(IDS[:5]))))) == 5

    def test_beside_many_odd_rows(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.matching.FETCHED", 10)
        odd = {"a": {"b": 1}, "a.b": 2}
        milvus_collection.add(VECTORS[:50], ids=IDS[:50], metadatas=[odd] * 45 + METADATAS[45:50])
        assert milvus_collection.count(And(Ids(tuple(IDS[:50])), Compare("row", "gte", 0))) == 5
        assert milvus_collection.count(And(Ids(tuple(IDS[43:47])), Compare("row", "gte", 0))) == 2

    def test_a_page_reads_no_more_than_itself(self, many: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []

        def watch(plain: Callable[[], Any], named: Any) -> Any:
            found = plain()
            seen.append(named["limit"] if "packed" in named["output_fields"] else 0)
            return found

        for method in ("query", "search"):
            around(monkeypatch, many, method, watch)
        found = many._engine.rows("", Ids(tuple(IDS)), limit=100)
        assert [row.id for _, row in found] == IDS[:100]
        assert 100 <= sum(seen) <= 110


class TestKeys:
    @pytest.mark.skipif(SERVER in os.environ, reason="a server is asked by key")
    def test_a_file_is_searched_for_them(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        milvus_collection.add(VECTORS[:20], ids=IDS[:20], texts=["old" * 30_000, *TEXTS[1:20]])

        def number(plain: Callable[[], Any], named: Any) -> Any:
            assert not {PACKED, "more"} & set(named["output_fields"])
            return plain()

        around(monkeypatch, milvus_collection, "query", number)
        assert [row.text for row in milvus_collection.get([*IDS[19::-1], "none"])] == [*TEXTS[19:0:-1], "old" * 30_000]
        assert np.abs(milvus_collection.vectors(IDS[:20]) - VECTORS[:20]).max() < 0.01
        assert milvus_collection.get(["none"]) == []
        milvus_collection.add(VECTORS[20:22], ids=IDS[:2], texts=["new" * 30_000, "new"])
        assert milvus_collection.delete(IDS[2:4]) == 2
        assert [len(row.text) for row in milvus_collection.get(IDS[:4])] == [90_000, 3]
        assert [row.id for row in milvus_collection.iterate()] == [*IDS[4:20], *IDS[:2]]
        assert np.abs(milvus_collection.vectors(IDS[:2]) - VECTORS[20:22]).max() < 0.01

    @pytest.mark.parametrize("method", METHODS)
    def test_as_many_as_are_asked_for(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        through(monkeypatch, milvus_collection, method, lambda plain, named: plain())
        vectors = np.random.default_rng(0).standard_normal((1500, 4)).astype(np.float32)
        ids = [f"n{row}" for row in range(1500)]
        milvus_collection.add(vectors, ids=ids)
        assert [row.id for row in milvus_collection.get(ids)] == ids
        milvus_collection.delete(ids[::2])
        assert [row.id for row in milvus_collection.get(ids)] == ids[1::2]


class TestNumbers:
    def test_a_page_never_ends_between_equal_ones(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = rows_.CLOCK.numbers

        def shared(count: int) -> Any:
            numbers = list(plain(count))
            return [numbers[place - place % 3] for place in range(count)]

        monkeypatch.setattr(rows_.CLOCK, "numbers", shared)
        milvus_collection.add(VECTORS[:30], ids=IDS[:30])
        for tree in (None, Ids(tuple(IDS[:30]))):
            engine, found, last = milvus_collection._engine, [], 0
            while page := engine.rows("", tree, after=last, limit=4):
                assert len(page) == 6
                found += [row.id for _, row in page]
                last = page[-1][0]
            assert sorted(found, key=int) == IDS[:30]

    def test_two_calls_share_no_part(self) -> None:
        assert len({rows_.CLOCK.numbers(1)[0] % 1024 for _ in range(40)}) > 1
        first, second = rows_.CLOCK.numbers(500), rows_.CLOCK.numbers(2)
        assert len(first) == 500
        assert first[-1] < second[0] < second[1]

    def test_long_texts_of_the_same_number_and_id(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows_.CLOCK, "numbers", lambda count: range(7, 7 + count))
        texts = {name: name * 40_000 for name in ("x", "y")}
        for name, text in texts.items():
            milvus_collection.tenant(name).add([[1.0, 2.0]], ids=["a"], texts=[text])
        engine = milvus_collection._engine
        found = engine._ask(lambda rows: rows.some("row_id == 7", [PACKED, "key"], 5))
        assert {row_of(row).text for row in found} == set(texts.values())


class TestOthers:
    def test_a_version_of_before_is_asked_for_again(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        milvus_collection.add(VECTORS[:3], ids=IDS[:3], texts=["old"] * 3)
        client = client_of(milvus_collection)
        fields = [PACKED, "tenant", "key", "row_id"]
        old = client.query(milvus_collection._engine._steps.seen.rows, filter="row_id >= 0", output_fields=fields)
        milvus_collection.add(VECTORS[:3], ids=IDS[:3], texts=["new"] * 3)

        def behind(plain: Callable[[], Any], named: Any) -> Any:
            return old if named.get("consistency_level") == SESSION else plain()

        asked_as_server(monkeypatch)
        around(monkeypatch, milvus_collection, "query", behind)
        assert [row.text for row in milvus_collection.iterate()] == ["new"] * 3

    def test_a_row_that_another_replaces_is_not_deleted(
        self, milvus: str, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        milvus_collection.add(VECTORS[:3], ids=IDS[:3], metadatas=[{"old": True}] * 3)
        with Collection.connect(milvus, milvus_collection._engine.name) as other:

            def replace(plain: Callable[[], Any], named: Any) -> Any:
                del named
                other.add(VECTORS[:1], ids=IDS[:1], metadatas=[{"old": False}])
                return plain()

            around(monkeypatch, milvus_collection, "delete", replace)
            milvus_collection.delete(filter=Compare("old", "eq", True))
            assert [(row.id, row.metadata) for row in other.iterate()] == [("0", {"old": False})]


class TestSizes:
    @pytest.mark.parametrize("method", METHODS)
    def test_long_texts_of_a_search_come_in_parts(
        self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        texts = [f"{row:03}" * 7000 for row in range(20)]
        milvus_collection.add(VECTORS[:20], ids=IDS[:20], texts=texts)
        rows = Rows(milvus_collection._engine._connections, milvus_collection._engine._steps.seen.rows)
        seen: list[int] = []

        def limited(plain: Callable[[], Any], named: Any) -> Any:
            found = plain()
            if "more" in named["output_fields"] and named["limit"] > 3:
                seen.append(named["limit"])
                raise LARGE
            return found

        through(monkeypatch, milvus_collection, method, limited)
        found = rows.nearest(np.zeros((1, 1), np.uint8), "row_id >= 0", 20)[0]
        assert {row_of(row).text for row in rows.completed(found)} == set(texts)
        assert seen[:2] == [20, 10]

    @pytest.mark.parametrize("method", METHODS)
    def test_milvus_own_limit_of_an_answer(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        milvus_collection.add(VECTORS[:100], ids=IDS[:100], texts=TEXTS[:100])

        def limited(plain: Callable[[], Any], named: Any) -> Any:
            found = plain()
            if "packed" in named["output_fields"] and len(found if method == "query" else found[0]) > 7:
                seen.append(named["limit"])
                raise LARGE
            return found

        seen: list[int] = []
        through(monkeypatch, milvus_collection, method, limited)
        assert [row.text for row in milvus_collection.iterate()] == TEXTS[:100]
        assert [row.text for row in milvus_collection.get(IDS[:50])] == TEXTS[:50]
        assert seen


class TestErrors:
    ECHO = 'metadata["privilege unavailable too large quota exceeded"] =='

    @pytest.mark.parametrize(
        ("code", "message", "wanted"),
        [
            (65535, "search results exceed the maxOutputSize Limit 104857600", TooLargeError),
            (1100, f"failed to create query plan: cannot parse expression: {ECHO}, error: what", EngineError),
            (65535, f"failed to create query plan: cannot parse expression: {ECHO}, error: what", EngineError),
            (1100, "invalid parameter[expected=x][actual=privilege]", EngineError),
            (1401, "not permitted", AccessError),
            (9, "quota exceeded[reason=disk quota exceeded]", StorageFullError),
            (1, "Retry timeout: 1s", EngineUnreachableError),
        ],
    )
    def test_codes_come_before_words(self, code: int, message: str, wanted: type[Exception]) -> None:
        with pytest.raises(RarebitError) as caught, translated("here"):
            raise MilvusException(code, message)
        assert type(caught.value) is wanted

    @pytest.mark.parametrize("name", ["two words.db", f"{'n' * 34}.db", "naïve.db", ".db", "a.sqlite"])
    def test_files_that_milvus_lite_refuses(self, name: str) -> None:
        with pytest.raises(InputError, match="rename it"):
            Connections(f"milvus:///tmp/{name}", 1.0)
        assert Connections(f"milvus:///tmp/with space/{'n' * 33}.db", 1.0).is_file
