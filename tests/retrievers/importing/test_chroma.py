"""Chroma collections: a stand-in that answers as chromadb's do, without its dependencies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection
from rarebit.errors import InputError, MissingExtraError, TransferWarning, VectorError
from rarebit.retrievers.importing import ChromaSource, ImportReport, import_into, source_of


class Chroma:
    """What :class:`ChromaSource` uses of ``chromadb.Collection``; ``get`` answers in an order of its own."""

    name = "mine"

    def __init__(self, rows: dict[str, tuple[Any, Any, Any]], configuration: Any = None, metadata: Any = None) -> None:
        self.rows, self.configuration, self.metadata = rows, configuration, metadata

    def get(self, ids: list[str] | None = None, include: list[str] | None = None) -> dict[str, Any]:
        found = list(self.rows) if ids is None else sorted((key for key in ids if key in self.rows), reverse=True)
        columns = {}
        for place, name in enumerate(("embeddings", "documents", "metadatas")):
            columns[name] = [self.rows[key][place] for key in found] if name in (include or []) else None
        vectors = columns["embeddings"]
        if vectors and not any(vector is None for vector in vectors):
            columns["embeddings"] = np.array(vectors)
        return {"ids": found, "uris": None, "data": None, **columns}


Chroma.__module__ = "chromadb.api.models.Collection"


def many(count: int = 100) -> Chroma:
    vectors = clustered(count, 8)
    return Chroma({f"id {row}": (vectors[row], f"text {row}", {"row": row}) for row in range(count)})


def test_rows_come_over_in_their_order() -> None:
    collection, chroma = Collection.open(), many()
    assert import_into(collection, source_of(chroma), batch_size=32) == ImportReport(read=100, added=100)
    assert [(row.id, row.text, row.metadata) for row in collection] == [
        (f"id {row}", f"text {row}", {"row": row}) for row in range(100)
    ]
    wanted = np.array([chroma.rows[f"id {row}"][0] for row in (0, 99)])
    assert np.allclose(collection.vectors(["id 0", "id 99"]), wanted, atol=0.02)
    assert import_into(collection, ChromaSource(chroma)).unchanged == 100


def test_rows_without_document_or_metadata() -> None:
    collection = Collection.open()
    report = import_into(collection, ChromaSource(Chroma({"a": ([1.0], None, None), "b": ([1.0], "t", {})})))
    assert report == ImportReport(read=2, added=2, without_text=1)
    assert [(row.text, row.metadata) for row in collection] == [("", {}), ("t", {})]


def test_rows_without_embeddings_are_counted_and_named() -> None:
    chroma = many(10)
    for key in ("id 3", "id 5"):
        chroma.rows[key] = (None, "t", None)
    with pytest.raises(VectorError, match=r"Chroma's mine: 2 of the 10 rows read have no embedding \(first: 'id 3'\)"):
        import_into(Collection.open(), ChromaSource(chroma))


def test_rows_that_are_deleted_meanwhile_are_left_out() -> None:
    chroma = many(10)
    source = ChromaSource(chroma)
    del chroma.rows["id 4"]
    assert import_into(Collection.open(), source, batch_size=3).added == 9


@pytest.mark.parametrize(
    ("configuration", "metadata", "wanted"),
    [
        ({"hnsw": {"space": "cosine"}, "spann": None}, None, "cosine"),
        ({"hnsw": None, "spann": {"space": "ip"}}, {}, "inner_product"),
        (None, {"hnsw:space": "cosine"}, "cosine"),
        (None, {"owner": "me"}, "l2"),
        ({}, None, "l2"),
    ],
)
def test_what_it_ranks_by(configuration: Any, metadata: Any, wanted: str) -> None:
    chroma = Chroma({"a": ([1.0, 0.0], "t", None), "b": ([0.0, 2.0], "t", None)}, configuration, metadata)
    source = ChromaSource(chroma)
    assert source.ranked_by == wanted
    if wanted != "cosine":
        with pytest.warns(TransferWarning, match=f"ranks by {wanted}"):
            import_into(Collection.open(), source)


def test_a_node_of_llama_index_becomes_its_row() -> None:
    node = {
        "id_": "n",
        "metadata": {"page": 1, "deep": {"a": [1]}},
        "relationships": {"1": {"node_id": "doc", "metadata": {}, "hash": None}},
        "metadata_template": "{key}: {value}",
        "text": "",
        "start_char_idx": 3,
        "class_name": "TextNode",
    }
    flat = {"page": 1, "doc_id": "doc", "ref_doc_id": "doc", "_node_type": "TextNode", "_node_content": json.dumps(node)}
    strange = {"_node_type": "TextNode", "_node_content": "no JSON"}
    collection = Collection.open()
    import_into(collection, ChromaSource(Chroma({"n": ([1.0], "the text", flat), "s": ([1.0], "t", strange)})))
    first, second = collection
    assert first.text == "the text"
    assert json.loads(first.metadata.pop("_node_content")) == {
        "relationships": {"1": {"node_id": "doc"}},
        "start_char_idx": 3,
    }
    assert first.metadata == {"page": 1, "deep": {"a": [1]}, "_node_type": "TextNode", "_ref_doc_id": "doc"}
    assert second.metadata == strange


def test_a_folder_of_chroma_needs_chroma(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no chroma.sqlite3"):
        ChromaSource.at(tmp_path)
    (tmp_path / "chroma.sqlite3").touch()
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"'chromadb'.*pip install 'rarebit\[chroma\]'"):
        source_of(tmp_path)
