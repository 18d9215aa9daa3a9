"""Metadata fields in memory, one column a field, so that a comparison is a few passes over arrays and not a walk over rows.

A column is read from the rows the first time that a filter asks for its field, and follows the commits from then on: nobody
declares which fields matter. It only ever grows; rows that were deleted meanwhile are for the caller to leave out, which is why
one column serves readers of several commits at once. Rows of an older commit that were gone when the column was read are read
from the file for the reader that sees them.

Numbers are an array. Other values are kept once each, with a code a row, and compared once each by :meth:`Compare.holds`; a
field of very many different strings keeps a hash of each instead. What is long is not kept, but read from the row again.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64

from rarebit.arrays import RowIds
from rarebit.errors import DamagedFileError
from rarebit.retrievers.collection import rows
from rarebit.retrievers.collection.bitmaps import bitmap_of, bitmap_where
from rarebit.retrievers.collection.filters import RANGES, Compare, values_at
from rarebit.retrievers.collection.state import State
from rarebit.retrievers.collection.statements import chunks, select_in
from rarebit.retrievers.collection.storage import Connection

Number = TypeVar("Number", bound=np.generic)
Bools: TypeAlias = npt.NDArray[np.bool_]

LONGEST = 256
"""Characters of JSON of the longest value that a column keeps."""

MOST_DIFFERENT = 65_536
"""Different values that are kept; from there on strings are kept as hashes."""

MOST_COLUMNS = 32
"""Fields whose columns are kept, those used last."""

SEVERAL: Final = object()
"""Stands for the values of a dotted path that leads to more than one."""

ROWS_AT_ONCE = 8192
EXACT = 2**53
"""From here on not every whole number is a float."""


class Column:
    """The values of one field, of the rows up to some row id.

    Args:
        field: the metadata key or dotted path.
    """

    def __init__(self, field: str) -> None:
        """Begin before the first row."""
        self.field = field
        self.lock = Lock()
        self.last_row_id = 0
        self.version = 0
        """The newest commit that rows were read from: of older ones, some rows may be among ``_gone``."""
        self._gone = BitMap64()
        self._numbers = _Pairs(np.float64)
        self._codes = _Pairs(np.uint32)
        self._different: dict[str, int] = {}
        self._hashes: _Pairs[np.int64] | None = None
        self._elsewhere = _Pairs(np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, and about those of the different values; call with the lock held."""
        pairs: list[_Pairs[Any]] = [self._numbers, self._codes, self._elsewhere, *([self._hashes] if self._hashes else [])]
        return sum(part.nbytes for part in pairs) + sum(100 + len(value) for value in self._different)

    def __len__(self) -> int:
        """Count the rows that have a value, deleted ones included."""
        hashed = len(self._hashes) if self._hashes else 0
        return len(self._numbers) + len(self._codes) + len(self._elsewhere) + hashed

    def follow(self, connection: Connection, state: State, live: BitMap64) -> None:
        """Read those of the living rows of a commit that came since; call with the lock held."""
        self.version = max(self.version, state.version)
        sql = f"{rows.SELECT_HEAD} WHERE row_id > ? AND row_id < ? ORDER BY row_id LIMIT ?"
        while self.last_row_id < state.next_row_id - 1:
            found = connection.execute(sql, (self.last_row_id, state.next_row_id, ROWS_AT_ONCE)).fetchall()
            first, last = self.last_row_id + 1, found[-1][0] if len(found) == ROWS_AT_ONCE else state.next_row_id - 1
            pairs = _checked(found)
            _check_complete(pairs, first, last, live)
            self._append(pairs)
            if len(pairs) <= last - first:
                self._gone |= BitMap64(range(first, last + 1)) - live
            self.last_row_id = last

    def unread(self, connection: Connection, live: BitMap64) -> Column:
        """Read, into a column of their own, those of an older commit's rows that were gone when this one was read."""
        column = Column(self.field)
        for row_ids in chunks(self._gone & live, ROWS_AT_ONCE):
            pairs = _checked(sorted(select_in(connection, f"{rows.SELECT_HEAD} WHERE row_id IN", row_ids)))
            if len(pairs) != len(row_ids):
                raise DamagedFileError(f"{len(row_ids) - len(pairs)} rows are missing from the file: restore it from a backup")
            column._append(pairs)
        return column

    def where(self, connection: Connection, compares: Sequence[Compare], after: int, live: BitMap64) -> BitMap64:
        """Find the rows beyond a row id that have the field, and whose value satisfies every one of some comparisons.

        Rows that were deleted may be among those found. Call with the lock held.
        """
        found = self._numbers.bitmap_where(lambda numbers: _all_hold(_numbers_that_hold, compares, numbers), after)
        if len(self._codes):
            holds = np.logical_and.reduce([self._different_that_hold(compare) for compare in compares])
            found |= self._codes.bitmap_where(lambda codes: holds[codes], after)
        if self._hashes is not None:
            found |= BitMap64.intersection(*(self._hashed_that_hold(connection, each, after, live) for each in compares))
        if len(self._elsewhere):
            elsewhere = self._elsewhere.after(after)
            found |= BitMap64.intersection(*(self._read_again(connection, each, elsewhere, live) for each in compares))
        return found

    def _append(self, stored: Sequence[tuple[int, str]]) -> None:
        """Take in some rows and their metadata, as JSON."""
        present = list(self._present(stored))
        numbers = _exact_numbers([value for _, value in present])
        if numbers is None:
            self._append_any(present)
        else:
            self._numbers.extend_arrays(np.array([row_id for row_id, _ in present], dtype=np.int64), numbers)

    def _present(self, stored: Sequence[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
        """Give the rows that have the field, and its value, or ``SEVERAL`` where a dotted path is ambiguous."""
        for row_id, metadata in _decoded(stored):
            if "." in self.field:
                values = list(values_at(metadata, self.field))
                if values:
                    yield row_id, values[0] if len(values) == 1 else SEVERAL
            elif self.field in metadata:
                yield row_id, metadata[self.field]

    def _append_any(self, present: Sequence[tuple[int, Any]]) -> None:
        """Take in values of any kinds."""
        numbers: list[tuple[int, float]] = []
        codes: list[tuple[int, int]] = []
        hashes: list[tuple[int, int]] = []
        elsewhere: list[tuple[int, bool]] = []
        for row_id, value in present:
            if value is SEVERAL:
                elsewhere.append((row_id, True))
            elif _is_exact_number(value):
                numbers.append((row_id, float(value)))
            elif self._hashes is not None and isinstance(value, str):
                hashes.append((row_id, hash(value)))
            elif (code := self._code_of(value)) is None:
                elsewhere.append((row_id, True))
            else:
                codes.append((row_id, code))
        self._numbers.extend(numbers)
        self._codes.extend(codes)
        self._elsewhere.extend(elsewhere)
        if self._hashes is not None:
            self._hashes.extend(hashes)
        elif len(self._different) > MOST_DIFFERENT:
            self._hash()

    def _code_of(self, value: Any) -> int | None:
        """Number a value among the different ones; None for one that is too long to keep."""
        encoded = json.dumps(value, ensure_ascii=False)
        return None if len(encoded) > LONGEST else self._different.setdefault(encoded, len(self._different))

    def _hash(self) -> None:
        """Keep hashes of strings from now on, and read what is no string again."""
        decoded = [json.loads(value) for value in self._different]
        is_text = np.array([isinstance(value, str) for value in decoded])
        hashes = np.array([hash(value) if isinstance(value, str) else 0 for value in decoded], dtype=np.int64)
        row_ids, codes = self._codes.row_ids, self._codes.values
        texts = is_text[codes]
        self._hashes = _Pairs(np.int64)
        self._hashes.extend_arrays(row_ids[texts], hashes[codes[texts]])
        kept = [(row_id, code) for row_id, code in zip(row_ids[~texts].tolist(), codes[~texts].tolist(), strict=True)]
        values = list(self._different)
        self._different, self._codes = {}, _Pairs(np.uint32)
        self._codes.extend([(row_id, self._different.setdefault(values[code], len(self._different))) for row_id, code in kept])

    def _different_that_hold(self, compare: Compare) -> Bools:
        """Compare each different value once; one that is asked for as a whole is looked up."""
        holds = np.zeros(len(self._different), dtype=np.bool_)
        if compare.op in {"eq", "in"} and all(isinstance(value, str) for value in _wanted(compare)):
            for value in _wanted(compare):
                place = self._different.get(json.dumps(value, ensure_ascii=False))
                if place is not None:
                    holds[place] = True
            return holds
        for value, place in self._different.items():
            holds[place] = compare.holds([json.loads(value)])
        return holds

    def _hashed_that_hold(self, connection: Connection, compare: Compare, after: int, live: BitMap64) -> BitMap64:
        assert self._hashes is not None  # noqa: S101
        if compare.op in {"eq", "in"}:
            # Of 64 bits with a key of the process's own: two strings of one hash are not to be expected in a lifetime.
            wanted = np.array([hash(value) for value in _wanted(compare) if isinstance(value, str)], dtype=np.int64)
            return self._hashes.bitmap_where(lambda hashes: np.isin(hashes, wanted), after)
        return self._read_again(connection, compare, self._hashes.after(after), live)

    def _read_again(self, connection: Connection, compare: Compare, row_ids: RowIds, live: BitMap64) -> BitMap64:
        """Compare what the rows themselves hold."""
        if compare.op == "exists":
            return bitmap_of(row_ids) if compare.value else BitMap64()
        found: list[int] = []
        for start in range(0, len(row_ids), ROWS_AT_ONCE):
            part = row_ids[start : start + ROWS_AT_ONCE]
            sql = f"{rows.SELECT_HEAD} WHERE row_id BETWEEN ? AND ?"
            pairs = _checked(connection.execute(sql, (int(part[0]), int(part[-1]))).fetchall())
            _check_complete(pairs, int(part[0]), int(part[-1]), live)
            wanted = set(part.tolist())
            asked = [pair for pair in pairs if pair[0] in wanted]
            found += [row_id for row_id, metadata in _decoded(asked) if compare.holds(list(values_at(metadata, self.field)))]
        return BitMap64(found)


class Columns:
    """The columns of the fields that filters have asked for."""

    def __init__(self) -> None:
        """Have none yet."""
        self._lock = Lock()
        self._columns: OrderedDict[str, Column] = OrderedDict()

    def where(self, connection: Connection, state: State, compares: Sequence[Compare], after: int, live: BitMap64) -> BitMap64:
        """Find rows as :meth:`Column.where`, for comparisons of one field, as of the commit that the transaction sees.

        ``live`` are all the rows of that commit: none of them may be missing.
        """
        column = self._of(compares[0].field, state)
        with column.lock:
            if column.last_row_id < state.next_row_id - 1:
                column.follow(connection, state, live)
            found = column.where(connection, compares, after, live)
            if state.version < column.version:
                found |= column.unread(connection, live).where(connection, compares, after, live)
            return found

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        with self._lock:
            columns = list(self._columns.values())
        total = 0
        for column in columns:
            with column.lock:
                total += column.nbytes
        return total

    def drop(self) -> None:
        """Forget every column, as where another file may stand under the name; or a lock may be held for ever, after a fork."""
        self._lock = Lock()
        self._columns = OrderedDict()

    def _of(self, field: str, state: State) -> Column:
        with self._lock:
            column = self._columns.get(field)
            # A column that is mostly of deleted rows is read anew.
            if column is None or len(column) > 2 * state.row_count + ROWS_AT_ONCE:
                column = self._columns[field] = Column(field)
            self._columns.move_to_end(field)
            if len(self._columns) > MOST_COLUMNS:
                self._columns.popitem(last=False)
            return column


class _Pairs(Generic[Number]):
    """Row ids, in order, and a value for each; room for some more is kept, so that few are copied when some are added."""

    def __init__(self, dtype: type[Number]) -> None:
        self._count = 0
        self._row_ids = np.empty(0, np.int64)
        self._values: npt.NDArray[Number] = np.empty(0, dtype)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._row_ids.nbytes + self._values.nbytes

    @property
    def row_ids(self) -> RowIds:
        return self._row_ids[: self._count]

    @property
    def values(self) -> npt.NDArray[Number]:
        return self._values[: self._count]

    def extend(self, pairs: Sequence[tuple[int, Any]]) -> None:
        if pairs:
            row_ids, values = zip(*pairs, strict=True)
            self.extend_arrays(np.array(row_ids, dtype=np.int64), np.array(values, dtype=self._values.dtype))

    def extend_arrays(self, row_ids: RowIds, values: npt.NDArray[Number]) -> None:
        after = self._count + len(row_ids)
        if after > len(self._row_ids):
            room = after + after // 8
            self._row_ids, self._values = _enlarged(self._row_ids, room), _enlarged(self._values, room)
        self._row_ids[self._count : after], self._values[self._count : after] = row_ids, values
        self._count = after

    def after(self, row_id: int) -> RowIds:
        """Give the row ids beyond one."""
        return self.row_ids[self._first_after(row_id) :]

    def bitmap_where(self, holds: Callable[[npt.NDArray[Number]], Bools], after: int) -> BitMap64:
        """Give the row ids beyond ``after`` of the values for which a function of all of them is true."""
        first = self._first_after(after)
        return bitmap_where(self.row_ids[first:], holds(self.values[first:]))

    def _first_after(self, row_id: int) -> int:
        return int(np.searchsorted(self.row_ids, row_id, side="right")) if row_id else 0


def _enlarged(array: npt.NDArray[Any], room: int) -> npt.NDArray[Any]:
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger


def _wanted(compare: Compare) -> Iterable[Any]:
    return compare.value if compare.op == "in" else (compare.value,)


def _exact_numbers(values: Sequence[Any]) -> npt.NDArray[np.float64] | None:
    """Give values as an array if every one is a number that a float holds; None where they have to be looked at one by one."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return numbers if bool((np.abs(numbers) < EXACT).all()) else None


def _is_exact_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float holds; booleans are kept as what they are, though they compare alike."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -EXACT < value < EXACT


def _all_hold(hold: Callable[[Compare, Any], Bools], compares: Sequence[Compare], values: Any) -> Bools:
    holds = hold(compares[0], values)
    for compare in compares[1:]:
        holds &= hold(compare, values)
    return holds


def _numbers_that_hold(compare: Compare, numbers: npt.NDArray[np.float64]) -> Bools:
    """Compare many numbers at once, as Python compares them one by one: exactly."""
    if compare.op in {"eq", "in"}:
        wanted = [float(value) for value in _wanted(compare) if isinstance(value, int | float) and _as_float(value) == value]
        holds: Bools = np.isin(numbers, wanted)
        return holds
    if compare.op in RANGES and isinstance(compare.value, int | float):
        return _in_range(compare.op, compare.value, numbers)
    constant = compare.holds([0.5])  # the operators of texts and lists, ranges of strings, and those that ask for a value
    return np.full(len(numbers), constant, dtype=np.bool_)


def _in_range(op: str, bound: float, numbers: npt.NDArray[np.float64]) -> Bools:
    """Compare with a bound that may be a whole number between two floats."""
    nearest = _as_float(bound)
    if nearest != bound:
        # No float lies between the two, so the side on which the nearest float lies decides whether it belongs.
        op = {"g": "gt" if nearest < bound else "gte", "l": "lte" if nearest < bound else "lt"}[op[0]]
    compared: Any = RANGES[op](numbers, nearest)
    return np.asarray(compared, dtype=np.bool_)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _checked(heads: Iterable[rows.StoredHead]) -> list[tuple[int, str]]:
    """Give row ids and metadata, each known to be what was stored."""
    return [(head[0], rows.checked_metadata(head)) for head in heads]


def _check_complete(pairs: Sequence[tuple[int, str]], first: int, last: int, live: BitMap64) -> None:
    """Raise DamagedFileError unless those of the living rows were read that lie between two row ids, both included."""
    expected = live.range_cardinality(first, last + 1)
    if len(pairs) != expected or not all(row_id in live for row_id, _ in pairs):
        raise DamagedFileError(
            f"{len(pairs)} rows were found from row {first} to {last} of the file, wanted {expected} or others: restore it "
            "from a backup"
        )


def _decoded(stored: Sequence[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give row ids and metadata, decoded as one list, which takes less time than one by one."""
    try:
        decoded = json.loads(f"[{','.join([metadata for _, metadata in stored])}]")
        if len(decoded) != len(stored) or not set(map(type, decoded)) <= {dict}:
            raise TypeError("some of it is none")  # noqa: TRY301
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFileError(f"the metadata in the file is no JSON object ({error}): restore it from a backup") from error
    return zip([row_id for row_id, _ in stored], decoded, strict=True)
