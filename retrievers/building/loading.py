"""The last stage: finished shards go into a collection, as a move from another collection would bring them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from rarebit.compressors.vectors.bit_plane import BitPlane
from rarebit.retrievers.building.fitting import Fitted, by_shard, places_of_sample
from rarebit.retrievers.building.row_ids import RowIds
from rarebit.retrievers.building.tables import read_table
from rarebit.retrievers.building.work_folder import SHARDS, WorkFolder
from rarebit.retrievers.engines.coding import Coding
from rarebit.retrievers.engines.engine import OWN, UNTRAINED, Kept, NewRow, StoredCode
from rarebit.retrievers.engines.move_ends import AT_ONCE, Movable, MoveSource, Numbered, comparable, end_of
from rarebit.retrievers.engines.moving import MoveReport, move_between


class FinishedShards(MoveSource):
    """What a move reads from: the shards of a build. Rows are numbered from 1 on.

    Args:
        folder: of the build.
        shards: how many rows each shard has.
    """

    def __init__(self, folder: WorkFolder, shards: Sequence[int]) -> None:
        """Read the codec; shards are read when they are needed, and checked."""
        self.where = str(folder.path)
        self._folder, self._sizes = folder, list(shards)
        self._ends = np.cumsum(self._sizes)
        self._fitted = Fitted.load(folder)
        self._are_ids_whole = False
        self._rows = lru_cache(maxsize=2)(self._read_shard)

    def kept(self) -> Kept:
        """As :class:`MoveSource` says."""
        return comparable(self._fitted.settings, self._fitted.codec)

    def plane(self) -> BitPlane:
        """As :class:`MoveSource` says: learned from the sample that the codec was learned from, as it is kept."""
        coding = Coding(replace(self.kept(), generation=UNTRAINED + 1, codec=self._fitted.codec))
        places = places_of_sample(int(self._ends[-1]))
        found: list[Any] = []
        for shard, own in by_shard(places, self._sizes):
            rows = self._rows(shard)
            found.append(coding.vectors([StoredCode(0, rows[place].code, rows[place].fine) for place in own]))
        return BitPlane.fit(np.concatenate(found))

    def tenants(self) -> list[str]:
        """As :class:`MoveSource` says: a build has no tenants."""
        return [OWN]

    def read(self, tenant: str, after: int) -> Numbered:
        """As :class:`MoveSource` says."""
        if tenant != OWN or after >= self._ends[-1]:
            return []
        shard = int(np.searchsorted(self._ends, after, side="right"))
        first = int(self._ends[shard]) - self._sizes[shard]
        rows = self._rows(shard)[after - first : after - first + AT_ONCE]
        return [(after + place, row) for place, row in enumerate(rows, start=1)]

    def named(self, tenant: str, ids: Sequence[str]) -> list[NewRow]:
        """As :class:`MoveSource` says."""
        if tenant != OWN or not ids:
            return []
        with RowIds.of(self._folder.path) as numbers:
            if not self._are_ids_whole:
                numbers.check_count(sum(self._sizes))
                self._are_ids_whole = True
            places = np.asarray(numbers.rows_of(list(ids)), dtype=np.int64)
        return [self._rows(shard)[place] for shard, own in by_shard(places, self._sizes) for place in own]

    def _read_shard(self, shard: int) -> list[NewRow]:
        columns, _ = read_table(self._folder.file(SHARDS, shard), self._fitted.stamp(self._folder, shard))
        codes = [code.tobytes() for code in columns["code"]]
        fine = [code.tobytes() for code in columns["fine"]] if "fine" in columns else [None] * len(codes)
        quintuples = zip(columns["id"], columns["text"], columns["metadata"], codes, fine, strict=True)
        return [NewRow(*quintuple, None) for quintuple in quintuples]


def load(
    folder: WorkFolder, shards: Sequence[int], target: Movable, *, overwrite: bool = False, progress: bool = False
) -> MoveReport:
    """Put the rows of finished shards into a collection; a load that was cut off goes on behind what is there.

    Args:
        folder: of the build.
        shards: how many rows each shard has.
        target: is empty, or what an earlier load of the same build has left.
        overwrite: replace and delete rows of the target that are not the build's.
        progress: show a progress bar.

    Raises:
        SettingsError: the target has other settings or codes; or, without ``overwrite``, other rows.
        DamagedFileError: a shard is not what was written.
    """
    source = FinishedShards(folder, shards)
    return move_between(source, end_of(target), overwrite=overwrite, progress=progress, doing="loading")
