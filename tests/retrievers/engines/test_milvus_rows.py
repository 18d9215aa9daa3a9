"""Rows as Milvus keeps them: in one string, and in others what does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

from support.milvus import client_of
from support.servers import IDS, QUERIES, TEXTS, VECTORS

from rarebit import And, Compare, Where
from rarebit.errors import EngineLimitError
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.engines.engine import NewRow, StoredCode
from rarebit.retrievers.engines.milvus.packed import LONGEST, PACKED, code_of, is_cut, new_row_of, number_of, row_of, stored
from rarebit.retrievers.engines.milvus.rows import Rows, estimated_bytes

PIECE = LONGEST // 4
CODES = (b"\0\xff code", b"fine.")


def new(key: str = "a", text: str = "", metadata: str = "{}", codes: tuple[bytes, bytes | None] = CODES) -> NewRow:
    return NewRow(key, text, metadata, *codes, b"p")


def kept(row: NewRow) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give a row as it is found, and as it is when the rest of it has come."""
    (found,) = stored("tenant", [row], [7])
    return found, {**found, PACKED: found[PACKED] + "".join(found["more"])}


class TestOneString:
    @pytest.mark.parametrize("text", ["", " ", "1 2 3 ", "\n", "日本 語", "{}", "\u2028"])
    @pytest.mark.parametrize("codes", [CODES, (b"", None), (b"c", None), (b"c", b".")])
    def test_every_part_comes_back(self, text: str, codes: tuple[bytes, bytes | None]) -> None:
        row = new(text, text, json.dumps({"k": text}, ensure_ascii=False), codes)
        found, _ = kept(row)
        assert not found["more"]
        assert not is_cut(found)
        assert number_of(found) == 7
        assert code_of(found) == StoredCode(7, codes[0], codes[1])
        assert new_row_of(found) == row._replace(plane=None)
        assert row_of(found) == Row(text, text, {"k": text})

    @pytest.mark.parametrize("letter", ["x", "é", "日", "😀"])
    @pytest.mark.parametrize("of", ["key", "text", "metadata"])
    def test_what_is_longer_goes_on(self, letter: str, of: str) -> None:
        cut = set()
        for length in (PIECE - 100, *range(PIECE - 30, PIECE + 2), 2 * PIECE, 3 * PIECE + 5):
            long = json.dumps({"k": letter * length}, ensure_ascii=False) if of == "metadata" else letter * length
            row = new(**{of: long})
            found, whole = kept(row)
            assert all(len(piece.encode()) <= LONGEST for piece in (found[PACKED], *found["more"]))
            assert all(found["more"])
            assert is_cut(found) is bool(found["more"])
            assert code_of(found) == StoredCode(7, *CODES)
            assert not is_cut(whole)
            assert new_row_of(whole) == row._replace(plane=None)
            cut.add(is_cut(found))
        assert cut == {False, True}

    def test_codes_that_do_not_fit(self) -> None:
        found, whole = kept(new("日" * 10, codes=(b"c" * 49_050, None)))
        assert len(found[PACKED].encode()) <= LONGEST
        assert row_of(whole).id == "日" * 10
        with pytest.raises(EngineLimitError, match="fewer dimensions"):
            stored("tenant", [new(codes=(b"c" * 49_051, None))], [7])


class TestInMilvus:
    def test_ids_may_be_long(self, milvus_collection: Any) -> None:
        long = [letter * 70_000 for letter in "xy"]
        milvus_collection.add(VECTORS[:2], ids=long, texts=["one", "two"])
        milvus_collection.add(VECTORS[1:2], ids=long[1:], texts=["three"])
        assert [row.text for row in milvus_collection.get(long)] == ["one", "three"]
        assert milvus_collection.search(VECTORS[1], 1)[0].id == long[1]
        assert milvus_collection.vectors(long).shape == (2, VECTORS.shape[1])
        assert milvus_collection.delete(long[:1]) == 1

    def test_bytes_are_estimated(self, trainable: Any) -> None:
        before = trainable._engine._ask(estimated_bytes)
        assert before["plane_index"] == 450 * trainable._engine.kept().plane.bits // 8
        trainable.add(VECTORS[:450], ids=IDS[:450], texts=["é" * 500] * 450, metadatas=[{"m": "x" * 200}] * 450)
        after = trainable._engine._ask(estimated_bytes)
        assert after["plane_index"] == before["plane_index"]
        assert 450 * 1400 <= after["rows"] - before["rows"] < 450 * 1450

    def test_candidates_that_are_long(self, trainable: Any) -> None:
        texts = [f"{row:03}" * 7000 for row in range(5)]
        trainable.add(VECTORS[:5], ids=IDS[:5], texts=texts, metadatas=[{"row": row} for row in range(5)])
        assert trainable.search(VECTORS[3], 1)[0].text == texts[3]
        for tree in (Compare("row", "gte", 2), Where(lambda row: row.text.endswith("004")), Compare("row", "ne", 1)):
            assert trainable.search(VECTORS[4], 1, filter=And(tree, Compare("row", "exists")))[0].text == texts[4]

    def test_what_is_missing_of_long_ones_is_asked_for_where_they_are_chosen(
        self, trainable: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainable.add(VECTORS[:30], ids=IDS[:30], texts=[f"{row:03}" * 7000 for row in range(30)])
        asked: list[int] = []
        rest = Rows._rest
        monkeypatch.setattr(Rows, "_rest", lambda rows, long: asked.append(len(long)) or rest(rows, long))
        assert [own[0].text[:3] for own in trainable.search_many(VECTORS[3:5], 1)] == ["003", "004"]
        assert asked == [2]

    def test_a_long_one_that_is_replaced_meanwhile(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        trainable.add(VECTORS[:2], ids=IDS[:2], texts=["old" * 30_000] * 2)
        client = client_of(trainable)
        search = client.search

        def then_replace(*given: Any, **named: Any) -> Any:
            monkeypatch.undo()
            found = search(*given, **named)
            trainable.add(VECTORS[:1], ids=IDS[:1], texts=["new"])
            return found

        monkeypatch.setattr(client, "search", then_replace)
        found = trainable.search(VECTORS[0], 5)
        assert len(found) == 5  # another one in its place
        assert {hit.text for hit in found} <= {"", "old" * 30_000}
        assert trainable.search(VECTORS[0], 1)[0].text == "new"

    def test_others_are_found_in_one_question(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        trainable.add(VECTORS[:450], ids=IDS[:450], texts=TEXTS[:450])
        monkeypatch.setattr(client_of(trainable), "query", lambda *_, **__: pytest.fail("asked again"))
        assert {hit.text for hit in trainable.search(QUERIES[0], 450)} == set(TEXTS[:450])

    def test_servers_that_name_the_key(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        trainable.add(VECTORS[:1], ids=["long"], texts=["long" * 30_000])
        client = client_of(trainable)
        search = client.search

        def search_named(*given: Any, **named: Any) -> Any:
            return [[{"key": hit.id, "entity": hit["entity"]} for hit in own] for own in search(*given, **named)]

        monkeypatch.setattr(client, "search", search_named)
        assert "long" * 30_000 in {hit.text for hit in trainable.search(VECTORS[0], 5)}
