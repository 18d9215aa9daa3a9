"""From files of passages to a collection, in stages that can each be cut off and gone on with.

read and cut -> embed -> fit -> encode -> shards -> load

What comes out depends on the inputs and the settings alone: not on the number of workers, on kills, or on whether Ray was used.
Each shard is embedded and encoded by one task, in batches of the same texts and in a fixed number of threads. Machines whose
processors round otherwise can still differ in the last bits of an embedding, and so in a code.

A built collection is what one gets by adding all rows to an empty one that is trained when it has them all
(``training_minimum`` rows). One that is filled piece by piece has learned its codes earlier, from fewer rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm.auto import tqdm

from rarebit import __version__
from rarebit.errors import DamagedFileError, InputError, SettingsError, TransferWarning
from rarebit.extras import require
from rarebit.retrievers.building.cutting import Cutter
from rarebit.retrievers.building.encoders import Encoder
from rarebit.retrievers.building.fitting import CODEC, Fitted, fit
from rarebit.retrievers.building.inputs import described, inputs_of
from rarebit.retrievers.building.loading import load
from rarebit.retrievers.building.locking import held
from rarebit.retrievers.building.reading import Columns
from rarebit.retrievers.building.row_ids import FILE as IDS
from rarebit.retrievers.building.tables import damaged, is_of_another, stamped
from rarebit.retrievers.building.tasks import Embedding, Encoding, InProcess, Runner, Task
from rarebit.retrievers.building.work_folder import INPUTS, PASSAGES, READ, SHARDS, STAGES, VECTORS, WorkFolder
from rarebit.retrievers.collection.arguments import as_count
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings, check_one_way
from rarebit.retrievers.engines.move_ends import Movable

SHARD_ROWS: Final = 4096
COLLECTION: Final = ("metric", "codec", "fine", "memory_per_vector", "target_recall", "tokenizer", "training_minimum")
"""Settings of a collection that a build can be asked for."""

FIXED: Final = (
    "tokenizer",
    "metric",
    "memory_per_vector",
    "target_recall",
    "training_minimum",
    "fingerprint",
    "near_duplicates",
)
"""Settings in which a target with rows has to be the build's, and which are known before anything is learned."""


@dataclass(frozen=True)
class Recipe:
    """What is to be built.

    Args:
        inputs: Parquet files, files of lines of JSON (``.jsonl``, also ``.jsonl.gz``), and folders of them.
        encoder: embeds the texts; None where the files have vectors.
        columns: which fields are what; with a vector field, the vectors are taken from there.
        collection: settings as :meth:`rarebit.Collection.open` takes them.
        fingerprint: of the model that made vectors that the files have.
        shard_rows: passages of a shard, which is the unit of work: at most so many are embedded again after a kill.
        threads: in which a shard is embedded; another number can give other last bits.

    Raises:
        InputError: both or neither of encoder and vectors, or settings that there are not.
    """

    inputs: Sequence[Path]
    encoder: Encoder | None = None
    columns: Columns = field(default_factory=Columns)
    collection: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: EmbeddingFingerprint | str | None = None
    shard_rows: int = SHARD_ROWS
    threads: int = 1

    def __post_init__(self) -> None:
        """Check what can be checked before anything is read."""
        if (self.encoder is None) == (self.columns.vector is None):
            raise InputError(
                f"got encoder={self.encoder!r} and the vector column {self.columns.vector!r}, wanted one of both: texts are "
                "embedded, or the files have vectors"
            )
        unknown = sorted(self.collection.keys() - set(COLLECTION))
        if unknown:
            raise InputError(f"got the settings {unknown}, wanted some of {list(COLLECTION)}: leave the others out")
        check_one_way(*(self.collection.get(name) for name in ("codec", "memory_per_vector", "target_recall")))
        for name in ("shard_rows", "threads"):
            object.__setattr__(self, name, as_count(name, getattr(self, name), least=1))
        self.settings()

    def settings(self) -> Settings:
        """Give the settings of the collection, as they are before anything is learned."""
        given = {name: value for name, value in self.collection.items() if value is not None}
        known = self.fingerprint if self.encoder is None else self.encoder.name
        return Settings(**given, fingerprint=EmbeddingFingerprint.of(known))

    def asked(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Give everything that the result depends on, as JSON."""
        return {
            INPUTS: inputs,
            "columns": asdict(self.columns),
            "encoder": None if self.encoder is None else self.encoder.described(),
            "collection": asdict(self.settings()),
            "shard_rows": self.shard_rows,
            "threads": self.threads,
            "rarebit": __version__,
        }


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Args:
        rows: how many rows the collection has.
        unchanged: passages that came again with the same id, text and metadata.
        differing: passages that were left out, because a row before them has their id and other content.
        shards: how many there are.
        embedded: rows that were embedded by this run; those of runs before are not embedded again.
        encoded: rows that were encoded by this run.
        copied: rows that were written into the target by this run.
        deleted: rows of the target that were none of the build's.
        codec: of the codes.
        fine: the fine tier beside them.
        trained: whether the codec was learned; fewer rows than it needs are kept as they are.
        checksum: of all rows with their codes, in their order; what :func:`rarebit move` tells of the same rows.
    """

    rows: int
    unchanged: int
    differing: int
    shards: int
    embedded: int
    encoded: int
    copied: int
    deleted: int
    codec: str
    fine: str
    trained: bool
    checksum: str


def build(
    recipe: Recipe,
    work: Path,
    target: Movable,
    *,
    runner: Runner | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> BuildReport:
    """Build a collection; a run that was cut off, by whatever, is resumed by the same call.

    Args:
        recipe: what is to be built.
        work: a folder for what is finished; it may be deleted afterwards. It takes the texts twice, and the vectors once.
        target: a collection in a file, in memory, or on an engine; empty, or what an earlier run has left.
        runner: where tasks are done: :class:`InProcess` (default), or :class:`rarebit.retrievers.building.OnRay`.
        overwrite: replace and delete rows of the target that are none of the build's.
        progress: show progress bars.

    Raises:
        InputError: and its kinds, for passages that cannot be kept, and inputs that have changed since the build began.
        SettingsError: the build in the folder began with other settings, or the target has other rows.
        DamagedFileError: a file of the work folder is not what was written.
        LockedError: another run is at work in the folder.
        BuildError: workers could not go on.
        MissingExtraError: what reads the files or embeds is not installed.

    Warns:
        TransferWarning: ids are taken by rows with other content; the rows that came first are kept.
        CodecWarning: the codec cannot be learned from these rows, which are then kept as they are.
    """
    shards = Shards(recipe, work, runner or InProcess(), progress=progress)
    shards.check_target(target, overwrite=overwrite)
    return shards.make().load_into(target, overwrite=overwrite)


class Shards:
    """The stages up to finished shards.

    Args:
        recipe: what is to be built.
        work: the folder.
        runner: where tasks are done.
        progress: show progress bars.

    Raises:
        InputError, SettingsError: the build in the folder is another one.
    """

    def __init__(self, recipe: Recipe, work: Path, runner: Runner, *, progress: bool = False) -> None:
        """Look at the inputs, and at what is done already."""
        require("pyarrow", "parquet")
        self._recipe, self._runner, self._progress = recipe, runner, progress
        self._inputs = inputs_of(recipe.inputs, work)
        self._asked = recipe.asked(described(self._inputs))
        self.folder = WorkFolder.at(work, self._asked)
        self._embedded = self._encoded = 0

    def check_target(self, target: Movable | None, *, overwrite: bool = False) -> None:
        """Refuse, before anything is made, a target that would be refused when all is made.

        Raises:
            SettingsError: it has another tokenizer; or rows, with other settings or where no earlier run can have loaded them.
        """
        if target is None:
            return
        wanted = self._recipe.settings()
        has_rows = bool(target.count() or target.tenants())
        if has_rows and not overwrite and SHARDS not in (self.folder.manifest() or {}):
            raise SettingsError(
                f"{target!r} has rows already, and the build in {self.folder.path} none to compare them with, wanted an empty "
                "collection: name another target, or pass overwrite=True to replace what is there"
            )
        fixed = (*FIXED, *(() if wanted.is_chosen else ("codec", "fine"))) if has_rows else FIXED[:1]
        other = [
            f"{name}={own!r} instead of {asked!r}"
            for name in fixed
            if (own := getattr(target.settings, name)) != (asked := getattr(wanted, name))
        ]
        if other:
            raise SettingsError(
                f"{target!r} has other settings than the build ({', '.join(other)}), wanted the same: name another target, or "
                "build with its settings in another work folder"
            )

    def make(self) -> Shards:
        """Make the shards that are missing.

        Raises:
            LockedError: another run is at work in the folder.
        """
        self.folder.create()
        with held(self.folder.path):
            self.folder = WorkFolder.at(self.folder.path, self._asked)  # another run may have begun and ended meanwhile
            self._make()
        return self

    def _make(self) -> None:
        self._begin()
        if self._lacks_passages():
            cutter = Cutter(self.folder, self._inputs, self._recipe.columns, self._recipe.shard_rows)
            self.folder.note(asked=self._asked, **{READ: cutter.run(progress=self._progress)})
        self._tell_what_is_left_out()
        self._embed()
        fitted, missing = self._fit(), self.folder.missing(SHARDS, len(self.sizes))
        self._encoded = self._run(Encoding(self.folder), missing, "encoding")
        self._finish(fitted, missing)

    def load_into(self, target: Movable, *, overwrite: bool = False) -> BuildReport:
        """Put the rows into a collection, and compare both sides.

        Raises:
            LockedError: another run is at work in the folder.
        """
        with held(self.folder.path):
            moved = load(self.folder, self.sizes, target, overwrite=overwrite, progress=self._progress)
        fitted, read = Fitted.load(self.folder), self._read
        return BuildReport(
            rows=moved.rows,
            unchanged=read["unchanged"],
            differing=read["differing"],
            shards=len(self.sizes),
            embedded=self._embedded,
            encoded=self._encoded,
            copied=moved.copied,
            deleted=moved.deleted,
            codec=fitted.settings.codec,
            fine=str(fitted.settings.fine),
            trained=fitted.codec.name == fitted.settings.new_codec().name,
            checksum=moved.checksum,
        )

    @property
    def sizes(self) -> list[int]:
        """How many rows each shard has."""
        rows, size = self._read["rows"], self._recipe.shard_rows
        return [min(size, rows - start) for start in range(0, rows, size)]

    @property
    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = (self.folder.manifest() or {})[READ]
        return found

    def _begin(self) -> None:
        """See whether the model loads, and clear the folder of other builds.

        What was asked is noted when everything was read: neither a misspelled model nor a bad line, which is mended then, is
        what a build has to keep to.
        """
        if self.folder.manifest() is None:
            if self._recipe.encoder is not None:
                self._runner.check(self._embedding(self._recipe.encoder))
            self._drop_others()

    def _drop_others(self) -> None:
        """Delete what readings of other inputs have left, where no build had begun."""
        for stage in STAGES:
            for path in sorted((self.folder.path / stage).glob("*.parquet")):
                if path.stem.isdecimal() and is_of_another(path, self.folder.stamp(stage, int(path.stem))):
                    path.unlink()
        (self.folder.path / CODEC).unlink(missing_ok=True)

    def _lacks_passages(self) -> bool:
        """Whether the inputs have to be read, for the first time, or for a file that was deleted because it was damaged."""
        if READ not in (self.folder.manifest() or {}) or not (self.folder.path / IDS).is_file():
            return True
        wanted = set(self.folder.missing(SHARDS, len(self.sizes)))
        lacking = set(self.folder.missing(PASSAGES, len(self.sizes)))
        if self._recipe.encoder is None:
            lacking |= set(self._lacking_vectors())
        return bool(wanted & lacking)

    def _lacking_vectors(self) -> list[int]:
        """Say which vectors are still needed: all of them until the codec is there, then those of missing shards."""
        missing = self.folder.missing(VECTORS, len(self.sizes))
        if not (self.folder.path / CODEC).exists():
            return missing
        return sorted(set(missing) & set(self.folder.missing(SHARDS, len(self.sizes))))

    def _tell_what_is_left_out(self) -> None:
        read = self._read
        if read["differing"]:
            warnings.warn(
                f"{read['differing']:,} of {sum(read[name] for name in ('rows', 'unchanged', 'differing')):,} passages have an "
                f"id that another before them has, with other text or metadata (such as {read['example']!r}); they were left "
                "out: give them other ids, and build anew in another folder",
                TransferWarning,
                stacklevel=4,
            )

    def _embedding(self, encoder: Encoder) -> Embedding:
        return Embedding(self.folder, encoder, self._recipe.threads)

    def _embed(self) -> None:
        if self._recipe.encoder is not None:
            self._embedded = self._run(self._embedding(self._recipe.encoder), self._lacking_vectors(), "embedding")

    def _fit(self) -> Fitted:
        """Give the codec, learned if it is not there, and compare it with the one that was noted."""
        path, noted = self.folder.path / CODEC, (self.folder.manifest() or {}).get("codec")
        was_there = path.exists()
        if not was_there:
            fit(self.folder, self._recipe.settings(), self.sizes, progress=self._progress).save(self.folder)
        fitted = Fitted.load(self.folder)
        own = {"name": fitted.codec.name, "digest": fitted.digest}
        if was_there and noted not in (None, own):
            raise DamagedFileError(
                f"{path} is the codec {own}, wanted {noted}, as the build noted: delete it and {self.folder.path / SHARDS}, "
                "and run the build again, which makes them anew"
            )
        if noted != own:
            self.folder.note(codec=own, **{SHARDS: None})
        return fitted

    def _run(self, task: Task, shards: list[int], doing: str) -> int:
        """Have a task done, and give how many rows that were."""
        sizes = self.sizes
        rows = sum(sizes[shard] for shard in shards)
        with tqdm(total=rows, desc=doing, unit="passage", disable=not self._progress or not shards) as bar:
            for shard in self._runner.run(task, shards) if shards else ():
                bar.update(sizes[shard])
        return rows

    def _finish(self, fitted: Fitted, made: Sequence[int]) -> None:
        """Compare what all shards tell with what was noted, and note it; their content is looked at when they are loaded.

        What this run has made stands for itself: another machine may have rounded otherwise.
        """
        noted, new, found = (self.folder.manifest() or {}).get(SHARDS), set(made), []
        for shard, size in enumerate(self.sizes):
            path, stamp = self.folder.file(SHARDS, shard), fitted.stamp(self.folder, shard)
            rows, checksum = stamped(path, stamp)
            told = {"rows": rows, "checksum": checksum}
            if rows != size:
                raise damaged(path, stamp, f"it has {rows} rows instead of {size}")
            if noted is not None and shard not in new and told not in noted[shard : shard + 1]:
                raise damaged(path, stamp, "its checksum is not the one that the build noted")
            found.append(told)
        self.folder.note(**{SHARDS: found})
        self.folder.sweep()
