"""Source: what LlamaIndex's SimpleVectorStore and docstore persist, which is JSON. LlamaIndex itself is not needed.

A row looks as if its node had been added through Rarebit's LlamaIndex adapter, which explains the form
(``integrations/llama_index/nodes.py``), but for fields that are at their default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rarebit.arrays import as_vectors
from rarebit.errors import InputError
from rarebit.retrievers.collection.records import Metadata
from rarebit.retrievers.importing.source import Ranking, Rows

NODE_TYPE = "_node_type"
NODE_CONTENT = "_node_content"
REF_DOC_ID = "_ref_doc_id"

VECTOR_STORE = "vector_store.json"
DEFAULT_VECTOR_STORE = f"default__{VECTOR_STORE}"
DOCSTORE = "docstore.json"
SOURCE = "1"
"""LlamaIndex's name of the relationship to the document that a node comes from."""

IN_THE_ROW = ("id_", "text", "metadata", "embedding", "class_name")
RESOURCES = ("text_resource", "image_resource", "audio_resource", "video_resource")
DEFAULTS: Mapping[str, Any] = {
    "excluded_embed_metadata_keys": [],
    "excluded_llm_metadata_keys": [],
    "relationships": {},
    "metadata_template": "{key}: {value}",
    "metadata_separator": "\n",
    "text_template": "{metadata_str}\n\n{content}",
    "mimetype": "text/plain",
    "start_char_idx": None,
    "end_char_idx": None,
    **dict.fromkeys(RESOURCES),
}


class LlamaIndexSource:
    """Vectors of a persisted SimpleVectorStore, with the nodes of the docstore beside it.

    Args:
        path: the folder that ``StorageContext.persist`` wrote, or the JSON file of one vector store in it.
        docstore: the JSON file of the docstore, if it is not beside the vector store as ``docstore.json``.

    Raises:
        InputError: the files are not there or not LlamaIndex's, or vectors have no node.
    """

    ranked_by: Ranking | None = "cosine"

    def __init__(self, path: str | os.PathLike[str], *, docstore: str | os.PathLike[str] | None = None) -> None:
        """Read both files."""
        file = vector_store_at(Path(path))
        self.name = file.name
        self._vectors: dict[str, list[float]] = _part(file, "embedding_dict")
        kept = Path(docstore) if docstore is not None else file.parent / DOCSTORE
        nodes = _part(kept, "docstore/data")
        missing = [key for key in self._vectors if key not in nodes]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(self._vectors)} vectors in {file.name} have no node in {kept} (first: "
                f"{missing[0]!r}), and a vector store of LlamaIndex keeps no texts: give the docstore that belongs to it"
            )
        self._nodes = {key: nodes[key] for key in self._vectors}
        self.count = len(self._vectors)

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows in the order of the vector store."""
        ids = list(self._vectors)
        for start in range(0, self.count, size):
            part = ids[start : start + size]
            nodes = [_node(self._nodes[key], key) for key in part]
            vectors = as_vectors([self._vectors[key] for key in part])
            yield Rows(part, vectors, [_text(node) for node in nodes], [node_metadata(node) for node in nodes])


def vector_store_at(path: Path) -> Path:
    """Find the JSON of the vector store.

    Raises:
        InputError: it is not there.
    """
    found = [file for file in (path, path / DEFAULT_VECTOR_STORE, path / VECTOR_STORE) if file.is_file()]
    if not found:
        raise InputError(f"there is no {DEFAULT_VECTOR_STORE} in {path}, wanted the folder that StorageContext.persist wrote")
    return found[0]


def node_metadata(node: Mapping[str, Any]) -> Metadata:
    """Give the metadata of the row that keeps a node.

    Args:
        node: as LlamaIndex writes it.

    Raises:
        InputError: the metadata uses a key that the row needs.
    """
    own = dict(node.get("metadata") or {})
    reserved = sorted({NODE_TYPE, NODE_CONTENT, REF_DOC_ID} & own.keys())
    if reserved:
        raise InputError(f"node {node.get('id_')!r} has the metadata keys {reserved}, which the store uses itself: rename them")
    content = {
        name: _lean(name, value)
        for name, value in node.items()
        if name not in IN_THE_ROW and not (name in DEFAULTS and value == DEFAULTS[name])
    }
    kind = str(node.get("class_name") or "TextNode")
    row = {**own, NODE_TYPE: kind, NODE_CONTENT: json.dumps(content, ensure_ascii=False, separators=(",", ":"))}
    source = (node.get("relationships") or {}).get(SOURCE)
    ref_doc_id = source.get("node_id") if isinstance(source, Mapping) else node.get("id_") if kind == "Document" else None
    return row if ref_doc_id is None else {**row, REF_DOC_ID: ref_doc_id}


def _lean(name: str, value: Any) -> Any:
    """Leave out what stands in the row, or says nothing."""
    if name in RESOURCES and isinstance(value, dict):
        kept = {inner: found for inner, found in value.items() if found is not None}
        return {**kept, "text": ""} if "text" in kept and name == "text_resource" else kept
    if name == "relationships" and isinstance(value, dict):
        return {kind: _lean_relation(related) for kind, related in value.items()}
    return value


def _lean_relation(related: Any) -> Any:
    if isinstance(related, list):
        return [_lean_relation(each) for each in related]
    if not isinstance(related, dict):
        return related
    return {name: value for name, value in related.items() if value is not None and value != {}}


def _text(node: Mapping[str, Any]) -> str | None:
    resource = node.get("text_resource") or {}
    found: str | None = node.get("text", resource.get("text"))
    return found


def _node(kept: Any, key: str) -> Mapping[str, Any]:
    try:
        found = kept["__data__"]
        node = dict(json.loads(found) if isinstance(found, str) else found)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"node {key!r} of the docstore cannot be read ({error}), wanted an object: persist it anew") from error
    return node


def _part(file: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}), wanted a file that LlamaIndex persisted") from error
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}), wanted a file that LlamaIndex persisted") from error
    part = found.get(name) if isinstance(found, dict) else None
    if not isinstance(part, dict):
        raise InputError(f"{file} has no {name!r}, wanted a file that LlamaIndex persisted")
    return part
