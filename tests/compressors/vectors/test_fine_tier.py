"""The finer tier: what it adds to the code, and that scores can be added up from both."""

from __future__ import annotations

import numpy as np
import pytest
from support.vectors import clustered

from rarebit.compressors.vectors import SearchableCodec, codec_named
from rarebit.compressors.vectors.fine_tier import TIERS, FineTier

SPELLINGS = (
    "trellis8",
    "variance8",
    "pq8",
    "pq8x8",
    "sq4",
    "pca16,sq8",
    "rotation,pq8",
    "matryoshka32,sq8",
    "rabitq",
    "float16",
)
NOT_AS_DECODED = {"matryoshka32,sq8", "rabitq"}


def fitted(spelling: str, vectors: np.ndarray) -> SearchableCodec:
    codec = codec_named(spelling).fit(vectors)
    assert isinstance(codec, SearchableCodec)
    return codec


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(2000)


@pytest.fixture(scope="module", params=SPELLINGS)
def codec(request: pytest.FixtureRequest, vectors: np.ndarray) -> SearchableCodec:
    return fitted(request.param, vectors)


@pytest.mark.parametrize("name", TIERS)
def test_decoded_it_is_near_the_vectors(codec: SearchableCodec, name: str, vectors: np.ndarray) -> None:
    tier, codes = FineTier(name, codec), codec.encode(vectors)
    kept = tier.encode(vectors, codes)
    assert kept.shape == (len(vectors), tier.code_size)
    largest = {"int4": 0.2, "residual4": 0.2, "int8": 0.015, "residual8": 0.015, "float16": 1e-3, "float32": 0.0}
    assert np.linalg.norm(tier.decode(kept, codes) - vectors, axis=1).max() <= largest[name]


@pytest.mark.parametrize(("residual", "whole"), [("residual8", "int8"), ("residual4", "int4")])
def test_a_residual_is_finer_than_the_vector_in_the_same_bytes(residual: str, whole: str, vectors: np.ndarray) -> None:
    codec = fitted("trellis8", vectors)
    codes, errors = codec.encode(vectors), []
    for name in (residual, whole):
        tier = FineTier(name, codec)
        errors.append(np.linalg.norm(tier.decode(tier.encode(vectors, codes), codes) - vectors, axis=1).mean())
        assert tier.code_size == FineTier(whole, codec).code_size
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_scores_of_code_and_residual_add_up(spelling: str, vectors: np.ndarray) -> None:
    codec, queries = fitted(spelling, vectors), clustered(20, seed=1)
    tier, codes = FineTier("residual8", codec), codec.encode(vectors)
    assert tier.adds_to_scores == (spelling not in NOT_AS_DECODED)
    kept = tier.encode(vectors, codes)
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 50)
    added = scores + np.take_along_axis(queries @ tier.part(kept).T, places, axis=1)
    decoded = np.take_along_axis(queries @ tier.decode(kept, codes).T, places, axis=1)
    assert np.allclose(added, decoded, atol=1e-5) == tier.adds_to_scores


def test_whole_vectors_have_scores_of_their_own(vectors: np.ndarray) -> None:
    codec = fitted("trellis8", vectors)
    assert not FineTier("int8", codec).adds_to_scores
    assert not FineTier("float32", codec).adds_to_scores


def test_beside_what_loses_nothing_there_is_none(vectors: np.ndarray) -> None:
    assert FineTier.beside(fitted("float32", vectors), "residual8") is None
    assert FineTier.beside(fitted("sq4", vectors), "none") is None


def test_zero_and_repeated_and_long_vectors(vectors: np.ndarray) -> None:
    codec = fitted("trellis8", vectors)
    odd = np.stack([np.zeros(64, np.float32), vectors[0], vectors[0], 1e6 * vectors[1], -vectors[2]])
    codes = codec.encode(odd)
    tier = FineTier("residual8", codec)
    decoded = tier.decode(tier.encode(odd, codes), codes)
    assert np.array_equal(decoded[1], decoded[2])
    lengths = np.linalg.norm(odd, axis=1)
    assert (np.linalg.norm(decoded - odd, axis=1) <= 0.02 * np.maximum(lengths, 1)).all()
