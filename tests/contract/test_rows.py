"""Rows through each way in: overwrite, delete, order, ids and texts of every shape."""

from __future__ import annotations

import pytest
from support.subjects import Passage, Subject

IDS = [
    "",
    " ",
    "a",
    "A",
    "0",
    "-1",
    "é",
    "e\u0301",
    "日本語",
    "🦊",
    "a/b\\c",
    "'; DROP TABLE rows; --",
    '"',
    "%",
    "_",
    "\u0000",
    "x\u0000y",
    "x" * 128,
    "null",
    "[]",
]


def passages(count: int) -> list[Passage]:
    return [Passage(f"id{number}", [float(number), 1.0], f"text {number}", {"n": number}) for number in range(count)]


def test_rows_come_back_as_they_went_in(subject: Subject) -> None:
    given = [
        Passage(key, [1.0, float(number)], f"text of {key}", {"key": key, "deep": {"list": [1, 2.5, None, key]}})
        for number, key in enumerate(IDS)
    ]
    assert subject.add(given) == IDS
    assert subject.get(IDS) == [(each.id, each.text, each.metadata) for each in given]


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "ümlaut", "שלום", "👩‍👩‍👧", "a\u0000b", "x" * 100_000, 'quo"te \\ back', "\ufeffbom"]
)
def test_texts_of_every_shape(subject: Subject, text: str) -> None:
    subject.add([Passage("a", [1.0, 2.0], text, {"same": text[:1000]})])
    assert subject.get(["a"]) == [("a", text, {"same": text[:1000]})]


def test_the_same_id_overwrites(subject: Subject) -> None:
    subject.add(passages(3))
    subject.add([Passage("id1", [9.0, -9.0], "changed", {"n": "changed"})])
    assert subject.get(["id1"]) == [("id1", "changed", {"n": "changed"})]
    assert subject.collection.count() == 3
    best = subject.search([9.0, -9.0], 3)
    assert best[0] == ("id1", pytest.approx(1.0, abs=1e-3))
    assert sorted(key for key, _ in best) == ["id0", "id1", "id2"]


def test_get_keeps_the_order_and_leaves_out_the_missing(subject: Subject) -> None:
    subject.add(passages(5))
    assert [key for key, _, _ in subject.get(["id3", "nothing", "id0", "id4"])] == ["id3", "id0", "id4"]
    assert subject.get([]) == []
    assert subject.get(["nothing"]) == []


def test_delete(subject: Subject) -> None:
    subject.add(passages(5))
    subject.delete(["id1", "nothing", "id3"])
    assert subject.collection.count() == 3
    assert [key for key, _, _ in subject.get(["id0", "id1", "id2", "id3", "id4"])] == ["id0", "id2", "id4"]
    assert {key for key, _ in subject.search([1.0, 1.0], 10)} == {"id0", "id2", "id4"}
    subject.delete([])
    assert subject.collection.count() == 3
    subject.add([Passage("id1", [1.0, 1.0], "again")])
    assert subject.get(["id1"]) == [("id1", "again", {})]


def test_metadata_given_back_is_the_callers_own(subject: Subject) -> None:
    subject.add([Passage("a", [1.0, 1.0], "t", {"tags": ["x"]})])
    _, _, metadata = subject.get(["a"])[0]
    metadata["tags"].append("y")
    assert subject.get(["a"])[0][2] == {"tags": ["x"]}
