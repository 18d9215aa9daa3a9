from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with random weights, for :func:`support.tiny_encoders.encoder`."""
    from support import tiny_encoders

    root = tmp_path_factory.mktemp("tiny")
    return {
        "bert": tiny_encoders.bert(root / "bert"),
        "qwen": tiny_encoders.qwen(root / "qwen"),
        "endless": tiny_encoders.qwen(root / "endless", end=False),
    }


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


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """For models this small a second thread only waits, beside other work for seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
