"""Learning the codes of a remote collection from its own rows, and how many candidates are enough.

As embedded collections do: the first time when there is enough to learn from, then when the collection has grown eightfold, as
long as it is small; later on request, since writers wait while every row is encoded anew. What a search takes is measured again
with every doubling. One client trains, after its own write; others go on reading, and ask again with the new codes when they
meet them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np

from rarebit.arrays import Vectors
from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.errors import CodecError, CodecWarning, LockedError, MissingExtraError, VectorError
from rarebit.retrievers.collection.training import GROWTH, SAMPLE_ROWS, check_unlike, learned
from rarebit.retrievers.engines.coding import Coding, Recoder
from rarebit.retrievers.engines.engine import UNTRAINED, Kept, RemoteEngine, StaleCodesError

TARGET: Final = 0.99
"""Of the ten best of a query, what share should be among its candidates, unless the settings say another recall."""

FEWEST: Final = 100
MOST: Final = 1000
MEASURED: Final = 16_384
"""Rows of the sample among which their neighbours are looked for, at most."""

AUTOMATIC: Final = 10_000
"""Rows up to which a collection is trained by itself."""

TUNED_AGAIN: Final = 2
"""So many times more rows, and what a search takes is measured anew: an index over many rows has to be searched wider."""

FEWEST_ROWS: Final = 1024
"""From which bits are learned, also where the codec learns nothing."""

GROWING: Final = 0.1
"""With this power of the rows grow the candidates that hold the same share of the nearest: for .99 of MiniLM's, 254 of 8,000
rows, 261 of 32,000, 293 of 200,000."""

PER_HIT: Final = 4
"""Candidates for each row that is wanted, at least."""


def train_if_due(engine: RemoteEngine) -> None:
    """Train, if a write has brought so many rows, or measure anew what was measured with few."""
    if not engine.may_train:
        return
    kept = engine.kept()
    settings = kept.settings
    least = settings.training_minimum or max(FEWEST_ROWS, settings.new_codec().training_minimum)
    due = least if kept.generation == UNTRAINED else GROWTH * settings.trained_rows
    is_done = kept.generation != UNTRAINED and (due > AUTOMATIC or not _can_be_coded_again(kept))
    if is_done or engine.count(None, most=due) < due:
        _try(engine.index_if_due)
        _try(lambda: _tune_if_due(engine))
        return
    try:
        _try(lambda: train(engine, kept, engine.count(None)))
    except (CodecError, MissingExtraError, VectorError) as error:
        warnings.warn(
            f"the codec {settings.codec!r} cannot be learned from these rows ({error}). They are kept and found as before",
            CodecWarning,
            stacklevel=4,
        )


def _tune_if_due(engine: RemoteEngine) -> None:
    kept = engine.kept()
    due = TUNED_AGAIN * kept.tuned_rows
    if kept.plane is None or engine.size < due:
        return
    engine.size = engine.count(None)  # which may have been far too high: rows that replace others were counted
    if engine.size >= due:
        tune(engine)


def _can_be_coded_again(kept: Kept) -> bool:
    """Whether enough is kept of the vectors to learn other codes from them."""
    return kept.settings.has_fine_tier or (kept.codec is not None and kept.codec.lossless)


def _try(work: Callable[[], None]) -> None:
    """Leave it to a later write where others write for longer than one waits, or train too: the rows of this one are kept."""
    with suppress(LockedError, StaleCodesError):
        work()


def train(engine: RemoteEngine, kept: Kept, count: int) -> None:
    """Learn codes and bits from a sample of the rows, encode every row in them, and measure how many candidates they need.

    Raises:
        LockedError: others have changed the collection meanwhile, and nothing was trained.
    """
    vectors = Coding(kept).vectors(engine.sample(kept.generation, SAMPLE_ROWS))
    check_unlike(vectors, kept.settings)
    assert kept.codec is not None  # noqa: S101
    settings, codec = learned(vectors, kept.settings, count, kept_as=kept.codec.name)
    after = Kept(settings, codec=codec, plane=BitPlane.fit(vectors))
    is_done = engine.retrain(kept, after, Recoder(Coding(kept), Coding(after)))
    now = engine.kept(fresh=True)
    if not is_done and now.generation == kept.generation:
        raise LockedError(
            f"{engine.where} was changed by others while it was trained, and keeps its codes of before: train it again when "
            "less is written"
        )
    if not now.candidates:  # nobody was faster
        tune(engine)
    engine.index_if_due()


def tune(engine: RemoteEngine) -> None:
    """Measure, on a sample of the rows, how many candidates a search takes."""
    kept = engine.kept()
    if kept.plane is None:
        return
    with suppress(StaleCodesError):  # who trained meanwhile measures
        vectors, rows = Coding(kept).vectors(engine.sample(kept.generation, MEASURED)), engine.count(None)
        measured = enough(kept.plane, vectors, kept.settings.target_recall or TARGET)
        engine.tune(kept.generation, _grown(measured, len(vectors), rows), rows)


def enough(plane: BitPlane, vectors: Vectors, target: float) -> int:
    """Measure how many rows with the fewest other bits hold the target's share of a row's nearest ones.

    Args:
        plane: the bits.
        vectors: (n, dim) rows of the collection.
        target: share of the nearest ten, from 0 to 1.
    """
    places = plane.places_of_neighbours(vectors)
    return int(np.clip(np.quantile(places, target, method="higher"), FEWEST, MOST)) if places.size else FEWEST


def candidates_for(kept: Kept, k: int, rows: int) -> int:
    """Say how many candidates a search for k rows takes, among about so many rows."""
    return max(_grown(kept.candidates or FEWEST, kept.tuned_rows, rows), PER_HIT * k)


def _grown(candidates: int, measured: int, rows: int) -> int:
    return min(MOST, int(candidates * max(1.0, rows / max(1, measured)) ** GROWING))
