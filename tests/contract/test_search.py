"""Search through each way in: order, scores, diversity, the empty store, k beyond the end."""

from __future__ import annotations

import numpy as np
import pytest
from support.subjects import Passage, Subject


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


@pytest.fixture
def filled(subject: Subject, vectors: np.ndarray) -> Subject:
    subject.add([Passage(str(number), vector.tolist(), f"t{number}") for number, vector in enumerate(vectors)])
    return subject


def cosines(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (vectors @ query) / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query))


def test_hits_are_the_nearest_with_their_cosines(filled: Subject, vectors: np.ndarray) -> None:
    for query in np.random.default_rng(1).standard_normal((5, 6)):
        wanted = cosines(query, vectors)
        found = filled.search(query.tolist(), 10)
        assert [key for key, _ in found] == [str(each) for each in np.argsort(-wanted)[:10]]
        assert [score for _, score in found] == pytest.approx(np.sort(wanted)[::-1][:10], abs=1e-5)


def test_the_empty_store(subject: Subject) -> None:
    assert subject.search([1.0, 2.0], 5) == []
    assert subject.mmr([1.0, 2.0], 5, 20, 0.5) == []
    assert subject.get(["a"]) == []
    subject.delete(["a"])


def test_k_beyond_the_end_gives_everything(filled: Subject) -> None:
    assert len(filled.search([1.0] * 6, 1000)) == 40
    assert filled.search([1.0] * 6, 0) == []


def test_equal_vectors_come_in_the_order_of_insertion(subject: Subject) -> None:
    subject.add([Passage(str(number), [1.0, 1.0]) for number in range(20)])
    assert [key for key, _ in subject.search([1.0, 1.0], 5)] == ["0", "1", "2", "3", "4"]


def test_mmr_with_lambda_1_is_the_plain_order(filled: Subject) -> None:
    query = [1.0, 0.0, 0.5, 0.0, 0.0, -1.0]
    assert filled.mmr(query, 10, 20, 1.0) == [key for key, _ in filled.search(query, 10)]


def test_mmr_with_lambda_0_avoids_what_it_has(filled: Subject, vectors: np.ndarray) -> None:
    query = np.array([1.0, 0.0, 0.5, 0.0, 0.0, -1.0])
    candidates = [int(key) for key, _ in filled.search(query.tolist(), 20)]
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = [candidates[0]]
    while len(wanted) < 5:
        rest = [each for each in candidates if each not in wanted]
        wanted.append(min(rest, key=lambda each: max(directions[each] @ directions[other] for other in wanted)))
    assert filled.mmr(query.tolist(), 5, 20, 0.0) == [str(each) for each in wanted]
