"""SelfExtend: near tokens are seen at their own distance, far ones at the distance of their group (arXiv 2401.01325).

So no distance is larger than those that the model was trained with. What transformers hands to an attention function is rotated
to its position already, and rotations add up: queries and keys are rotated on, from their positions to those of their groups.
In a text that fits into the trained window all distances are kept. Encoders look in both directions, so what comes behind a
token is grouped as what comes before it. Needs torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import torch
from jaxtyping import Float, Float64, Int64
from sentence_transformers.sentence_transformer.modules import Transformer
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME: Final = "rarebit_self_extend"
"""Of the attention function, among those of transformers."""

SETTINGS: Final = "self_extend"
"""Where the model's configuration keeps what the attention function has to know."""

SUPPORTED: Final = ("eurobert", "gte", "llama", "mistral", "modernbert", "nomic_bert", "qwen2", "qwen3")
"""Types of models that rotate the halves of a head against each other and call attention functions by name."""

BLOCK: Final = 256
"""Queries that are scored at once, so that memory does not grow with the square of a text's length."""

Heads: TypeAlias = Float[torch.Tensor, "b heads n width"]
KeyHeads: TypeAlias = Float[torch.Tensor, "b key_heads n width"]
Positions: TypeAlias = Int64[torch.Tensor, "b n"]
Frequencies: TypeAlias = Float64[torch.Tensor, "half"]
"""The angle of one position, for each pair of a head's numbers."""


@dataclass(frozen=True)
class Grouping:
    """Which distances are kept, and how the others are mapped into the trained window."""

    trained: int
    """Positions that the model was trained with."""
    group: int
    """Tokens beyond the neighbours that share a position."""
    neighbours: int
    """Tokens nearer than this are seen at their own distance."""

    @classmethod
    def for_length(cls, trained: int, length: int) -> Grouping:
        """Choose as LongEmbed did: ``s + 1`` tokens a group for a window ``s`` times as long, all neighbours that still fit."""
        group = -(-length // trained) + 1
        fitting = (near for near in range(trained, 0, -1) if (length - 1) // group + near - near // group < trained)
        return cls(trained, group, next(fitting, 0))

    @property
    def shift(self) -> int:
        """Positions by which groups are moved away, so that they begin where the neighbours end."""
        return self.neighbours - self.neighbours // self.group


class SelfExtended(Transformer):
    """The first module of an encoder that was extended by SelfExtend: it loads with the attention that it was saved with."""

    def __init__(self, model_name_or_path: str, **kwargs: Any) -> None:
        """Load one that was saved; :func:`extend_context` makes one of a transformer that is loaded already."""
        super().__init__(model_name_or_path, **kwargs)
        self.auto_model.set_attn_implementation(NAME)

    def group(self, grouping: Grouping) -> None:
        """Attend by groups from now on."""
        setattr(self.auto_model.config, SETTINGS, asdict(grouping))
        self.auto_model.set_attn_implementation(NAME)


def attend(  # noqa: PLR0917
    module: torch.nn.Module,
    query: Heads,
    key: KeyHeads,
    value: KeyHeads,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to a batch of texts: (b, n, heads, width), in the form that transformers asks of an attention function."""
    config: Any = module.config
    grouping = Grouping(**getattr(config, SETTINGS))
    count = key.shape[2]
    there = key.new_ones(len(key), count, dtype=torch.bool) if attention_mask is None else attention_mask[:, 0, -1]
    long = there.sum(dim=1) > grouping.trained
    # A layer that looks no farther than its sliding window never meets an untrained distance.
    if sliding_window is not None or not long.any():
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **others
        )
    # Counted from a text's own first token, so that a text's vector does not depend on what it is padded to.
    positions = torch.arange(count, device=key.device) - there.int().argmax(dim=1, keepdim=True)
    groups = positions // grouping.group
    frequencies = _frequencies(config, query.shape[3], query.device)
    far_key = _rotated(key, groups - positions, frequencies)
    before, after = (_rotated(query, groups + side * grouping.shift - positions, frequencies) for side in (1, -1))
    repeats = query.shape[1] // key.shape[1]
    key, far_key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, far_key, value))
    found = torch.empty_like(query)
    for start in range(0, count, BLOCK):
        asking = slice(start, start + BLOCK)
        distances = (positions[:, asking, None] - positions[:, None, :])[:, None]
        near = (distances.abs() < grouping.neighbours) | ~long[:, None, None, None]
        far = torch.where(distances > 0, before[:, :, asking] @ far_key.mT, after[:, :, asking] @ far_key.mT)
        scores = torch.where(near, query[:, :, asking] @ key.mT, far) * (scaling or query.shape[3] ** -0.5)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask[:, :, asking], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        found[:, :, asking] = torch.nn.functional.dropout(weights, dropout, training=module.training) @ value
    return found.transpose(1, 2).contiguous(), None


def _rotated(states: KeyHeads, by: Positions, frequencies: Frequencies) -> KeyHeads:
    """Rotate queries or keys by some positions more."""
    angles = (by[:, None, :, None] * frequencies).to(torch.float32)
    first, second = states.float().chunk(2, dim=-1)
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1).to(states.dtype)


def _frequencies(config: Any, width: int, device: torch.device) -> Frequencies:
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=device) / -width
    return torch.pow(rope["rope_theta"], exponents)


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Make the mask that sdpa has, and make it also where sdpa would do without because attention is causal."""
    mask: torch.Tensor | None = sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
    return mask


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
