"""What the store benchmark stores and asks: rows, fields to filter by, filters, and the exact answers; prepared once a size.

Rows are real passages while there are any. What goes beyond is *mixed*: the vector lies between those of two neighbouring
passages, with some noise, so that it is a vector such as real ones are; text and metadata are the first passage's.

Two whole numbers are added to each row's metadata, both in 0..999, each value at exactly a thousandth of the rows: ``bucket``
is random, and rows with ``topic`` near each other have vectors near each other. A filter is a range of one of them, so it
matches exactly the share of rows that it is meant to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Int32, Int64

from rarebit.arrays import Queries, Scores, Vector, Vectors, normalized
from rarebit.cookbook.benchmarks.embedded import Passage
from rarebit.errors import InputError

K = 10
TIE = 1e-6
"""A row this near to the score of the tenth best counts as well."""

STEPS = 1000
"""Values of a field."""

BUCKET, TOPIC = "bucket", "topic"
SHARES = (0.5, 0.1, 0.01, 0.001)
KINDS = ("random", "correlated", "anti-correlated")

FILTERED_QUERIES = 50
BLOCK = 16_384
BATCH = 4096
"""Rows that are handed to a store at once."""

SAMPLE = 1024
ITERATIONS = 8
NEIGHBOURS = 32
"""Passages of about one topic: the second parent of a mixed row is one of so many around the first."""

NOISE = 0.35
"""Length of the noise of a mixed row, before it has length 1 again: with it, the tenth nearest row of a query or of another row
has the cosine that it has among as many real rows, within .015."""

_SCATTER = 0x9E3779B97F4A7C15
_LOW = 2**64 - 1

Field: TypeAlias = Int32[npt.NDArray[np.int32], "n"]
"""A number in 0..999 for each row."""
Places: TypeAlias = Int64[npt.NDArray[np.int64], "n"]
Mask: TypeAlias = Bool[npt.NDArray[np.bool_], "n"]
Least: TypeAlias = Float32[npt.NDArray[np.float32], "q"]
"""The cosine of the tenth best row of each query."""
Real: TypeAlias = Float32[npt.NDArray[np.float32], "real dim"]
AllScores: TypeAlias = Float32[npt.NDArray[np.float32], "f n"]


@dataclass(frozen=True)
class Where:
    """A filter: rows with low <= field < high."""

    field: str
    low: int
    high: int


@dataclass(frozen=True)
class Trial:
    """A filter that is used for the first time with one query and for the second time with another.

    ``least`` is the cosine of the last row that the first query should find, ``matching`` how many rows match, and ``overlap``
    the share of the ten best rows of the whole collection that match.
    """

    where: Where
    query: int
    second: int
    least: float
    matching: int
    overlap: float


@dataclass(frozen=True)
class Batch:
    """Rows as a framework is given them: vectors are lists of floats."""

    ids: list[str]
    texts: list[str]
    metadatas: list[dict[str, Any]]
    vectors: list[list[float]]


def id_of(row: int) -> str:
    """Name a row as LangChain and LlamaIndex name documents that have no ids: by a UUID, in no order."""
    return str(UUID(int=((row + 1) * _SCATTER & _LOW) << 64 | row))


def row_of(key: str) -> int:
    """Give the row that :func:`id_of` named."""
    return UUID(key).int & _LOW


class Prepared:
    """Rows of one size in a folder that :func:`prepare` filled. Vectors stay in the file."""

    def __init__(self, folder: Path) -> None:
        """Open the folder."""
        self._folder = folder

    @cached_property
    def vectors(self) -> Vectors:
        """(rows, dim) float32 of length 1, mapped."""
        mapped: Vectors = np.load(self._folder / "vectors.npy", mmap_mode="r")
        return mapped

    @cached_property
    def queries(self) -> Queries:
        """(q, dim) float32 of length 1."""
        queries: Queries = np.load(self._folder.parent / "queries.npy")
        return queries

    @cached_property
    def least(self) -> Least:
        """The cosine of the tenth best row of each query."""
        least: Least = np.load(self._folder / "least.npy")
        return least

    def field(self, name: str) -> Field:
        """Give the values of a field."""
        values: Field = np.load(self._folder / f"{name}.npy")
        return values

    def trials(self, kind: str, share: float) -> list[Trial]:
        """Give the filters of one kind that match one share of the rows."""
        kept = json.loads((self._folder / "trials.json").read_text(encoding="utf-8"))
        return [Trial(Where(**trial.pop("where")), **trial) for trial in kept[_cell(kind, share)]]

    def matching(self, where: Where) -> Places:
        """Give the rows that match a filter."""
        values = self.field(where.field)
        return np.flatnonzero((values >= where.low) & (values < where.high))

    def batches(self) -> Iterator[Batch]:
        """Give all rows, read anew from the files: nothing of them stays but what a store keeps."""
        fields = {name: self.field(name).tolist() for name in (BUCKET, TOPIC)}
        records = self._records()
        for start in range(0, len(self.vectors), BATCH):
            vectors = np.load(self._folder / "vectors.npy", mmap_mode="r")[start : start + BATCH].tolist()
            rows = range(start, start + len(vectors))
            passages = list(islice(records, len(rows)))
            metadatas = [
                {**own, **{name: values[row] for name, values in fields.items()}}
                for row, (_, own) in zip(rows, passages, strict=True)
            ]
            yield Batch([id_of(row) for row in rows], [text for text, _ in passages], metadatas, vectors)

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give text and metadata of row after row: those of mixed rows start from the first passage again."""
        while True:
            with (self._folder.parent / "passages.jsonl").open(encoding="utf-8") as lines:
                for line in lines:
                    text, metadata = json.loads(line)
                    yield text, metadata

    def recall(self, query: int, rows: Sequence[int]) -> float:
        """Give the share of the exact ten best that were found."""
        return self._good(self.queries[query], rows, float(self.least[query])) / min(K, len(self.vectors))

    def recall_of(self, trial: Trial, rows: Sequence[int]) -> float:
        """Give the share of the exact ten best matching rows that were found."""
        values = self.field(trial.where.field)
        found = [row for row in rows if trial.where.low <= values[row] < trial.where.high]
        return self._good(self.queries[trial.query], found, trial.least) / min(K, trial.matching)

    def _good(self, query: Vector, rows: Sequence[int], least: float) -> int:
        found = np.unique(np.asarray(rows[:K], dtype=np.int64))
        return int(np.count_nonzero(self.vectors[found] @ query >= least - TIE)) if len(found) else 0


def prepare_passages(folder: Path, passages: Sequence[Passage], vectors: Vectors, queries: int) -> None:
    """Write what all sizes share: texts and metadata of the real passages, and the vectors of the queries, the last ones."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = len(passages) - queries
    keys = {key: None for passage in passages[:stored] for key, value in passage.metadata.items() if _is_plain(value)}
    with (folder / "passages.jsonl").open("w", encoding="utf-8") as file:
        for passage in passages[:stored]:
            # Every row has every key, as tables with columns want it.
            metadata = {key: value if _is_plain(value := passage.metadata.get(key)) else "" for key in keys}
            file.write(json.dumps([passage.text, metadata], ensure_ascii=False) + "\n")
    np.save(folder / "real.npy", vectors[:stored])
    np.save(folder / "queries.npy", vectors[stored:])


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def prepare(folder: Path, rows: int) -> Prepared:
    """Write the rows of one size, their fields, filters and exact answers, unless they are there.

    Args:
        folder: of the size, in the folder that :func:`prepare_passages` filled.
        rows: how many; a multiple of 1000.

    Raises:
        InputError: another number of rows.
    """
    if rows <= 0 or rows % STEPS:
        raise InputError(f"got {rows} rows, wanted a multiple of {STEPS}, so that filters match exact shares: change --rows")
    prepared = Prepared(folder)
    if not (folder / "trials.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        vectors = _rows(np.load(folder.parent / "real.npy"), rows)
        np.save(folder / "vectors.npy", vectors)
        buckets = np.random.default_rng(1).permutation(rows) * STEPS // rows
        np.save(folder / f"{BUCKET}.npy", buckets.astype(np.int32))
        np.save(folder / f"{TOPIC}.npy", topics(vectors))
        np.save(folder / "least.npy", _least(vectors, prepared.queries))
        made = {_cell(kind, share): list(map(asdict, trials)) for kind, share, trials in _all_trials(prepared)}
        (folder / "trials.json").write_text(json.dumps(made), encoding="utf-8")
    return prepared


def _cell(kind: str, share: float) -> str:
    return f"{100 * share:g} % {kind}"


def _rows(real: Real, rows: int) -> Vectors:
    """Take real vectors, and mix more of them where they are too few."""
    if rows <= len(real):
        return real[:rows]
    more = rows - len(real)
    rng = np.random.default_rng(2)
    # Which passages are neighbours: their places in an order in which near places have near vectors.
    order = np.argsort(topics(real, steps=max(1, len(real) // NEIGHBOURS)), kind="stable")
    place_of = np.argsort(order)
    mixed = np.empty((more, real.shape[1]), dtype=np.float32)
    for start in range(0, more, BLOCK):
        first = (np.arange(start, min(start + BLOCK, more))) % len(real)
        second = order[(place_of[first] + rng.integers(1, NEIGHBOURS, size=len(first))) % len(real)]
        weights = rng.uniform(0.4, 0.6, size=(len(first), 1)).astype(np.float32)
        noise = rng.standard_normal((len(first), real.shape[1]), dtype=np.float32) * NOISE / np.sqrt(real.shape[1])
        mixed[start : start + BLOCK] = weights * real[first] + (1 - weights) * real[second] + noise
    return np.concatenate([real, normalized(mixed)])


def topics(vectors: Vectors, *, steps: int = STEPS) -> Field:
    """Number rows so that near numbers have near vectors: halves along the direction of most variance, again and again.

    Args:
        vectors: (n, dim) float32.
        steps: how many numbers; each is given to n / steps rows.

    Returns:
        (n,) int32 in 0..steps - 1.
    """
    order = np.arange(len(vectors))
    found = np.empty(len(vectors), dtype=np.int32)
    open_parts = [(0, len(vectors), 0, steps)]
    while open_parts:
        start, stop, first, parts = open_parts.pop()
        rows = order[start:stop]
        if parts == 1:
            found[rows] = first
            continue
        left = parts // 2  # and as many of the rows
        cut = (stop - start) * left // parts
        along = _along(vectors, rows, _main_direction(vectors, rows))
        order[start:stop] = rows[np.argpartition(along, cut)] if 0 < cut < len(rows) else rows
        open_parts += [(start, start + cut, first, left), (start + cut, stop, first + left, parts - left)]
    return found


def _along(vectors: Vectors, rows: npt.NDArray[np.int64], direction: Vector) -> npt.NDArray[np.float32]:
    parts = [vectors[rows[start : start + BLOCK]] @ direction for start in range(0, len(rows), BLOCK)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


def _main_direction(vectors: Vectors, rows: npt.NDArray[np.int64]) -> Vector:
    """Find the direction of most variance of a sample, by power iteration."""
    rng = np.random.default_rng(3)
    sample = vectors[rows if len(rows) <= SAMPLE else np.sort(rng.choice(rows, SAMPLE, replace=False))]
    centred = sample - sample.mean(axis=0, keepdims=True)
    direction: Vector = rng.standard_normal((1, vectors.shape[1]), dtype=np.float32)[0]
    for _ in range(ITERATIONS):
        turned = np.asarray(centred.T @ (centred @ direction), dtype=np.float32)
        direction = normalized(turned[np.newaxis])[0]
    return direction


def _least(vectors: Vectors, queries: Queries) -> Least:
    best = np.full((len(queries), K), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        scores = np.concatenate([best, queries @ vectors[start : start + BLOCK].T], axis=1)
        best = np.partition(scores, -K, axis=1)[:, -K:]
    least: Least = best.min(axis=1)
    return least


def _all_trials(prepared: Prepared) -> Iterator[tuple[str, float, list[Trial]]]:
    queries = prepared.queries[:FILTERED_QUERIES]
    vectors = prepared.vectors
    blocks = [queries @ vectors[start : start + BLOCK].T for start in range(0, len(vectors), BLOCK)]
    scores: AllScores = np.concatenate(blocks, axis=1)
    for share in SHARES:
        taken: set[tuple[str, int]] = set()
        for kind in KINDS:
            yield kind, share, list(_trials(prepared, scores, kind, round(share * STEPS), taken))


def _trials(prepared: Prepared, scores: AllScores, kind: str, width: int, taken: set[tuple[str, int]]) -> Iterator[Trial]:
    """Make a filter for each query, none twice."""
    field = BUCKET if kind == KINDS[0] else TOPIC
    values = prepared.field(field)
    rng = np.random.default_rng(width)
    for query, own in enumerate(scores):
        for low in _starts(kind, own, values, width, rng):
            if (field, low) not in taken:
                taken.add((field, low))
                matching = (values >= low) & (values < low + width)
                if _has_sign(kind, own, matching):
                    yield _trial(prepared, query, own, matching, Where(field, low, low + width))
                break


def _starts(kind: str, scores: Scores, values: Field, width: int, rng: np.random.Generator) -> list[int]:
    """Order the ranges of a width: at random, or by the mean cosine of the rows in them."""
    if kind == KINDS[0]:
        return [int(low) for low in rng.permutation(STEPS - width + 1)]
    sums = np.bincount(values, weights=scores, minlength=STEPS)
    up_to = np.concatenate([[0.0], np.cumsum(sums)])
    ascending = np.argsort(up_to[width:] - up_to[:-width])
    return [int(low) for low in (ascending if kind == KINDS[2] else ascending[::-1])]


def _has_sign(kind: str, scores: Scores, matching: Mask) -> bool:
    """Tell whether the rows that match are nearer to the query than the others, or farther, as the kind wants it."""
    difference = float(scores[matching].mean() - scores[~matching].mean())
    return kind == KINDS[0] or (difference > 0) == (kind == KINDS[1])


def _trial(prepared: Prepared, query: int, scores: Scores, matching: Mask, where: Where) -> Trial:
    found = scores[matching]
    wanted = min(K, len(found))
    best = scores >= prepared.least[query] - TIE
    return Trial(
        where=where,
        query=query,
        second=(query + 1) % len(prepared.queries),
        least=float(np.partition(found, -wanted)[-wanted]),
        matching=len(found),
        overlap=float(np.count_nonzero(best & matching) / np.count_nonzero(best)),
    )
