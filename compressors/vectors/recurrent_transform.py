"""The arithmetic of :class:`~rarebit.compressors.vectors.recurrent_binary.RecurrentBinary`: its maps, and what they start as.

A state is the arrays that the codec saves; maps are named by it, such as ``encode.linear`` and ``encode.bias``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Vectors
from rarebit.compressors.vectors.codec import Arrays

Floats: TypeAlias = npt.NDArray[np.float32]

BEST_SPREAD = {1: 1.0, 2: 1.0, 3: 0.85, 4: 0.75}
"""Standard deviation of normal numbers that the grid of so many bits fits best; 0.65 for more bits."""

ITQ_ROUNDS = 20


def transform_inputs(vectors: Floats, state: Mapping[str, Any]) -> Floats:
    """Centre vectors; then all to length 1 where codes hold a factor, or else by the usual length."""
    inner = vectors @ state["map"] if "map" in state else vectors
    centred: Floats = inner - state["offset"]
    lengths = np.linalg.norm(centred, axis=1, keepdims=True) if state["scaled"][0] else state["length"]
    inputs: Floats = (centred / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return inputs


def linear(inputs: Floats, state: Arrays, name: str) -> Floats:
    """Apply the linear part of a map."""
    outputs: Floats = inputs @ state[f"{name}.linear"] + state[f"{name}.bias"]
    return outputs


def branch(inputs: Floats, state: Arrays, name: str) -> Floats:
    """Apply the other part of a map, of two layers."""
    hidden = inputs @ state[f"{name}.first"] + state[f"{name}.first_bias"]
    outputs: Floats = np.maximum(hidden, np.float32(0)) @ state[f"{name}.second"]
    return outputs


def start_of(sample: Vectors, out_dim: int, bits: int, rng: np.random.Generator) -> Arrays:
    """Rotate the principal axes, so that every dimension has an equal share, and spread each as the grid wants it."""
    mean = sample.mean(axis=0, dtype=np.float64)
    centred = sample - mean
    length = max(float(np.sqrt((centred * centred).sum(axis=1).mean())), 1e-12)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :out_dim]
    rotation = np.linalg.qr(rng.standard_normal((max(out_dim, axes.shape[1]), axes.shape[1])))[0]
    if bits == 1 and out_dim <= len(axes):
        rotation = _matched(centred @ axes, rotation)
    linear = axes @ rotation.T
    spread = (centred / length @ linear).std(axis=0)
    linear *= BEST_SPREAD.get(bits, 0.65) / np.where(spread > 1e-7, spread, 1.0)
    state = {"offset": mean, "mean": mean, "length": np.array([length]), "slope": np.ones(1), "encode.linear": linear}
    state["encode.bias"] = np.zeros(out_dim)
    return {name: array.astype(np.float32) for name, array in state.items()}


def _matched(projected: npt.NDArray[np.float64], rotation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn a rotation so that signs are nearest to what they stand for: ITQ, by Gong and Lazebnik (CVPR 2011)."""
    for _ in range(ITQ_ROUNDS):
        left, _, right = np.linalg.svd(np.sign(projected @ rotation.T).T @ projected)
        rotation = left @ right
    return rotation


def weighted(signs: npt.NDArray[np.bool_], bits: int) -> Floats:
    """Turn (n, bits * out_dim) signs into (n, out_dim) grid values."""
    levels = signs.reshape(len(signs), bits, -1)
    values = np.zeros((len(signs), levels.shape[2]), np.float32)
    for level in range(bits):
        values += np.where(levels[:, level], np.float32(2.0**-level), np.float32(-(2.0**-level)))
    return values


def regressed(inputs: Floats, wanted: Floats) -> Floats:
    """Give the linear map of least squares, with a ridge so that it always exists."""
    given = inputs.astype(np.float64)
    gram = given.T @ given
    ridge = max(1e-3 * float(np.trace(gram)) / len(gram), 1e-12)
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), given.T @ wanted).astype(np.float32)
