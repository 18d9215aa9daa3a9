"""The package's face: lazy names, and what an import loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rarebit.compressors import context


def printed(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import rarebit.compressors.context",
        "from rarebit.compressors.context import Allotment, ContextBudget, Generation, Passages, Prompt, References, Sampling",
        "from rarebit.compressors.context import Given, Lessons, Reading; dir(__import__('rarebit.compressors.context'))",
    ],
    ids=["package", "parts", "lessons"],
)
def test_an_import_loads_no_torch(code: str) -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "langchain_core", "llama_index", "faiss")
    assert printed(f"{code}\nimport sys\nprint([name for name in {heavy!r} if name in sys.modules])") == "[]"


def test_every_name_has_a_home() -> None:
    pytest.importorskip("transformers", reason="some need the extra models")
    assert sorted(context.__all__) == sorted(context._HOMES) == sorted(dir(context))
    for name in context.__all__:
        assert getattr(context, name) is not None


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Brigde"):
        context.Brigde  # noqa: B018


@pytest.mark.parametrize("name", ["ModalityBridge", "OneTokenGenerator", "bridge_of_checkpoint", "train_bridge"])
def test_what_needs_models_names_the_extra(name: str) -> None:
    script = f"""
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("torch", "transformers") else found(name, *rest)
try:
    from rarebit.compressors.context import {name}
except ImportError as error:
    print(error)
"""
    assert "rarebit[models]" in printed(script)
