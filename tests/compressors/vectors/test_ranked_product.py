"""Product quantisation trained to rank: scores against decoded vectors, what training brings, saving, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rarebit.compressors.vectors.codec import ARRAYS_FILE
from rarebit.compressors.vectors.product import Product
from rarebit.compressors.vectors.ranked_product import RankedProduct, RankedReport
from rarebit.errors import CodecError, CodecWarning, InputError

pytest.importorskip("torch", reason="training needs the extra models")

DIM = 24
SIZE = 4


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around 20 centres, in a long ellipsoid, away from the origin: as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, DIM)) * np.linspace(2, 0.2, DIM)
    vectors = centres[rng.integers(20, size=count)] + rng.standard_normal((count, DIM)) * np.linspace(1, 0.1, DIM) + 0.3
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(1500)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(200, seed=1)


@pytest.fixture(scope="module")
def fitted(vectors: np.ndarray) -> RankedProduct:
    return RankedProduct(SIZE, steps=100).fit(vectors)


def recall(codec: RankedProduct | Product, vectors: np.ndarray, queries: np.ndarray) -> float:
    found = codec.scanner(codec.encode(vectors)).search(codec.prepare_queries(queries), 10)[1]
    wanted = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    return float(np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found, wanted, strict=True)]))


OPTIONS = {
    "start": {"steps": 0},
    "distillation": {"query_transform": False},
    "constraint": {"distillation": False, "constraint": True, "query_transform": False},
    "joint": {"distillation": False, "joint_negatives": True},
    "everything": {"constraint": True, "joint_negatives": True},
    "bytes": {"bits": 8},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_scores_are_inner_products_with_the_decoded_vectors(options: dict, vectors: np.ndarray, queries: np.ndarray) -> None:
    codec = RankedProduct(SIZE, **{"steps": 3, **options}).fit(vectors)
    codes = codec.encode(vectors)
    assert codes.shape == (len(vectors), SIZE)
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    by_hand = queries @ codec.decode(codes).T
    assert np.allclose(scores, np.take_along_axis(by_hand, places, axis=1), atol=1e-4)
    assert np.allclose(scores, -np.sort(-by_hand, axis=1)[:, :10], atol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_mask_limits_the_search(bits: int, vectors: np.ndarray) -> None:
    codec = RankedProduct(SIZE, bits=bits, steps=0).fit(vectors)
    mask = np.zeros(len(vectors), bool)
    mask[[3, 500, 1499]] = True
    scores, places = codec.scanner(codec.encode(vectors)).search(codec.prepare_queries(vectors[:1]), 5, mask)
    assert set(places[0]) == {3, 500, 1499, -1}
    assert np.isneginf(scores[0, 3:]).all()


def test_codes_are_those_of_the_nearest_centroids(fitted: RankedProduct, vectors: np.ndarray) -> None:
    quantiser = fitted._quantiser
    placed = ((vectors - quantiser.mean) @ quantiser.encoder).reshape(len(vectors), 2 * SIZE, 1, -1)
    wanted = ((placed - quantiser.nearest) ** 2).sum(axis=3).argmin(axis=2)
    assert (quantiser.unpacked(fitted.encode(vectors)) == wanted).mean() > 0.999


def test_training_finds_more_than_the_start_and_the_start_more_than_plain(
    fitted: RankedProduct, vectors: np.ndarray, queries: np.ndarray
) -> None:
    start = recall(RankedProduct(SIZE, steps=0).fit(vectors), vectors, queries)
    assert recall(Product(SIZE).fit(vectors), vectors, queries) < start - 0.02
    assert start + 0.02 < recall(fitted, vectors, queries)


def test_the_report_says_so(fitted: RankedProduct) -> None:
    report = fitted.report
    assert report is not None
    assert report.plain < report.start < report.trained
    assert report.steps > 0


def test_training_that_makes_it_worse_is_undone(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from rarebit.compressors.vectors import ranked_training

    monkeypatch.setattr(ranked_training, "CENTROID_RATE", 100.0)
    ruined = RankedProduct(SIZE, steps=20).fit(vectors)
    assert ruined.report is not None
    assert ruined.report.steps == 0
    assert ruined.report.trained == ruined.report.start
    assert np.array_equal(ruined._quantiser.points, ruined._quantiser.nearest)


def test_worse_than_plain_warns() -> None:
    codec = RankedProduct(SIZE)
    with pytest.warns(CodecWarning, match=r"0\.500.*0\.600"):
        codec._warn_if_worse(RankedReport(plain=0.6, start=0.5, trained=0.5, steps=0))


def test_given_queries_are_what_it_trains_for(vectors: np.ndarray) -> None:
    asked = RankedProduct(SIZE, steps=60).fit(vectors, clustered(300, seed=3))
    assert asked.report is not None
    assert asked.report.trained > asked.report.start
    few = RankedProduct(SIZE, steps=5).fit(vectors, clustered(3, seed=3))
    assert few.report is not None


def test_fitting_is_deterministic(fitted: RankedProduct, vectors: np.ndarray) -> None:
    again = RankedProduct(**fitted.config).fit(vectors)
    assert again.learned() == fitted.learned()
    assert RankedProduct(SIZE, seed=1, steps=0).fit(vectors).learned() != RankedProduct(SIZE, steps=0).fit(vectors).learned()


@pytest.mark.parametrize("bits", [4, 8])
def test_restored_it_is_the_same(bits: int, vectors: np.ndarray, queries: np.ndarray) -> None:
    codec = RankedProduct(SIZE, bits=bits, steps=3).fit(vectors)
    restored = RankedProduct.restore(dim=codec.dim, config=codec.config, learned=codec.learned())
    codes = codec.encode(vectors)
    assert restored.config == codec.config
    assert restored.report == codec.report
    assert np.array_equal(restored.encode(vectors), codes)
    assert np.array_equal(restored.decode(codes), codec.decode(codes))
    one = codec.scanner(codes).search(codec.prepare_queries(queries), 5)
    other = restored.scanner(codes).search(restored.prepare_queries(queries), 5)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])


def test_a_saved_codec_needs_no_torch(fitted: RankedProduct, vectors: np.ndarray, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "codes.npy", fitted.encode(vectors))
    script = f"""
import sys
sys.modules["torch"] = None
import numpy as np, pathlib
from rarebit.compressors.vectors.ranked_product import RankedProduct
folder = pathlib.Path({str(tmp_path)!r})
codec = RankedProduct.restore(dim={DIM}, config={fitted.config!r}, learned=(folder / {ARRAYS_FILE!r}).read_bytes())
vectors = np.load(folder / "vectors.npy")
codes = codec.encode(vectors)
assert np.array_equal(codes, np.load(folder / "codes.npy"))
codec.scanner(codes).search(codec.prepare_queries(vectors[:2]), 3)
RankedProduct({SIZE}, steps=0).fit(vectors)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((600, DIM), np.float32),
        np.ones((600, DIM), np.float32),
        np.tile(clustered(3), (200, 1)),
        clustered(5),
        clustered(1),
        clustered(600) * np.float32(1e6),
    ],
    ids=["zeros", "constant", "duplicates", "five", "one", "long"],
)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.filterwarnings("ignore::rarebit.errors.CodecWarning")
def test_odd_vectors_give_finite_scores(odd: np.ndarray, bits: int) -> None:
    codec = RankedProduct(SIZE, bits=bits, constraint=bits == 4, joint_negatives=True, steps=2).fit(odd)
    codes = codec.encode(odd)
    assert np.isfinite(codec.decode(codes)).all()
    assert np.isfinite(codec.scanner(codes).search(codec.prepare_queries(odd[:2]), 1)[0]).all()


def test_evenly_assigned_uses_every_centroid() -> None:
    import torch

    from rarebit.compressors.vectors.ranked_losses import evenly_assigned

    points = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 400, 1)).astype(np.float32))
    distances = (points - torch.linspace(2, 5, 4)) ** 2  # three of the four centroids are nobody's nearest, or nearly
    counts = torch.bincount(evenly_assigned(distances).ravel(), minlength=4)
    assert torch.bincount(distances.argmin(dim=2).ravel(), minlength=4)[0] > 390
    assert counts.min() > 30


def test_wrong_arguments_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\[4, 8\]"):
        RankedProduct(SIZE, bits=5)
    with pytest.raises(InputError, match="1 byte"):
        RankedProduct(0)
    with pytest.raises(InputError, match="steps=-1"):
        RankedProduct(SIZE, steps=-1)
    with pytest.raises(CodecError, match="code_size=12"):
        RankedProduct(13).fit(vectors)
