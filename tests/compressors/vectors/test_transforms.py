"""Transforms: what they do to inner products and lengths, restored as they were, and what they refuse."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from rarebit.compressors.vectors.matryoshka import Matryoshka
from rarebit.compressors.vectors.opq import OPQ
from rarebit.compressors.vectors.pca import PCA
from rarebit.compressors.vectors.product import Product
from rarebit.compressors.vectors.rotation import Rotation
from rarebit.compressors.vectors.transform import Transform
from rarebit.errors import CodecError, InputError, NotFittedError

DIM = 22


def drawn(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Vectors with unequal, correlated dimensions, far from the origin."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, dim)) * np.geomspace(3, 0.1, dim) @ np.random.default_rng(9).standard_normal((dim, dim))
    return (mixed + 2 * np.random.default_rng(8).standard_normal(dim)).astype(np.float32)


TRANSFORMS = [PCA(6), PCA(DIM), Matryoshka(6), Matryoshka(DIM), Rotation(3), OPQ(4), OPQ(11)]
ISOMETRIES = [PCA(DIM), Matryoshka(DIM), Rotation(3), OPQ(4), OPQ(11)]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return drawn(600)


@pytest.fixture(scope="module", params=TRANSFORMS, ids=repr)
def transform(request: pytest.FixtureRequest, vectors: np.ndarray) -> Transform:
    return request.param.fit(vectors)


@pytest.mark.parametrize("isometry", ISOMETRIES, ids=repr)
def test_isometries_keep_every_inner_product_and_invert_exactly(isometry: Transform, vectors: np.ndarray) -> None:
    isometry.fit(vectors)
    queries = drawn(5, seed=1)
    kept = isometry.apply_queries(queries) @ isometry.apply(vectors).T
    assert np.allclose(kept, queries @ vectors.T, rtol=1e-4, atol=1e-2)
    assert np.allclose(isometry.invert(isometry.apply(vectors)), vectors, atol=1e-3)


def test_shapes_and_types(transform: Transform, vectors: np.ndarray) -> None:
    mapped = transform.apply(vectors)
    assert mapped.shape == (len(vectors), transform.out_dim)
    assert transform.apply_queries(vectors[:3]).shape == (3, transform.out_dim)
    assert transform.invert(mapped).shape == vectors.shape
    assert mapped.dtype == transform.invert(mapped).dtype == np.float32
    assert transform.apply(vectors[:0]).shape == (0, transform.out_dim)


def test_applying_what_was_inverted_changes_nothing_more(transform: Transform, vectors: np.ndarray) -> None:
    mapped = transform.apply(vectors)
    assert np.allclose(transform.apply(transform.invert(mapped)), mapped, atol=1e-3)


def test_restored_it_is_the_same(transform: Transform, vectors: np.ndarray) -> None:
    restored = type(transform).restore(dim=DIM, config=transform.config, arrays=transform.arrays())
    assert restored.config == transform.config
    assert np.array_equal(restored.apply(vectors), transform.apply(vectors))
    assert np.array_equal(restored.invert(transform.apply(vectors)), transform.invert(transform.apply(vectors)))


def test_fitting_is_deterministic(transform: Transform, vectors: np.ndarray) -> None:
    again = type(transform)(**transform.config).fit(vectors)
    assert np.array_equal(again.apply(vectors), transform.apply(vectors))


@pytest.mark.parametrize("kind", [Rotation, lambda seed: OPQ(4, seed)])
def test_the_seed_matters(kind: type, vectors: np.ndarray) -> None:
    assert not np.allclose(kind(seed=0).fit(vectors).apply(vectors), kind(seed=1).fit(vectors).apply(vectors), atol=0.01)


@pytest.mark.parametrize("odd", [np.zeros((300, DIM)), np.ones((300, DIM)), np.repeat(drawn(3), 100, axis=0)])
def test_constant_and_repeated_vectors_are_mapped_to_numbers(transform: Transform, odd: np.ndarray) -> None:
    fitted = type(transform)(**transform.config).fit(odd.astype(np.float32))
    assert np.isfinite(fitted.apply(odd.astype(np.float32))).all()
    assert np.array_equal(fitted.apply(np.zeros((2, DIM), np.float32)), np.zeros((2, fitted.out_dim)))


@pytest.mark.parametrize("count", [1, 5, 16, 20])
def test_the_rotation_of_opq_is_orthogonal_however_few_vectors_it_is_fitted_on(count: int) -> None:
    matrix = OPQ(4).fit(drawn(count)).arrays()["matrix"]
    assert matrix.shape == (DIM, 24)
    assert np.allclose(matrix @ matrix.T, np.eye(DIM), atol=1e-5)


def test_pca_keeps_the_most_of_the_second_moment_that_six_directions_can(vectors: np.ndarray) -> None:
    kept = np.square(PCA(6).fit(vectors).apply(vectors).astype(np.float64)).sum()
    singular = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    assert np.isclose(kept, np.square(singular[:6]).sum(), rtol=1e-5)


def test_pca_does_not_centre() -> None:
    """With centring, the products with vectors that share a long mean would lose it, and with it the order."""
    vectors = drawn(500) + 10
    pca = PCA(8).fit(vectors)
    queries = drawn(10, seed=4)
    kept = pca.apply_queries(queries) @ pca.apply(vectors).T
    assert abs((kept - queries @ vectors.T).mean()) < 0.02 * np.abs(queries @ vectors.T).mean()


def test_pca_refuses_more_dimensions_than_there_are_and_too_few_vectors() -> None:
    with pytest.raises(CodecError, match=f"got vectors of {DIM} dimensions.*at least {DIM + 1}"):
        PCA(DIM + 1).fit(drawn(100))
    with pytest.raises(CodecError, match=r"got 5 vectors.*at least 6"):
        PCA(6).fit(drawn(5))


def test_matryoshka_keeps_lengths_and_the_direction_of_the_prefix(vectors: np.ndarray) -> None:
    cut = Matryoshka(6).fit(vectors).apply(vectors)
    assert np.allclose(np.linalg.norm(cut, axis=1), np.linalg.norm(vectors, axis=1), rtol=1e-5)
    cosines = (cut * vectors[:, :6]).sum(axis=1) / np.linalg.norm(cut, axis=1) / np.linalg.norm(vectors[:, :6], axis=1)
    assert np.allclose(cosines, 1, atol=1e-5)


def test_matryoshka_gives_zero_for_a_prefix_of_zeros() -> None:
    matryoshka = Matryoshka(2).fit(np.ones((1, 3), np.float32))
    assert np.array_equal(matryoshka.apply(np.array([[0, 0, 5]], np.float32)), [[0, 0]])
    assert np.allclose(matryoshka.apply(np.array([[3e15, 4e15, 0]], np.float32)), [[3e15, 4e15]])


def test_a_rotation_does_not_depend_on_the_vectors() -> None:
    assert np.array_equal(Rotation(1).fit(drawn(5)).arrays()["matrix"], Rotation(1).fit(drawn(0)).arrays()["matrix"])


def test_opq_makes_a_product_quantiser_better(vectors: np.ndarray) -> None:
    vectors = drawn(2000, dim=24)

    def error(mapped: np.ndarray) -> float:
        product = Product(4).fit(mapped)
        return float(np.square(product.decode(product.encode(mapped)) - mapped).mean())

    assert error(OPQ(8).fit(vectors).apply(vectors)) < 0.8 * error(vectors)


def test_opq_leaves_the_threads_of_faiss_as_they_were(vectors: np.ndarray) -> None:
    before = faiss.omp_get_max_threads()
    OPQ(4).fit(vectors)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("kind", [PCA, Matryoshka, OPQ])
def test_no_dimensions_and_more_than_there_are_are_refused(kind: type) -> None:
    with pytest.raises(InputError, match="at least 1"):
        kind(0)
    with pytest.raises(CodecError, match=f"got vectors of {DIM} dimensions"):
        kind(DIM + 1).fit(drawn(100))


def test_unfitted_transforms_say_so() -> None:
    for unfitted in (PCA(2), Matryoshka(2), Rotation(), OPQ(2)):
        with pytest.raises(NotFittedError, match="fit"):
            _ = unfitted.dim
