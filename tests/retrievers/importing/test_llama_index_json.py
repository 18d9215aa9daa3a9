"""What LlamaIndex persists, read as JSON; that its rows are those of the adapter is tested with the adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit import Collection
from rarebit.errors import InputError
from rarebit.retrievers.importing import LlamaIndexSource, import_into, source_of


def node(key: str, **changes: Any) -> dict[str, Any]:
    return {
        "id_": key,
        "embedding": None,
        "metadata": {"page": 1},
        "excluded_embed_metadata_keys": [],
        "relationships": {},
        "text": f"text of {key}",
        "mimetype": "text/plain",
        "start_char_idx": None,
        "class_name": "TextNode",
        **changes,
    }


def persisted(folder: Path, nodes: dict[str, Any], vectors: dict[str, Any], store: str = "default__vector_store.json") -> Path:
    data = {key: {"__data__": each, "__type__": "1"} for key, each in nodes.items()}
    (folder / "docstore.json").write_text(json.dumps({"docstore/data": data}), encoding="utf-8")
    (folder / store).write_text(json.dumps({"embedding_dict": vectors}), encoding="utf-8")
    return folder


VECTORS = {"b": [0.0, 1.0], "a": [1.0, 0.0]}


def test_nodes_and_vectors_come_together(tmp_path: Path) -> None:
    nodes = {key: node(key) for key in ("a", "b", "not embedded")}
    nodes["b"] = json.dumps(node("b", relationships={"1": {"node_id": "doc"}}))  # as older versions write it
    source = source_of(persisted(tmp_path, nodes, VECTORS))
    assert (source.name, source.count, source.ranked_by) == ("default__vector_store.json", 2, "cosine")
    collection = Collection.open()
    import_into(collection, source, batch_size=1)
    first, second = collection
    assert (first.id, first.text, first.metadata["_ref_doc_id"]) == ("b", "text of b", "doc")
    assert (second.id, second.text) == ("a", "text of a")
    assert second.metadata == {"page": 1, "_node_type": "TextNode", "_node_content": "{}"}
    assert np.allclose(collection.vectors(["a", "b"]), np.eye(2), atol=0.01)


@pytest.mark.parametrize("store", ["vector_store.json", "default__vector_store.json", "mine__vector_store.json"])
def test_a_vector_store_can_be_named(tmp_path: Path, store: str) -> None:
    persisted(tmp_path, {key: node(key) for key in VECTORS}, VECTORS, store)
    assert source_of(tmp_path / store).count == 2
    elsewhere = (tmp_path / "docstore.json").rename(tmp_path / "nodes.json")
    assert LlamaIndexSource(tmp_path / store, docstore=elsewhere).count == 2
    with pytest.raises(InputError, match=r"docstore.json cannot be read"):
        LlamaIndexSource(tmp_path / store)


def test_vectors_without_nodes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 of the 2 vectors .* have no node .* \(first: 'b'\)"):
        LlamaIndexSource(persisted(tmp_path, {"a": node("a")}, VECTORS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"_node_content": "x"}}, r"node 'b' has the metadata keys \['_node_content'\]"),
        (None, "node 'b' of the docstore cannot be read"),
        ("no JSON", "node 'b' of the docstore cannot be read"),
    ],
)
def test_nodes_that_cannot_be_read(tmp_path: Path, changes: Any, message: str) -> None:
    nodes = {"a": node("a"), "b": node("b", **changes) if isinstance(changes, dict) else changes}
    with pytest.raises(InputError, match=message):
        import_into(Collection.open(), LlamaIndexSource(persisted(tmp_path, nodes, VECTORS)))


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is no JSON"), ("[]", "has no 'embedding_dict'"), ('{"a": 1}', "has no 'embedding_dict'")]
)
def test_files_that_are_something_else(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "default__vector_store.json").write_text(content)
    with pytest.raises(InputError, match=message):
        LlamaIndexSource(tmp_path)
    with pytest.raises(InputError, match=r"no default__vector_store.json in"):
        LlamaIndexSource(tmp_path / "none")
