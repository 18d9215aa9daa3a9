from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from rarebit import EmbeddingFingerprint
from rarebit.integrations.model_fingerprint import fingerprint_of


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("text-embedding-3-small", "text-embedding-3-small"),
        ("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"),
        ("/models/bge-small", "bge-small"),
        ("~/models/bge-small/", "bge-small"),
        ("./bge-small", "bge-small"),
        (r"C:\models\bge-small", "bge-small"),
        ("data/models/bge-small", "bge-small"),
        ("/cache/models--BAAI--bge-small-en-v1.5/snapshots/5c38ec7c405ec4b44b94cc5a9bb96e735b38267a", "BAAI/bge-small-en-v1.5"),
        ("nomic-embed-text:latest", "nomic-embed-text"),
        ("nomic-embed-text:v1.5", "nomic-embed-text:v1.5"),
        ("unknown", None),
        ("", None),
    ],
)
def test_names_stand_without_their_folder(given: str, name: str | None) -> None:
    assert fingerprint_of(SimpleNamespace(model_name=given)) == EmbeddingFingerprint(name)


@pytest.mark.parametrize("attribute", ["model_name", "model", "model_id", "repo_id"])
def test_each_attribute_is_looked_at(attribute: str) -> None:
    assert fingerprint_of(SimpleNamespace(**{attribute: "a"})) == EmbeddingFingerprint("a")


def test_the_first_telling_attribute_counts() -> None:
    model: Any = SimpleNamespace(model_name=None, model=object(), model_id="unknown", repo_id="owner/model")
    assert fingerprint_of(model).name == "owner/model"


@pytest.mark.parametrize("model", [None, object(), MagicMock(), 5])
def test_what_tells_nothing_agrees_with_everything(model: object) -> None:
    assert fingerprint_of(model) == EmbeddingFingerprint()
