"""Distilled trellis codes: the same codes, better scores, which are still inner products with decoded vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rarebit.compressors.vectors.codec import ARRAYS_FILE
from rarebit.compressors.vectors.trellis import TrellisCode
from rarebit.errors import MissingExtraError

pytest.importorskip("torch", reason="training needs the extra models")

DIM = 24
SIZE = 4


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around 20 centres, in a long ellipsoid, away from the origin: as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, DIM)) * np.linspace(2, 0.2, DIM)
    return unit(centres[rng.integers(20, size=count)] + rng.standard_normal((count, DIM)) * np.linspace(1, 0.1, DIM) + 0.3)


def unlike(count: int, seed: int) -> np.ndarray:
    """Queries that look along the short axes of the vectors."""
    return unit(clustered(count, seed) * np.linspace(0.3, 3, DIM))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(2000)


@pytest.fixture(scope="module")
def plain(vectors: np.ndarray) -> TrellisCode:
    return TrellisCode(SIZE).fit(vectors)


@pytest.fixture(scope="module")
def codec(vectors: np.ndarray) -> TrellisCode:
    return TrellisCode(SIZE, distilled=True).fit(vectors)


def recall(codec: TrellisCode, vectors: np.ndarray, queries: np.ndarray) -> float:
    found = codec.scanner(codec.encode(vectors)).search(codec.prepare_queries(queries), 10)[1]
    wanted = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    return float(np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, wanted, strict=True)]))


def restored(codec: TrellisCode) -> TrellisCode:
    return TrellisCode.restore(dim=codec.dim, config=codec.config, learned=codec.learned())


def test_codes_are_those_of_the_undistilled(plain: TrellisCode, codec: TrellisCode, vectors: np.ndarray) -> None:
    assert codec._reading is not None
    assert np.array_equal(plain.encode(vectors), codec.encode(vectors))
    assert not np.array_equal(plain.prepare_queries(vectors[:3]), codec.prepare_queries(vectors[:3]))


def test_scores_are_inner_products_with_decoded_vectors(codec: TrellisCode, vectors: np.ndarray) -> None:
    queries, codes = clustered(30, seed=1), codec.encode(vectors)
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    exact = queries @ codec.decode(codes).T
    assert np.allclose(scores, np.take_along_axis(exact, places, axis=1), atol=1e-5)
    every = np.arange(len(codes))
    tables = codec.prepare_queries(queries)
    assert np.allclose(codec.scanner(codes).scores(tables[0], every), exact[0], atol=1e-5)


def test_training_scores_codes_as_the_codec_does(codec: TrellisCode, vectors: np.ndarray) -> None:
    import torch

    from rarebit.compressors.vectors.trellis_training import _Student, _written

    reading = codec._reading
    assert reading is not None
    values, factors = _written(codec, vectors[:50])
    with torch.no_grad():
        scores = _Student(reading).scores(
            torch.from_numpy(vectors[:7]), torch.from_numpy(values.astype(np.int64)), torch.from_numpy(factors)
        )
    assert np.allclose(scores.numpy(), vectors[:7] @ codec.decode(codec.encode(vectors[:50])).T, atol=1e-5)


def test_it_finds_more(plain: TrellisCode, codec: TrellisCode, vectors: np.ndarray) -> None:
    queries = clustered(400, seed=1)
    assert recall(codec, vectors, queries) > recall(plain, vectors, queries) + 0.003
    others = clustered(2000, seed=2)
    assert recall(codec, others, queries) > recall(plain, others, queries)


def test_nothing_is_carried_over_to_the_first_group(codec: TrellisCode) -> None:
    assert codec._reading is not None
    first = codec._groups == 0
    assert first.any()
    assert not codec._reading._carried[first].any()


def test_given_queries_are_what_it_is_trained_for(plain: TrellisCode, codec: TrellisCode, vectors: np.ndarray) -> None:
    asked, queries = TrellisCode(SIZE, distilled=True).fit(vectors, unlike(1500, seed=3)), unlike(400, seed=1)
    without = max(recall(plain, vectors, queries), recall(codec, vectors, queries))
    assert recall(asked, vectors, queries) > without + 0.015


def test_training_that_makes_it_worse_is_undone(
    plain: TrellisCode, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rarebit.compressors.vectors import trellis_training

    monkeypatch.setattr(trellis_training, "CENTROID_RATE", 100.0)
    monkeypatch.setattr(trellis_training, "STEPS", 20)
    ruined = TrellisCode(SIZE, distilled=True).fit(vectors)
    assert ruined._reading is None
    assert np.array_equal(ruined.prepare_queries(vectors[:3]), plain.prepare_queries(vectors[:3]))
    assert restored(ruined)._reading is None


def test_fitting_is_deterministic_also_a_second_time(codec: TrellisCode, vectors: np.ndarray) -> None:
    again = TrellisCode(**codec.config).fit(clustered(600, seed=4)).fit(vectors)
    assert again.learned() == codec.learned()


def test_restored_it_is_the_same(codec: TrellisCode, vectors: np.ndarray) -> None:
    other, codes = restored(codec), codec.encode(vectors)
    assert other.config == codec.config == {"code_size": SIZE, "seed": 0, "distilled": True}
    assert np.array_equal(other.encode(vectors), codes)
    assert np.array_equal(other.decode(codes), codec.decode(codes))
    assert np.array_equal(other.prepare_queries(vectors[:5]), codec.prepare_queries(vectors[:5]))
    assert other.learned() == codec.learned()


def test_a_configuration_from_before_distillation_is_restored(plain: TrellisCode, vectors: np.ndarray) -> None:
    old = TrellisCode.restore(dim=DIM, config={"code_size": SIZE, "seed": 0}, learned=plain.learned())
    assert not old.distilled
    assert np.array_equal(old.prepare_queries(vectors[:5]), plain.prepare_queries(vectors[:5]))


def test_a_saved_codec_needs_no_torch(codec: TrellisCode, vectors: np.ndarray, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "decoded.npy", codec.decode(codec.encode(vectors)))
    script = f"""
import sys
sys.modules["torch"] = None
import numpy as np, pathlib
from rarebit.compressors.vectors.trellis import TrellisCode
folder = pathlib.Path({str(tmp_path)!r})
codec = TrellisCode.restore(dim={DIM}, config={codec.config!r}, learned=(folder / {ARRAYS_FILE!r}).read_bytes())
vectors = np.load(folder / "vectors.npy")
codes = codec.encode(vectors)
assert np.array_equal(codec.decode(codes), np.load(folder / "decoded.npy"))
codec.scanner(codes).search(codec.prepare_queries(vectors[:2]), 3)
TrellisCode({SIZE}).fit(vectors[:600])
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_torch_it_says_which_extra_is_missing(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, extra: str) -> None:
        raise MissingExtraError(f"{module} {extra}")

    monkeypatch.setattr("rarebit.compressors.vectors.trellis.require", missing)
    TrellisCode(SIZE).fit(vectors[:600])
    with pytest.raises(MissingExtraError, match="torch models"):
        TrellisCode(SIZE, distilled=True).fit(vectors)


ODD = {
    "zeros": np.zeros((600, DIM), np.float32),
    "constant": np.ones((600, DIM), np.float32),
    "duplicates": np.tile(clustered(3), (200, 1)),
    "five": clustered(5),
    "one": clustered(1),
    "long": clustered(600) * np.float32(1e6),
    "of many lengths": clustered(600) * np.geomspace(0.01, 100, 600, dtype=np.float32)[:, np.newaxis],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_vectors_give_finite_scores(odd: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from rarebit.compressors.vectors import trellis_training

    monkeypatch.setattr(trellis_training, "STEPS", 3)
    codec = TrellisCode(SIZE, distilled=True).fit(odd, odd[:100])
    codes = codec.encode(odd)
    assert np.isfinite(codec.decode(codes)).all()
    assert np.isfinite(codec.scanner(codes).search(codec.prepare_queries(odd[:2]), 1)[0]).all()
