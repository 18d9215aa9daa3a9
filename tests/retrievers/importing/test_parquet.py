"""Parquet files and folders of them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from support.vectors import clustered

from rarebit import Collection
from rarebit.errors import InputError, MetadataError, MissingExtraError, VectorError
from rarebit.retrievers.importing import ImportReport, ParquetSource, import_into

VECTORS = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def written(path: Path, columns: dict[str, Any], **keywords: Any) -> Path:
    parquet.write_table(pa.table(columns), path, **keywords)
    return path


def rows(source: ParquetSource, size: int = 2) -> list[tuple[str, str, dict[str, Any]]]:
    collection = Collection.open()
    import_into(collection, source, batch_size=size)
    return [(row.id, row.text, row.metadata) for row in collection]


def test_columns_by_their_usual_names(tmp_path: Path) -> None:
    columns = {
        "id": [7, 8, 9],
        "text": ["east", None, "north-east"],
        "embedding": VECTORS,
        "year": [2020, None, 2021],
        "when": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), None, None],
        "tags": [["a"], [], None],
    }
    source = ParquetSource(written(tmp_path / "p.parquet", columns))
    assert (source.name, source.count) == ("p.parquet", 3)
    assert rows(source) == [
        ("7", "east", {"year": 2020, "when": "2020-01-01T00:00:00+00:00", "tags": ["a"]}),
        ("8", "", {"year": None, "when": None, "tags": []}),
        ("9", "north-east", {"year": 2021, "when": None, "tags": None}),
    ]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2), pa.list_(pa.int8())]
)
def test_every_way_to_keep_a_vector(tmp_path: Path, kind: pa.DataType) -> None:
    vectors = pa.array(VECTORS, type=pa.list_(pa.float32())).cast(kind)
    source = ParquetSource(written(tmp_path / "p.parquet", {"vector": vectors, "text": ["a", "b", "c"]}))
    found = np.concatenate([batch.vectors for batch in source.batches(2)])
    assert found.dtype == np.float32
    assert found.tolist() == VECTORS


def test_many_rows_in_many_groups_and_files(tmp_path: Path) -> None:
    vectors = clustered(500, 8)
    for part in range(5):
        span = slice(part * 100, part * 100 + 100)
        columns = {"vector": list(vectors[span]), "text": [f"text {row}" for row in range(500)][span]}
        written(tmp_path / f"part-{part}.parquet", columns, row_group_size=30)
    (tmp_path / "readme.md").write_text("not this")
    source = ParquetSource(tmp_path)
    assert source.count == 500
    collection = Collection.open(fine="float32")
    assert import_into(collection, source, batch_size=64) == ImportReport(read=500, added=500)
    assert [row.text for row in collection] == [f"text {row}" for row in range(500)]
    assert np.allclose(collection.vectors([row.id for row in collection]), vectors, atol=1e-6)
    assert import_into(collection, ParquetSource(tmp_path), batch_size=7).unchanged == 500


@pytest.mark.parametrize("encode", [lambda given: given, json.dumps])
def test_a_column_of_metadata_is_the_metadata(tmp_path: Path, encode: Any) -> None:
    metadata = [encode({"page": 1, "deep": {"a": [1]}}), encode({"page": 2, "deep": {"a": []}}), None]
    columns = {"id": ["a", "b", "c"], "values": VECTORS, "text": ["x", "y", "z"], "metadata": metadata, "lang": ["en"] * 3}
    assert rows(ParquetSource(written(tmp_path / "p.parquet", columns))) == [
        ("a", "x", {"page": 1, "deep": {"a": [1]}, "lang": "en"}),
        ("b", "y", {"page": 2, "deep": {"a": []}, "lang": "en"}),
        ("c", "z", {"lang": "en"}),
    ]


def test_columns_can_be_named(tmp_path: Path) -> None:
    columns = {"emb": VECTORS, "vector": VECTORS, "body": ["x", "y", "z"], "key": ["a", "b", "c"], "text": ["t"] * 3}
    source = ParquetSource(written(tmp_path / "p.parquet", columns), vector_column="emb", text_column="body", id_column="key")
    assert rows(source)[1] == ("b", "y", {"vector": [0.0, 1.0], "text": "t"})


@pytest.mark.parametrize(
    ("columns", "keywords", "message"),
    [
        ({"text": ["a"]}, {}, "none is known to be the vector: name it as vector_column"),
        ({"vector": [[1.0]]}, {}, "none is known to be the text: name it as text_column"),
        ({"vector": ["a"], "text": ["a"]}, {}, "none is known to be the vector"),
        ({"vector": [["a"]], "text": ["a"]}, {}, "none is known to be the vector"),
        ({"vector": [[1.0]], "embedding": [[1.0]], "text": ["a"]}, {}, "each could be the vector: name one as vector_column"),
        ({"vector": [[1.0]], "text": ["a"]}, {"vector_column": "text"}, "no field 'text' for the vector, wanted one of"),
        ({"vector": [[1.0]], "text": ["a"]}, {"id_column": "key"}, "no field 'key' for the id"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, columns: Any, keywords: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ParquetSource(written(tmp_path / "p.parquet", columns), **keywords)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"vector": [*VECTORS[:2], None]}, VectorError, r"1 of 1 rows have no vector \(first: p.parquet, row 2\)"),
        ({"vector": [*VECTORS[:2], [1.0, None]]}, VectorError, "hold NaN"),
        ({"vector": [[1.0], [1.0, 2.0], [1.0]]}, VectorError, "row 1, has a vector of dimension 2, wanted 1"),
        ({"id": ["a", "b", None]}, InputError, "row 2 has None as 'id'"),
        ({"id": [b"a", b"b", b"\x01"]}, InputError, "row 0 has b'a' as 'id', wanted an id, a text or a whole number"),
        ({"text": [1, 2, 3]}, InputError, "row 0 has a int as 'text'"),
        ({"x": [0.0, 1.0, float("nan")]}, MetadataError, "row 2' has the metadata 'x'"),
        ({"x": [b"a", None, None]}, MetadataError, "row 0' has the metadata 'x'.*bytes"),
        ({"x": pa.array([1, 2, 3], type=pa.timestamp("ns"))}, InputError, "x|cannot be read"),
    ],
)
def test_rows_that_cannot_be_kept(tmp_path: Path, changes: Any, error: type[Exception], message: str) -> None:
    columns = {"vector": VECTORS, "text": ["a", "b", "c"], **changes}
    with pytest.raises(error, match=message):
        rows(ParquetSource(written(tmp_path / "p.parquet", columns)))


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_are_kept_as_microseconds_where_nothing_is_lost(tmp_path: Path, zone: str | None) -> None:
    def source(unit: str, number: int) -> ParquetSource:
        times = pa.array([number], type=pa.timestamp(unit, zone))
        return ParquetSource(written(tmp_path / f"{unit}.parquet", {"vector": VECTORS[:1], "text": ["a"], "x": times}))

    assert rows(source("ns", 3000))[0][2] == rows(source("us", 3))[0][2]
    with pytest.raises(InputError, match=r"cannot be read .*cast or leave out"):
        rows(source("ns", 3001))


@pytest.mark.parametrize("type_", [pa.time64("ns"), pa.duration("ns")])
def test_times_finer_than_pythons_are_refused(tmp_path: Path, type_: Any) -> None:
    columns = {"vector": VECTORS[:1], "text": ["a"], "x": pa.array([3001], type=type_)}
    with pytest.raises(InputError, match=r"cannot be read .*cast or leave out"):
        rows(ParquetSource(written(tmp_path / "p.parquet", columns)))


def test_what_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("no")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        ParquetSource(tmp_path / "p.parquet")
    with pytest.raises(InputError, match="no Parquet file at"):
        ParquetSource(tmp_path / "none")


def test_a_file_without_rows(tmp_path: Path) -> None:
    schema = pa.schema([("vector", pa.list_(pa.float32())), ("text", pa.string())])
    parquet.write_table(schema.empty_table(), tmp_path / "p.parquet")
    assert rows(ParquetSource(tmp_path / "p.parquet")) == []


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"'pyarrow'.*pip install 'rarebit\[parquet\]'"):
        ParquetSource(tmp_path)


def test_damaged_pages_are_said_to_be_and_the_rows_before_are_kept(tmp_path: Path) -> None:
    columns = {"id": list("abcdef"), "vector": VECTORS * 2, "text": [f"text {n} " * 50 for n in range(6)]}
    path = written(tmp_path / "p.parquet", columns, row_group_size=2, compression="snappy", use_dictionary=False)
    page = parquet.ParquetFile(path).metadata.row_group(1).column(2)
    content = bytearray(path.read_bytes())
    end = page.data_page_offset + page.total_compressed_size
    content[end - 20 : end] = b"\xff" * 20
    path.write_bytes(content)
    collection = Collection.open()
    with pytest.raises(InputError, match=r"p.parquet, rows from 2 on, cannot be read .*snappy.*The 2 rows before are kept"):
        import_into(collection, ParquetSource(path), batch_size=2)
    assert [row.id for row in collection] == ["a", "b"]
