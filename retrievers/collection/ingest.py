"""Rows on their way in: checked, encoded, written batch by batch, and the one training step.

Everything happens inside the caller's write transaction, so a call is kept whole or not at all, training included. A batch is
encoded while the one before it is written; beyond these two, memory does not grow with what is given.
"""

from __future__ import annotations

import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from rarebit.arrays import NUMBER_KINDS, Vectors, VectorsLike, as_vectors, normalized
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import CodecError, CodecWarning, DuplicateIdError, InputError, MissingExtraError, VectorError
from rarebit.retrievers.collection import inverted_lists, rows, tenants, training
from rarebit.retrievers.collection.arguments import as_ids
from rarebit.retrievers.collection.finest import FinestVectors, stored_codec
from rarebit.retrievers.collection.inverted_lists import InvertedLists
from rarebit.retrievers.collection.settings import Settings
from rarebit.retrievers.collection.state import changed_state
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.collection.stored_codes import Encoded
from rarebit.retrievers.near_duplicates import Intake
from rarebit.retrievers.near_duplicates.stored import Bands
from rarebit.threads import one_blas_thread


@dataclass(frozen=True)
class Part:
    """Some of the rows of a call, checked: (n, dim) vectors as they were given, n rows, and the bands of their n texts."""

    vectors: Vectors
    new: Sequence[rows.NewRow]
    bands: Bands | None = None
    """Those of the texts, where near-duplicates are looked for."""

    def at(self, places: Sequence[int]) -> Part:
        """Give some of the rows."""
        bands = None if self.bands is None else [self.bands[place] for place in places]
        return Part(self.vectors[places], [self.new[place] for place in places], bands)


@dataclass(frozen=True)
class Batch:
    """Rows given in one call: n vectors, and n of everything else."""

    vectors: npt.NDArray[Any]
    texts: Sequence[str]
    metadatas: Sequence[Mapping[str, Any] | None]
    ids: Sequence[str]
    settings: Settings

    @classmethod
    def of(
        cls,
        vectors: VectorsLike,
        texts: Sequence[str] | None,
        metadatas: Sequence[Mapping[str, Any] | None] | None,
        ids: Sequence[str] | None,
        settings: Settings,
    ) -> Batch:
        """Check how much of everything a user passed, and fill in what was left out; :meth:`parts` checks the rest."""
        matrix = vectors if _is_matrix(vectors, settings.dim) else as_vectors(vectors, dim=settings.dim)
        count = len(matrix)
        texts = _counted("texts", [""] * count if texts is None else texts, count)
        metadatas = _counted("metadatas", [None] * count if metadatas is None else metadatas, count)
        ids = _counted("ids", [str(uuid.uuid4()) for _ in range(count)] if ids is None else as_ids(ids), count)
        return cls(matrix, texts, metadatas, ids, settings)

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.vectors.shape[1])

    def parts(self, size: int) -> list[Callable[[], Part]]:
        """Cut the batch: functions that each check a part and give it."""
        return [partial(self._part, slice(start, start + size)) for start in range(0, len(self.ids), size)]

    def _part(self, part: slice) -> Part:
        near = self.settings.near_duplicate_index
        vectors = as_vectors(self.vectors[part], dim=self.settings.dim or self.dim, first=part.start)
        triples = zip(self.ids[part], self.texts[part], self.metadatas[part], strict=True)
        new = [rows.new_row(*triple) for triple in triples]
        return Part(vectors, new, None if near is None else near.bands([row.text for row in new]))


def without_vectors(texts: Sequence[str], ids: Sequence[str]) -> list[rows.NewRow]:
    """Check rows that are asked about, and have neither vectors nor metadata yet."""
    keys = as_ids(ids)
    passages = _counted("texts", texts, len(keys), beside="ids")
    check_unique(keys)
    return [rows.new_row(key, text, None) for key, text in zip(keys, passages, strict=True)]


def check_unique(ids: Sequence[str]) -> None:
    """Raise DuplicateIdError if an id occurs twice."""
    if len(set(ids)) == len(ids):
        return
    repeated = [given for given, times in Counter(ids).items() if times > 1]
    raise DuplicateIdError(
        f"{len(repeated)} ids occur more than once in this call (first: {repeated[0]!r}), wanted each id once: "
        "drop the duplicates, or add them in separate calls, where the last one wins"
    )


@dataclass(frozen=True)
class Means:
    """What vectors are encoded with: the codecs and the inverted lists, and whether at length 1."""

    codecs: training.Codecs
    lists: InvertedLists | None
    unit: bool

    def encoded(self, part: Part) -> Encoded:
        """Encode a part; may run beside the writing of another."""
        vectors = normalized(part.vectors) if self.unit else part.vectors
        encoded = training.encoded(vectors, self.codecs)
        return encoded if self.lists is None else encoded._replace(lists=self.lists.assign(vectors))


class Writer:
    """Writes rows of a tenant with the codec of the moment, and trains it when there is enough to train on.

    Args:
        connection: inside the transaction to write in.
        settings: of the collection.
        tenant: its number; 0 for the collection itself.
        intake: says which rows are skipped as near-duplicates; None writes them all.
    """

    def __init__(
        self, connection: Connection, settings: Settings, tenant: int = tenants.OWN, intake: Intake | None = None
    ) -> None:
        """Begin with the codec that the file has."""
        self._connection = connection
        self._tenant = tenant
        self._intake = intake
        codec = stored_codec(connection, settings)
        assert codec is not None  # noqa: S101 -- the dimension is fixed before anything is written
        self._use(settings, codec)

    def _use(self, settings: Settings, codec: SearchableCodec) -> None:
        self.settings = settings
        self._codecs = codec, FineTier.beside(codec, str(settings.fine))
        self._lists = inverted_lists.load(self._connection, settings)
        self._means = Means(self._codecs, self._lists, unit=settings.metric == "cosine")

    def write(self, parts: Sequence[Callable[[], Part]]) -> Iterator[list[str]]:
        """Insert or replace rows part by part, and train where the minimum is reached; gives the ids that stand for them.

        Args:
            parts: functions that check a part and give it. A part is checked and encoded while the one before is written.
        """
        if len(parts) == 1:
            yield self._write(*self._prepared(parts[0], self._means))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="rarebit-encode") as pool:
            means = self._means
            coming = pool.submit(self._prepared_aside, parts[0], means)
            for after in [*parts[1:], None]:
                part, codes = coming.result()
                now, means = means, self._means
                if after is not None:
                    coming = pool.submit(self._prepared_aside, after, means)
                # A training in between has given the collection other codes.
                yield self._write(part, codes if now is means else means.encoded(part))

    @staticmethod
    def _prepared(give: Callable[[], Part], means: Means) -> tuple[Part, Encoded]:
        part = give()
        return part, means.encoded(part)

    @classmethod
    def _prepared_aside(cls, give: Callable[[], Part], means: Means) -> tuple[Part, Encoded]:
        with one_blas_thread():
            return cls._prepared(give, means)

    def _write(self, part: Part, encoded: Encoded) -> list[str]:
        stands = self._stand_ins(part)
        kept = [place for place, (row, key) in enumerate(zip(part.new, stands, strict=True)) if row.id == key]
        if len(kept) < len(stands):
            part, encoded = part.at(kept), encoded.at(kept)
        ids = [row.id for row in part.new]
        near = self.settings.near_duplicate_index
        with tenants.replacing(self._connection, self._tenant, ids):
            rows.delete(self._connection, self._tenant, rows.row_ids_of(self._connection, self._tenant, ids), near)
            tenants.hide_ids(self._connection, self._tenant, ids)
            rows.insert(self._connection, self._tenant, part.new, encoded, part.bands)
        if training.is_due(self._connection, self.settings, self._codecs[0]):
            self._train()
        if inverted_lists.are_due(changed_state(self._connection), self._codecs[0], self._lists):
            self._learn_lists()
        return stands

    def _stand_ins(self, part: Part) -> list[str]:
        """Give the id that stands for each row: its own, but for those that are skipped."""
        ids = [row.id for row in part.new]
        if self._intake is None or part.bands is None:
            return ids
        return self._intake.stand_ins(ids, [row.text for row in part.new], part.bands)

    def _learn_lists(self) -> None:
        source = FinestVectors(self._connection, self.settings, self._codecs[0])
        sampled = training.sampled_ids(self._connection)
        inverted_lists.learn(self._connection, changed_state(self._connection), source, sampled)
        self._use(self.settings, self._codecs[0])

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
                stacklevel=5,
            )
        else:
            self._use(*trained)
        self._connection.execute("RELEASE training")


def _is_matrix(vectors: VectorsLike, dim: int | None) -> TypeGuard[npt.NDArray[Any]]:
    """Whether vectors can be read part by part, so that they are never in memory twice."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in NUMBER_KINDS:
        return False
    return bool(vectors.shape[1] == (dim or vectors.shape[1]) > 0)


def _counted(name: str, given: Iterable[Any], count: int, beside: str = "vectors") -> Sequence[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"got a {type(given).__name__} as {name}, wanted a list, one item a row: put it into a list")
    given = given if isinstance(given, Sequence) else list(given)
    if len(given) != count:
        raise InputError(f"got {count} {beside} and {len(given)} {name}, wanted one of each a row")
    return given
