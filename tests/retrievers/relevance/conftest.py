from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from rarebit.arrays import normalized
from rarebit.retrievers.relevance import CosineAdapter, LabelledScores


def _scored(
    count: int = 60,
    k: int = 8,
    *,
    dim: int = 8,
    seed: int = 0,
    told: Literal["nothing", "evidence", "query"] = "nothing",
    holes: float = 0.0,
    shift: float = 0.0,
    **others: Any,
) -> LabelledScores:
    rng = np.random.default_rng(seed)
    queries = normalized(rng.standard_normal((count, dim)).astype(np.float32))
    high, noise = rng.random(count) < 0.5, rng.standard_normal((2, count, k))
    relevant, missing = noise[0] > 0.5, rng.random((2, count, k)) < holes
    offsets = (
        shift + 0.3 * {"nothing": np.zeros(count), "evidence": high, "query": np.clip(0.5 + 1.4 * queries[:, 0], 0, 1)}[told]
    )
    scores = 0.3 + offsets[:, np.newaxis] + 0.15 * relevant + 0.06 * noise[1]
    moments = np.stack([offsets if told == "evidence" else 0.1 * rng.standard_normal(count), np.full(count, 0.1)], axis=1)
    scores[missing[0]] = np.nan
    labels = np.where(missing[1], np.nan, relevant).astype(np.float32)
    return LabelledScores(queries, scores.astype(np.float32), labels, **{"moments": moments, **others})


@pytest.fixture(scope="session")
def scored() -> Callable[..., LabelledScores]:
    """Make labelled scores: of a query, relevant passages score .15 higher; ``told`` says whence half of the queries' .3 more.

    ``holes`` is the share of passages that are not there, and of those without a label.
    """
    return _scored


def _random_adapter(dim: int = 8, *, seed: int = 0, scale: float = 0.5, **settings: Any) -> CosineAdapter:
    new, rng = CosineAdapter(dim, hidden=5, **settings), np.random.default_rng(seed)
    arrays = {name: scale * rng.standard_normal(array.shape).astype(np.float32) for name, array in new._arrays.items()}
    return new.with_arrays({**arrays, "evidence_scale": np.exp(arrays["evidence_scale"])})


@pytest.fixture(scope="session")
def random_adapter() -> Callable[..., CosineAdapter]:
    """Make an adapter with random weights."""
    return _random_adapter
