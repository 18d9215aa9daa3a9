"""Rows on their way in: checked, encoded, written batch by batch, and the one training step.

Everything happens inside the caller's write transaction, so a call is kept whole or not at all, training included.
"""

from __future__ import annotations

import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rarebit.arrays import Vectors, VectorsLike, as_vectors, normalized
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import CodecError, CodecWarning, DuplicateIdError, InputError, MissingExtraError, VectorError
from rarebit.retrievers.collection import rows, training
from rarebit.retrievers.collection.arguments import as_ids
from rarebit.retrievers.collection.finest import stored_codec
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.storage import Connection


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
        codec = stored_codec(connection, settings)
        assert codec is not None  # noqa: S101 -- the dimension is fixed before anything is written
        self._use(settings, codec)

    def _use(self, settings: Settings, codec: SearchableCodec) -> None:
        self.settings = settings
        self._codecs = codec, FineTier.beside(codec, str(settings.fine))

    def write(self, vectors: Vectors, new: Sequence[rows.NewRow]) -> None:
        """Insert or replace rows; train afterwards if the minimum is reached."""
        rows.replace(self._connection, new, *training.encoded(vectors, self._codecs))
        if training.is_due(self._connection, self.settings, self._codecs[0]):
            self._train()

    def _train(self) -> None:
        """Train, or go on as before where that cannot be: rows are not refused because of the code that they will have."""
        self._connection.execute("SAVEPOINT training")
        try:
            trained = training.train(self._connection, self.settings, self._codecs[0])
        except (CodecError, MissingExtraError, VectorError) as error:
            self._connection.execute("ROLLBACK TO training")
            warnings.warn(
                f"the codec {self.settings.codec!r} cannot be learned from these rows ({error}). They are kept and found as "
                "before: choose another with recompress(codec=...)",
                CodecWarning,
                stacklevel=4,
            )
        else:
            self._use(*trained)
        self._connection.execute("RELEASE training")


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
