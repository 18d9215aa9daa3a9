"""The questions that are remembered between a retriever and what stands behind it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import VectorError
from rarebit.integrations.recent_queries import KEPT, RecentQueries


class Embedder:
    """Embeds a text as its length and its first letter; counts how often it was asked for each."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def embed(self, text: str) -> list[float]:
        self.asked[text] += 1
        return [float(len(text)), float(ord(text[0]))]

    async def aembed(self, text: str) -> list[float]:
        await asyncio.sleep(0)
        return self.embed(text)


Ask = Callable[[RecentQueries, str], np.ndarray]


@pytest.fixture
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, embedder: Embedder) -> Ask:
    if request.param == "sync":
        return lambda recent, text: recent.get(text, embedder.embed)
    return lambda recent, text: asyncio.run(recent.aget(text, embedder.aembed))


def test_a_question_is_embedded_once(ask: Ask, embedder: Embedder) -> None:
    recent = RecentQueries()
    first = ask(recent, "tea")
    assert first.tolist() == [3.0, 116.0]
    assert first.dtype == np.float32
    assert ask(recent, "tea").tolist() == first.tolist()
    assert ask(recent, "milk").tolist() == [4.0, 109.0]
    assert embedder.asked == {"tea": 1, "milk": 1}


def test_sync_and_async_know_the_same(embedder: Embedder) -> None:
    recent = RecentQueries()
    asyncio.run(recent.aget("tea", embedder.aembed))
    recent.get("tea", embedder.embed)
    recent.get("milk", embedder.embed)
    asyncio.run(recent.aget("milk", embedder.aembed))
    assert embedder.asked == {"tea": 1, "milk": 1}


def test_another_spelling_is_another_question(ask: Ask, embedder: Embedder) -> None:
    recent = RecentQueries()
    for text in ("tea", "Tea", "tea "):
        ask(recent, text)
    assert embedder.asked == {"tea": 1, "Tea": 1, "tea ": 1}


def test_the_oldest_is_forgotten(ask: Ask, embedder: Embedder) -> None:
    recent = RecentQueries()
    texts = [f"question {number}" for number in range(KEPT + 1)]
    for text in texts:
        ask(recent, text)
    for text in texts[1:]:
        ask(recent, text)
    assert set(embedder.asked.values()) == {1}
    ask(recent, texts[0])
    assert embedder.asked[texts[0]] == 2


def test_who_was_asked_again_is_not_the_oldest(ask: Ask, embedder: Embedder) -> None:
    recent = RecentQueries()
    texts = [f"question {number}" for number in range(KEPT)]
    for text in [*texts, texts[0], "one more", texts[0]]:
        ask(recent, text)
    assert embedder.asked[texts[0]] == 1
    ask(recent, texts[1])
    assert embedder.asked[texts[1]] == 2


@given(st.lists(st.integers(0, KEPT + 8).map(str), max_size=300))
def test_it_is_the_least_recently_used_that_goes(texts: list[str]) -> None:
    recent, known, embedder = RecentQueries(), list[str](), Embedder()
    expected: Counter[str] = Counter()
    for text in texts:
        assert recent.get(text, embedder.embed).tolist() == [float(len(text)), float(ord(text[0]))]
        expected[text] += text not in known
        known = [*(other for other in known if other != text), text][-KEPT:]
    assert embedder.asked == +expected


def test_what_is_given_is_a_copy_that_nobody_can_write(ask: Ask) -> None:
    recent = RecentQueries()
    for found in (ask(recent, "tea"), ask(recent, "tea")):
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 9
        assert found.flags.owndata
    mine = np.array([1, 2], np.float32)
    kept = recent.get("mine", lambda _: mine)
    mine[0] = 9
    assert kept.tolist() == recent.get("mine", lambda _: mine).tolist() == [1.0, 2.0]


def test_what_fails_is_not_remembered(ask: Ask, embedder: Embedder) -> None:
    recent = RecentQueries()

    def broken(text: str) -> list[float]:
        raise TimeoutError(text)

    async def abroken(text: str) -> list[float]:
        raise TimeoutError(text)

    with pytest.raises(TimeoutError):
        recent.get("tea", broken)
    with pytest.raises(TimeoutError):
        asyncio.run(recent.aget("tea", abroken))
    for wrong in ([float("nan"), 1.0], [[1.0, 2.0]]):
        with pytest.raises(VectorError):
            recent.get("tea", lambda _, wrong=wrong: wrong)
    ask(recent, "tea")
    assert embedder.asked == {"tea": 1}


def test_pickled_and_copied_it_has_forgotten(ask: Ask, embedder: Embedder) -> None:
    recent = RecentQueries()
    ask(recent, "tea")
    for count, again in enumerate((pickle.loads(pickle.dumps(recent)), copy.deepcopy(recent)), 2):
        assert type(again) is RecentQueries
        assert ask(again, "tea").tolist() == [3.0, 116.0]
        assert embedder.asked["tea"] == count
    ask(recent, "tea")
    assert embedder.asked["tea"] == 3


def test_many_threads(embedder: Embedder) -> None:
    recent = RecentQueries()
    texts = [f"{'x' * (number % 90)}question" for number in range(90)] * 10
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: recent.get(text, embedder.embed).tolist(), texts))
    assert found == [[float(len(text)), float(ord(text[0]))] for text in texts]
    assert len(recent._known) == KEPT


def test_threads_that_ask_what_is_known_embed_nothing(embedder: Embedder) -> None:
    recent = RecentQueries()
    texts = [f"question {number}" for number in range(KEPT)]
    for text in texts:
        recent.get(text, embedder.embed)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda text: recent.get(text, embedder.embed), texts * 10))
    assert embedder.asked == dict.fromkeys(texts, 1)


async def test_many_tasks(embedder: Embedder) -> None:
    recent = RecentQueries()
    found = await asyncio.gather(*(recent.aget(text, embedder.aembed) for text in ["tea", "milk"] * 50))
    assert [each.tolist() for each in found] == [[3.0, 116.0], [4.0, 109.0]] * 50
    before = embedder.asked.total()
    await recent.aget("tea", embedder.aembed)
    assert embedder.asked.total() == before
