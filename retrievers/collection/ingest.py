"""Rows on their way in: checked, encoded, written batch by batch, and the one training step.

Everything happens inside the caller's write transaction, so a call is kept whole or not at all, training included.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError

from rarebit.arrays import Vectors, VectorsLike, as_vectors, normalized
from rarebit.compressors.vectors import SearchableCodec, restore_codec
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import DamagedFileError, DuplicateIdError, InputError
from rarebit.retrievers.collection import rows
from rarebit.retrievers.collection.arguments import as_ids
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.storage import Connection, read_state


@dataclass(frozen=True)
class Batch:
    """Rows given in one call: (n, dim) vectors, and n of everything else."""

    vectors: Vectors
    texts: Sequence[str]
    metadatas: Sequence[Mapping[str, Any] | None]
    ids: Sequence[str]

    @classmethod
    def checked(
        cls,
        vectors: VectorsLike,
        texts: Sequence[str] | None,
        metadatas: Sequence[Mapping[str, Any] | None] | None,
        ids: Sequence[str] | None,
        settings: Settings,
    ) -> Batch:
        """Check what a user passed, fill in what was left out, and normalise the vectors for cosine."""
        matrix = as_vectors(vectors, dim=settings.dim)
        count = len(matrix)
        texts = _counted("texts", [""] * count if texts is None else texts, count)
        metadatas = _counted("metadatas", [None] * count if metadatas is None else metadatas, count)
        ids = _counted("ids", [str(uuid.uuid4()) for _ in range(count)] if ids is None else as_ids(ids), count)
        _check_unique(ids)
        return cls(normalized(matrix) if settings.metric == "cosine" else matrix, texts, metadatas, ids)

    def parts(self, size: int) -> Iterator[tuple[Vectors, list[rows.NewRow]]]:
        """Cut the batch, and check texts and metadata, part by part."""
        for start in range(0, len(self.ids), size):
            part = slice(start, start + size)
            triples = zip(self.ids[part], self.texts[part], self.metadatas[part], strict=True)
            yield self.vectors[part], [rows.new_row(*triple) for triple in triples]


class Writer:
    """Writes vectors with the codec of the moment, and trains it when there is enough to train on."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        """Write inside this connection's transaction."""
        self._connection = connection
        self._settings = settings
        self._codec = stored_codec(connection, settings)
        fine = settings.new_fine_codec()
        self._fine = None if fine is None or settings.dim is None else fine.with_dim(settings.dim)

    def write(self, vectors: Vectors, new: Sequence[rows.NewRow]) -> None:
        """Insert or replace rows; train afterwards if the minimum is reached."""
        assert self._codec is not None  # noqa: S101
        fine = None if self._fine is None else self._fine.encode(vectors)
        rows.replace(self._connection, new, self._codec.encode(vectors), fine)
        if self._should_train():
            self._train()

    def _should_train(self) -> bool:
        wanted = self._settings.new_codec()
        if not wanted.training_minimum or not isinstance(self._codec, Exact):
            return False
        minimum = self._settings.training_minimum or wanted.training_minimum
        return read_state(self._connection).row_count >= minimum

    def _train(self) -> None:
        exact, connection = self._codec, self._connection
        assert exact is not None  # noqa: S101
        row_ids, codes = rows.codes_between(connection, 0, read_state(connection).next_row_id, exact.code_size, limit=-1)
        vectors = exact.decode(codes)
        trained = self._settings.new_codec().fit(vectors)
        connection.execute("DELETE FROM codes")
        rows.insert_codes(connection, "codes", row_ids.tolist(), trained.encode(vectors))
        described = (1, trained.name, json.dumps(trained.config), trained.learned())
        connection.execute("INSERT INTO codec VALUES (?, ?, ?, ?)", described)
        connection.execute("UPDATE state SET generation = generation + 1")
        self._codec = trained


def stored_codec(connection: Connection, settings: Settings) -> SearchableCodec | None:
    """Give the codec in which the codes are stored: the trained one, the exact one until then, None before the first row."""
    if settings.dim is None:
        return None
    stored = connection.execute("SELECT name, config, learned FROM codec").fetchone()
    if stored is None:
        codec = settings.new_codec()
        return Exact().with_dim(settings.dim) if codec.training_minimum else codec.with_dim(settings.dim)
    name, config, learned = stored
    try:
        restored = restore_codec(name, dim=settings.dim, config=json.loads(config), learned=learned)
    except (SafetensorError, InputError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"the codec {name!r} in the file cannot be read ({error}): restore it from a backup") from error
    if not isinstance(restored, SearchableCodec):
        raise DamagedFileError(f"the codec {name!r} in the file cannot be searched: restore it from a backup")
    return restored


def _counted(name: str, given: Iterable[Any], count: int) -> Sequence[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"got a {type(given).__name__} as {name}, wanted a list, one item a row: put it into a list")
    given = given if isinstance(given, Sequence) else list(given)
    if len(given) != count:
        raise InputError(f"got {count} vectors and {len(given)} {name}, wanted one of each a row")
    return given


def _check_unique(ids: Sequence[str]) -> None:
    repeated = [given for given, times in Counter(ids).items() if times > 1]
    if repeated:
        raise DuplicateIdError(
            f"{len(repeated)} ids occur more than once in this call (first: {repeated[0]!r}), wanted each id once: "
            "drop the duplicates, or add them in separate calls, where the last one wins"
        )
