"""Arrays with texts beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit import Collection
from rarebit.errors import InputError, MetadataError, VectorError
from rarebit.retrievers.importing import NumpySource, import_into

VECTORS = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float64)
TEXTS = ["east", "", "north-east"]


def rows(source: NumpySource) -> list[tuple[str, str, dict[str, Any]]]:
    collection = Collection.open()
    import_into(collection, source, batch_size=2)
    return [(row.id, row.text, row.metadata) for row in collection]


def test_arrays_in_memory() -> None:
    metadatas = [{"n": np.int64(1)}, None, {"d": np.datetime64("2020-01-01")}]
    source = NumpySource(VECTORS, TEXTS, metadatas, ["a", "b", "c"])
    assert (source.name, source.count, source.ranked_by) == ("array", 3, None)
    assert rows(source) == [("a", "east", {"n": 1}), ("b", "", {}), ("c", "north-east", {"d": "2020-01-01"})]
    assert [text for _, text, _ in rows(NumpySource(VECTORS.tolist(), TEXTS))] == TEXTS


def saved(folder: Path, name: str, array: Any) -> Path:
    path = folder / name
    if path.suffix == ".npz":
        np.savez(path, **array)
    else:
        np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_files_of_vectors(tmp_path: Path, dtype: str) -> None:
    array = VECTORS.astype(dtype)
    wanted = next(batch.vectors for batch in NumpySource(array, TEXTS).batches(10))
    named = {"texts": np.array(TEXTS), "vectors": array}
    for path in (saved(tmp_path, "v.npy", array), saved(tmp_path, "one.npz", {"x": array}), saved(tmp_path, "n.npz", named)):
        source = NumpySource(path, TEXTS)
        assert source.name == path.name
        found = np.concatenate([batch.vectors for batch in source.batches(2)])
        assert found.dtype == np.float32
        assert np.array_equal(found, wanted)


def test_a_file_of_vectors_stays_on_disk(tmp_path: Path) -> None:
    assert isinstance(NumpySource(saved(tmp_path, "v.npy", VECTORS), TEXTS)._vectors, np.memmap)


def test_texts_in_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    items = [
        {"_id": 7, "text": "east", "title": "E", "metadata": {"page": 1}},
        "plain \u2028 text",
        {"id": "c", "content": None, "year": 2020},
    ]
    path.write_text("\n\n".join(map(json.dumps, items)) + "\n", encoding="utf-8")
    (first, second, third) = rows(NumpySource(VECTORS, path))
    assert first == ("7", "east", {"title": "E", "page": 1})
    assert second[1:] == ("plain \u2028 text", {})
    assert third == ("c", "", {"year": 2020})
    path.with_suffix(".json").write_text(json.dumps(items), encoding="utf-8")
    assert rows(NumpySource(VECTORS, str(path.with_suffix(".json")))) == [first, second, third]


def test_fields_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"key": n, "body": f"t{n}", "text": n}) for n in range(3)), encoding="utf-8")
    assert rows(NumpySource(VECTORS, path, text_column="body", id_column="key"))[2] == ("2", "t2", {"text": 2})


def test_texts_in_plain_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("east\n\nnorth-east\n", encoding="utf-8")
    assert [text for _, text, _ in rows(NumpySource(VECTORS, path))] == TEXTS


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, content in (
        ("t.txt", "east\n\nnorth-east"),
        ("t.jsonl", "\n".join(map(json.dumps, TEXTS))),
        ("t.json", json.dumps(TEXTS)),
    ):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8-sig")
        assert [text for _, text, _ in rows(NumpySource(VECTORS, path))] == TEXTS


def test_derived_ids_say_what_a_row_is() -> None:
    def ids(vectors: Any, texts: list[str], metadatas: Any = None) -> list[str]:
        return [key for batch in NumpySource(vectors, texts, metadatas).batches(2) for key in batch.ids]

    known = ids(VECTORS, TEXTS)
    assert len(set(known)) == 3
    assert ids(VECTORS.astype(np.float32), TEXTS, [{}, None, {}]) == known
    assert ids(VECTORS[:2], TEXTS[:2]) == known[:2]
    assert ids(VECTORS, ["east", "", "other"])[:2] == known[:2]
    assert not set(ids(VECTORS[::-1], TEXTS[::-1])) & {known[0], known[2]}
    for changed in (ids(VECTORS * 2, TEXTS), ids(VECTORS, ["a", "b", "c"]), ids(VECTORS, TEXTS, [{"a": 1}] * 3)):
        assert not set(changed) & set(known)
    assert len(set(ids(np.ones((4, 2)), ["same"] * 4))) == 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda _: NumpySource(VECTORS, TEXTS[:2]), InputError, "3 vectors, and there are 2 texts"),
        (lambda _: NumpySource(VECTORS, TEXTS, ids=["a"]), InputError, "3 vectors, and there are 1 ids"),
        (lambda _: NumpySource(VECTORS, TEXTS, metadatas=[]), InputError, "3 vectors, and there are 0 metadatas"),
        (lambda _: NumpySource(VECTORS, TEXTS, [{}, {}, {"a": {1}}]), MetadataError, "row 'number 2' has the metadata 'a'"),
        (lambda _: NumpySource(VECTORS[0], TEXTS), VectorError, r"shape \(2,\)"),
        (lambda _: NumpySource([["a"]], ["t"]), VectorError, "no matrix of numbers"),
        (lambda p: NumpySource(p / "none.npy", TEXTS), InputError, r"none.npy cannot be read"),
        (lambda p: NumpySource(p / "v.csv", TEXTS), InputError, r"ends in one of .npy, .npz"),
        (lambda p: NumpySource(saved(p, "o.npy", np.array([object()])), TEXTS), InputError, "without unpickling"),
        (lambda p: NumpySource(saved(p, "o.npz", {"vectors": np.array([object()])}), TEXTS), InputError, "without unpickling"),
        (lambda p: NumpySource(saved(p, "2.npz", {"a": VECTORS, "b": VECTORS}), TEXTS), InputError, r"arrays \['a', 'b'\]"),
        (lambda p: NumpySource(written(p, "e.npy", ""), TEXTS), InputError, "e.npy"),
        (lambda p: NumpySource(written(p, "e.npz", "PK\x03\x04 no"), TEXTS), InputError, "e.npz"),
        (lambda p: NumpySource(VECTORS, p / "none.jsonl"), InputError, "none.jsonl cannot be read"),
        (lambda p: NumpySource(VECTORS, p / "t.csv"), InputError, "got t.csv for the texts"),
        (lambda p: NumpySource(VECTORS, written(p, "t.jsonl", '"a"\n{')), InputError, "t.jsonl is no UTF-8 file"),
        (lambda p: NumpySource(VECTORS, written(p, "t.json", '{"a": 1}')), InputError, "holds a dict"),
        (lambda p: NumpySource(VECTORS, written(p, "t.txt", "one")), InputError, "3 vectors, and there are 1 texts"),
        (
            lambda p: NumpySource(VECTORS, written(p, "t.txt", "a\nb\nc"), ids=list("abc")),
            InputError,
            "together with metadatas",
        ),
    ],
)
def test_what_cannot_be_a_source(tmp_path: Path, make: Callable[[Path], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path)


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, "texts.jsonl, text 3 is a int"),
        ({"body": "a"}, r"text 3 has the fields \['body'\]"),
        ({"text": "a", "content": "b"}, "each could be the text: name one as text_column"),
        ({"text": 5}, "text 3 has a int as 'text'"),
        ({"text": "a", "id": None}, "text 3 has None as 'id'"),
        ({"text": "a", "id": 1.5}, "text 3 has 1.5 as 'id'"),
        ({"text": "a", "id": ["x"]}, r"text 3 has \['x'\] as 'id', wanted an id, a text or a whole number"),
        ({"text": "a", "id": ""}, "text 3 has '' as 'id'"),
        ({"text": "a", "page": 1, "metadata": {"page": 2}}, r"\['page'\] both as fields and inside 'metadata'"),
        ({"text": "a", "metadata": "{no"}, "wanted JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, item: Any, message: str) -> None:
    path = written(tmp_path, "texts.jsonl", "\n".join(['"a"', '"b"', json.dumps(item)]))
    collection = Collection.open()
    with pytest.raises(InputError, match=message):
        import_into(collection, NumpySource(VECTORS, path), batch_size=2)
    assert collection.count() == 2
