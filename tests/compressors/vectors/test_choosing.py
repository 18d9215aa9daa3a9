"""The choice of a code: it keeps to its budget or target, says what it measured, and takes whatever vectors there are."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from rarebit.compressors.vectors import Choice, SearchableCodec, choose, codec_named
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import CodecError, DimensionError, InputError

DIM = 32


def clustered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, DIM)) * np.linspace(2, 0.2, DIM)
    vectors = centres[rng.integers(20, size=count)] + rng.standard_normal((count, DIM)) * np.linspace(1, 0.1, DIM)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(2500)


@pytest.fixture(scope="module")
def for_budget(vectors: np.ndarray) -> Choice:
    return choose(vectors, code_bytes=8)


def true_recall(choice: Choice, vectors: np.ndarray) -> float:
    """Measure what was chosen a second time, on other queries, with a plain search of decoded vectors."""
    queries, chosen = clustered(300, seed=7), choice.chosen
    codec = codec_named(chosen.codec).fit(vectors)
    assert isinstance(codec, SearchableCodec)
    codes = codec.encode(vectors)
    found = np.argsort(-(queries @ codec.decode(codes).T), axis=1)[:, : chosen.candidates]
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    if chosen.fine != "none":
        tier = FineTier(chosen.fine, codec)
        scores = np.take_along_axis(queries @ tier.decode(tier.encode(vectors, codes), codes).T, found, axis=1)
        found = np.take_along_axis(found, np.argsort(-scores, axis=1), axis=1)[:, :10]
    return float(np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), exact.tolist(), strict=True)]))


def test_a_budget_takes_the_code_that_finds_most_within_it(for_budget: Choice, vectors: np.ndarray) -> None:
    chosen = for_budget.chosen
    assert chosen.code_size <= 8
    assert all(trial.code_size <= 8 for trial in for_budget.measured)
    assert chosen.recall_of_codes == max(trial.recall_of_codes for trial in for_budget.measured)
    assert {"trellis8", "variance8", "pq8", "pca8,sq8", "pca16,sq4"} <= {trial.codec for trial in for_budget.measured}
    assert abs(true_recall(for_budget, vectors) - chosen.recall) < 0.05
    assert "within 8 bytes" in for_budget.reason


def test_more_bytes_never_find_less(vectors: np.ndarray) -> None:
    found = [choose(vectors, code_bytes=size).chosen.recall_of_codes for size in (4, 12, 32, 64, 128)]
    assert all(more > less for less, more in pairwise(found[:3]))
    assert found[-1] == 1
    assert choose(vectors, code_bytes=128).chosen.codec == "float32"


def test_a_target_takes_the_smallest_code_that_reaches_it(vectors: np.ndarray) -> None:
    low, high = choose(vectors, target_recall=0.5, fine=("none",)), choose(vectors, target_recall=0.9, fine=("none",))
    assert low.chosen.recall >= 0.5
    assert high.chosen.recall >= 0.9
    assert low.chosen.code_size < high.chosen.code_size
    assert abs(true_recall(high, vectors) - high.chosen.recall) < 0.05
    assert all(trial.recall < 0.9 for trial in high.measured[:-1]), "a smaller one was passed over"
    assert choose(vectors, target_recall=0.99).chosen.code_size < high.chosen.code_size, "re-ranking makes up for small codes"


def test_codes_alone_can_be_held_to_a_target(vectors: np.ndarray) -> None:
    alone = choose(vectors, target_recall=0.9, fine=("none",))
    assert alone.chosen.fine == "none"
    assert alone.chosen.recall == alone.chosen.recall_of_codes >= 0.9


def test_with_both_fine_tier_and_candidates_serve_the_target(vectors: np.ndarray) -> None:
    both = choose(vectors, code_bytes=8, target_recall=0.95)
    assert both.chosen.code_size <= 8
    assert both.chosen.recall >= 0.95
    assert "reaches 0.95" in both.reason
    hopeless = choose(vectors, code_bytes=1, target_recall=1.0, fine=("int4",))
    assert "does not reach 1.0" in hopeless.reason


def test_what_cannot_be_reached_is_said(vectors: np.ndarray) -> None:
    close = clustered(400)
    close[1::2] = close[::2] + np.float32(1e-7)  # halves of pairs that only chance tells apart
    found = choose(close, target_recall=1.0, fine=("int8",))
    assert found.chosen.recall <= 1.0
    assert "recall 1.0" in found.reason
    with pytest.raises(CodecError, match="allow more memory"):
        choose(vectors, code_bytes=0)
    with pytest.raises(InputError, match="neither"):
        choose(vectors)


def test_given_queries_are_what_it_measures_with(vectors: np.ndarray) -> None:
    assert choose(vectors, code_bytes=8, queries=clustered(50, seed=3)).queries == 50
    with pytest.raises(DimensionError):
        choose(vectors, code_bytes=8, queries=np.ones((3, DIM + 1), np.float32))


def test_it_is_deterministic_and_told_as_json(for_budget: Choice, vectors: np.ndarray) -> None:
    assert choose(vectors, code_bytes=8) == for_budget
    told = json.loads(json.dumps(for_budget.as_dict()))
    assert told["chosen"]["codec"] == for_budget.chosen.codec
    assert told["rows"] == for_budget.rows == 2500 - for_budget.queries


@pytest.mark.parametrize("count", [2, 3, 11, 40])
def test_few_vectors_are_enough(count: int) -> None:
    for asked in ({"code_bytes": 8}, {"target_recall": 0.9}):
        found = choose(clustered(count), **asked)
        assert 0 <= found.chosen.recall <= 1
        assert found.rows + found.queries == count


def test_no_vectors_are_not() -> None:
    for count in (0, 1):
        with pytest.raises(CodecError, match=f"got {count} vectors"):
            choose(clustered(2)[:count], code_bytes=8)


@pytest.mark.parametrize("same", [0.0, 0.25])
def test_vectors_that_are_all_the_same_are_taken(same: float) -> None:
    found = choose(np.full((500, DIM), same, np.float32), code_bytes=8)
    assert found.chosen.recall == 1 or np.isfinite(found.chosen.recall)
    assert found.chosen.code_size <= 8
