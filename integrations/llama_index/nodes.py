"""Nodes as rows, and rows as nodes.

A row has the node's id, its text, and its metadata as the user gave it plus three reserved keys: ``_node_type`` (the class
name), ``_node_content`` (JSON of everything else that is not at its default) and ``_ref_doc_id``. LlamaIndex's own form,
``node_to_metadata_dict``, writes ``doc_id``, ``document_id`` and ``ref_doc_id`` over the user's keys, stores the metadata
twice, drops the bytes of images and brings a Document back as a TextNode.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any

from llama_index.core.schema import BaseNode, Document, MediaResource, MetadataMode, Node, TextNode
from pydantic_core import to_jsonable_python

from rarebit.errors import DamagedFileError, InputError
from rarebit.retrievers.collection import Hit, Row

NODE_TYPE = "_node_type"
NODE_CONTENT = "_node_content"
REF_DOC_ID = "_ref_doc_id"
RESERVED = frozenset({NODE_TYPE, NODE_CONTENT, REF_DOC_ID})
"""Metadata keys that a node cannot use, since its row does."""

SITUATED_BY = "_situated_by"
"""Metadata key of a node whose embedding is situated and keeps its length: the name of what embedded it, if it is known."""

_IN_THE_ROW = {"id_", "text", "metadata", "embedding"}
"""Fields that the content leaves out: the row itself, or its vector, holds them."""


def to_row(node: BaseNode) -> Row:
    """Give the row that keeps a node.

    Raises:
        InputError: the metadata uses a reserved key, or a part of the node cannot be written as JSON.
    """
    reserved = sorted(RESERVED.intersection(node.metadata))
    if reserved:
        raise InputError(f"node {node.node_id!r} has the metadata keys {reserved}, which the store uses itself: rename them")
    own = {key: value for key, value in node.metadata.items() if key != SITUATED_BY}
    metadata = {**own, NODE_TYPE: node.class_name(), NODE_CONTENT: _content(node)}
    ref_doc_id = _ref_doc_id(node)
    if ref_doc_id is not None:
        metadata[REF_DOC_ID] = ref_doc_id
    return Row(node.node_id, node.get_content(metadata_mode=MetadataMode.NONE), metadata)


def to_node(row: Row | Hit, embedding: list[float] | None = None) -> BaseNode:
    """Give the node that a row keeps; a row that another adapter wrote becomes a TextNode.

    Raises:
        DamagedFileError: the row's ``_node_content`` gives no node.
    """
    if NODE_CONTENT not in row.metadata:
        return TextNode(id_=row.id, text=row.text, metadata=dict(row.metadata), embedding=embedding)
    try:
        content = dict(json.loads(row.metadata[NODE_CONTENT]))
        node_class = _class_named(row.metadata.get(NODE_TYPE)) or _nearest_class(content)
        metadata = {key: value for key, value in row.metadata.items() if key not in RESERVED}
        fields = {**_with_text(content, node_class, row.text), "id_": row.id, "metadata": metadata, "embedding": embedding}
        return node_class.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise DamagedFileError(
            f"the {NODE_CONTENT!r} of row {row.id!r} gives no node ({error}): add the node again, or remove that metadata key"
        ) from error


def mark(node: BaseNode, name: str) -> None:
    """Say of a node what situated its embedding; models do not see it."""
    node.metadata[SITUATED_BY] = name
    for hidden in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
        if SITUATED_BY not in hidden:
            hidden.append(SITUATED_BY)


def marks(nodes: Iterable[BaseNode]) -> set[str]:
    """Give the names of what situated the embeddings of nodes."""
    return {node.metadata[SITUATED_BY] for node in nodes if SITUATED_BY in node.metadata}


def _ref_doc_id(node: BaseNode) -> str | None:
    """A document that is stored whole is its own source: so upserts and deletes by document find it."""
    if node.ref_doc_id is None and isinstance(node, Document):
        return node.node_id
    return node.ref_doc_id


def _content(node: BaseNode) -> str:
    try:
        content = node.model_dump(mode="json", exclude=_IN_THE_ROW, exclude_defaults=True)
        content.pop("class_name", None)
        for name, value in node:
            if isinstance(value, MediaResource):
                content[name].update(_left_out(name, value))
        # The object of an IndexNode comes with values that json does not know.
        return json.dumps(to_jsonable_python(content), ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"node {node.node_id!r} cannot be kept as JSON ({error}): set what cannot be written to None, such as the obj of "
            "an IndexNode (an index takes such nodes as objects= and keeps their objects beside the store)"
        ) from error


def _left_out(name: str, resource: MediaResource) -> dict[str, Any]:
    """Give what pydantic leaves out of a resource, its bytes; and a mark for a text that stands in the row."""
    data = {"data": resource.data.decode("ascii")} if resource.data else {}
    text = {"text": ""} if name == "text_resource" and resource.text is not None else {}
    return {**data, **text}


def _with_text(content: dict[str, Any], node_class: type[BaseNode], text: str) -> dict[str, Any]:
    if "text" in node_class.model_fields:
        return {**content, "text": text}
    resource = content.get("text_resource") or {}
    if text or "text" in resource:
        return {**content, "text_resource": {**resource, "text": text}}
    return content


def _class_named(name: Any) -> type[BaseNode] | None:
    """Find a class of nodes by its class name, also a user's own if it has been imported; bases come first."""
    waiting: deque[type[BaseNode]] = deque(BaseNode.__subclasses__())
    while waiting:
        node_class = waiting.popleft()
        if node_class.class_name() == name:
            return node_class
        waiting.extend(node_class.__subclasses__())
    return None


def _nearest_class(content: dict[str, Any]) -> type[BaseNode]:
    """Stand in for a class that this process does not know."""
    return Node if "text_resource" in content else TextNode


def with_hidden(node: BaseNode, key: str, value: Any) -> BaseNode:
    """Give a copy of a node with a metadata value that neither models nor embeddings see."""
    changes = {
        "metadata": {**node.metadata, key: value},
        "excluded_llm_metadata_keys": [*dict.fromkeys([*node.excluded_llm_metadata_keys, key])],
        "excluded_embed_metadata_keys": [*dict.fromkeys([*node.excluded_embed_metadata_keys, key])],
    }
    return node.model_copy(update=changes)
