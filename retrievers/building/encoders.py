"""What embeds passages: a model of sentence-transformers, or anything else that can be sent to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np

from rarebit.arrays import Vectors
from rarebit.encoders import DEFAULT_ENCODER, load_encoder
from rarebit.errors import InputError
from rarebit.extras import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_TEXTS: Final = 32


@runtime_checkable
class Encoder(Protocol):
    """Embeds texts; the same texts always become the same vectors."""

    @property
    def name(self) -> str | None:
        """What the collection keeps as the name of its model."""
        ...

    @property
    def device(self) -> str:
        """Where it computes: ``"cpu"``, ``"cuda"``, ``"mps"``."""
        ...

    def described(self) -> dict[str, Any]:
        """Give everything that its vectors depend on, as JSON."""
        ...

    def prepare(self) -> None:
        """Load the model, once; raises RarebitError where that cannot be."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed n texts: (n, dim) float32."""
        ...


def usual_device() -> str:
    """Name the device that sentence-transformers would take here.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
    """
    require("sentence_transformers", "models")
    from sentence_transformers.util import get_device_name

    return str(get_device_name())


@dataclass
class SentenceEncoder:
    """A model of sentence-transformers, by name, hub id or folder.

    Args:
        name: as :func:`rarebit.encoders.load_encoder` takes it.
        device: torch's name of it.
        batch_texts: texts that the model is given at once.
    """

    name: str = DEFAULT_ENCODER
    device: str = "cpu"
    batch_texts: int = BATCH_TEXTS
    _model: SentenceTransformer | None = None

    def described(self) -> dict[str, Any]:
        """As :class:`Encoder` says."""
        return {"model": self.name, "device": self.device, "batch_texts": self.batch_texts}

    def prepare(self) -> None:
        """Load the model.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            InputError: there is no such model, or no such device.
        """
        if self._model is not None:
            return
        model = load_encoder(self.name)
        try:
            self._model = model.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            reason = " ".join(str(error).split())
            raise InputError(f"got device={self.device!r}, which torch cannot use ({reason}): 'cpu' is always there") from error

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As :class:`Encoder` says; longest first inside, as sentence-transformers does."""
        self.prepare()
        assert self._model is not None  # noqa: S101 -- it is loaded
        found = self._model.encode(list(texts), batch_size=self.batch_texts, show_progress_bar=False)
        vectors: Vectors = np.ascontiguousarray(found, dtype=np.float32)
        return vectors

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model behind: whoever gets this loads it."""
        return {**self.__dict__, "_model": None}
