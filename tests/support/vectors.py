"""Vectors for tests: clustered, as embeddings are."""

from __future__ import annotations

import numpy as np


def clustered(count: int, dim: int = 64, *, clusters: int = 50, seed: int = 0) -> np.ndarray:
    """Make (count, dim) float32 unit vectors around random centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1234).standard_normal((clusters, dim))
    vectors = centres[rng.integers(clusters, size=count)] + 0.7 * rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact_ids(vectors: np.ndarray, query: np.ndarray, k: int) -> list[str]:
    """Give the ids ("0", "1", ...) of the k nearest by brute force."""
    return [str(place) for place in np.argsort(-(vectors @ query), kind="stable")[:k]]
