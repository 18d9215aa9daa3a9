"""Milvus beside what is asked of every server: pages, partitions, and what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

from support.milvus import connected
from support.servers import IDS, METADATAS, QUERIES, ROWS, TEXTS, VECTORS

from rarebit import And, Compare, Not, Or
from rarebit.errors import EngineLimitError
from rarebit.retrievers.engines.milvus import names
from rarebit.retrievers.engines.milvus.connections import Connections
from rarebit.retrievers.engines.milvus.rows import Rows


@pytest.fixture(scope="module")
def trained(milvus: str) -> Iterator[Any]:
    with connected(milvus, training_minimum=1000) as given:
        given.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
        yield given


class TestCandidates:
    def test_more_candidates_than_one_answer_holds(self, trained: Any) -> None:
        best = np.argsort(-(VECTORS @ QUERIES[0]), kind="stable")[:10]
        found = trained.search(QUERIES[0], 10, candidates=20_000)
        assert {int(hit.id) for hit in found} == set(best.tolist())


class TestPages:
    def test_more_rows_than_one_answer_holds(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.rows.MOST", 64)
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.matching.MOST", 64)
        milvus_collection.add(VECTORS[:500], ids=IDS[:500], metadatas=METADATAS[:500])
        milvus_collection.add(VECTORS[:3], ids=["7", "8", "9"])  # now the last ones
        order = [key for key in IDS[:500] if key not in {"7", "8", "9"}] + ["7", "8", "9"]
        assert [row.id for row in milvus_collection.iterate(batch_size=100)] == order
        assert [row.id for row in milvus_collection.get(filter=Compare("half", "eq", 1))] == [
            key for key in order if int(key) % 2 and key not in {"7", "9"}
        ]
        assert milvus_collection.count(Not(Compare("half", "eq", 1))) == 252
        assert milvus_collection.delete(filter=Compare("row", "exists", False)) == 3
        assert milvus_collection.delete_all() == 497
        assert milvus_collection.count() == 0

    def test_many_ids_at_once(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.matching.FETCHED", 16)
        milvus_collection.add(VECTORS[:100], ids=IDS[:100], metadatas=METADATAS[:100])
        wanted = [str(row) for row in range(90, -10, -1)]
        assert [row.id for row in milvus_collection.get(wanted)] == [key for key in wanted if int(key) >= 0]
        assert [row.id for row in milvus_collection.get(wanted, filter=Compare("half", "eq", 1))] == [
            key for key in wanted if int(key) >= 0 and int(key) % 2
        ]
        assert milvus_collection.delete(wanted) == 91

    def test_filters_that_leave_few_of_many(self, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.matching.MOST", 200)
        few = Or(Not(Compare("row", "gt", 3)), And(Compare("row", "gte", ROWS - 2), Compare("half", "ne", 7)))
        assert {hit.id for hit in trained.search(QUERIES[0], 50, filter=few)} == {"0", "1", "2", "3", "1498", "1499"}


class TestTenants:
    @pytest.mark.parametrize("place", range(len(names.OWNER)))
    def test_each_number_tells_them_apart(self, milvus: str, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
        plain = names._digest

        def alike(*parts: str, size: int) -> bytes:
            told = bytearray(b"Z" * size)
            told[8 * place] ^= 2 * (parts == ("y",))  # the lowest bit of one number, which no float could hold
            return plain(*parts, size=size) if len(parts) > 1 else bytes(told)

        monkeypatch.setattr(names, "_digest", alike)
        with connected(milvus, training_minimum=40) as collection:
            one, other = (collection.tenant(name) for name in "xy")
            one.add(VECTORS[:40], ids=IDS[:40])
            other.add(VECTORS[:60], ids=IDS[:60], texts=["other's"] * 60, metadatas=METADATAS[:60])
            assert collection.stats().trained
            assert [tenant.count() for tenant in (one, other)] == [40, 60]
            assert [tenant.count(Compare("row", "gte", 50)) for tenant in (one, other)] == [0, 10]
            assert {hit.text for hit in one.search(QUERIES[0], 60)} == {""}
            assert {hit.text for hit in other.search(QUERIES[0], 100)} == {"other's"}
            assert [row.text for row in one.get(["3"])] == [""]
            assert one.delete_all() == 40
            assert other.count() == 60

    def test_partitions_are_by_one_of_the_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connections, made = Connections("milvus://host", 1.0), []
        monkeypatch.setattr(connections, "create", lambda _, schema, *bits, **spread: made.append((schema, bits, spread)))
        for partitions in (0, 4):
            Rows(connections, "rows").create(64, partitions)
        assert [[field.name for field in schema.fields if field.is_partition_key] for schema, *_ in made] == [[], ["owner_1"]]
        assert [spread for *_, spread in made] == [{}, {"num_partitions": 4}]

    def test_partitions_need_a_server_that_has_them(self, milvus: str) -> None:
        with pytest.raises(EngineLimitError, match="leave them out"):
            connected(milvus, partitions=4)


class TestWhatItCannot:
    @pytest.mark.unchecked
    def test_it_is_said(self, milvus_collection: Any) -> None:
        for call in (
            lambda: milvus_collection.search_lexical("word"),
            lambda: milvus_collection.search_hybrid([1.0, 2.0], "word"),
            lambda: milvus_collection.grant("role", "acme"),
            lambda: milvus_collection.search([1.0, 2.0], explain=True),
            lambda: milvus_collection.add([[1.0]], near_duplicates="skip"),
            lambda: milvus_collection.backup("somewhere"),
            milvus_collection.share,
            milvus_collection.recompress,
            milvus_collection.check,
            milvus_collection.compact,
        ):
            with pytest.raises(EngineLimitError):
                call()
        assert milvus_collection.count() == 0

    def test_rows_that_are_too_long(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.rows.LONGEST_ROW", 300_000)
        with pytest.raises(EngineLimitError, match="a row of about"):
            milvus_collection.add([[1.0, 2.0]], texts=["x" * 400_000])
        assert milvus_collection.count() == 0

    def test_long_texts_and_metadata(self, milvus_collection: Any) -> None:
        texts, metadata = ["é" * 100_000, "short"], {"long": "日" * 50_000, "n": 1}
        milvus_collection.add([[1.0, 2.0], [2.0, 1.0]], texts=texts, ids=["a", "b"], metadatas=[metadata, {}])
        assert [row.text for row in milvus_collection.get(["a", "b"])] == texts
        assert milvus_collection.search([1.0, 2.0], 1, filter=Compare("n", "eq", 1))[0].metadata == metadata
        assert milvus_collection.count(Compare("long", "like", "日%")) == 1
