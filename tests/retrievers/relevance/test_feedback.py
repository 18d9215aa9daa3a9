"""Labels from what people did with what was shown to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit import Collection
from rarebit.errors import InputError
from rarebit.retrievers.relevance import Feedback, from_feedback, read_feedback

DIM = 16
QUESTIONS = {"one": 0, "two": 1, "three": 2}
Embed = Callable[[list[str]], np.ndarray]

ids = st.lists(st.sampled_from("abcdefgh"), unique=True)


@pytest.fixture
def rows() -> Iterator[Collection]:
    with Collection.open(None, dim=DIM) as collection:
        collection.add(np.random.default_rng(0).standard_normal((30, DIM)), ids=[str(number) for number in range(30)])
        yield collection


def embed(texts: list[str]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, DIM)).astype(np.float32)[[QUESTIONS[text] for text in texts]]


def found(rows: Collection, question: str, k: int) -> list[str]:
    return [hit.id for hit in rows.search(embed([question])[0], k)]


@given(ids, ids, ids)
def test_what_was_passed_over_was_seen(shown: list[str], liked: list[str], disliked: list[str]) -> None:
    grades = Feedback("?", shown, liked, disliked).grades()
    for key in "abcdefgh":
        below = shown[shown.index(key) + 1 :] if key in shown else []
        if key in liked:
            assert grades[key] == 1
        elif key in disliked or any(other in liked for other in below):
            assert grades[key] == 0
        else:
            assert key not in grades


def test_labels_are_of_those_who_said_something(rows: Collection) -> None:
    best = found(rows, "one", 6)
    log = [
        Feedback("one", shown=best[:4], liked=[best[2]]),
        Feedback("two", disliked=[found(rows, "two", 1)[0]]),
        Feedback("one", shown=best[:4], liked=[best[0]]),
        Feedback("three", shown=best[:4]),
        Feedback("one", liked=[best[0]], disliked=[best[3]]),
    ]
    labelled = from_feedback(rows, log, embed, k=6)
    assert np.array_equal(labelled.queries, embed(["one", "two"]))
    assert np.allclose(labelled.labels[0], [2 / 3, 0, 1, 0, np.nan, np.nan], equal_nan=True)
    assert np.allclose(labelled.labels[1], [0] + [np.nan] * 5, equal_nan=True)
    assert np.allclose(labelled.scores[0], rows.scores(labelled.queries[0], best), atol=1e-6)


def test_what_is_no_longer_there_does_not_count(rows: Collection) -> None:
    first, second, *_, last = found(rows, "one", 30)
    rows.delete([first])
    labelled = from_feedback(rows, [Feedback("one", liked=[first, last, "never there"], disliked=[second])], embed, k=3)
    assert labelled.scores.shape == (1, 4)
    assert np.allclose(labelled.labels, [[0, np.nan, np.nan, 1]], equal_nan=True)
    gone = from_feedback(rows, [Feedback("one", liked=[first])], embed, k=3)
    assert np.isnan(gone.labels).all()


def test_an_empty_log(rows: Collection) -> None:
    for log in ([], [Feedback("one", shown=["1", "2"])]):
        labelled = from_feedback(rows, log, embed)
        assert len(labelled) == 0
        assert not labelled.known.any()


def test_a_log_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"query": "one", "shown": ["a", 2], "liked": ["a"], "when": "today"}\n\n  \n{"query": "zwölf", "disliked": ["b"]}\n',
        encoding="utf-8",
    )
    wanted = [Feedback("one", ["a", "2"], ["a"], []), Feedback("zwölf", [], [], ["b"])]
    assert list(read_feedback(path)) == list(read_feedback(str(path))) == wanted
    path.write_text("")
    assert list(read_feedback(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b"3",
        b'"one"',
        b"{}",
        b'{"liked": ["a"]}',
        b'{"query": "one", "shown": 3}',
        b'{"query": "one", "shown": null}',
        b'{"query": "one", "liked": "id12"}',
        b'{"query": "one", "liked": [null]}',
        b'{"query": null, "liked": ["a"]}',
        b'{"query": "\xff"}',
    ],
)
def test_a_line_that_is_no_feedback_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"query": "one"}\n\n' + line + b'\n{"query": "two"}\n')
    reading = read_feedback(path)
    with pytest.raises(InputError, match=r"line 3 of .*log\.jsonl is no feedback"):
        list(reading)


def test_vectors_of_other_numbers_than_questions_are_refused(rows: Collection) -> None:
    log = [Feedback("one", liked=["1"]), Feedback("two", liked=["2"])]
    for count in (1, 3):
        with pytest.raises(InputError):
            from_feedback(rows, log, lambda _, count=count: np.ones((count, DIM), np.float32))  # type: ignore[misc]
