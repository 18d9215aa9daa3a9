"""A language model's input embeddings as its module gives them: some models, such as Gemma, scale what the weight holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float

Embedding: TypeAlias = Float[torch.Tensor, "width"]
Embeddings: TypeAlias = Float[torch.Tensor, "n width"]

ROWS: Final = 4096
"""How many are taken at a time where all are, so that of a big vocabulary there is no second copy."""


def embeddings_of(table: Any, ids: Sequence[int]) -> Embeddings:
    """Give the embeddings of tokens, in float32 and without gradients.

    Args:
        table: a module that takes token ids.
        ids: n tokens.
    """
    with torch.no_grad():
        given: torch.Tensor = table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))
    return given.float()


def usual_length(table: Any) -> float:
    """Give the median length of all embeddings."""
    return float(torch.cat([rows.norm(dim=-1) for rows in _all(table)]).median())


def _all(table: Any) -> Iterator[Embeddings]:
    count = len(table.weight)
    for start in range(0, count, ROWS):
        yield embeddings_of(table, range(start, min(start + ROWS, count)))
