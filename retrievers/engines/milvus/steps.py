"""What holds for a whole collection, changed by one client at a time although Milvus has neither transactions nor locks.

The one thing that Milvus does for a single client of many is to create a collection: under a name that is taken, with another
description, it refuses. So a collection has steps, numbered from one: each is an empty collection of Milvus whose description
says what holds from then on, and the last one is in force. To change something is to create the step after the one that was
seen; who comes second is refused, looks, and decides anew. Steps are never dropped alone, so that a client which slept through
any number of changes still finds the next one. There is one for each of: the collection, its first rows, a model's name, and
two or more for each training.

A step is ``open`` or not. Writers write into the rows of the step they know, and look afterwards whether there is a next one.
A training copies all rows into a new collection, takes a step that is not open, copies what has changed until then, and takes
an open step with the new rows. So:

    - A writer who found no next step has written before rows were compared for the last time: the training has its rows.
    - A writer who finds one writes again, into the rows of the next open step: rows are the same by their keys. Until then
      nobody was told that they are there.
    - Readers read the rows of the step they know, and look afterwards too: what they answer was in force when they asked.
    - Of two trainings the second is refused its step, and drops what it has copied.
    - A training that dies leaves rows that no step names, which the next training drops. It also leaves rows that a step may
      name: where the answer to its last step was lost, nobody knows whether it is in force.
    - While rows are compared, a training takes another step that is not open now and then. If none comes for :data:`PATIENCE`
      seconds it has died: who waits that long opens the step again with the rows of before. Who waits less, as ``timeout``
      says, raises LockedError; but a step that says it was taken :data:`LONG_AGO` or longer ago is opened at once, so that the
      collection does not stay closed where each client writes only once. Clocks differ, hence so long; where they differ by
      more, a training that lives is refused, and nothing else happens.
    - A training that was only slow is refused its next step by that.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pymilvus import DataType, MilvusClient

from rarebit.errors import CollectionNotFoundError, EngineError, FormatVersionError, LockedError
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings
from rarebit.retrievers.engines.engine import UNTRAINED
from rarebit.retrievers.engines.milvus.connections import Connections, GoneError
from rarebit.retrievers.engines.milvus.names import Names

FORMAT: Final = 2
PATIENCE: Final = 60.0
"""Seconds after which a step that is not open is taken for that of a training which died, by who saw it all the time."""

LONG_AGO: Final = 5 * PATIENCE
"""Seconds after which it is by who sees it for the first time, and goes by its own clock."""

PAUSE: Final = 0.05
"""Seconds between two looks at a training."""

TAKEN: Final = "different parameters"
"""What Milvus says to the second one who creates a collection, in all versions."""


@dataclass(frozen=True)
class Step:
    """What holds.

    Args:
        number: of the step.
        rows: names the collection of rows.
        settings: of the collection.
        generation: names codec and bits.
        is_open: whether rows are written.
        partitions: over which tenants are spread; 0 for none.
        since: when it was written, in seconds as :func:`time.time` counts them; infinite where it was not, or does not say.
    """

    number: int
    rows: str
    settings: Settings
    generation: int = UNTRAINED
    is_open: bool = True
    partitions: int = 0
    since: float = math.inf

    def written(self) -> str:
        """Write it as a description; no two are the same."""
        kept = {"rows": self.rows, "generation": self.generation, "open": self.is_open, "partitions": self.partitions}
        kept["since"] = time.time()
        return json.dumps({"format": FORMAT, "by": uuid.uuid4().hex, **kept, "settings": asdict(self.settings)})

    @classmethod
    def read(cls, number: int, description: str, where: str) -> Step:
        """Read what :meth:`written` wrote.

        Raises:
            FormatVersionError: another version wrote it.
        """
        try:
            told = json.loads(description)
        except ValueError:
            told = None
        made = told.get("format") if isinstance(told, dict) else "unknown"
        if not isinstance(told, dict) or made != FORMAT:
            raise FormatVersionError(f"{where} has format {made}, wanted {FORMAT}: another version of Rarebit made it")
        given = told["settings"]
        settings = Settings(**{**given, "fingerprint": EmbeddingFingerprint(**given["fingerprint"])})
        return cls(
            number, told["rows"], settings, told["generation"], told["open"], told["partitions"], told.get("since", math.inf)
        )


class Steps:
    """Reads and takes steps, and remembers the last one that it saw.

    Args:
        connections: to Milvus.
        names: of the collection.
        where: it is, for messages.
    """

    def __init__(self, connections: Connections, names: Names, where: str) -> None:
        """Know nothing yet."""
        self._connections, self._names, self.where = connections, names, where
        self._seen: Step | None = None
        self._closed_since: tuple[int, float] = (0, 0.0)

    @property
    def seen(self) -> Step:
        """The step that was seen last."""
        assert self._seen is not None  # noqa: S101 -- connecting has found or made it
        return self._seen

    def find(self) -> Step | None:
        """Look for the last step among all collections; None where there is none."""
        found = max(map(self._names.number_of, self._connections.call("list_collections")), default=0)
        if not found:
            return None
        self._seen = self._read(found)
        return self.look()

    def look(self) -> Step:
        """Give the last step.

        Raises:
            CollectionNotFoundError: somebody dropped the collection.
        """
        step = self.seen
        while self._exists(step.number + 1):
            step = self._read(step.number + 1)
        self._seen = step
        return step

    def look_again(self) -> Step:
        """Give the last step, where something of the one that was seen is missing."""
        before = self.seen
        if self.look().number == before.number and not self._exists(before.number):
            raise self._dropped()
        return self.seen

    def _exists(self, number: int) -> bool:
        return bool(self._connections.call("has_collection", self._names.step(number)))

    def _read(self, number: int) -> Step:
        try:
            described = self._connections.call("describe_collection", self._names.step(number))
        except GoneError:
            raise self._dropped() from None
        return Step.read(number, described.get("description", ""), self.where)

    def _dropped(self) -> CollectionNotFoundError:
        return CollectionNotFoundError(f"the collection {self.where} is not there any more: somebody dropped it")

    def take(self, step: Step) -> bool:
        """Take the step, unless somebody else took one meanwhile."""
        taken = self._create(step)
        if taken:
            self._seen = replace(step, since=time.time())
        else:
            self.look()
        return taken

    def begin(self, step: Step) -> None:
        """Take the first step, or see whose it is."""
        self._create(step)
        self._seen = self._read(step.number)
        self.look()

    def _create(self, step: Step) -> bool:
        schema = MilvusClient.create_schema(auto_id=False, description=step.written())
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=8)
        schema.add_field("unused", DataType.BINARY_VECTOR, dim=8)  # Milvus has no collection without a vector
        try:
            self._connections.create(self._names.step(step.number), schema)
        except EngineError as error:
            if TAKEN not in str(error):
                raise
            return False
        return True

    def open(self) -> Step:
        """Wait for a step that is open, and give it.

        Raises:
            LockedError: a training takes longer than one waits.
        """
        begun = time.monotonic()
        while not (step := self.look()).is_open:
            now = time.monotonic()
            if self._closed_since[0] != step.number:
                self._closed_since = (step.number, now)
            if now - self._closed_since[1] > PATIENCE or time.time() - step.since > LONG_AGO:
                self.take(replace(step, number=step.number + 1, is_open=True))
            elif now - begun > self._connections.timeout:
                raise LockedError(
                    f"{self.where} is being trained for too long: try again later, or with timeout={PATIENCE:.0f} or more"
                )
            else:
                time.sleep(PAUSE)
        return step


def agreed(settings: Mapping[str, Any]) -> Settings:
    """Give the settings of a new collection."""
    return Settings(**{key: value for key, value in settings.items() if value is not None})
