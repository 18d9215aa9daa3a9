"""The README runs: its Python blocks, one after the other, in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaDocument
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.usefixtures("_one_thread")
def test_every_python_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], postgres: str
) -> None:
    from support.tiny_encoders import WORDS, encoder
    from support.tiny_language_model import bridge, chat_tokenizer, language_model

    monkeypatch.chdir(tmp_path)
    chunked = [[f"{word} {place}" for place in "abc"] for word in WORDS[:12]]
    given = {
        "address": postgres,
        "embeddings": DeterministicFakeEmbedding(size=16),
        "minilm": DeterministicFakeEmbedding(size=384),
        "documents": [
            Document("The kettle is on.", metadata={"year": 2021}),
            Document("The cat is out.", metadata={"year": 1999}),
        ],
        "llama_documents": [LlamaDocument(text="The kettle is on.", metadata={"year": 2021})],
        "embed_model": MockEmbedding(embed_dim=16),
        "llm": MockLLM(),
        "old_store": InMemoryVectorStore.from_texts(["The kettle is on."], DeterministicFakeEmbedding(size=16)),
        "old_index": VectorStoreIndex.from_documents([LlamaDocument(text="The kettle is on.")], embed_model=MockEmbedding(16)),
        "vectors": np.random.default_rng(0).standard_normal((2, 16)),
        "texts": ["The kettle is on.", "The cat is out."],
        "encoder": encoder(folders["bert"]),
        "alone": encoder(folders["bert"], normalize=True),
        "situated": encoder(folders["bert"], normalize=True),
        "chunked": chunked,
        "questions": [chunks[1] for chunks in chunked],
        "model": language_model(),
        "tokenizer": chat_tokenizer(),
        "bridge": bridge(dim=384, input_length=1.0),
        "node_bridge": bridge(dim=16, input_length=1.0),
        "answered_in": [(document, 1) for document in range(len(chunked))],
    }
    assert len(BLOCKS) >= 3
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), given)  # noqa: S102


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)", README)) - {"it"}
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_file_it_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
