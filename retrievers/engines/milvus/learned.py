"""Codecs and bits of a collection in Milvus: what a generation has learned, as pieces of text."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from pymilvus import DataType, MilvusClient

from rarebit.compressors.vectors import restore_codec
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.compressors.vectors.codec import SearchableCodec
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import DamagedFileError, InputError
from rarebit.retrievers.engines.engine import UNTRAINED, Kept
from rarebit.retrievers.engines.milvus.connections import Connections
from rarebit.retrievers.engines.milvus.rows import STRONG
from rarebit.retrievers.engines.milvus.steps import Step, Steps

PIECE: Final = 48_000
"""Bytes; they are 64,000 characters."""

TOGETHER: Final = 100
"""Pieces that are written together."""

FIELDS: Final = ("part", "place", "value")


class Learned:
    """Keeps codecs and bits.

    Args:
        connections: to Milvus.
        name: of the collection of Milvus that holds them.
        where: the collection is, for messages.
    """

    def __init__(self, connections: Connections, name: str, where: str) -> None:
        """Nothing is read yet."""
        self._connections, self._name, self._where = connections, name, where

    def create(self) -> None:
        """Create the collection of Milvus; one that is there stays."""
        schema = MilvusClient.create_schema(auto_id=False, description="what a Rarebit collection has learned")
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("generation", DataType.INT64)
        schema.add_field("part", DataType.VARCHAR, max_length=16)
        schema.add_field("place", DataType.INT64)
        schema.add_field("value", DataType.VARCHAR, max_length=65_535)
        schema.add_field("unused", DataType.BINARY_VECTOR, dim=8)  # Milvus has no collection without a vector
        self._connections.create(self._name, schema, "unused")

    def write(self, generation: int, kept: Kept) -> None:
        """Write what a training has learned."""
        if kept.codec is None or kept.plane is None:
            raise InputError("got a training without a codec or bits, wanted both")
        codec = json.dumps({"name": kept.codec.name, "config": kept.codec.config}).encode()
        parts = {"codec": codec, "learned": kept.codec.learned(), "plane": kept.plane.learned()}
        pieces = [
            self._piece(generation, part, place, value[start : start + PIECE])
            for part, value in parts.items()
            for place, start in enumerate(range(0, max(1, len(value)), PIECE))
        ]
        for start in range(0, len(pieces), TOGETHER):
            self._connections.call("upsert", self._name, pieces[start : start + TOGETHER])

    def tune(self, steps: Steps, generation: int, candidates: int, rows: int) -> None:
        """Remember how many candidates are enough; nothing, if there was a training since."""
        if steps.look().generation != generation:
            return
        told = json.dumps([candidates, rows]).encode()
        self._connections.call("upsert", self._name, [self._piece(generation, "tuned", 0, told)])
        if steps.look().generation != generation:  # who trained may have forgotten it before this was written
            self.forget([generation])

    @staticmethod
    def _piece(generation: int, part: str, place: int, value: bytes) -> dict[str, Any]:
        own = {"key": f"{generation}/{part}/{place}", "generation": generation, "part": part, "place": place}
        return {**own, "value": b64encode(value).decode(), "unused": b"\0"}

    def generations(self) -> list[int]:
        """Name the generations of which something is kept."""
        given: dict[str, Any] = {"output_fields": ["generation"], "consistency_level": STRONG, "limit": 10_000}
        found = self._connections.call("query", self._name, filter="place == 0", **given)
        return sorted({row["generation"] for row in found})

    def forget(self, generations: Sequence[int]) -> None:
        """Delete what some generations have learned."""
        if generations:
            self._connections.call("delete", self._name, filter=f"generation in {list(generations)}")

    def newest(self, steps: Steps) -> Kept:
        """Give what is kept of a collection as of its last step, although a training may end meanwhile.

        Raises:
            DamagedFileError: the codec cannot be read.
        """
        step = steps.look()
        while True:
            try:
                return self.kept(step)
            except DamagedFileError:
                before, step = step, steps.look()
                if step.generation == before.generation:
                    raise

    def kept(self, step: Step) -> Kept:
        """Give what is kept of a collection as of a step.

        Raises:
            DamagedFileError: the codec cannot be read.
        """
        settings = step.settings
        if settings.dim is None:
            return Kept(settings)
        if step.generation == UNTRAINED:
            return Kept(settings, UNTRAINED, Exact().with_dim(settings.dim))
        parts = self._read(step.generation)
        if not {"codec", "learned", "plane"} <= parts.keys():
            raise DamagedFileError(f"the codec of {self._where} is not there: move the collection back, or restore a backup")
        told = json.loads(parts["codec"])
        codec = restore_codec(told["name"], dim=settings.dim, config=told["config"], learned=parts["learned"])
        if not isinstance(codec, SearchableCodec):
            raise DamagedFileError(f"the codec {told['name']!r} of {self._where} cannot be searched")
        plane = BitPlane.restore(parts["plane"])
        candidates, rows = json.loads(parts.get("tuned", b"[0, 0]"))
        return Kept(settings, step.generation, codec, plane, candidates, rows, indexed=True)

    def _read(self, generation: int) -> dict[str, bytes]:
        """Give what a generation has learned, by its parts."""
        text = f"generation == {generation}"
        given: dict[str, Any] = {"filter": text, "output_fields": list(FIELDS), "consistency_level": STRONG}
        found: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for row in self._connections.call("query", self._name, limit=10_000, **given):
            found[row["part"]].append((row["place"], row["value"]))
        return {part: b"".join(b64decode(value) for _, value in sorted(pieces)) for part, pieces in found.items()}
