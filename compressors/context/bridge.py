"""The modality bridge: from the vector that a store holds of a passage to input embeddings of a language model.

``Linear -> GELU -> Linear``, as published (xRAG, arXiv 2405.13792). The language model stays as it is; the bridge is the only
part that is trained. A bridge is made for one embedding model and one language model, and knows their names.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError

from rarebit.errors import DimensionError, InputError

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "modality_bridge.safetensors"

SHIPPED: Final = Path(__file__).parent / "shipped"

MOST_TOKENS: Final = 64


@dataclass(frozen=True)
class BridgeConfig:
    """The shape of a bridge, and what it was trained with.

    Args:
        dim: of the vectors.
        width: of the language model's input embeddings.
        tokens: how many input embeddings a vector becomes.
        hidden: width of the hidden layer; ``width`` if left out.
        input_length: the length that each vector is scaled to before anything else, so that a store that keeps vectors at
            length 1 feeds what the bridge was trained on; None takes vectors as they are, lengths and all.
        embedding_model: name of the model that made the vectors; None if unknown.
        language_model: name of the model that reads the tokens; None if unknown.
    """

    dim: int
    width: int
    tokens: int = 1
    hidden: int | None = None
    input_length: float | None = None
    embedding_model: str | None = None
    language_model: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: a number that is none or out of range.
        """
        counts = {
            "dim": self.dim,
            "width": self.width,
            "tokens": self.tokens,
            "hidden": self.width if self.hidden is None else self.hidden,
        }
        for name, given in counts.items():
            if not isinstance(given, int) or isinstance(given, bool) or given < 1:
                raise InputError(f"got {name}={given!r}, wanted a whole number from 1 on")
        if self.tokens > MOST_TOKENS:
            raise InputError(f"got tokens={self.tokens}, wanted at most {MOST_TOKENS} for a vector")
        length = self.input_length
        if length is not None and not (isinstance(length, int | float) and math.isfinite(length) and length > 0):
            raise InputError(f"got input_length={length!r}, wanted a length above 0, or None to take vectors as they are")


class ModalityBridge(torch.nn.Module):
    """Turns vectors into input embeddings of a language model.

    Args:
        config: the shape, and what the bridge is for.
    """

    def __init__(self, config: BridgeConfig) -> None:
        """Begin with random weights, those of :class:`torch.nn.Linear`."""
        super().__init__()
        self.config = config
        hidden = config.hidden or config.width
        self.first = torch.nn.Linear(config.dim, hidden)
        self.last = torch.nn.Linear(hidden, config.tokens * config.width)

    def forward(self, vectors: Float[torch.Tensor, "n dim"]) -> Float[torch.Tensor, "n tokens width"]:
        """Project vectors.

        Args:
            vectors: (n, dim) of any float dtype; the bridge computes in that of its weights.

        Returns:
            (n, tokens, width) in the dtype of the bridge's weights.

        Raises:
            DimensionError: vectors of another dimension.
        """
        if vectors.shape[-1] != self.config.dim:
            raise DimensionError(
                f"got vectors of dimension {vectors.shape[-1]}, wanted {self.config.dim}, which the bridge was trained on: "
                "take the store that its embedding model filled, or train a bridge for this one"
            )
        projected: torch.Tensor = self.last(self.hidden(vectors))
        return projected.view(-1, self.config.tokens, self.config.width)

    def hidden(self, vectors: Float[torch.Tensor, "n dim"]) -> Float[torch.Tensor, "n hidden"]:
        """Give what the hidden layer makes of vectors."""
        taken = vectors.to(self.first.weight)
        if self.config.input_length is not None:
            taken = torch.nn.functional.normalize(taken, dim=-1) * self.config.input_length
        return torch.nn.functional.gelu(self.first(taken))

    @property
    def fingerprint(self) -> str:
        """A short hash of weights and shape, in hexadecimal: two bridges that do the same have the same one."""
        parts = [json.dumps([self.config.tokens, self.config.input_length]).encode()]
        parts += [name.encode() + weight.float().cpu().numpy().tobytes() for name, weight in sorted(self.state_dict().items())]
        return sha256(b"".join(parts)).hexdigest()[:8]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``modality_bridge.safetensors`` into a folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG_FILE).write_text(json.dumps(vars(self.config), indent=2) + "\n", encoding="utf-8")
        weights = {name: weight.contiguous() for name, weight in self.state_dict().items()}
        safetensors.torch.save_file(weights, path / WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> ModalityBridge:
        """Load what :meth:`save_pretrained` wrote; a published checkpoint, by :func:`.checkpoints.bridge_of_checkpoint`.

        Raises:
            InputError: the folder holds no bridge, or a damaged one.
        """
        path = Path(folder)
        try:
            config = BridgeConfig(**json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")))
            return cls.of_weights(config, safetensors.torch.load_file(path / WEIGHTS_FILE))
        except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
            raise InputError(
                f"got {path}, wanted a folder with {CONFIG_FILE} and {WEIGHTS_FILE} of a modality bridge ({error}): check the "
                "path, or save the bridge again"
            ) from error

    @classmethod
    def shipped(cls) -> ModalityBridge:
        """Give the bridge that comes with Rarebit, from all-MiniLM-L6-v2 (384) to SmolLM2-135M-Instruct (576), one token each.

        The command that trained it is ``python -m rarebit.cookbook.train_bridge``.
        """
        return cls.from_pretrained(SHIPPED)

    @classmethod
    def of_weights(cls, config: BridgeConfig, weights: dict[str, torch.Tensor]) -> ModalityBridge:
        """Make a bridge of its weights.

        Raises:
            InputError: one is missing, too many, or of another shape.
        """
        with torch.device("meta"):
            bridge = cls(config)
        wanted = {name: tuple(weight.shape) for name, weight in bridge.state_dict().items()}
        found = {name: tuple(weight.shape) for name, weight in weights.items()}
        if wanted != found:
            raise InputError(f"got weights {found}, wanted {wanted}")
        bridge.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
        return bridge.requires_grad_(requires_grad=False).eval()

    def extra_repr(self) -> str:
        """Name the shape, and what the bridge is for."""
        return str(self.config)
