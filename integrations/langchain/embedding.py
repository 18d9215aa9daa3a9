"""Texts through a LangChain embedding model, batch by batch, without or with ``await``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings
from tqdm.auto import tqdm

from rarebit.arrays import Vectors, as_vectors
from rarebit.errors import DimensionError, InputError


def embed(model: Embeddings, texts: Sequence[str], dim: int | None, batch_size: int, *, progress: bool) -> Vectors:
    """Embed texts.

    Args:
        model: gives one vector a text.
        texts: n passages.
        dim: the dimension wanted; None accepts any. A model of another one is found out after the first batch.
        batch_size: texts handed to the model at once.
        progress: show a progress bar.

    Returns:
        (n, dim) float32.

    Raises:
        VectorError, DimensionError: what the model gave cannot be used.
    """
    return _stacked(
        [as_vectors(model.embed_documents(part), dim=dim) for part in _batches(texts, batch_size, progress=progress)]
    )


async def aembed(model: Embeddings, texts: Sequence[str], dim: int | None, batch_size: int, *, progress: bool) -> Vectors:
    """Embed texts with the model's own asynchronous method; everything else as in :func:`embed`."""
    return _stacked(
        [as_vectors(await model.aembed_documents(part), dim=dim) for part in _batches(texts, batch_size, progress=progress)]
    )


def _batches(texts: Sequence[str], size: int, *, progress: bool) -> Iterator[list[str]]:
    if size < 1:
        raise InputError(f"got batch_size={size!r}, wanted a number of texts, at least 1")
    with tqdm(total=len(texts), desc="embedding", unit="text", disable=not progress) as bar:
        for start in range(0, len(texts), size):
            part = list(texts[start : start + size])
            yield part
            bar.update(len(part))


def _stacked(parts: Sequence[npt.NDArray[np.float32]]) -> Vectors:
    if not parts:
        return np.empty((0, 0), np.float32)
    dims = {part.shape[1] for part in parts}
    if len(dims) > 1:
        raise DimensionError(f"the model gave vectors of the dimensions {sorted(dims)}, wanted one: look at its settings")
    return np.concatenate(parts)
