"""What a bridge is trained with: passages with their vectors, and questions about some of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Any

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import InputError


@dataclass(frozen=True)
class Reading:
    """A question about passages.

    Args:
        question: as people ask it.
        answer: in few words or sentences.
        passages: places of passages that answer it, at least one, the best first.
        others: places of passages that do not, such as what a search finds beside them.
    """

    question: str
    answer: str
    passages: tuple[int, ...]
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Lessons:
    """Passages, the vectors that a store holds of them, and what is asked about them.

    Args:
        texts: n passages.
        vectors: (n, dim) numbers of the embedding model that the bridge is for, as its store gives them; kept as float32.
        readings: questions; none trains paraphrases alone.

    Raises:
        InputError: and its kinds, for no passages, another number of vectors, or a place where no passage is.
    """

    texts: Sequence[str]
    vectors: Any
    readings: Sequence[Reading] = ()

    def __post_init__(self) -> None:
        """Check that texts, vectors and places go together."""
        matrix: Vectors = as_vectors(self.vectors)
        object.__setattr__(self, "vectors", matrix)
        count = len(matrix)
        if not count or count != len(self.texts):
            raise InputError(f"got {len(self.texts)} passages and {count} vectors, wanted as many of each, and at least one")
        for reading in self.readings:
            wrong = [place for place in (*reading.passages, *reading.others) if not 0 <= place < count]
            if wrong or not reading.passages or not reading.answer.strip():
                raise InputError(
                    f"got {reading!r}, wanted an answer, and passages that answer by their places, 0 to {count - 1}"
                )

    @property
    def digest(self) -> str:
        """A short hash of everything, in hexadecimal."""
        parts = json.dumps([list(self.texts), [astuple(reading) for reading in self.readings]]).encode()
        return sha256(parts + self.vectors.tobytes()).hexdigest()[:16]

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.vectors.shape[1])
