"""What an engine that keeps a collection's rows on a server has to do; everything else is done on this side of the wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

from rarebit.arrays import Codes
from rarebit.compressors.vectors import SearchableCodec
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.errors import EngineLimitError
from rarebit.retrievers.collection.filters import Filter
from rarebit.retrievers.collection.records import Row
from rarebit.retrievers.collection.settings import CHANGEABLE, EmbeddingFingerprint, Settings

OWN = ""
"""The tenant that stands for the collection's own rows."""

UNTRAINED = 0
"""The generation of a collection whose vectors are kept as they are."""


@dataclass(frozen=True)
class Kept:
    """What an engine keeps of a whole collection.

    Args:
        settings: as of an embedded collection.
        generation: names the last training; codes of another one mean something else.
        codec: of the codes; None before the first row.
        plane: of the bits by which candidates are found; None before the first training.
        candidates: how many are asked for, at ``tuned_rows`` rows.
        tuned_rows: how many rows there were when that number was measured.
        indexed: whether there is an index over the bits.
    """

    settings: Settings
    generation: int = UNTRAINED
    codec: SearchableCodec | None = None
    plane: BitPlane | None = None
    candidates: int = 0
    tuned_rows: int = 0
    indexed: bool = False


class NewRow(NamedTuple):
    """A row on its way in: metadata as JSON, the vector as codes."""

    id: str
    text: str
    metadata: str
    code: bytes
    fine: bytes | None
    plane: bytes | None


class StoredCode(NamedTuple):
    """A row's vector as codes."""

    row_id: int
    code: bytes
    fine: bytes | None


class Candidate(NamedTuple):
    """A row that may be among the nearest, with the codes to score it by.

    Most are not, so their texts are read later: ``found`` is what an engine needs for that.
    """

    row_id: int
    code: bytes
    fine: bytes | None
    found: Any = None


Choose: TypeAlias = Callable[[list[list[Candidate]]], list[list[Candidate]]]
"""Chooses, for each query, the rows to read among its candidates, the best first. May be called again."""


class StaleCodesError(Exception):
    """The collection was trained meanwhile: codes of before it must be made, or asked for, again."""


class RemoteEngine(ABC):
    """Keeps rows, and finds candidates by Hamming distance.

    A tenant is named by a string; :data:`OWN` is the collection itself. What is said about a ``generation`` in a call must be
    true, or :class:`StaleCodesError` is raised and nothing done.
    """

    kind: ClassVar[str]
    """The engine's name, for messages."""

    name: str
    """Of the collection."""

    _connections: Any
    _asked: dict[str, Any]

    size: int = 0
    """About how many rows there are, of everybody: as the server guessed when one connected, and what was written since."""

    @abstractmethod
    def kept(self, *, fresh: bool = False) -> Kept:
        """Give what is kept of the collection; ``fresh`` asks the server, otherwise it may be what was seen last."""

    @abstractmethod
    def fix_dimension(self, dim: int) -> Kept:
        """Fix the dimension with the first rows, unless somebody else did."""

    @abstractmethod
    def check_fingerprint(self, fingerprint: EmbeddingFingerprint) -> None:
        """Check, and complete, the fingerprint of the embedding model."""

    @abstractmethod
    def put(self, tenant: str, generation: int, batches: Callable[[], Iterable[Sequence[NewRow]]]) -> None:
        """Insert rows, or replace those of the same ids: all or none. Later rows come after earlier ones.

        ``batches`` may be called more than once, when the call has to be made again.
        """

    @abstractmethod
    def delete(self, tenant: str, tree: Filter | None) -> int:
        """Delete what matches; returns how many rows.

        Raises:
            EngineUnreachableError: the connection broke meanwhile, and nobody knows whether they are gone.
        """

    @abstractmethod
    def count(self, tenant: str | None, tree: Filter | None = None, *, most: int | None = None) -> int:
        """Count what matches, of a tenant or, with None, of everybody; up to ``most``."""

    @abstractmethod
    def rows(self, tenant: str, tree: Filter | None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Row]]:
        """Give rows that match in the order of insertion, with their numbers, which rise with it."""

    @abstractmethod
    def numbers(self, tenant: str) -> list[int]:
        """Give the numbers of all rows of a tenant, in the order of insertion."""

    @abstractmethod
    def codes(
        self, tenant: str | None, generation: int, tree: Filter | None = None, *, row_ids: Sequence[int] | None = None
    ) -> list[StoredCode]:
        """Give the codes of rows that match and have one of the numbers, in the order of insertion; of everybody with None."""

    @abstractmethod
    def codes_of(self, tenant: str, generation: int, ids: Sequence[str]) -> dict[str, StoredCode]:
        """Give the codes of rows by their ids."""

    @abstractmethod
    def coded(
        self, tenant: str, tree: Filter | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[tuple[int, NewRow]]:
        """Give rows as :meth:`rows` does, with their codes and without their bits."""

    @abstractmethod
    def adopt(self, kept: Kept) -> None:
        """Take over settings, codec and bits from elsewhere, while there are no rows."""

    @abstractmethod
    def nearest(
        self, tenant: str, generation: int, planes: Codes, count: int, tree: Filter | None, *, choose: Choose
    ) -> list[list[Row]]:
        """Give the chosen rows of each of (q, bits / 8) queries.

        They are chosen among the ``count`` rows with the fewest other bits, or all that match; rows are as they were then.
        """

    @abstractmethod
    def among_all(self, tenant: str, generation: int, queries: int, tree: Filter | None, *, choose: Choose) -> list[list[Row]]:
        """Give the chosen rows of so many queries among all that match: before there are bits, they are few."""

    @abstractmethod
    def best_by_words(self, tenant: str, text: str, k: int, tree: Filter | None) -> list[tuple[int, Row, float]]:
        """Give the rows that match the words of a text best, by the engine's own measure."""

    @abstractmethod
    def sample(self, generation: int, most: int) -> list[StoredCode]:
        """Draw rows of everybody at random, to learn from."""

    @abstractmethod
    def retrain(self, before: Kept, after: Kept, recode: Recoding) -> bool:
        """Give every row new codes, and take over what they mean; False if somebody else did it meanwhile."""

    @abstractmethod
    def tune(self, generation: int, candidates: int, rows: int) -> None:
        """Remember how many candidates are enough; nothing, if there was a training since."""

    @abstractmethod
    def index_if_due(self) -> None:
        """Build the index over the bits, where there are rows enough for one and none yet."""

    @property
    @abstractmethod
    def may_train(self) -> bool:
        """Whether the credentials are those of somebody who may change what holds for all rows."""

    def index_field(self, field: str) -> None:
        """Build an index over the numbers of a field, for filters."""
        raise EngineLimitError(f"{self.kind} has no index over a field such as {field!r}: filters read every row there")

    @abstractmethod
    def grant(self, role: str, tenant: str) -> None:
        """Let a role of the engine read and write the rows of one tenant, and no others."""

    @abstractmethod
    def tenants(self) -> list[str]:
        """Name the tenants that have rows."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Count the bytes on the server, by what they are for."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Say where the collection is, without credentials."""

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without credentials."""
        asked = {name: value for name, value in self._asked.items() if name not in CHANGEABLE}  # the collection says it
        return {"connections": self._connections, "name": self.name, "asked": asked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect again; a collection that has vanished since is an error."""
        self.__init__(**state, create=False)  # type: ignore[misc]


class Recoding(ABC):
    """Turns codes of one generation into those of the next."""

    @abstractmethod
    def __call__(self, stored: Sequence[StoredCode]) -> list[tuple[int, bytes, bytes | None, bytes]]:
        """Give, for each row, its number, code, fine code, and bits."""
