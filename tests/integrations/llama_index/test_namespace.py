"""The import path that LlamaIndex users know, and what importing costs."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_both_paths_give_the_same_class():
    from llama_index.vector_stores import rarebit as namespaced
    from rarebit.integrations import llama_index as home

    assert namespaced.RarebitVectorStore is home.RarebitVectorStore
    assert namespaced.__all__ == ["RarebitVectorStore"]


def test_postprocessors_and_language_models_have_paths_of_their_own():
    from llama_index.llms import rarebit as llms
    from llama_index.postprocessor import rarebit as postprocessors
    from rarebit.integrations import llama_index as home

    assert llms.OneTokenLLM is home.OneTokenLLM
    assert postprocessors.OneTokenPostprocessor is home.OneTokenPostprocessor
    assert llms.__all__ == ["OneTokenLLM"]


@pytest.mark.parametrize(
    "package", ["llama_index", "llama_index.llms", "llama_index.postprocessor", "llama_index.vector_stores"]
)
def test_the_packages_above_are_namespaces(package: str):
    module = __import__(package, fromlist=["x"])
    assert getattr(module, "__file__", None) is None


def test_a_missing_extra_is_named():
    hide = "import sys; sys.modules['llama_index.core'] = None; "
    for module in ("rarebit.integrations.llama_index", "llama_index.vector_stores.rarebit", "llama_index.llms.rarebit"):
        done = run(hide + f"import {module}")
        assert done.returncode == 1
        assert "MissingExtraError" in done.stderr
        assert "pip install 'rarebit[llama-index]'" in done.stderr


def test_the_store_loads_no_heavy_package():
    done = run(
        "import sys; from llama_index.vector_stores.rarebit import RarebitVectorStore; RarebitVectorStore(); "
        "print([name for name in ('torch', 'transformers', 'langchain_core') if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr
