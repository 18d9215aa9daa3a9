"""Lessons: passages with their vectors, and questions about some of them; and the exercises made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rarebit.compressors.context import Lessons, Reading
from rarebit.errors import InputError, VectorError

pytest.importorskip("transformers", reason="tokenizers need the extra models")

from support.tiny_language_model import DIM, END, START, chat_tokenizer, embed, sentence

from rarebit.compressors.context import exercises
from rarebit.compressors.context.exercises import LAYOUTS, ExerciseBook, Layout, Line, drawn_layout
from rarebit.compressors.context.prompts import BACKGROUND, WITHOUT_BACKGROUND, token_ids

TEXTS = [sentence(number, 6) for number in range(6)]
READING = Reading("gull?", "bab teck", (0, 1), (2, 3, 0))


def book(*readings: Reading) -> ExerciseBook:
    return ExerciseBook(chat_tokenizer(), Lessons(TEXTS, embed(TEXTS), readings))


def shown(line: Line) -> tuple[str, str, list[int]]:
    """Write out a prompt, with places in angle brackets, its answer, and the places."""
    parts = [f"<{part}>" if isinstance(part, int) else chat_tokenizer().decode(part) for part in line.prompt]
    return "".join(parts), chat_tokenizer().decode(line.answer), [part for part in line.prompt if isinstance(part, int)]


def turn(content: str) -> str:
    return f"{START}user\n{content}{END}\n{START}assistant\n"


@pytest.mark.parametrize("seed", range(5))
def test_paraphrases_ask_for_the_beginning_of_a_passage(seed: int) -> None:
    made = book().paraphrase(3, 5, np.random.default_rng(seed))
    prompt, answer, places = shown(made.student)
    assert "Background: <3>\n\n" in prompt
    assert places == [3]
    assert TEXTS[3].startswith(answer)
    assert len(made.student.answer) == 5
    assert made.teacher is None
    assert made.told


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_readings_ask_about_passages(layout: Layout, seed: int) -> None:
    made = book(READING).reading(0, 40, np.random.default_rng(seed), layout)
    prompt, answer, places = shown(made.student)
    assert made.teacher is not None
    teacher, teachers_answer, teachers_places = shown(made.teacher)
    opening = "The answer is:" if "The answer is:" in prompt else ""
    assert answer == teachers_answer == f"{' ' if opening else ''}bab teck{END}"
    assert teachers_places == []
    without = turn(WITHOUT_BACKGROUND.format(question="gull?")) + opening
    with_text = turn(BACKGROUND.format(context=TEXTS[0], question="gull?")) + opening
    assert teacher == (without if layout == "others" else with_text)
    assert made.told == (layout != "others")
    expected = {
        "alone": places == [0],
        "among": 0 in places and set(places) <= {0, 2, 3} and len(places) > 1,
        "others": bool(places) and set(places) <= {2, 3},
        "beside": places == [0] and any(f"{TEXTS[other]}\n<0>" in prompt for other in (2, 3)),
        "text": bool(places) and set(places) <= {2, 3} and f"Background: {TEXTS[0]}\n<" in prompt,
    }
    assert expected[layout]
    assert len(set(places)) == len(places)


def test_answers_are_cut_with_their_end() -> None:
    made = book(READING)
    whole = made.answer("bab teck", "", 40)
    assert whole[-1] == chat_tokenizer().eos_token_id
    assert [made.answer("bab teck", "", count) for count in range(1, len(whole))] == [
        whole[:count] for count in range(1, len(whole))
    ]


@pytest.mark.parametrize("taught", [True, False])
def test_layouts_are_drawn_as_often_as_is_said(taught: bool) -> None:
    rng = np.random.default_rng(0)
    drawn = [drawn_layout(rng, taught=taught) for _ in range(4000)]
    shares = {layout: share for layout, share in LAYOUTS.items() if taught or layout != "others"}
    assert set(drawn) <= shares.keys()
    for layout, share in shares.items():
        assert drawn.count(layout) / 4000 == pytest.approx(share / sum(shares.values()), abs=0.03)
    assert sum(LAYOUTS.values()) == pytest.approx(1)


def test_the_tokens_of_few_passages_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercises, "KEPT", 2)
    asked: list[str] = []
    monkeypatch.setattr(exercises, "token_ids", lambda tokenizer, text: asked.append(text) or token_ids(tokenizer, text))
    made = book()
    for place in (0, 1, 0, 2, 0, 1):
        assert made.tokens_of(place) == token_ids(chat_tokenizer(), TEXTS[place])
    assert asked == [TEXTS[place] for place in (0, 1, 2, 1)]
    made.tokens_of(1).clear()
    assert made.tokens_of(1)


def test_passages_do_not_stand_for_others_or_end_turns() -> None:
    texts = ["\x001\x00 bab", f"{END} gull", "teck"]
    made = ExerciseBook(chat_tokenizer(), Lessons(texts, embed(texts), [Reading("q", "a", (0,), (1,))]))
    line = made.reading(0, 9, np.random.default_rng(0), "text").student
    assert [part for part in line.prompt if isinstance(part, int)] == [1]
    ends = made.reading(0, 9, np.random.default_rng(0), "beside").student
    tokens = [token for part in ends.prompt if isinstance(part, list) for token in part]
    assert tokens.count(chat_tokenizer().eos_token_id) == 1


@pytest.mark.parametrize(
    ("texts", "vectors"), [([], np.zeros((0, DIM), np.float32)), (["a"], embed(["a", "b"])), (["a", "b"], embed(["a"]))]
)
def test_as_many_vectors_as_passages_are_wanted(texts: list[str], vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="wanted as many of each"):
        Lessons(texts, vectors)


@pytest.mark.parametrize(
    "reading",
    [
        *(Reading("q", "a", places) for places in ((), (6,), (-1,), (0, 6))),
        *(Reading("q", "a", (0,), places) for places in ((6,), (-1,))),
        *(Reading("q", answer, (0,)) for answer in ("", " \n")),
    ],
    ids=str,
)
def test_readings_that_lead_nowhere_are_refused(reading: Reading) -> None:
    with pytest.raises(InputError, match="0 to 5"):
        Lessons(TEXTS, embed(TEXTS), [READING, reading])


@pytest.mark.unchecked
@pytest.mark.parametrize("vectors", [np.full((1, 3), np.nan), np.zeros(3), "text"], ids=str)
def test_vectors_that_are_none_are_refused(vectors: Any) -> None:
    with pytest.raises((VectorError, InputError)):
        Lessons(["a"], vectors)


def test_the_dimension_is_that_of_the_vectors() -> None:
    assert Lessons(TEXTS, embed(TEXTS)).dim == DIM
