"""What a collection is made with, and keeps for life; and which embedding model filled it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from rarebit.compressors.vectors import SearchableCodec, codec_named
from rarebit.compressors.vectors.choosing import Choice
from rarebit.compressors.vectors.fine_tier import NO_FINE, TIERS, default_fine
from rarebit.errors import DamagedFileError, FingerprintError, FormatVersionError, InputError, SettingsError
from rarebit.retrievers.collection import checksums
from rarebit.retrievers.collection.arguments import as_count, as_share
from rarebit.retrievers.collection.schema import LEXICAL
from rarebit.retrievers.collection.storage import Connection
from rarebit.retrievers.near_duplicates import NearDuplicateIndex, as_threshold

Metric: TypeAlias = Literal["cosine", "inner_product"]
METRICS = ("cosine", "inner_product")
ROW_ID_BYTES = 8
LEAST_MEMORY = ROW_ID_BYTES + 2
"""The row id, and the smallest code: a byte for its factor and one for its parts."""

FINE = (*TIERS, NO_FINE)
FINER = {"float32": (NO_FINE,), "float16": (NO_FINE, "float32")}
"""The fine tiers that are finer than the codes, the default first; for a codec that is not named, all of them."""


@dataclass(frozen=True)
class EmbeddingFingerprint:
    """What must agree for two sets of vectors to be comparable.

    A part that is None is unknown, and agrees with everything.

    Args:
        name: of the model, without the folder it was loaded from.
        revision: of the model.
        normalized: whether the model gives vectors of length 1.
        prompts: what the model puts before a text, by use ("query", "document").
    """

    name: str | None = None
    revision: str | None = None
    normalized: bool | None = None
    prompts: Mapping[str, str] | None = None

    @classmethod
    def of(cls, given: EmbeddingFingerprint | str | None) -> EmbeddingFingerprint:
        """Accept a fingerprint, a model's name, or nothing known."""
        return given if isinstance(given, cls) else cls(name=given)  # type: ignore[arg-type]

    def differences(self, other: EmbeddingFingerprint) -> list[str]:
        """Name the parts that both know and in which they differ."""
        return [
            f"{field.name}: {theirs!r} instead of {own!r}"
            for field in fields(self)
            if (own := getattr(self, field.name)) is not None
            and (theirs := getattr(other, field.name)) is not None
            and _comparable(own) != _comparable(theirs)
        ]

    def completed(self, other: EmbeddingFingerprint) -> EmbeddingFingerprint:
        """Fill in what is unknown here from another fingerprint."""
        unknown = {field.name: getattr(other, field.name) for field in fields(self) if getattr(self, field.name) is None}
        return replace(self, **unknown)


@dataclass(frozen=True)
class Settings:
    """The settings of a collection; ``dim`` is None until the first vectors come.

    ``choice`` is what was measured where the codec was chosen for ``memory_per_vector`` or ``target_recall``, and
    ``candidates`` how many are re-ranked then. ``trained_rows`` is how many rows there were when the codec was last trained.
    ``near_duplicates`` is the similarity of texts from which a row is skipped; None keeps all.
    """

    metric: Metric = "cosine"
    codec: str = "trellis"
    fine: str | None = None
    memory_per_vector: int | None = None
    target_recall: float | None = None
    candidates: int | None = None
    choice: Mapping[str, Any] | None = None
    trained_rows: int = 0
    tokenizer: str = "porter"
    training_minimum: int | None = None
    near_duplicates: float | None = None
    dim: int | None = None
    fingerprint: EmbeddingFingerprint = EmbeddingFingerprint()

    def __post_init__(self) -> None:
        """Check each setting by itself."""
        _check_choice("metric", self.metric, METRICS)
        codec = self.new_codec()
        _check_choice("tokenizer", self.tokenizer, tuple(LEXICAL))
        finer = FINER.get(self.codec, FINE)
        if self.fine is None:
            default = default_fine(codec)
            object.__setattr__(self, "fine", default if default in finer else finer[0])
        _check_choice(f"codec={self.codec!r} and fine", self.fine, finer)
        for name, least in (("dim", 1), ("training_minimum", 1), ("memory_per_vector", LEAST_MEMORY)):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else as_count(name, given, least=least))
        if self.target_recall is not None:
            object.__setattr__(self, "target_recall", as_share("target_recall", self.target_recall))
        if self.near_duplicates is not None:
            object.__setattr__(self, "near_duplicates", as_threshold(self.near_duplicates, "near_duplicates"))

    @property
    def is_chosen(self) -> bool:
        """Whether the codec is chosen by measuring, at the time of training."""
        return self.memory_per_vector is not None or self.target_recall is not None

    @property
    def code_bytes(self) -> int | None:
        """Bytes of a code within the memory allowed; None where no limit was set."""
        return None if self.memory_per_vector is None else self.memory_per_vector - ROW_ID_BYTES

    @property
    def fines(self) -> tuple[str, ...]:
        """The fine tiers that may be chosen: the one that is set, or finer ones."""
        return (NO_FINE,) if self.fine == NO_FINE else FINE[FINE.index(str(self.fine)) : -1]

    @cached_property
    def near_duplicate_index(self) -> NearDuplicateIndex | None:
        """What keeps and asks the bands of the texts; None where no threshold is set."""
        return None if self.near_duplicates is None else NearDuplicateIndex(self.near_duplicates)

    def chosen(self, choice: Choice) -> Settings:
        """Take over what was chosen."""
        best = choice.chosen
        return replace(self, codec=best.codec, fine=best.fine, candidates=best.candidates, choice=choice.as_dict())

    def new_codec(self) -> SearchableCodec:
        """Create the codec for the codes in memory, unfitted."""
        codec = codec_named(self.codec)
        if not isinstance(codec, SearchableCodec):
            raise InputError(f"got codec={self.codec!r}, which only a fine tier can use, wanted one that can be searched")
        return codec

    @property
    def has_fine_tier(self) -> bool:
        """Whether more is kept than the codes, once they are trained."""
        return self.fine != NO_FINE


CHANGEABLE = ("codec", "fine", "memory_per_vector", "target_recall")
"""Settings that ``recompress`` changes."""


def load(connection: Connection) -> Settings | None:
    """Read the settings of a collection; None if it has just been created."""
    try:
        stored = {
            name: json.loads(_unchanged(name, value, checksum))
            for name, value, checksum in connection.execute("SELECT name, value, checksum FROM settings")
        }
        if not stored:
            return None
        missing = {field.name for field in fields(Settings)}.difference(stored)
        if missing:
            raise KeyError(*missing)  # noqa: TRY301
        fingerprint = EmbeddingFingerprint(**stored.pop("fingerprint"))
        return Settings(**stored, fingerprint=fingerprint)
    except TypeError as error:
        raise FormatVersionError(f"the file has settings that this version does not know ({error}): upgrade rarebit") from error
    except (KeyError, ValueError) as error:
        raise DamagedFileError(f"the settings in the file cannot be read ({error}): restore it from a backup") from error


def save(connection: Connection, settings: Settings) -> None:
    """Write the settings."""
    stored = {name: json.dumps(value) for name, value in asdict(settings).items()}
    connection.executemany(
        "INSERT OR REPLACE INTO settings VALUES (?, ?, ?)",
        ((name, value, checksums.of_parts(name, value)) for name, value in stored.items()),
    )


def reconciled(kept: Settings, asked: Mapping[str, Any], name: str) -> Settings:
    """Check what a user asked for against what the collection has; what was not asked for is None.

    Raises:
        SettingsError: a setting that the collection does not have.
        FingerprintError: another embedding model.
    """
    for setting, wanted in asked.items():
        own = getattr(kept, setting)
        if wanted is None or setting == "fingerprint" or (setting == "dim" and own is None):
            continue
        if setting == "fine" and kept.is_chosen and _is_as_fine(own, wanted):
            continue
        if own != wanted:
            change = "call recompress() to change it" if setting in CHANGEABLE else "make a new collection"
            raise SettingsError(
                f"{name} was made with {setting}={own!r} and cannot be opened with {setting}={wanted!r}: "
                f"leave the setting out, or {change}"
            )
    fingerprint = EmbeddingFingerprint.of(asked.get("fingerprint"))
    differences = kept.fingerprint.differences(fingerprint)
    if differences:
        raise FingerprintError(
            f"{name} was filled by another embedding model ({'; '.join(differences)}), and the vectors of two models cannot be "
            "compared: use the model that filled it, or make a new collection"
        )
    return replace(kept, dim=kept.dim or asked.get("dim"), fingerprint=kept.fingerprint.completed(fingerprint))


def check_one_way(codec: str | None, memory_per_vector: int | None, target_recall: float | None) -> None:
    """Raise InputError for a codec together with what to choose one by."""
    if codec is not None and (memory_per_vector is not None or target_recall is not None):
        raise InputError(
            f"got codec={codec!r} together with memory_per_vector or target_recall, wanted one or the other: a codec, "
            "or what to choose it by"
        )


def _unchanged(name: str, value: str, checksum: int) -> str:
    if checksums.of_parts(name, value) != checksum:
        raise ValueError(f"that of {name!r} is not what was stored")
    return value


def _is_as_fine(own: str, wanted: str) -> bool:
    """Whether a chosen fine tier is what was asked for or finer; codes that are chosen without one are finer themselves."""
    return own == wanted or (wanted != NO_FINE and FINE.index(own) > FINE.index(wanted))


def _comparable(part: Any) -> Any:
    """One model has many names: with and without its owner or folder, in any case, with the tag that means the newest."""
    return part.rstrip("/").rpartition("/")[2].casefold().removesuffix(":latest") if isinstance(part, str) else part


def _check_choice(name: str, given: Any, wanted: tuple[str, ...]) -> None:
    if given not in wanted:
        raise InputError(f"got {name}={given!r}, wanted one of {list(wanted)}")
