"""Mixed fidelity: budgets are kept, the surest come first."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rarebit.compressors.context import Allotment, ContextBudget
from rarebit.errors import InputError

counts = st.integers(1, 60)
passages = st.lists(st.tuples(counts, st.integers(1, 6), st.floats(0, 1)), max_size=8)
limits = st.none() | st.integers(0, 120)
budgets = st.builds(
    ContextBudget,
    max_tokens=limits,
    text_top=st.none() | st.integers(0, 5),
    text_relevance=st.floats(0, 1),
    least_cut=st.none() | st.integers(1, 40),
)


def allot(budget: ContextBudget, given_passages: list[tuple[int, int, float]], *, known: bool = True) -> list[Allotment]:
    as_text, as_tokens, relevances = ([passage[part] for passage in given_passages] for part in range(3))
    return budget.allot(as_text, as_tokens, relevances if known else None)


def is_short(passage: tuple[int, int, float]) -> bool:
    """Tell a passage whose text is no longer than its tokens."""
    return passage[0] <= passage[1]


@given(budget=budgets, own=passages, known=st.booleans())
@example(budget=ContextBudget(40, None, 0.0, 1), own=[(60, 1, 1.0), (60, 1, 1.0)], known=True)
def test_the_budget_is_kept_and_what_is_allotted_is_possible(
    budget: ContextBudget, own: list[tuple[int, int, float]], known: bool
) -> None:
    allotted = allot(budget, own, known=known)
    assert len(allotted) == len(own)
    assert sum(each.tokens for each in allotted) <= (math.inf if budget.max_tokens is None else budget.max_tokens)
    for (as_text, as_tokens, relevance), each in zip(own, allotted, strict=True):
        if each.fidelity == "dropped":
            assert each.tokens == 0
        elif each.fidelity == "token":
            assert each.tokens == as_tokens
        else:
            assert 0 < each.tokens <= as_text
            assert not known or relevance >= budget.text_relevance or as_text <= as_tokens
            assert each.tokens == as_text or (budget.least_cut is not None and each.tokens >= budget.least_cut)
    as_texts = sum(each.fidelity == "text" and not is_short(passage) for each, passage in zip(allotted, own, strict=True))
    assert as_texts <= (math.inf if budget.text_top is None else budget.text_top)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, 7.0, math.nan, math.inf])
def test_relevances_are_from_0_to_1(wrong: float) -> None:
    with pytest.raises(InputError, match="wanted numbers from 0 to 1"):
        ContextBudget().allot([5, 5], [1, 1], [0.5, wrong])


@given(budget=budgets, own=passages)
def test_whoever_is_dropped_was_less_sure(budget: ContextBudget, own: list[tuple[int, int, float]]) -> None:
    allotted = allot(budget, own)
    kept = [relevance for (_, _, relevance), each in zip(own, allotted, strict=True) if each.fidelity != "dropped"]
    dropped = [relevance for (_, _, relevance), each in zip(own, allotted, strict=True) if each.fidelity == "dropped"]
    assert not kept or not dropped or min(kept) >= max(dropped)


@given(budget=budgets, own=passages)
def test_sorting_by_relevance_first_changes_nothing(budget: ContextBudget, own: list[tuple[int, int, float]]) -> None:
    order = sorted(range(len(own)), key=lambda place: -own[place][2])
    allotted = allot(budget, own)
    assert [allotted[place] for place in order] == allot(budget, [own[place] for place in order])


@given(budget=budgets, own=passages)
def test_equal_relevance_is_as_none_where_all_are_sure(budget: ContextBudget, own: list[tuple[int, int, float]]) -> None:
    alike = [(as_text, as_tokens, 1.0) for as_text, as_tokens, _ in own]
    assert allot(budget, alike) == allot(budget, own, known=False)


@given(own=passages, top=st.none() | st.integers(0, 5))
def test_without_a_limit_nothing_is_dropped_or_cut(own: list[tuple[int, int, float]], top: int | None) -> None:
    allotted = allot(ContextBudget(None, top), own)
    texts = {place for place, each in enumerate(allotted) if each.fidelity == "text"}
    order = sorted(range(len(own)), key=lambda place: -own[place][2])
    short = {place for place, passage in enumerate(own) if is_short(passage)}
    assert texts == {*short, *[place for place in order if place not in short][:top]}
    assert all(allotted[place].tokens == own[place][0] for place in texts)
    assert not any(each.fidelity == "dropped" for each in allotted)


short_ones = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8), st.floats(0, 1)), max_size=8)


@given(budget=budgets, own=short_ones, known=st.booleans())
@example(budget=ContextBudget(None, 0, 1.0), own=[(3, 3, 0.0), (4, 3, 0.0)], known=True)
def test_a_text_that_is_no_longer_than_its_tokens_is_text(
    budget: ContextBudget, own: list[tuple[int, int, float]], known: bool
) -> None:
    for passage, each in zip(own, allot(budget, own, known=known), strict=True):
        if is_short(passage) and each.fidelity != "dropped":
            assert each == Allotment("text", passage[0])


@given(own=short_ones, top=st.none() | st.integers(0, 5), relevance=st.floats(0, 1))
def test_short_texts_take_no_place_of_others(own: list[tuple[int, int, float]], top: int | None, relevance: float) -> None:
    budget = ContextBudget(None, top, relevance)
    allotted = allot(budget, own)
    long = [place for place, passage in enumerate(own) if not is_short(passage)]
    assert [allotted[place] for place in long] == allot(budget, [own[place] for place in long])


@given(own=short_ones, limit=st.integers(0, 40), top=st.none() | st.integers(0, 5))
def test_as_many_are_kept_as_their_cheaper_forms_allow(own: list[tuple[int, int, float]], limit: int, top: int | None) -> None:
    allotted = allot(ContextBudget(limit, top), own)
    order = sorted(range(len(own)), key=lambda place: -own[place][2])
    kept = [place for place in order if allotted[place].fidelity != "dropped"]
    assert kept == order[: len(kept)]
    cheapest = [min(own[place][:2]) for place in order]
    assert sum(cheapest[: len(kept)]) <= limit
    assert len(kept) == len(own) or sum(cheapest[: len(kept) + 1]) > limit


@given(own=passages, budget=budgets)
def test_with_nothing_everything_is_dropped(own: list[tuple[int, int, float]], budget: ContextBudget) -> None:
    nothing = ContextBudget(0, budget.text_top, budget.text_relevance, budget.least_cut)
    assert allot(nothing, own) == [Allotment("dropped", 0)] * len(own)


@given(own=passages, limit=st.integers(0, 120), more=st.integers(0, 60), top=st.none() | st.integers(0, 5))
def test_more_room_drops_nothing_that_was_kept(
    own: list[tuple[int, int, float]], limit: int, more: int, top: int | None
) -> None:
    tight, wide = (allot(ContextBudget(room, top), own) for room in (limit, limit + more))
    assert all(one.fidelity == "dropped" or other.fidelity != "dropped" for one, other in zip(tight, wide, strict=True))


def test_a_budget_by_hand() -> None:
    token, dropped = Allotment("token", 1), Allotment("dropped", 0)
    as_text, as_tokens = [30, 10, 50, 20], [1, 1, 1, 1]
    assert ContextBudget(None, 0).allot(as_text, as_tokens) == [token] * 4
    assert ContextBudget(2, 0).allot(as_text, as_tokens) == [token, token, dropped, dropped]
    assert ContextBudget(33).allot(as_text, as_tokens) == [Allotment("text", 30), token, token, token]
    assert ContextBudget(32).allot(as_text, as_tokens) == [Allotment("text", 29), token, token, token]
    second = [token, Allotment("text", 10), token, token]
    assert ContextBudget(32, least_cut=None).allot(as_text, as_tokens) == second
    assert ContextBudget(32, None, least_cut=None).allot(as_text, as_tokens) == [
        token,
        Allotment("text", 10),
        token,
        Allotment("text", 20),
    ]
    assert ContextBudget(18, least_cut=16).allot(as_text, as_tokens) == second
    assert ContextBudget(19, least_cut=16).allot(as_text, as_tokens)[0] == Allotment("text", 16)
    assert ContextBudget(5, 1).allot(as_text, as_tokens, [0.1, 0.2, 0.9, 0.3]) == [token] * 4
    assert ContextBudget(60, 1, 0.5).allot(as_text, as_tokens, [0.1, 0.2, 0.9, 0.3])[2] == Allotment("text", 50)
    assert ContextBudget(60, 1, 0.95).allot(as_text, as_tokens, [0.1, 0.2, 0.9, 0.3]) == [token] * 4


def test_only_the_first_text_that_does_not_fit_is_cut() -> None:
    allotted = ContextBudget(100, None, least_cut=16).allot([90, 90, 90], [20, 20, 20])
    assert [each.fidelity for each in allotted] == ["text", "token", "token"]
    assert allotted[0].tokens == 60


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("max_tokens", "text_top", "least_cut") for value in (-1, 1.5, True, "3", math.nan)),
        {"least_cut": 0},
        *({"text_relevance": value} for value in (-0.1, 1.1, math.nan)),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ContextBudget(**wrong)
