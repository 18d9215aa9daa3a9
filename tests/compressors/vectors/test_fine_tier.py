"""The finer tier: what it adds to the code, and that scores can be added up from both."""

from __future__ import annotations

import numpy as np
import pytest
from support.vectors import clustered

from rarebit.compressors.vectors import SearchableCodec, choose, codec_named
from rarebit.compressors.vectors.fine_tier import TIERS, FineTier
from rarebit.errors import InputError

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
WITH_TORCH = ("distilled8", "ranked8", "ranked8x8", "recurrent8x2")


def fitted(spelling: str, vectors: np.ndarray) -> SearchableCodec:
    if spelling in WITH_TORCH:
        pytest.importorskip("torch", reason="training needs the extra models")
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


@pytest.mark.parametrize("lengths", ["equal", "unequal"])
@pytest.mark.parametrize("spelling", [*SPELLINGS, *WITH_TORCH])
def test_scores_of_code_and_residual_add_up(spelling: str, lengths: str, vectors: np.ndarray) -> None:
    if lengths == "unequal":
        vectors = vectors * np.random.default_rng(0).lognormal(0, 0.3, (len(vectors), 1)).astype(np.float32)
    codec, queries = fitted(spelling, vectors), clustered(20, seed=1)
    codec = type(codec).restore(dim=codec.dim, config=codec.config, learned=codec.learned())
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


def test_an_unknown_tier_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="residual8"):
        FineTier("int7", fitted("sq4", vectors))
    with pytest.raises(InputError, match="residual8"):
        choose(vectors, code_bytes=8, fine=("int7",))


def test_the_longest_vectors_are_taken(vectors: np.ndarray) -> None:
    long = np.clip(1e17 * vectors, -1e16, 1e16)
    codec = fitted("trellis8", long)
    codes = codec.encode(long)
    tier = FineTier("residual8", codec)
    errors = np.linalg.norm(tier.decode(tier.encode(long, codes), codes) - long, axis=1)
    assert (errors <= 0.01 * np.linalg.norm(long, axis=1)).all()


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
