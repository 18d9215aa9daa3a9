"""A situating head that changes every vector, without training."""

from __future__ import annotations

import numpy as np

from rarebit.retrievers.situating import SituatingHead


def some_head(dim: int, seed: int = 0) -> SituatingHead:
    head, rng = SituatingHead(dim, heads=2, width=4), np.random.default_rng(seed)
    return head.with_arrays(
        {name: rng.standard_normal(array.shape).astype(np.float32) / 8 for name, array in head._arrays.items()}
    )
