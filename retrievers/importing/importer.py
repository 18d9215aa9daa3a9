"""From a source into a collection, batch by batch; a run that was cut off goes on where it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from tqdm.auto import tqdm

from rarebit.arrays import Vectors
from rarebit.errors import InputError, TransferWarning
from rarebit.retrievers.collection import Row
from rarebit.retrievers.collection.arguments import as_count
from rarebit.retrievers.engines import AnyRows
from rarebit.retrievers.importing.plain import plain_metadata
from rarebit.retrievers.importing.source import Rows, Source

BATCH_ROWS = 1024

SAME_LENGTH = 1.01
"""Vectors whose lengths differ by less count as equally long: every metric then ranks alike."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Each row that was read is either added, or replaced one (with ``overwrite``), or was there already: ``unchanged``, or
    ``differing`` in its text or metadata and left as it was; or its text nearly duplicates that of another, and it was
    ``skipped``, in a collection with the setting ``near_duplicates``.
    """

    read: int = 0
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    differing: int = 0
    skipped: int = 0
    without_text: int = 0
    """Rows read that have a vector and no text; they are kept with the empty text."""


def import_into(
    collection: AnyRows,
    source: Source,
    *,
    batch_size: int = BATCH_ROWS,
    overwrite: bool = False,
    progress: bool = False,
) -> ImportReport:
    """Add the rows of a source to a collection, with the vectors that they have.

    The result is that of adding the rows one after another, near-duplicates too where the collection skips them. Each batch is
    one durable commit. A row whose id is in the collection already is left alone, so that a run which was cut off, by whatever,
    is resumed by calling it again: what is there is compared, not written. The collection's metric decides what becomes of the
    vectors: cosine keeps directions, ``inner_product`` lengths too. The codec is trained on the way; after an import of more
    than 65,536 rows, :meth:`rarebit.Collection.recompress` learns it from all of them.

    Args:
        collection: where the rows go, or a tenant of it.
        source: where they come from.
        batch_size: rows read, and written in one commit, at a time.
        overwrite: let a row replace the one that has its id; all rows are then written.
        progress: show a progress bar.

    Returns:
        How many rows were read, and what became of them.

    Raises:
        InputError: and its kinds, for rows that cannot be kept: without a vector, with one of another dimension, or with
            metadata that JSON cannot hold. The batches before are kept.

    Warns:
        TransferWarning: the vectors differ in length and the source ranks by something else than the collection; or ids are
            taken by rows with other content.
    """
    batch_size = as_count("batch_size", batch_size, least=1)
    report, lengths, last = ImportReport(), _Lengths(source, collection), None
    try:
        with tqdm(total=source.count, desc=f"importing {source.name}", unit="row", disable=not progress) as bar:
            for batch in source.batches(batch_size):
                lengths.look_at(batch.vectors)
                for rows in [batch] if collection.settings.near_duplicates is None else _runs(batch):
                    report, differing = _import_batch(collection, rows, report, overwrite=overwrite)
                    last = differing or last
                bar.update(len(batch.ids))
    except InputError as error:
        raise type(error)(f"{source.name}{_from(report)}: {error}. {_kept(report)}") from error
    if report.differing:
        warnings.warn(
            f"{source.name}: {report.differing:,} of {report.read:,} rows have an id that another row has, with other text or "
            f"metadata (such as {last!r}); they were left out: pass overwrite=True to replace those that are there, or give "
            "them other ids",
            TransferWarning,
            stacklevel=2,
        )
    return report


def _from(report: ImportReport) -> str:
    return f", in the rows from {report.read:,} on" if report.read else ""


def _kept(report: ImportReport) -> str:
    if not report.read:
        return "Nothing was imported"
    return f"The {report.read:,} rows before are kept: import again when this is mended, and it goes on from there"


def _import_batch(collection: AnyRows, rows: Rows, report: ImportReport, *, overwrite: bool) -> tuple[ImportReport, str | None]:
    """Write what is new of a batch; gives the report so far, and the id of a row that differs."""
    present = {row.id: row for row in collection.get(rows.ids)}
    places: dict[str, int] = {}
    replaced = unchanged = 0
    differing = []
    for place, (key, text, metadata) in enumerate(zip(rows.ids, rows.texts, rows.metadatas, strict=True)):
        row = Row(key, "" if text is None else text, plain_metadata(metadata, key))
        before = present.get(key)
        if before is None or overwrite:
            replaced += before is not None
            present[key], places[key] = row, place
        elif before == row:
            unchanged += 1
        else:
            differing.append(key)
    stands = collection.add(
        rows.vectors[list(places.values())],
        texts=[present[key].text for key in places],
        metadatas=[present[key].metadata for key in places],
        ids=list(places),
    )
    skipped = sum(key != stand_in for key, stand_in in zip(places, stands, strict=True))
    counted = replace(
        report,
        read=report.read + len(rows.ids),
        added=report.added + len(rows.ids) - replaced - unchanged - len(differing) - skipped,
        replaced=report.replaced + replaced,
        unchanged=report.unchanged + unchanged,
        differing=report.differing + len(differing),
        skipped=report.skipped + skipped,
        without_text=report.without_text + sum(text is None for text in rows.texts),
    )
    return counted, differing[0] if differing else None


def _runs(rows: Rows) -> Iterator[Rows]:
    """Cut a batch where an id comes again: whether the row before it was skipped must be known by then."""
    seen: set[str] = set()
    starts = [0]
    for place, key in enumerate(rows.ids):
        if key in seen:
            starts.append(place)
            seen.clear()
        seen.add(key)
    for start, stop in pairwise([*starts, len(rows.ids)]):
        run = slice(start, stop)
        yield Rows(rows.ids[run], rows.vectors[run], rows.texts[run], rows.metadatas[run])


class _Lengths:
    """Looks at the lengths of the vectors that pass, and says once if they make the ranking another one."""

    def __init__(self, source: Source, collection: AnyRows) -> None:
        self._source = source
        self._metric = collection.settings.metric
        self._matters = source.ranked_by not in (None, self._metric)
        self._least, self._most = np.inf, 0.0

    def look_at(self, vectors: Vectors) -> None:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        lengths = lengths[lengths > 0]
        if not self._matters or not len(lengths):
            return
        self._least, self._most = min(self._least, lengths.min()), max(self._most, lengths.max())
        if self._most > SAME_LENGTH * self._least:
            self._matters = False
            warnings.warn(
                f"{self._source.name} ranks by {self._source.ranked_by}, and its vectors differ in length ("
                f"{self._least:.3g} and {self._most:.3g}): the collection ranks by {self._metric}, so the order of "
                f"what is found can be another one{self._advice()}",
                TransferWarning,
                stacklevel=3,
            )

    def _advice(self) -> str:
        if self._source.ranked_by == "l2":
            return "; a collection cannot rank by l2"
        return f"; a new collection with metric={self._source.ranked_by!r} ranks alike"
