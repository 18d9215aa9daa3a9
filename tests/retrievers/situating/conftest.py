from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Load a tiny encoder by the type of its model, with mean pooling: of :mod:`support.tiny_positions`."""
    from support import tiny_encoders, tiny_positions

    @cache
    def loaded(kind: str, side: str = "right", **settings: Any) -> Any:
        folder = tiny_positions.written(tmp_path_factory.mktemp(kind), kind, side, **settings)
        encoder: Any = tiny_encoders.encoder(folder)
        # Some types have a class of tokenizers of their own, which would not read this one as it was written.
        encoder[0].processor = tiny_positions.tokenizer(side)
        return encoder

    return lambda kind, **settings: deepcopy(loaded(kind, **settings))
