"""The first stage: passages are read from the inputs, checked, and cut into shards of a fixed number of rows.

A shard is the unit of all that follows, and what it holds depends on the inputs alone: not on how many workers there are, nor
on which of them was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm.auto import tqdm

from rarebit.arrays import Vector
from rarebit.errors import DimensionError, InputError
from rarebit.retrievers.building.inputs import Input, check_unchanged
from rarebit.retrievers.building.reading import Columns, Part, parts_of
from rarebit.retrievers.building.row_ids import RowIds
from rarebit.retrievers.building.tables import Column, write_table
from rarebit.retrievers.building.work_folder import PASSAGES, VECTORS, WorkFolder
from rarebit.retrievers.collection.rows import NewRow, new_row
from rarebit.retrievers.importing.records import Passage, derived_id

NO_VECTOR: Final = np.empty(0, np.float32)


@dataclass
class Read:
    """What was read: rows that are kept, those that came again as they were, and those that were left out.

    ``example`` is the id of one that was left out, because another row had it before.
    """

    rows: int = 0
    unchanged: int = 0
    differing: int = 0
    example: str | None = None

    @property
    def seen(self) -> int:
        """How many passages were read."""
        return self.rows + self.unchanged + self.differing


@dataclass
class _Buffer:
    rows: list[NewRow] = field(default_factory=list)
    vectors: list[Vector] = field(default_factory=list)


class Cutter:
    """Cuts what it reads into shards.

    Args:
        folder: where they go.
        inputs: to read, in this order.
        columns: which fields are what.
        shard_rows: rows of each shard; the last one may have fewer.
    """

    def __init__(self, folder: WorkFolder, inputs: Sequence[Input], columns: Columns, shard_rows: int) -> None:
        """Prepare."""
        self._folder, self._inputs, self._columns, self._shard_rows = folder, inputs, columns, shard_rows
        self._dim: int | None = None
        self._shards = 0
        self._written: list[Path] = []

    def run(self, *, progress: bool) -> dict[str, Any]:
        """Read everything; gives what is to be noted in the manifest. Shards that are there already are not written again.

        Raises:
            InputError: and its kinds, for passages that cannot be kept; says the file and the line or row. Also for inputs that
                changed meanwhile.
        """
        read, buffer = Read(), _Buffer()
        with (
            RowIds.being_made(self._folder.path) as ids,
            tqdm(desc="reading", unit="passage", disable=not progress) as bar,
        ):
            for part in self._parts():
                self._take(part, read, buffer, ids)
                bar.update(len(part.passages))
            self._write(buffer)
            if not read.rows:
                names = ", ".join(each.name for each in self._inputs[:3])
                raise InputError(f"there are no passages in {names}, wanted one at least: check the files")
            self._check_inputs()
            ids.finish()
        return {**asdict(read), "shards": self._shards}

    def _check_inputs(self) -> None:
        """Take away what was read of inputs that have changed: the next run might find them as they were before."""
        try:
            check_unchanged(self._inputs)
        except InputError:
            for path in self._written:
                path.unlink(missing_ok=True)
            raise

    def _parts(self) -> Iterator[Part]:
        for each in self._inputs:
            yield from parts_of(each, self._columns)

    def _take(self, part: Part, read: Read, buffer: _Buffer, ids: RowIds) -> None:
        self._check_dimension(part)
        for number, (passage, place) in enumerate(zip(part.passages, part.places, strict=True)):
            vector = NO_VECTOR if part.vectors is None else part.vectors[number]
            row = self._row(passage, place, read.seen, vector)
            before = ids.add(row.id, read.rows, _digest(row))
            if before is None:
                read.rows += 1
                buffer.rows.append(row)
                buffer.vectors.append(vector)
                if len(buffer.rows) == self._shard_rows:
                    self._write(buffer)
            elif before == _digest(row):
                read.unchanged += 1
            else:
                read.differing += 1
                read.example = row.id

    def _row(self, passage: Passage, place: str, position: int, vector: Vector) -> NewRow:
        if passage.text is None and self._columns.vector is None:
            raise InputError(f"{place} has no text, wanted one to embed: add it, or leave the row out")
        try:
            key = derived_id(position, passage, vector) if passage.id is None else passage.id
            return new_row(key, passage.text or "", passage.metadata)
        except InputError as error:
            raise type(error)(f"{place}: {error}") from error
        except UnicodeEncodeError as error:
            raise InputError(f"{place} is not valid Unicode ({error}): decode it with errors='replace'") from error

    def _check_dimension(self, part: Part) -> None:
        if part.vectors is None or not len(part.passages):
            return
        dim = part.vectors.shape[1]
        if self._dim is None:
            self._dim = dim
        if dim != self._dim:
            raise DimensionError(
                f"{part.places[0]} has a vector of dimension {dim}, wanted {self._dim}, as the rows before it have: leave it "
                "out, or embed it with the same model"
            )

    def _write(self, buffer: _Buffer) -> None:
        if not buffer.rows:
            return
        self._write_table(PASSAGES, _columns(buffer.rows))
        if self._columns.vector is not None:
            self._write_table(VECTORS, {"vector": np.stack(buffer.vectors)})
        self._shards += 1
        buffer.rows.clear()
        buffer.vectors.clear()

    def _write_table(self, stage: str, columns: Mapping[str, Column]) -> None:
        path = self._folder.file(stage, self._shards)
        if not path.exists():
            self._written.append(path)
            write_table(path, columns, self._folder.stamp(stage, self._shards))


def _columns(rows: Sequence[NewRow]) -> dict[str, list[str]]:
    keys, texts, metadatas = (list(column) for column in zip(*rows, strict=True))
    return {"id": keys, "text": texts, "metadata": metadatas}


def _digest(row: NewRow) -> bytes:
    """Digest what an import compares: text and metadata, whatever the order of its fields."""
    metadata = json.dumps(json.loads(row.encoded), sort_keys=True)
    return blake2b(f"{len(row.text)} {row.text}{metadata}".encode(), digest_size=16).digest()
