"""Batches of a training: everything comes once before anything comes twice, and what is about as long comes together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

from support.tiny_language_model import DIM, HIDDEN, chat_tokenizer, embed, language_model, sentence

from rarebit.compressors.context import BridgeConfig, Lessons, Reading, Stage, training
from rarebit.compressors.context.exercises import LAYOUTS, WITH_TEXT, ExerciseBook, Layout
from rarebit.compressors.context.training import FEWER, SORTED

pytestmark = pytest.mark.usefixtures("_one_thread")

SIZE = 4
COUNT = 2 * SIZE * SORTED
"""Passages, and questions: two times what is sorted together."""

TEXTS = [sentence(number, 1 + number % 17) for number in range(COUNT)]
READINGS = [
    Reading(sentence(number, 1 + number % 5), sentence(-number % COUNT, 1 + number % 13), (number,)) for number in range(COUNT)
]
STAGES = (Stage("paraphrase", 4 * SORTED, SIZE, longest=40), Stage("reading", 4 * SORTED, SIZE, longest=40))
EPOCH = COUNT // SIZE


@pytest.fixture(scope="module")
def course() -> Any:
    book = ExerciseBook(chat_tokenizer(), Lessons(TEXTS, embed(TEXTS), READINGS))
    model = language_model().requires_grad_(requires_grad=False)
    return training._Course(model, book, BridgeConfig(DIM, HIDDEN), STAGES, 0, blind=False)


def batches(course: Any, number: int, steps: range) -> list[list[int]]:
    return [course._batch(STAGES[number], number, step) for step in steps]


@pytest.mark.parametrize("number", [0, 1], ids=["paraphrase", "reading"])
def test_everything_comes_once_before_anything_comes_twice(course: Any, number: int) -> None:
    epochs = [batches(course, number, range(epoch * EPOCH, (epoch + 1) * EPOCH)) for epoch in range(2)]
    for drawn in epochs:
        assert {len(batch) for batch in drawn} == {SIZE}
        assert Counter(place for batch in drawn for place in batch) == Counter(range(COUNT))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("number", [0, 1], ids=["paraphrase", "reading"])
def test_a_batch_is_the_same_whenever_it_is_drawn(course: Any, number: int) -> None:
    steps = range(2 * EPOCH)
    drawn = batches(course, number, steps)
    assert [course._batch(STAGES[number], number, step) for step in reversed(steps)] == drawn[::-1]


def padding(lengths: Sequence[Sequence[int]]) -> float:
    """Give the share of batches that is padding."""
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


@pytest.mark.parametrize("number", [0, 1], ids=["paraphrase", "reading"])
def test_what_is_about_as_long_comes_together(course: Any, number: int) -> None:
    def length(place: int) -> int:
        if number == 0:
            return len(course.book.paraphrase(place, 40, np.random.default_rng(0)).student.answer)
        line = course.book.reading(place, 40, np.random.default_rng(0), "alone").student
        return sum(len(part) if isinstance(part, list) else 1 for part in line.prompt) + len(line.answer)

    lengths = [length(place) for place in range(COUNT)]
    drawn = [[lengths[place] for place in batch] for batch in batches(course, number, range(EPOCH))]
    order = np.random.default_rng(1).permutation(lengths).reshape(-1, SIZE).tolist()
    assert padding(drawn) < padding(order) / 2
    means = [float(np.mean(batch)) for batch in drawn[:SORTED]]
    assert 3 < (np.diff(means) < 0).sum() < SORTED - 4  # neither the short ones first nor the long ones


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 3, 8, 9])
def test_of_what_is_given_with_text_a_quarter_is_taken(
    course: Any, layout: Layout, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "drawn_layout", lambda rng, taught: layout)
    rng = np.random.default_rng(0)
    taken = course._lessons(STAGES[1], range(size), rng)
    assert len(taken) == (max(1, size // FEWER) if layout in WITH_TEXT else size)
    assert len(course._lessons(STAGES[0], range(size), rng)) == size


@pytest.mark.parametrize("divergence", [0.0, 2.0])
def test_without_a_teacher_no_question_is_asked_about_others_alone(
    course: Any, divergence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(training, "drawn_layout", lambda rng, taught: seen.append(taught) or "alone")
    course._lessons(Stage("reading", 1, 1, divergence=divergence), [0], np.random.default_rng(0))
    assert seen == [divergence > 0]
