"""What goes in as a node comes out as the same node."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from rarebit.errors import DamagedFileError, InputError, MetadataError
from rarebit.integrations.llama_index import RarebitVectorStore
from rarebit.integrations.llama_index.nodes import NODE_CONTENT, NODE_TYPE, REF_DOC_ID, to_node, to_row
from rarebit.retrievers.collection import Row

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
RELATIONS = {
    NodeRelationship.SOURCE: RelatedNodeInfo(node_id="doc", node_type=ObjectType.DOCUMENT, metadata={"a": [1, 2]}, hash="h"),
    NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
    NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2", node_type=ObjectType.TEXT)],
}
METADATA = {
    "doc_id": "the user's own",
    "ref_doc_id": "also",
    "document_id": 7,
    "text": "not the text",
    "id_": "x",
    "flag": True,
    "nothing": None,
    "nested": {"deep": [1, 2.5, "é"]},
    "": "empty key",
}
COMMON: dict[str, Any] = {
    "metadata": METADATA,
    "relationships": RELATIONS,
    "excluded_embed_metadata_keys": ["flag"],
    "excluded_llm_metadata_keys": ["doc_id", "nothing"],
    "metadata_template": "{key} -> {value}",
    "metadata_separator": " | ",
    "text_template": "{content} / {metadata_str}",
}


class Quotation(TextNode):
    """A user's own class of nodes."""

    speaker: str = "nobody"

    @classmethod
    def class_name(cls) -> str:
        return "Quotation"


NODES: dict[str, BaseNode] = {
    "plain text": TextNode(text="hello"),
    "empty text": TextNode(text=""),
    "text": TextNode(text="Ünïcode 文字 \x00 end", mimetype="text/html", start_char_idx=0, end_char_idx=11, **COMMON),
    "image": ImageNode(
        text="a cat", image=base64.b64encode(PNG).decode(), image_path="cat.png", text_embedding=[1.0], **COMMON
    ),
    "index": IndexNode(text="see there", index_id="other", **COMMON),
    "index of a node": IndexNode(text="see", index_id="other", obj=TextNode(text="the object", metadata={"a": 1}, id_="obj")),
    "index of a document": IndexNode(
        text="see", index_id="o", obj=Document(text_resource=MediaResource(text="t", url="http://a.b/"))
    ),
    "document": Document(text="a document", **COMMON),
    "document without text": Document(metadata={"a": 1}),
    "image document": ImageDocument(image=base64.b64encode(PNG), text="a cat"),
    "node": Node(
        text_resource=MediaResource(text="words", embeddings={"dense": [0.5]}, mimetype="text/plain"),
        image_resource=MediaResource(data=PNG),
        audio_resource=MediaResource(path="sound.mp3", text="a transcript"),
        video_resource=MediaResource(url="https://example.org/film.mp4"),
        **COMMON,
    ),
    "node with empty text": Node(text_resource=MediaResource(text="")),
    "node with a resource without text": Node(text_resource=MediaResource(path="words.txt")),
    "node without anything": Node(),
    "user's class": Quotation(text="to be", speaker="Hamlet", **COMMON),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_survive_the_store(name: str):
    given = NODES[name].model_copy(update={"embedding": [3.0, 4.0]})
    store = RarebitVectorStore(include_embeddings=True)
    store.add([given])
    (found,) = store.get_nodes([given.node_id])
    assert type(found) is type(given)
    assert found.embedding == pytest.approx([0.6, 0.8])
    found.embedding = given.embedding
    assert found == given
    assert found.hash == given.hash
    assert found.get_content() == given.get_content()


def test_the_row_reads_like_the_users_own():
    row = to_row(TextNode(text="hello", id_="n", metadata={"a": 1}, relationships=RELATIONS))
    assert (row.id, row.text) == ("n", "hello")
    assert set(row.metadata) == {"a", NODE_TYPE, NODE_CONTENT, REF_DOC_ID}
    assert row.metadata["a"] == 1
    assert row.metadata[NODE_TYPE] == "TextNode"
    assert row.metadata[REF_DOC_ID] == "doc"
    assert "hello" not in row.metadata[NODE_CONTENT]


def test_making_a_row_leaves_the_node_alone():
    node = TextNode(text="hello", metadata={"a": 1}, relationships=RELATIONS, embedding=[1.0])
    before = node.model_copy(deep=True)
    to_row(node)
    assert node == before


def test_a_node_without_source_has_no_document_id():
    assert REF_DOC_ID not in to_row(TextNode(text="alone")).metadata


def test_a_document_stored_whole_is_its_own_source():
    assert to_row(Document(text="whole", id_="d")).metadata[REF_DOC_ID] == "d"


def test_rows_of_another_adapter_are_text_nodes():
    metadata = {"source": "a.txt", "doc_id": "x", REF_DOC_ID: "theirs"}
    assert to_node(Row("r", "some text", metadata)) == TextNode(id_="r", text="some text", metadata=metadata)


def test_the_row_is_right_where_it_and_the_content_differ():
    """Another adapter may have changed the text of a row, or copied it under another id."""
    row = to_row(Document(text="old", id_="one", metadata={"a": 1}))
    found = to_node(Row("two", "new", {**row.metadata, "a": 2}))
    assert found == Document(text="new", id_="two", metadata={"a": 2})
    blank = to_row(Node())
    assert to_node(Row("n", "text", blank.metadata)).get_content() == "text"


@pytest.mark.parametrize(("node", "wanted"), [(TextNode(text="t"), TextNode), (Document(text="t"), Node)])
def test_an_unknown_class_becomes_the_nearest_known_one(node: BaseNode, wanted: type[BaseNode]):
    row = to_row(node)
    found = to_node(Row(row.id, row.text, {**row.metadata, NODE_TYPE: "GoneWithTheWind"}))
    assert type(found) is wanted
    assert found.get_content() == "t"


@pytest.mark.parametrize("content", ["no json", "[1]", "3", None, '{"relationships": 3}'])
def test_content_that_is_no_node_is_named(content: Any):
    with pytest.raises(DamagedFileError, match=r"row 'r'.*"):
        to_node(Row("r", "text", {NODE_CONTENT: content, NODE_TYPE: "TextNode"}))


@pytest.mark.parametrize("key", [NODE_TYPE, NODE_CONTENT, REF_DOC_ID])
def test_reserved_keys_are_refused(key: str):
    store = RarebitVectorStore()
    with pytest.raises(InputError, match=key):
        store.add([TextNode(text="t", metadata={key: "mine"}, embedding=[1.0])])
    assert store.get_nodes() == []


def test_what_json_cannot_hold_is_refused():
    store = RarebitVectorStore()
    with pytest.raises(MetadataError, match="cannot be kept as JSON"):
        store.add([TextNode(text="t", metadata={"when": object()}, embedding=[1.0])])
    with pytest.raises(InputError, match=r"obj of an IndexNode"):
        store.add([IndexNode(text="t", index_id="i", obj=object(), embedding=[1.0])])
    assert store.get_nodes() == []
