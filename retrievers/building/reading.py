"""Passages from files, in their order: id, text and metadata as ``rarebit import`` takes them, perhaps a vector."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import InputError, VectorError
from rarebit.retrievers.building.inputs import GZIPPED, Input
from rarebit.retrievers.collection.statements import chunks
from rarebit.retrievers.importing import parquet
from rarebit.retrievers.importing.records import IDS, TEXTS, VECTORS, Fields, Passage, field_for

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE: Final = 1024
NUMBERS: Final = (int, float)


@dataclass(frozen=True)
class Columns:
    """Names of the fields that are what, where the user names them.

    Vectors are taken only from a field that is named; one that merely has a usual name is left out of the metadata.
    """

    text: str | None = None
    id: str | None = None
    vector: str | None = None


@dataclass(frozen=True)
class Part:
    """Some passages, where each stands, for messages, and their (n, dim) vectors if the files have them."""

    passages: Sequence[Passage]
    places: Sequence[str]
    vectors: Vectors | None


def parts_of(each: Input, columns: Columns) -> Iterator[Part]:
    """Read a file.

    Raises:
        InputError: and its kinds, for what cannot be read; says the file and the line or row.
    """
    yield from _of_parquet(each, columns) if each.is_parquet else _of_lines(each, columns)


def _of_parquet(each: Input, columns: Columns) -> Iterator[Part]:
    with parquet.opened(each.path) as file:
        fields, start = _fields(file.schema_arrow, columns, each.name), 0
        for batch in parquet.read(file, AT_ONCE, 0, each.name):
            vectors = None if columns.vector is None else parquet.vectors_of(batch.column(columns.vector), start, each.name)
            places = [f"{each.name}, row {start + place}" for place in range(batch.num_rows)]
            others = batch.select([name for name in batch.schema.names if name != fields.vector])
            records = parquet.records_of(others, start, each.name)
            pairs = zip(records, places, strict=True)
            yield Part([fields.passage(record, place) for record, place in pairs], places, vectors)
            start += batch.num_rows


def _fields(schema: pa.Schema, columns: Columns, where: str) -> Fields:
    names = list(schema.names)
    lists = [name for name in names if parquet.is_vector(schema.field(name).type)]
    vector = field_for("vector", columns.vector, [], lists, f"{where} (columns of lists: {lists})") or _unused(lists)
    text = field_for("text", columns.text, TEXTS, names, where)
    if text is None:
        raise InputError(f"{where} has the columns {names}, and none is known to be the text: name it as text_column")
    return Fields(text, field_for("id", columns.id, IDS, names, where), vector)


def _unused(lists: Sequence[str]) -> str | None:
    """Give the vectors of another model, or of an earlier time, that are no metadata either."""
    return next((name for name in VECTORS if name in lists), None)


def _of_lines(each: Input, columns: Columns) -> Iterator[Part]:
    numbered = ((f"{each.name}, line {number}", line) for number, line in enumerate(_lines(each), start=1) if line.strip())
    for some in chunks(numbered, AT_ONCE):
        places = [place for place, _ in some]
        found = [_of_line(line, place, columns) for place, line in some]
        vectors = None if columns.vector is None else _stacked([vector for _, vector in found], places)
        yield Part([passage for passage, _ in found], places, vectors)


def _lines(each: Input) -> Iterator[bytes]:
    gzipped = each.path.suffix.lower() == GZIPPED
    try:
        with gzip.open(each.path, "rb") if gzipped else each.path.open("rb") as file:
            yield from cast("Iterable[bytes]", file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{each.path} cannot be read ({error}), wanted lines of JSON: check the file") from error


def _of_line(line: bytes, place: str, columns: Columns) -> tuple[Passage, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is no JSON in UTF-8 ({error}), wanted one object a line: mend or delete it") from error
    if isinstance(record, str):
        record = {TEXTS[0] if columns.text is None else columns.text: record}
    if not isinstance(record, Mapping):
        raise InputError(f"{place} is a {type(record).__name__}, wanted an object with a text: mend or delete it")
    names = list(record)
    text = field_for("text", columns.text, TEXTS, names, place)
    if text is None:
        raise InputError(f"{place} has the fields {names}, and none is known to be the text: name it as text_column")
    lists = [name for name in names if _is_vector(record[name])]
    vector = columns.vector if columns.vector is not None else _unused(lists)
    fields = Fields(text, field_for("id", columns.id, IDS, names, place), vector)
    return fields.passage(record, place), None if columns.vector is None else record.get(columns.vector)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(number) in NUMBERS for number in value)


def _stacked(found: Sequence[Any], places: Sequence[str]) -> Vectors:
    for vector, place in zip(found, places, strict=True):
        if not _is_vector(vector):
            raise VectorError(f"{place} has no vector, wanted a list of numbers in each line: add it, or leave out the line")
        if len(vector) != len(found[0]):
            raise VectorError(f"{place} has a vector of dimension {len(vector)}, wanted {len(found[0])}, as in {places[0]}")
    try:
        return as_vectors(np.array(found, dtype=np.float64))
    except (OverflowError, VectorError) as error:
        if len(found) == 1:
            raise VectorError(
                f"{places[0]} has a vector that cannot be taken ({error}): mend it, or leave the line out"
            ) from error
        for vector, place in zip(found, places, strict=True):
            _stacked([vector], [place])
        raise
