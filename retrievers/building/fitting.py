"""Learning the codec on a sample of all rows, as a collection does that has all of them when it is trained."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from tqdm.auto import tqdm

from rarebit.arrays import Vectors, normalized
from rarebit.compressors.vectors import SearchableCodec, restore_codec
from rarebit.compressors.vectors.exact import Exact
from rarebit.compressors.vectors.fine_tier import FineTier
from rarebit.errors import CodecError, CodecWarning, DamagedFileError, InputError, MissingExtraError, VectorError
from rarebit.retrievers.building.tables import Stamp, read_table, write_bytes
from rarebit.retrievers.building.work_folder import SHARDS, VECTORS, WorkFolder
from rarebit.retrievers.collection.settings import EmbeddingFingerprint, Settings
from rarebit.retrievers.collection.training import SAMPLE_ROWS, check_unlike, learned
from rarebit.threads import so_many_threads

CODEC: Final = "codec.json"
ARRAYS: Final = "codec.safetensors"


@dataclass(frozen=True)
class Fitted:
    """The settings of the collection, with what was chosen, and the codec of its codes."""

    settings: Settings
    codec: SearchableCodec

    @cached_property
    def tier(self) -> FineTier | None:
        """The fine tier; None where there is none, or codes are exact."""
        return FineTier.beside(self.codec, str(self.settings.fine))

    @cached_property
    def digest(self) -> str:
        """Tell codecs apart: 32 hexadecimal digits."""
        told = blake2b(json.dumps([self.codec.name, self.codec.config]).encode(), digest_size=16)
        told.update(self.codec.learned())
        return told.hexdigest()

    def stamp(self, folder: WorkFolder, shard: int) -> Stamp:
        """Say what the file of a finished shard is: codes of this codec."""
        return replace(folder.stamp(SHARDS, shard), codec=self.digest)

    def save(self, folder: WorkFolder) -> None:
        """Write both; the description comes last, so that where it is, the rest is too."""
        arrays = self.codec.learned()
        described = {
            "build": folder.build,
            "name": self.codec.name,
            "config": self.codec.config,
            "dim": self.codec.dim,
            "settings": asdict(self.settings),
            "arrays": blake2b(arrays, digest_size=16).hexdigest(),
        }
        write_bytes(folder.path / ARRAYS, arrays)
        write_bytes(folder.path / CODEC, json.dumps(described, indent=1).encode())

    @classmethod
    def load(cls, folder: WorkFolder) -> Fitted:
        """Read both.

        Raises:
            DamagedFileError: they are not what was written, or of another build.
        """
        path = folder.path / CODEC
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            arrays = (folder.path / ARRAYS).read_bytes()
            if described["build"] != folder.build or described["arrays"] != blake2b(arrays, digest_size=16).hexdigest():
                raise ValueError("it belongs to another build, or has another checksum")  # noqa: TRY301
            named = {**described["settings"], "fingerprint": EmbeddingFingerprint(**described["settings"]["fingerprint"])}
            restored = restore_codec(described["name"], dim=described["dim"], config=described["config"], learned=arrays)
            if not isinstance(restored, SearchableCodec):
                raise TypeError(f"the codec {described['name']!r} cannot be searched")  # noqa: TRY301
            return cls(Settings(**named), restored)
        except (OSError, SafetensorError, InputError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{path} cannot be used as the codec of this build ({error}): delete it and {folder.path / SHARDS}, and run "
                "the build again, which makes them anew"
            ) from error


def fit(folder: WorkFolder, wanted: Settings, shards: list[int], *, progress: bool) -> Fitted:
    """Learn the codec from the sample, or leave the vectors as they are where there are too few rows for any.

    Args:
        folder: with the vectors of all shards.
        wanted: settings of the collection.
        shards: how many rows each shard has.
        progress: show progress bars.

    Raises:
        DamagedFileError: vectors are not what was written.
        DimensionError: not all have the same dimension.
    """
    count = sum(shards)
    sample = _sample(folder, shards, places_of_sample(count), progress=progress)
    settings = replace(wanted, dim=sample.shape[1])
    new = settings.new_codec()
    untrained = Exact().with_dim(sample.shape[1]) if new.training_minimum else new.with_dim(sample.shape[1])
    if not new.training_minimum or count < (settings.training_minimum or new.training_minimum):
        return Fitted(settings, untrained)
    try:
        prepared = normalized(sample) if settings.metric == "cosine" else sample
        check_unlike(prepared, settings)
        with so_many_threads(1):
            return Fitted(*learned(prepared, settings, count, progress=progress))
    except (CodecError, MissingExtraError, VectorError) as error:
        warnings.warn(
            f"the codec {settings.codec!r} cannot be learned from these rows ({error}). They are kept as they are: choose "
            "another codec, or recompress the collection with one",
            CodecWarning,
            stacklevel=3,
        )
        return Fitted(settings, untrained)


def places_of_sample(count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Draw rows to learn from, in their order: those that a collection with so many rows draws."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:SAMPLE_ROWS])


def by_shard(places: npt.NDArray[np.int64], shards: list[int]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Give the shards that have some of the rows, and which of theirs those are."""
    ends = np.cumsum(shards)
    for shard, (end, size) in enumerate(zip(ends, shards, strict=True)):
        own = places[np.searchsorted(places, end - size) : np.searchsorted(places, end)] - (end - size)
        if len(own):
            yield shard, own


def _sample(folder: WorkFolder, shards: list[int], places: npt.NDArray[np.int64], *, progress: bool) -> Vectors:
    found: list[Any] = []
    for shard, own in tqdm(list(by_shard(places, shards)), desc="sampling", unit="shard", disable=not progress):
        columns, _ = read_table(folder.file(VECTORS, shard), folder.stamp(VECTORS, shard))
        found.append(columns["vector"][own])
        if found[-1].shape[1] != found[0].shape[1]:
            raise VectorError(
                f"shard {shard} has vectors of dimension {found[-1].shape[1]}, wanted {found[0].shape[1]} as the first: embed "
                "all with one model, in another folder"
            )
    vectors: Vectors = np.concatenate(found)
    return vectors
