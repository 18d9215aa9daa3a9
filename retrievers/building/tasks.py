"""What is done to one shard: embedding it, or encoding it. A task is small, and can be sent to other processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rarebit.arrays import as_vectors, normalized
from rarebit.errors import InputError, VectorError
from rarebit.retrievers.building.encoders import Encoder
from rarebit.retrievers.building.fitting import Fitted
from rarebit.retrievers.building.tables import read_table, write_table
from rarebit.retrievers.building.work_folder import PASSAGES, SHARDS, VECTORS, WorkFolder
from rarebit.retrievers.collection import training
from rarebit.threads import so_many_threads


@runtime_checkable
class Task(Protocol):
    """Makes one file of each shard; making it again gives the same."""

    folder: WorkFolder

    @property
    def stage(self) -> str:
        """The folder of the files that it makes."""
        ...

    @property
    def threads(self) -> int:
        """In how many threads it works."""
        ...

    @property
    def gpus(self) -> int:
        """How many GPUs it takes."""
        ...

    def prepare(self) -> None:
        """Load what it needs; raises RarebitError where that cannot be."""

    def __call__(self, shard: int) -> None:
        """Make the file of a shard."""


@runtime_checkable
class Runner(Protocol):
    """Has tasks done, in this process or in others."""

    def check(self, task: Task) -> None:
        """Raise RarebitError where a task's :meth:`Task.prepare` would, before anything is written."""

    def run(self, task: Task, shards: Sequence[int]) -> Iterator[int]:
        """Have a task done for shards, in any order; gives each that is finished."""
        ...


class InProcess:
    """Has tasks done in this process, one after another."""

    def check(self, task: Task) -> None:
        """As :class:`Runner` says."""
        task.prepare()

    def run(self, task: Task, shards: Sequence[int]) -> Iterator[int]:
        """As :class:`Runner` says."""
        task.prepare()
        for shard in shards:
            task(shard)
            yield shard


@dataclass
class Embedding:
    """Embeds the texts of a shard.

    A shard is embedded in one call, so that the same texts share a batch whoever does it: the padding of a batch moves the last
    bits of its vectors, and these could move a code.
    """

    folder: WorkFolder
    encoder: Encoder
    threads: int = 1

    @property
    def stage(self) -> str:
        """Vectors."""
        return VECTORS

    @property
    def gpus(self) -> int:
        """One where the encoder runs on one."""
        return int(self.encoder.device.startswith("cuda"))

    def prepare(self) -> None:
        """Load the model."""
        self.encoder.prepare()

    def __call__(self, shard: int) -> None:
        """Make the vectors of a shard."""
        passages, _ = read_table(self.folder.file(PASSAGES, shard), self.folder.stamp(PASSAGES, shard), ["id", "text"])
        self.prepare()
        with so_many_threads(self.threads):
            found = self.encoder.encode(passages["text"])
        vectors = _checked(found, passages["id"])
        write_table(self.folder.file(VECTORS, shard), {"vector": vectors}, self.folder.stamp(VECTORS, shard))


@dataclass
class Encoding:
    """Encodes the vectors of a shard, and puts the codes beside its passages."""

    folder: WorkFolder
    threads: int = 1
    gpus: int = 0

    @property
    def stage(self) -> str:
        """Finished shards."""
        return SHARDS

    @cached_property
    def _fitted(self) -> Fitted:
        return Fitted.load(self.folder)

    def prepare(self) -> None:
        """Load the codec."""
        _ = self._fitted

    def __call__(self, shard: int) -> None:
        """Make the codes of a shard."""
        columns, _ = read_table(self.folder.file(PASSAGES, shard), self.folder.stamp(PASSAGES, shard))
        found, _ = read_table(self.folder.file(VECTORS, shard), self.folder.stamp(VECTORS, shard))
        fitted, vectors = self._fitted, found["vector"]
        if vectors.shape != (len(columns["id"]), fitted.codec.dim):
            raise VectorError(
                f"shard {shard} has vectors of the shape {vectors.shape}, wanted {(len(columns['id']), fitted.codec.dim)}: "
                "embed all of it with one model, in another folder"
            )
        with so_many_threads(self.threads):
            prepared = normalized(vectors) if fitted.settings.metric == "cosine" else vectors
            codes = training.encoded(prepared, (fitted.codec, fitted.tier))
        columns["code"] = codes.codes
        if codes.fine is not None:
            columns["fine"] = codes.fine
        write_table(self.folder.file(SHARDS, shard), columns, fitted.stamp(self.folder, shard))


def _checked(found: Any, ids: Sequence[str]) -> Any:
    """Check what a model gave for n texts."""
    try:
        vectors = as_vectors(np.asarray(found, dtype=np.float32))
    except InputError as error:
        raise type(error)(f"the texts from {ids[0]!r} on: {error}") from error
    if len(vectors) != len(ids):
        raise VectorError(f"the model gave {len(vectors)} vectors for {len(ids)} texts, wanted one a text")
    return vectors
