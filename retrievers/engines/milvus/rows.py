"""Rows in a collection of Milvus: how they are written, asked for in the order of insertion, and searched by bits.

A row's number is the time of its writing, so numbers rise with insertion without anybody counting: microseconds, and a part
drawn by chance for each call, so that those of two processes are hardly ever the same. Where they are, primary keys tell rows
apart: these are digests of tenant and id.

Milvus answers 16,384 rows at most, in the order of their primary keys, which is a random one. What is asked for by number is
asked for whole where it is that few; otherwise the rows that came are a random sample, and say which numbers to ask for.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pymilvus import DataType, MilvusClient

from rarebit.arrays import Codes
from rarebit.errors import EngineLimitError
from rarebit.retrievers.engines.milvus.connections import Connections, TooLargeError
from rarebit.retrievers.engines.milvus.expressions import keys_in
from rarebit.retrievers.engines.milvus.forms import SLOTS
from rarebit.retrievers.engines.milvus.names import OWNER
from rarebit.retrievers.engines.milvus.packed import LONGEST, NO_BITS, PACKED, Found, is_cut, new_row_of, number_of

MOST_PIECES: Final = 4096
MOST: Final = 16_384
"""Rows of one answer."""

FETCHED: Final = 1024
"""Whole rows that are asked for together."""

WRITTEN_BYTES: Final = 8 * 2**20
"""Of rows that are written together; a server takes 64 MB."""

LONGEST_ROW: Final = 48 * 2**20
SIZED: Final = 100
"""Rows whose bytes are counted to estimate those of all."""

FIXED: Final = 27 + 8 * len(OWNER) + 8 + 2 + 16 * len(SLOTS)
"""Bytes of a row's key, owner, number, marks and slots."""

STRONG: Final = "Strong"
"""What everybody has written is seen. A server waits for its next tick of time, up to 0.2 s."""

SESSION: Final = "Session"
"""What this process has written is seen, at once; what others have written, when it has come."""


class Numbered(NamedTuple):
    """A row's number and its primary key."""

    row_id: int
    key: str


class _Clock:
    """Numbers rows by time; they rise, and two processes have the same ones by a rare chance alone."""

    def __init__(self) -> None:
        self._last, self._lock = 0, threading.Lock()
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()

    def numbers(self, count: int) -> range:
        """Give the numbers of so many rows: two processes that share one once do not go on sharing."""
        own = secrets.randbelow(1024)
        with self._lock:
            first = max(time.time_ns() // 1000, self._last + 1)
            self._last = first + count - 1
        return range((first << 10) | own, ((first + count) << 10) | own, 1 << 10)


CLOCK: Final = _Clock()


class Rows:
    """A collection of rows.

    Args:
        connections: to Milvus.
        name: of the collection of Milvus.
    """

    def __init__(self, connections: Connections, name: str) -> None:
        """Nothing is asked yet."""
        self._connections, self.name = connections, name

    def create(self, bits: int, partitions: int) -> None:
        """Create it, with an index that compares all bits, and load it.

        Args:
            bits: of a row; 0 before there are any.
            partitions: over which tenants are spread; 0 for none.
        """
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description="rows of a Rarebit collection"
        )
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
        for place, name in enumerate(OWNER):
            schema.add_field(name, DataType.INT64, is_partition_key=bool(partitions) and place == 0)
        for name in ("tenant", PACKED):
            schema.add_field(name, DataType.VARCHAR, max_length=LONGEST)
        more = {"element_type": DataType.VARCHAR, "max_capacity": MOST_PIECES, "max_length": LONGEST}
        schema.add_field("more", DataType.ARRAY, **more)
        schema.add_field("row_id", DataType.INT64)
        for name in ("odd", "crowded"):
            schema.add_field(name, DataType.BOOL)
        for name, value in SLOTS:
            schema.add_field(name, DataType.INT64)
            schema.add_field(value, DataType.DOUBLE)
        schema.add_field("metadata", DataType.JSON)
        schema.add_field("plane", DataType.BINARY_VECTOR, dim=bits or 8 * len(NO_BITS))
        spread = {"num_partitions": partitions} if partitions else {}
        # All bits are compared, also where a filter leaves few rows: what Milvus finds through lists may be less than there is.
        self._connections.create(self.name, schema, "plane", **spread)

    def drop(self) -> None:
        """Drop it."""
        self._connections.call("drop_collection", self.name, slow=True)

    def write(self, rows: Iterable[Found]) -> Iterator[int]:
        """Insert rows or replace them, some at a time; gives how many were written each time.

        Raises:
            EngineLimitError: a row is longer than Milvus takes.
        """
        for part in _by_size(rows):
            try:
                self._connections.call("upsert", self.name, part)
            except TooLargeError as error:
                raise EngineLimitError(f"Milvus takes no rows of this size ({error}): cut texts and metadata") from None
            yield len(part)

    def delete(self, keys: Sequence[str]) -> Iterator[int]:
        """Delete rows by their keys, some at a time; gives how many each time."""
        for start in range(0, len(keys), FETCHED):
            part = keys[start : start + FETCHED]
            self._connections.call("delete", self.name, filter=keys_in(part))
            yield len(part)

    def delete_found(self, found: Sequence[Numbered]) -> Iterator[int]:
        """Delete rows as they were found, some at a time; those that were replaced since stay. Gives how many each time.

        The server looks which rows these are, and then deletes them by their keys: what is written between the two is deleted.
        """
        for start in range(0, len(found), FETCHED):
            part = found[start : start + FETCHED]
            self._connections.call("delete", self.name, filter=_as_found(part), consistency_level=STRONG)
            yield len(part)

    def count(self, text: str) -> int:
        """Count what matches an expression."""
        (found,) = self._ask(text, ["count(*)"])
        return int(found["count(*)"])

    def about(self) -> int:
        """Say about how many rows there are."""
        return int(self._connections.call("get_collection_stats", self.name)["row_count"])

    def some(self, text: str, fields: Sequence[str], most: int) -> list[Found]:
        """Give at most so many of the rows that match, in no order."""
        return self._ask(text, fields, limit=most)

    def numbered(self, text: str, after: int = 0) -> Iterator[list[Numbered]]:
        """Give numbers and keys of all rows that match, some at a time, in the order of insertion."""
        last: int | None = after
        while last is not None:
            found, last = self._first(text, last)
            yield found

    def _first(self, text: str, after: int) -> tuple[list[Numbered], int | None]:
        """Give the first rows behind a number, and the number up to which these are all; None if there are no more."""
        found = self._between(text, after, None)
        if len(found) < MOST:
            return found, None
        share = MOST / (2 * max(MOST, self.count(f"({text}) and row_id > {after}")))
        while True:
            last = found[int(share * len(found))].row_id
            among = self._between(text, after, last)
            if len(among) < MOST:
                return among, last
            found, share = among, 0.5

    def _between(self, text: str, after: int, last: int | None) -> list[Numbered]:
        end = "" if last is None else f" and row_id <= {last}"
        found = self._ask(f"({text}) and row_id > {after}{end}", ["row_id", "key"], limit=MOST)
        return sorted(Numbered(row["row_id"], row["key"]) for row in found)

    def fetched(self, numbered: Sequence[Numbered], fields: Sequence[str], size: int = FETCHED) -> Iterator[Found]:
        """Give fields of some rows, in their order, leaving out those that were deleted or replaced since."""
        for start in range(0, len(numbered), size):
            part = numbered[start : start + size]
            found = self._as_numbered(part, [*fields, "key", "row_id"])
            yield from (found[each] for each in part if each in found)

    def _as_numbered(self, numbered: Sequence[Numbered], fields: Sequence[str]) -> dict[Numbered, Found]:
        """Give rows by their keys and numbers, half as many at a time where they are too large."""
        try:
            found = self._by_key(numbered, fields, SESSION)
            # A copy of the server may be behind the one that named them: it lacks rows, or has those that these replaced.
            lacking = [each for each in numbered if each not in found]
            return {**found, **self._by_key(lacking, fields, STRONG)} if lacking else found
        except TooLargeError as error:
            first, second = _halves(numbered, error)
            return {**self._as_numbered(first, fields), **self._as_numbered(second, fields)}

    def _by_key(self, numbered: Sequence[Numbered], fields: Sequence[str], level: str) -> dict[Numbered, Found]:
        found = self.few(keys_in(each.key for each in numbered), fields, len(numbered), level)
        return {_numbered(row): row for row in found}

    def few(self, text: str, fields: Sequence[str], most: int, level: str = STRONG) -> list[Found]:
        """Give fields other than the bits of at most so many of the rows that match, in no order, where these are few."""
        if not self._connections.is_file:
            return self._ask(text, fields, limit=most, consistency_level=level)
        # For a query Milvus Lite goes over all keys, for a search over the rows that match; any bits find these, near or far.
        plane = self._connections.call("describe_collection", self.name)["fields"][-1]
        (found,) = self._search([bytes(plane["params"]["dim"] // 8)], text, most, fields, level)
        return self.completed(found) if PACKED in fields else found

    def _ask(self, text: str, fields: Sequence[str], **named: Any) -> list[Found]:
        asked = list(dict.fromkeys(fields))
        given = {"filter": text, "output_fields": asked, "consistency_level": STRONG, **named}
        found = list(self._connections.call("query", self.name, **given))
        return self.completed(found) if PACKED in asked else found

    def completed(self, found: list[Found]) -> list[Found]:
        """Put what is missing behind long rows, leaving out those that were deleted or replaced since.

        It is asked for only where there is something: almost all rows are whole.
        """
        long = [_numbered_packed(row) for row in found if is_cut(row)]
        if not long:
            return found
        rest = {}
        for start in range(0, len(long), FETCHED):
            rest.update(self._rest(long[start : start + FETCHED]))
        whole = []
        for row in found:
            if not is_cut(row):
                whole.append(row)
            elif (pieces := rest.get(_numbered_packed(row))) is not None:
                whole.append({**row, PACKED: row[PACKED] + "".join(pieces)})
        return whole

    def _rest(self, long: Sequence[Numbered]) -> dict[Numbered, list[str]]:
        """Give what is missing of long rows, of half as many at a time where it is too large."""
        try:
            found = self.few(_as_found(long), ["key", "row_id", "more"], len(long))
        except TooLargeError as error:
            first, second = _halves(long, error)
            return {**self._rest(first), **self._rest(second)}
        return {_numbered(row): list(row["more"]) for row in found}

    def nearest(self, planes: Codes, text: str, count: int) -> list[list[Found]]:
        """Give, for each of (q, bits / 8) queries, the rows with the fewest other bits; long ones are cut."""
        try:
            return self._search([plane.tobytes() for plane in planes], text, min(count, MOST), [PACKED], SESSION)
        except TooLargeError as error:
            if len(planes) == 1:
                raise EngineLimitError(
                    f"Milvus gives back no {count} candidates of this size ({error}): ask for fewer"
                ) from None
            half = len(planes) // 2
            return [own for part in (planes[:half], planes[half:]) for own in self.nearest(part, text, count)]

    def _search(self, planes: list[bytes], text: str, count: int, fields: Sequence[str], level: str) -> list[list[Found]]:
        given: dict[str, Any] = {
            "data": planes,
            "anns_field": "plane",
            "filter": text,
            "limit": count,
            "output_fields": [name for name in dict.fromkeys(fields) if name != "key"],
            "search_params": {"metric_type": "HAMMING"},
            "consistency_level": level,
        }
        return [[_of_hit(hit) for hit in own] for own in self._connections.call("search", self.name, **given)]


def _of_hit(hit: dict[str, Any]) -> Found:
    """Give a row that a search found: the key comes with it anyhow, and each field that is asked for takes its time."""
    key = hit["key"] if "key" in hit else hit["id"]  # Milvus Lite does not tell the name of the key's field
    return {"key": key, **hit["entity"]}


def _numbered(row: Found) -> Numbered:
    return Numbered(row["row_id"], row["key"])


def _numbered_packed(row: Found) -> Numbered:
    return Numbered(number_of(row), row["key"])


def _as_found(found: Sequence[Numbered]) -> str:
    """Ask for rows that have not been replaced since."""
    return f"{keys_in(each.key for each in found)} and row_id in {sorted({each.row_id for each in found})}"


def _halves(asked: Sequence[Numbered], error: TooLargeError) -> tuple[Sequence[Numbered], Sequence[Numbered]]:
    """Split what was too large to be asked for together.

    Raises:
        EngineLimitError: it is a single row.
    """
    if len(asked) == 1:
        raise EngineLimitError(f"Milvus gives back no row of this size ({error})") from None
    return asked[: len(asked) // 2], asked[len(asked) // 2 :]


def _by_size(rows: Iterable[Found]) -> Iterator[list[Found]]:
    part: list[Found] = []
    size = 0
    for row in rows:
        own = sum(len(value) if isinstance(value, str | bytes) else 8 for value in row.values())
        own += 4 * sum(map(len, row["more"]))
        if own > LONGEST_ROW:
            raise EngineLimitError(
                f"got a row of about {own:,} bytes (id {new_row_of(row).id!r:.60}), and Milvus takes {LONGEST_ROW:,}"
            )
        if part and (size + own > WRITTEN_BYTES or len(part) >= FETCHED):
            yield part
            part, size = [], 0
        part.append(row)
        size += own
    if part:
        yield part


def estimated_bytes(rows: Rows) -> dict[str, int]:
    """Estimate what rows take, by the mean of some of them; bits, and all the rest."""
    every = "row_id >= 0"
    found = rows.some(every, (PACKED, "tenant", "plane"), SIZED)
    count = rows.count(every)
    bits = sum(len(row["plane"][0]) for row in found)
    rest = sum(FIXED + sum(len(text.encode()) for text in _written(row)) for row in found)
    return {"plane_index": count * bits // max(1, len(found)), "rows": count * rest // max(1, len(found))}


def _written(row: Found) -> tuple[str, str, str]:
    """Give the strings of a row: metadata are there twice."""
    return row["tenant"], row[PACKED], new_row_of(row).metadata
