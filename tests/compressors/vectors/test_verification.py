"""The query map for re-ranking with rough fine vectors: its gradient, what it brings, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.compressors.vectors.verification import QueryMap, QueryMapReport, _softmax, _Task
from rarebit.errors import CodecError, InputError, NotFittedError

DIM = 16
CANDIDATES = 40


def unit(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def candidates_of(queries: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = queries @ documents.T
    rows = np.argsort(-scores, axis=1)[:, :CANDIDATES].copy()
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.fixture(scope="module")
def documents() -> np.ndarray:
    return unit(1000, 0)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return unit(800, 1)


@pytest.fixture(scope="module")
def rough(documents: np.ndarray) -> np.ndarray:
    """Documents whose last four dimensions are twice too long: a map that halves them repairs everything."""
    return documents * np.where(np.arange(DIM) < 12, 1, 2).astype(np.float32)


def test_the_map_repairs_what_a_map_can_repair(documents: np.ndarray, queries: np.ndarray, rough: np.ndarray) -> None:
    rows, exact = candidates_of(queries, documents)
    fitted = QueryMap(steps=300).fit(queries, rough, rows, exact)
    report = fitted.report
    assert report is not None
    assert report.steps > 0
    assert report.mapped > report.identity
    asked = unit(200, 2)
    mapped = fitted.apply_queries(asked)
    assert np.abs(mapped @ rough.T - asked @ documents.T).mean() < np.abs(asked @ rough.T - asked @ documents.T).mean()


def test_exact_fine_vectors_keep_the_identity(documents: np.ndarray, queries: np.ndarray) -> None:
    rows, exact = candidates_of(queries, documents)
    fitted = QueryMap(steps=100).fit(queries, documents, rows, exact)
    assert fitted.report == QueryMapReport(1.0, 1.0, 0)
    assert np.array_equal(fitted.apply_queries(queries), queries)


def test_the_gradient_is_that_of_list_net(documents: np.ndarray, queries: np.ndarray, rough: np.ndarray) -> None:
    rows, exact = candidates_of(queries, documents)
    task = _Task(queries, rough, rows, exact)
    batch = np.arange(8)

    def loss(matrix: np.ndarray) -> float:
        scores = task._scores(batch, matrix).astype(np.float64) / task._temperature
        wanted = _softmax(exact[batch] / task._temperature)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return float(-(wanted * logs).sum(axis=1).mean())

    matrix = np.eye(DIM, dtype=np.float32)
    gradient = task.gradient(batch, matrix)
    for place in ((0, 0), (3, 14), (15, 15)):
        step = np.zeros_like(matrix)
        step[place] = 1e-2
        assert gradient[place] == pytest.approx((loss(matrix + step) - loss(matrix - step)) / 2e-2, rel=0.02, abs=2e-3)


def test_it_is_deterministic_and_restored_the_same(documents: np.ndarray, queries: np.ndarray, rough: np.ndarray) -> None:
    rows, exact = candidates_of(queries, documents)
    one, other = (QueryMap(steps=60, seed=3).fit(queries, rough, rows, exact) for _ in range(2))
    assert np.array_equal(one.arrays()["matrix"], other.arrays()["matrix"])
    restored = QueryMap.restore(config=one.config, arrays=one.arrays())
    assert restored.config == one.config
    assert np.array_equal(restored.apply_queries(queries), one.apply_queries(queries))


def test_zeros_and_duplicates_stay_finite() -> None:
    zeros = np.zeros((100, DIM), np.float32)
    rows, exact = candidates_of(zeros, zeros)
    assert np.isfinite(QueryMap(steps=3).fit(zeros, zeros, rows, exact).arrays()["matrix"]).all()


def test_wrong_input_is_refused(documents: np.ndarray, queries: np.ndarray) -> None:
    rows, exact = candidates_of(queries, documents)
    with pytest.raises(NotFittedError, match="fit"):
        QueryMap().apply_queries(queries)
    with pytest.raises(InputError, match="steps=-1"):
        QueryMap(steps=-1)
    with pytest.raises(CodecError, match="got 10 queries"):
        QueryMap().fit(queries[:10], documents, rows[:10], exact[:10])
    with pytest.raises(InputError, match="rows of the 500"):
        QueryMap().fit(queries, documents[:500], rows, exact)
    fitted = QueryMap(steps=0).fit(queries, documents, rows, exact)
    with pytest.raises(InputError, match="dimension 3"):
        fitted.apply_queries(queries[:, :3])
