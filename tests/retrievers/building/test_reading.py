"""What cannot be read is said with its file and line, before anything is embedded."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.building import RECORDS, Hashed, as_lines, as_parquet

from rarebit import Collection
from rarebit.errors import DimensionError, InputError, MetadataError, VectorError
from rarebit.retrievers.building import Columns, Recipe, build

GOOD = [json.dumps({"id": number, "text": f"text {number}"}) for number in range(3)]


def rows(tmp_path: Path, *inputs: Path, **given: Any) -> list[tuple[str, str, dict[str, Any]]]:
    recipe = Recipe(inputs, None if "columns" in given and given["columns"].vector else Hashed(), shard_rows=2, **given)
    with Collection.open() as target:
        build(recipe, tmp_path / "work", target)
        return [(row.id, row.text, row.metadata) for row in target]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("{", InputError, "is no JSON in UTF-8"),
        (b'{"text": "\xff"}', InputError, "is no JSON in UTF-8"),
        ("7", InputError, "is a int, wanted an object"),
        ('{"id": 7, "body": "a"}', InputError, r"has the fields \['id', 'body'\].*text_column"),
        ('{"id": 7, "text": "a", "content": "b"}', InputError, "each could be the text"),
        ('{"id": 7, "text": null}', InputError, "has no text, wanted one to embed"),
        ('{"id": 7, "text": ["a"]}', InputError, "has a list as 'text', wanted a text"),
        ('{"id": 1.5, "text": "a"}', InputError, "has 1.5 as 'id', wanted an id"),
        ('{"id": "", "text": "a"}', InputError, "has '' as 'id', wanted an id"),
        ('{"text": "a", "n": NaN}', MetadataError, "has the metadata 'n'"),
        ('{"text": "a", "n": 1, "metadata": {"n": 2}}', MetadataError, "both as fields and inside 'metadata'"),
        ('{"id": "a", "text": "\\ud800"}', InputError, "not valid Unicode"),
        ('{"text": "\\ud800"}', InputError, "not valid Unicode"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any, error: type[Exception], message: str) -> None:
    given = tmp_path / "p.jsonl"
    content = [each.encode() for each in GOOD] + [line if isinstance(line, bytes) else line.encode()]
    given.write_bytes(b"\n".join(content))
    with pytest.raises(error, match=message) as caught:
        rows(tmp_path, given)
    assert "p.jsonl, line 4" in str(caught.value)


def test_a_mended_line_is_read_on_from(tmp_path: Path) -> None:
    given = tmp_path / "p.jsonl"
    given.write_text("\n".join([*GOOD, "{"]))
    with pytest.raises(InputError, match=r"p\.jsonl, line 4"):
        rows(tmp_path, given)
    given.write_text("\n".join(["[]", *GOOD]))
    with pytest.raises(InputError, match=r"p\.jsonl, line 1"):
        rows(tmp_path, given)
    given.write_text("\n".join(GOOD))
    assert [text for _, text, _ in rows(tmp_path, given)] == ["text 0", "text 1", "text 2"]


def test_lines_that_are_good(tmp_path: Path) -> None:
    given = tmp_path / "p.jsonl"
    given.write_bytes(b'\xef\xbb\xbf{"_id": 1, "content": "a", "n": 1}\r\n\r\n  \n"a text alone"\n{"_id": "x", "content": ""}')
    found = rows(tmp_path, given)
    assert [(text, metadata) for _, text, metadata in found] == [("a", {"n": 1}), ("a text alone", {}), ("", {})]
    assert (found[0][0], len(found[1][0]), found[2][0]) == ("1", 32, "x")


def test_fields_that_are_named(tmp_path: Path) -> None:
    given = as_lines(
        tmp_path / "p.jsonl", [{"body": "a", "key": 5, "text": "other", "vector": [1, 2.5]}, {"body": "b", "key": 6}]
    )
    with pytest.raises(InputError, match=r"line 2 has no field 'text'"):
        rows(tmp_path, given, columns=Columns("text"))
    wanted = [("5", "a", {"text": "other"}), ("6", "b", {})]
    assert rows(tmp_path / "other", given, columns=Columns("body", "key")) == wanted


@pytest.mark.parametrize(
    ("vector", "error", "message"),
    [
        (None, VectorError, r"p\.jsonl, line 3 has no vector"),
        ([], VectorError, r"p\.jsonl, line 3 has no vector"),
        (["a"], VectorError, r"p\.jsonl, line 3 has no vector"),
        ([1, 2, 3], VectorError, r"p\.jsonl, line 3 has a vector of dimension 3, wanted 2, as in p\.jsonl, line 1"),
        ([1, 1e300], VectorError, r"p\.jsonl, line 3 has a vector .*beyond float32"),
        ([1, 10**400], VectorError, r"p\.jsonl, line 3 has a vector .*too large"),
        ([1, float("nan")], VectorError, r"p\.jsonl, line 3 has a vector .*NaN"),
    ],
)
def test_vectors_that_cannot_be_taken(tmp_path: Path, vector: Any, error: type[Exception], message: str) -> None:
    given = as_lines(tmp_path / "p.jsonl", [{"text": "a", "v": each} for each in ([1, 0], [0.5, 1], vector)])
    with pytest.raises(error, match=message):
        rows(tmp_path, given, columns=Columns(vector="v"))


def test_vectors_of_two_dimensions_in_two_files(tmp_path: Path) -> None:
    files = [as_parquet(tmp_path / f"{dim}.parquet", RECORDS[dim : dim + 1], [[1.0] * dim]) for dim in (2, 3)]
    with pytest.raises(DimensionError, match=r"3\.parquet, row 0 has a vector of dimension 3, wanted 2"):
        rows(tmp_path, *files, columns=Columns(vector="embedding"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "body": ["a"]}, r"has the columns \['id', 'body'\].*text_column"),
        ({"text": [7]}, r"p\.parquet, row 0 has a int as 'text'"),
        ({"text": ["a", None]}, r"p\.parquet, row 1 has no text"),
        ({"text": ["a"], "id": [b"x"]}, r"p\.parquet, row 0 has b'x' as 'id'"),
    ],
)
def test_bad_columns_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=message):
        rows(tmp_path, tmp_path / "p.parquet")


def test_a_text_may_be_missing_where_nothing_is_embedded(tmp_path: Path) -> None:
    given = as_lines(tmp_path / "p.jsonl", [{"id": "a", "text": None, "v": [1, 2]}])
    assert rows(tmp_path, given, columns=Columns(vector="v")) == [("a", "", {})]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    good = as_lines(tmp_path / "good.jsonl", RECORDS[:1])
    for given, message in [
        ([tmp_path / "nothing.jsonl"], "does not exist"),
        ([tmp_path / "empty"], "there is no file of"),
        ([tmp_path / "notes.txt"], "wanted a file that ends in one of"),
        ([tmp_path / "bad.parquet"], "cannot be read as Parquet"),
        ([tmp_path / "bad.jsonl.gz"], "cannot be read"),
        ([good, good], "twice"),
    ]:
        with pytest.raises(InputError, match=message):
            rows(tmp_path, *given)


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_nothing_at_all_is_said(tmp_path: Path, name: str) -> None:
    if name.endswith("l"):
        (tmp_path / name).write_text("\n\n")
    else:
        parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    with pytest.raises(InputError, match=f"no passages in {name}"):
        rows(tmp_path, tmp_path / name)


@pytest.mark.parametrize("change", ["longer", "newer", "gone"])
def test_inputs_that_change_meanwhile_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """And what was read of them is not kept, should they be put back."""
    from rarebit.retrievers.building import cutting

    given = as_lines(tmp_path / "p.jsonl", RECORDS[:5])
    content, when = given.read_bytes(), given.stat().st_mtime_ns

    def changing(*arguments: Any, original: Any = cutting.parts_of) -> Any:
        for part in original(*arguments):
            passages = [replace(part.passages[0], text="meanwhile"), *part.passages[1:]]
            yield replace(part, passages=passages)
        if change == "gone":
            given.unlink()
        else:
            given.write_bytes(content + b"\n" * (change == "longer"))
            os.utime(given, ns=(when, when + (change == "newer")))

    with monkeypatch.context() as patch:
        patch.setattr(cutting, "parts_of", changing)
        with pytest.raises(InputError, match=r"p\.jsonl changed while the build read it \(1 of 1 files\)"):
            rows(tmp_path, given)
    given.write_bytes(content)
    os.utime(given, ns=(when, when))
    assert [text for _, text, _ in rows(tmp_path, given)] == [each["text"] for each in RECORDS[:5]]
