"""A transformer over a longer table of absolute positions, which gives short texts the positions that they were trained with.

The table of an encoder that was extended by interpolation or grouping holds the trained rows ``step`` places apart. A text that
fits into the old window takes those, and has the vector that it always had; only a longer one takes the places between them
(LongEmbed, arXiv 2404.12096). Needs torch.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Int64
from sentence_transformers.sentence_transformer.modules import Transformer

PositionIds: TypeAlias = Int64[torch.Tensor, "b n"]

TABLE: Final = "position_embeddings"
"""The name that tables of absolute positions have in transformers."""


def table_of(model: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Embedding] | None:
    """Find the table of absolute positions and the module that holds it; None if there is none."""
    for module in model.modules():
        table = getattr(module, TABLE, None)
        if isinstance(table, torch.nn.Embedding):
            return module, table
    return None


def first_row(table: torch.nn.Embedding) -> int:
    """Say which row is the first token's: RoBERTa and MPNet count from behind the row of padding."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


class SpreadPositions(Transformer):
    """The first module of an encoder that was extended by interpolation or grouping."""

    config_keys: list[str] = [*Transformer.config_keys, "window", "step"]  # noqa: RUF012

    def __init__(self, model_name_or_path: str, *, window: int, step: int, **kwargs: Any) -> None:
        """Load one that was saved; :func:`extend_context` makes one of a transformer that is loaded already."""
        super().__init__(model_name_or_path, **kwargs)
        self.window, self.step = window, step

    def forward(self, features: Any, **kwargs: Any) -> Any:
        """Encode a batch, which is a dict or something like one, with the positions that suit the length of each text."""
        return super().forward(features, **{"position_ids": self.position_ids(features["attention_mask"]), **kwargs})

    def position_ids(self, attention_mask: Int64[torch.Tensor, "b n"]) -> PositionIds:
        """Give each token its row of the table: (b, n), int64."""
        found = table_of(self.auto_model)
        if found is None:
            raise TypeError(f"{type(self.auto_model).__name__} has no table of positions")
        first = first_row(found[1])
        short = attention_mask.sum(dim=1, keepdim=True) <= self.window
        places = (attention_mask.cumsum(dim=1) - 1) * torch.where(short, self.step, 1)
        # Padding takes its own row where the table has one, and any other row where it has none.
        return torch.where(attention_mask > 0, places + first, max(first - 1, 0))
