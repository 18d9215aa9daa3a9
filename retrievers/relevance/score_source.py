"""Where scores come from: an adapter is calibrated on the scores of one source, and refuses those of another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from rarebit.compressors.vectors.fine_tier import NO_FINE
from rarebit.errors import CalibrationError
from rarebit.retrievers.collection import EmbeddingFingerprint
from rarebit.retrievers.engines import AnyRows

FULL = ("float32", "float16")
"""Codecs whose scores are those of the vectors themselves, to a thousandth."""


NO_FINGERPRINT: Final = EmbeddingFingerprint()


@dataclass(frozen=True)
class ScoreSource:
    """What must agree for two sets of scores to mean the same. A part that is None is unknown, and agrees with everything.

    Args:
        fingerprint: of the embedding model.
        metric: ``"cosine"`` or ``"inner_product"``.
        estimated_by: the codec from whose codes scores are estimated, ``""`` for scores of the vectors themselves or of fine
            vectors, which are the same to a thousandth.
    """

    fingerprint: EmbeddingFingerprint = NO_FINGERPRINT
    metric: str | None = None
    estimated_by: str | None = None

    @classmethod
    def of(cls, rows: AnyRows) -> ScoreSource:
        """Name the source that a collection's searches are."""
        settings = rows.settings
        exact = settings.fine != NO_FINE or settings.codec in FULL
        return cls(settings.fingerprint, settings.metric, "" if exact else settings.codec)

    def check(self, other: ScoreSource) -> None:
        """Raise CalibrationError if another source's scores mean something else."""
        differences = self.fingerprint.differences(other.fingerprint)
        for name, spoken in (("metric", "metric"), ("estimated_by", "estimated by")):
            own, theirs = getattr(self, name), getattr(other, name)
            if None not in (own, theirs) and own != theirs:
                differences.append(f"{spoken}: {theirs or 'nothing'!r} instead of {own or 'nothing'!r}")
        if differences:
            raise CalibrationError(
                f"got scores of another source than the relevance was calibrated on ({'; '.join(differences)}): "
                "calibrate on the scores of this store, or use the store that it was calibrated on"
            )

    def completed(self, other: ScoreSource) -> ScoreSource:
        """Fill in what is unknown here from another source."""
        return ScoreSource(
            self.fingerprint.completed(other.fingerprint),
            other.metric if self.metric is None else self.metric,
            other.estimated_by if self.estimated_by is None else self.estimated_by,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> ScoreSource:
        """Read what :meth:`to_dict` gave."""
        return cls(**{**given, "fingerprint": EmbeddingFingerprint(**given["fingerprint"])})


UNKNOWN: Final = ScoreSource()
"""Agrees with every source."""
