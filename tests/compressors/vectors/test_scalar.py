"""Scalar codes: which values their levels stand for."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.compressors.vectors import codec_named


@pytest.mark.parametrize(("name", "levels"), [("sq8", 256), ("sq4", 16)])
def test_levels_are_spread_over_what_training_saw(name: str, levels: int) -> None:
    vectors = np.random.default_rng(0).normal([0, 3, -1], [1, 0.1, 7], (2000, 3)).astype(np.float32)
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    if levels == 16:
        low, high = (vectors.mean(axis=0) + side * 2.5 * vectors.std(axis=0) for side in (-1, 1))
    codec = codec_named(name).fit(vectors)
    steps = (high - low) / (levels - 1)
    wanted = low + steps * (np.clip(np.floor((vectors - low) / (high - low) * (levels - 1)), 0, levels - 1) + 0.5)
    assert np.mean(np.isclose(codec.decode(codec.encode(vectors)), wanted, atol=1e-3)) > 0.99  # but where rounding decides


def test_what_is_the_same_everywhere_is_exact() -> None:
    vectors = np.random.default_rng(0).standard_normal((1200, 8)).astype(np.float32)
    vectors[:, 3] = 0.5
    for name in ("sq8", "sq4"):
        codec = codec_named(name).fit(vectors)
        assert np.allclose(codec.decode(codec.encode(vectors))[:, 3], 0.5, atol=1e-6)
