"""A tiny language model that reads passages as tokens, for the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rarebit.compressors.context import OneTokenGenerator


@pytest.fixture
def generator() -> OneTokenGenerator:
    pytest.importorskip("transformers", reason="language models need the extra models")
    from support.tiny_language_model import generator

    return generator()
