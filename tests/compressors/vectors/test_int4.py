"""Int4: its error, what it keeps exactly, and its layout."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.compressors.vectors.int4 import Int4
from rarebit.compressors.vectors.int8 import Int8
from rarebit.errors import NotFittedError

DIM = 65


def drawn(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def round_trip(vectors: np.ndarray) -> np.ndarray:
    codec = Int4().with_dim(vectors.shape[1])
    return codec.decode(codec.encode(vectors))


def squared_errors(vectors: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    return np.square(decoded - vectors).sum(axis=1) / np.square(vectors).sum(axis=1)


def test_a_code_is_half_a_byte_a_dimension_and_a_scale() -> None:
    codes = Int4().with_dim(DIM).encode(drawn(3))
    assert codes.shape == (3, 4 + 33)
    assert codes.dtype == np.uint8
    assert Int4().with_dim(384).code_size == 196


def test_the_error_is_what_the_best_uniform_grid_of_16_levels_leaves() -> None:
    vectors = drawn(3000, dim=384)
    errors = squared_errors(vectors, round_trip(vectors))
    # The best uniform grid of 16 levels for a normal distribution leaves 0.01154 (Max 1960).
    assert errors.mean() < 0.0118
    assert errors.max() < 0.03


def test_no_other_scale_fits_better() -> None:
    vectors = drawn(200)
    decoded = round_trip(vectors)
    best = (vectors * decoded).sum(axis=1) / np.square(decoded).sum(axis=1)
    assert np.allclose(best, 1, atol=1e-5)


def test_rounding_to_the_grid_without_clipping_is_worse() -> None:
    vectors = drawn(500)
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 7
    plain = np.rint(vectors / steps) * steps
    assert (squared_errors(vectors, round_trip(vectors)) <= squared_errors(vectors, plain) + 1e-6).all()
    assert squared_errors(vectors, round_trip(vectors)).mean() < 0.8 * squared_errors(vectors, plain).mean()


def test_zeros_and_lengths_are_kept() -> None:
    one = np.eye(DIM, dtype=np.float32)[:4] * 5
    assert np.array_equal(round_trip(one), one)
    assert np.array_equal(round_trip(-one), -one)
    assert not round_trip(np.zeros((2, DIM), np.float32)).any()
    for size in (1e16, 1.0, 1e-30):
        vectors = (drawn(50).clip(-1, 1) * size).astype(np.float32)
        assert np.isfinite(round_trip(vectors)).all()
        assert squared_errors(vectors / np.float32(size), round_trip(vectors) / np.float32(size)).max() < 0.03


def test_grids_of_both_kinds_are_decoded_in_one_call() -> None:
    vectors = np.concatenate([drawn(3), np.eye(DIM, dtype=np.float32)[:3], drawn(2, seed=1)])
    together = round_trip(vectors)
    assert np.array_equal(together, np.concatenate([round_trip(vectors[place : place + 1]) for place in range(8)]))
    codes = Int4().with_dim(DIM).encode(vectors)
    scales = np.ascontiguousarray(codes[:, :4]).view("<f4")[:, 0]
    assert (scales[[3, 4, 5]] < 0).all()
    assert (scales[[0, 1, 2, 6, 7]] > 0).all()


def test_the_sign_of_a_component_is_the_sign_of_its_level() -> None:
    vectors = drawn(100)
    large = np.abs(vectors) > 0.5 * np.abs(vectors).max(axis=1, keepdims=True)
    assert np.array_equal(np.sign(round_trip(vectors))[large], np.sign(vectors)[large])


def test_many_vectors_are_encoded_as_one_by_one() -> None:
    vectors = drawn(2500)
    codec = Int4().with_dim(DIM)
    one_by_one = np.concatenate([codec.encode(vectors[place : place + 1]) for place in (0, 1023, 1024, 2499)])
    assert np.array_equal(codec.encode(vectors)[[0, 1023, 1024, 2499]], one_by_one)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_small_dimensions(dim: int) -> None:
    vectors = drawn(50, dim=dim)
    assert squared_errors(vectors, round_trip(vectors)).max() < 0.02


def test_it_is_restored_and_says_when_it_is_not_ready() -> None:
    vectors = drawn(20)
    codec = Int4().fit(vectors)
    restored = Int4.restore(dim=DIM, config=codec.config, learned=codec.learned())
    assert np.array_equal(restored.encode(vectors), codec.encode(vectors))
    assert codec.encode(np.empty((0, DIM), np.float32)).shape == (0, codec.code_size)
    assert codec.decode(np.empty((0, codec.code_size), np.uint8)).shape == (0, DIM)
    with pytest.raises(NotFittedError, match="fit"):
        Int4().encode([[1.0]])


def test_int8_is_nearer() -> None:
    vectors = drawn(200)
    fine = Int8().with_dim(DIM)
    int8 = squared_errors(vectors, fine.decode(fine.encode(vectors)))
    assert (int8 < squared_errors(vectors, round_trip(vectors)) / 20).all()
