"""Source: Parquet, one file or a folder of them, with a column of vectors, one of texts, and metadata."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import InputError, VectorError
from rarebit.extras import require
from rarebit.retrievers.importing.records import IDS, TEXTS, VECTORS, Fields, derived_id, field_for
from rarebit.retrievers.importing.source import Ranking, Rows

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

SUFFIXES = (".parquet", ".pq")


class ParquetSource:
    """Rows of Parquet files; every column that is neither id, vector nor text is metadata.

    A column ``metadata``, of structs or of JSON, is taken for the metadata itself. Without a column of ids, they are derived
    as :class:`NumpySource` derives them; places are counted through the files of a folder, in the order of their names.

    Args:
        path: of a file, or of a folder of them.
        vector_column: a column of lists of numbers; left out, the one called vector, embedding, embeddings or values.
        text_column: left out, the one called text, content, page_content, document, passage or chunk.
        id_column: left out, the one called id or _id, if there is one.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: these are no Parquet files, or lack a column.
    """

    ranked_by: Ranking | None = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        vector_column: str | None = None,
        text_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        """Look at the files, and count."""
        require("pyarrow", "parquet")
        self.name = Path(path).name
        self._paths = files_at(Path(path))
        self.count, named = 0, (vector_column, text_column, id_column)
        for each in self._paths:
            with opened(each) as file:
                self.count += file.metadata.num_rows
                _fields(file.schema_arrow, named, each.name)
        self._named = named

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows in the order of the files and of their rows."""
        start = 0
        for path in self._paths:
            with opened(path) as file:
                fields = _fields(file.schema_arrow, self._named, path.name)
                for batch in read(file, size, start, path.name):
                    yield _rows(batch, fields, start, path.name)
                    start += batch.num_rows


def files_at(path: Path) -> list[Path]:
    """Give the Parquet file, or those of a folder in the order of their names.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [path]
    found = sorted(each for each in path.glob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
    if not found:
        raise InputError(f"there is no Parquet file at {path}, wanted one, or a folder of them ({', '.join(SUFFIXES)})")
    return found


def opened(path: Path) -> ParquetFile:
    """Open a file; raises InputError where it is no Parquet."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}): check the file") from error


def read(file: ParquetFile, size: int, start: int, where: str) -> Iterator[pa.RecordBatch]:
    """Read so many rows at a time, the first of which has the number ``start`` in messages."""
    import pyarrow as pa

    try:
        for batch in file.iter_batches(batch_size=size):
            yield batch
            start += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{where}, rows from {start} on, cannot be read as Parquet ({error}): check the file") from error


def _in_microseconds(schema: pa.Schema) -> pa.Schema:
    """Give the types of times that Python has too; where pandas is installed, pyarrow would give its types for finer ones."""
    import pyarrow as pa

    for place, column in enumerate(schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            schema = schema.set(place, column.with_type(pa.timestamp("us", column.type.tz)))
        elif pa.types.is_duration(column.type) and column.type.unit == "ns":
            schema = schema.set(place, column.with_type(pa.duration("us")))
        elif pa.types.is_time64(column.type) and column.type.unit == "ns":
            schema = schema.set(place, column.with_type(pa.time64("us")))
    return schema


def _fields(schema: pa.Schema, named: tuple[str | None, str | None, str | None], where: str) -> Fields:
    vector, text, key = named
    names = list(schema.names)
    lists = [name for name in names if is_vector(schema.field(name).type)]
    found_vector = field_for("vector", vector, VECTORS, lists, f"{where} (columns of lists: {lists})")
    found_text = field_for("text", text, TEXTS, names, where)
    for role, found in (("vector", found_vector), ("text", found_text)):
        if found is None:
            raise InputError(f"{where} has the columns {names}, and none is known to be the {role}: name it as {role}_column")
    return Fields(str(found_text), field_for("id", key, IDS, names, where), found_vector)


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column's values are lists of numbers."""
    from pyarrow import types

    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    return bool(types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _rows(batch: pa.RecordBatch, fields: Fields, start: int, where: str) -> Rows:
    vectors = vectors_of(batch.column(fields.vector), start, where)
    records = records_of(batch.select([name for name in batch.schema.names if name != fields.vector]), start, where)
    passages = [fields.passage(record, f"{where}, row {start + place}") for place, record in enumerate(records)]
    ids = [
        derived_id(start + place, passage, vectors[place]) if passage.id is None else passage.id
        for place, passage in enumerate(passages)
    ]
    return Rows(ids, vectors, [passage.text for passage in passages], [passage.metadata for passage in passages])


def records_of(batch: pa.RecordBatch, start: int, where: str) -> list[dict[str, Any]]:
    """Give rows as dictionaries of Python's values."""
    try:
        records: list[dict[str, Any]] = batch.cast(_in_microseconds(batch.schema)).to_pylist()
    except ValueError as error:  # times finer than Python's, for one
        raise InputError(f"{where}, rows from {start} on, cannot be read ({error}): cast or leave out that column") from error
    return records


def vectors_of(column: pa.Array, start: int, where: str) -> Vectors:
    """Give a column of lists as a matrix; raises VectorError where one is missing or of another length."""
    from pyarrow.compute import call_function

    if column.null_count:
        first = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise VectorError(f"{column.null_count} of {len(column)} rows have no vector (first: {where}, row {first})")
    lengths = call_function("list_value_length", [column]).to_numpy(zero_copy_only=False)
    ragged = np.flatnonzero(lengths != lengths[:1])
    if len(ragged):
        raise VectorError(
            f"{where}, row {start + int(ragged[0])}, has a vector of dimension {lengths[ragged[0]]}, wanted {lengths[0]}"
        )
    return as_vectors(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths[0] if len(column) else 0))
