"""Recurrent binary codes: the grid, both searches against plain numpy, training, old and new encoders, and bad input."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from rarebit.compressors.vectors import codec as codecs
from rarebit.compressors.vectors import recurrent_binary
from rarebit.compressors.vectors.product import Product
from rarebit.compressors.vectors.recurrent_binary import RecurrentBinary
from rarebit.errors import CodecError, CodecWarning, InputError, NotFittedError

pytest.importorskip("torch", reason="training needs the extra models")

DIM = 32
pytestmark = pytest.mark.filterwarnings("ignore::rarebit.errors.CodecWarning")


def clustered(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    world, rng = np.random.default_rng(99), np.random.default_rng(seed)
    basis = world.standard_normal((12, dim))
    vectors = rng.standard_normal((count, 12)) @ basis + rng.standard_normal((count, dim)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, true, strict=True)]))


def nearest(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, axis=1)[:, :10]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(2000)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(50, seed=1)


@pytest.fixture(scope="module", params=["linear", "mlp", "scaled"])
def trained(request: pytest.FixtureRequest, vectors: np.ndarray) -> RecurrentBinary:
    kind = "mlp" if request.param == "mlp" else "linear"
    scale = True if request.param == "scaled" else None
    return RecurrentBinary(8, 2, kind, scale=scale, hidden=32, steps=100).fit(vectors)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("scale", [False, True])
def test_scores_are_those_of_plain_numpy_for_every_number_of_bits(
    bits: int, scale: bool, vectors: np.ndarray, queries: np.ndarray
) -> None:
    codec = RecurrentBinary(11, bits, scale=scale, steps=0).fit(vectors[:500])
    codes = codec.encode(vectors)
    assert codes.shape == (2000, 11)
    assert codec.out_dim == (11 - 2 * scale) * 8 // bits
    expected = queries @ codec.decode(codes).T
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 2000)
    assert np.allclose(scores, np.take_along_axis(expected, places, axis=1), atol=1e-4)
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    assert recall(places, nearest(expected)) > 0.99


def test_trained_codes_score_as_they_decode(trained: RecurrentBinary, vectors: np.ndarray, queries: np.ndarray) -> None:
    codes = trained.encode(vectors)
    expected = queries @ trained.decode(codes).T
    scores, places = trained.scanner(codes).search(trained.prepare_queries(queries), 10)
    assert np.allclose(scores, np.take_along_axis(expected, places, axis=1), atol=1e-4)
    # The kernel does not know the factors: it finds candidates without them.
    assert recall(places, nearest(expected)) > (0.9 if trained.scale else 0.99)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_linear_codes_are_the_nearest_points_of_a_uniform_grid(bits: int, vectors: np.ndarray) -> None:
    codec = RecurrentBinary(DIM * bits // 8, bits, "linear", steps=0).fit(vectors[:500])
    mapped = recurrent_binary.transform_inputs(vectors, codec._state) @ codec._state["encode.linear"]
    grid = (2 * np.arange(2**bits) - (2**bits - 1)) / 2 ** (bits - 1)
    wanted = grid[np.abs(mapped[:, :, np.newaxis] - grid).argmin(axis=2)]
    assert (codec._values(codec.encode(vectors)) == wanted).mean() > 0.9999  # a tie may fall either way


def test_estimates_are_calibrated(trained: RecurrentBinary, vectors: np.ndarray, queries: np.ndarray) -> None:
    true, estimated = (queries @ vectors.T).ravel(), (queries @ trained.decode(trained.encode(vectors)).T).ravel()
    slope, intercept = np.polyfit(estimated, true, 1)
    assert slope == pytest.approx(1, abs=0.1)
    assert intercept == pytest.approx(0, abs=0.05)
    assert np.corrcoef(estimated, true)[0, 1] > 0.85


def test_symmetric_search_knows_only_the_queries_codes(
    trained: RecurrentBinary, vectors: np.ndarray, queries: np.ndarray
) -> None:
    codes = trained.encode(vectors)
    expected = trained.decode(trained.encode(queries)) @ trained.decode(codes).T
    scores, places = trained.scanner(codes).search(trained.prepare_queries_symmetric(queries), 10)
    assert np.allclose(scores, np.take_along_axis(expected, places, axis=1), atol=1e-4)
    asymmetric = trained.scanner(codes).search(trained.prepare_queries(queries), 10)[1]
    true = nearest(queries @ vectors.T)
    assert 10 / len(vectors) * 20 < recall(places, true) < recall(asymmetric, true)


@pytest.mark.parametrize("loss", ["listnet", "contrastive"])
def test_training_gains_and_reports(loss: str, vectors: np.ndarray) -> None:
    codec = RecurrentBinary(4, 2, "linear", loss=loss, steps=100).fit(vectors)
    assert codec.report is not None
    assert codec.report.trained > codec.report.start
    untrained = RecurrentBinary(4, 2, "linear", steps=0).fit(vectors)
    assert untrained.report is not None
    assert untrained.report.trained == untrained.report.start == codec.report.start
    assert untrained.report.reference == codec.report.reference


def test_queries_given_are_learned_from(vectors: np.ndarray) -> None:
    asked = clustered(600, seed=5)
    with_queries = RecurrentBinary(4, transform="linear", steps=50).fit(vectors, asked)
    without = RecurrentBinary(4, transform="linear", steps=50).fit(vectors)
    assert not np.array_equal(with_queries.encode(vectors), without.encode(vectors))


def test_it_warns_when_a_product_quantiser_is_better(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    class Perfect(Product):
        def encode(self, vectors: np.ndarray) -> np.ndarray:
            return vectors

        def decode(self, codes: np.ndarray) -> np.ndarray:
            return codes

    monkeypatch.setattr(recurrent_binary, "Product", Perfect)
    with pytest.warns(CodecWarning, match=r"0\.\d+ of the first 10 .* product quantiser of 4 bytes finds 1\.000"):
        RecurrentBinary(4, steps=0).fit(vectors)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_fitting_is_deterministic_for_a_seed(kind: str, vectors: np.ndarray) -> None:
    def codes(seed: int) -> np.ndarray:
        return RecurrentBinary(8, 2, kind, hidden=16, steps=5, seed=seed).fit(vectors[:600]).encode(vectors)

    assert np.array_equal(codes(0), codes(0))
    assert not np.array_equal(codes(0), codes(1))


def test_saved_and_restored_it_is_the_same_without_torch(
    trained: RecurrentBinary, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    learned = (tmp_path / codecs.ARRAYS_FILE).read_bytes()
    loaded = RecurrentBinary.restore(dim=DIM, config=trained.config, learned=learned)
    codes = trained.encode(vectors)
    assert np.array_equal(loaded.encode(vectors), codes)
    assert np.array_equal(loaded.decode(codes), trained.decode(codes))
    assert loaded.config == trained.config
    assert loaded.report == trained.report
    np.savez(tmp_path / "data.npz", vectors=vectors, queries=queries)
    script = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from rarebit.compressors.vectors.recurrent_binary import RecurrentBinary
data = np.load({str(tmp_path / "data.npz")!r})
learned = open({str(tmp_path / codecs.ARRAYS_FILE)!r}, "rb").read()
codec = RecurrentBinary.restore(dim={DIM}, config={trained.config!r}, learned=learned)
codes = codec.encode(data["vectors"])
found = codec.scanner(codes).search(codec.prepare_queries(data["queries"]), 10)[1]
np.savez({str(tmp_path / "out.npz")!r}, codes=codes, found=found)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    out = np.load(tmp_path / "out.npz")
    assert np.array_equal(out["codes"], codes)
    assert np.array_equal(out["found"], trained.scanner(codes).search(trained.prepare_queries(queries), 10)[1])


@pytest.mark.parametrize(("scale", "kind"), [(None, "linear"), (True, "linear"), (None, "mlp")])
def test_a_new_encoder_searches_the_old_codes(scale: bool | None, kind: str, vectors: np.ndarray, queries: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.standard_normal((48, 48)))[0][:, :DIM]

    def new_model(texts: np.ndarray) -> np.ndarray:
        noisy = texts @ rotation.T + 0.02 * rng.standard_normal((len(texts), 48))
        return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)

    old = RecurrentBinary(10, 2, kind, scale=scale, hidden=16, steps=20).fit(vectors)
    before, now = new_model(vectors), new_model(queries)
    new = RecurrentBinary.compatible_with(old, before, vectors)
    assert new.dim == 48
    assert (new.code_size, new.out_dim) == (old.code_size, old.out_dim)
    old_codes, new_codes, true = old.encode(vectors), new.encode(before), nearest(queries @ vectors.T)
    old_found = recall(old.scanner(old_codes).search(old.prepare_queries(queries), 10)[1], true)
    on_old = recall(new.scanner(old_codes).search(new.prepare_queries(now), 10)[1], true)
    on_new = recall(new.scanner(new_codes).search(new.prepare_queries(now), 10)[1], true)
    mixed = np.where(np.arange(2000)[:, np.newaxis] % 2, old_codes, new_codes)
    on_mixed = recall(new.scanner(mixed).search(new.prepare_queries(now), 10)[1], true)
    for found in (on_old, on_new, on_mixed):
        assert found > 0.75 * old_found > 0.3
    assert np.array_equal(old.encode(vectors), old_codes)  # the old codec is as it was
    restored = RecurrentBinary.restore(dim=48, config=new.config, learned=new.learned())
    assert np.array_equal(restored.encode(before), new_codes)
    again = RecurrentBinary.compatible_with(new, vectors, before)  # and the next one
    on_first = recall(again.scanner(old_codes).search(again.prepare_queries(queries), 10)[1], true)
    assert on_first > 0.7 * old_found


def test_pairs_must_match(vectors: np.ndarray) -> None:
    old = RecurrentBinary(8, steps=0).fit(vectors)
    with pytest.raises(InputError, match="10 new and 11 old"):
        RecurrentBinary.compatible_with(old, vectors[:10], vectors[:11])


@pytest.mark.parametrize("count", [1, 2, 5, 300])
def test_few_vectors_are_coded_without_training(count: int, vectors: np.ndarray) -> None:
    codec = RecurrentBinary(12, 3).fit(vectors[:count])
    decoded = codec.decode(codec.encode(vectors[:count]))
    assert codec.report is None
    assert np.isfinite(decoded).all()
    assert (decoded * vectors[:count]).sum(axis=1).mean() > 0.8


@pytest.mark.parametrize("kind", ["zero", "constant", "duplicates", "huge", "tiny"])
@pytest.mark.parametrize("scale", [None, True])
def test_strange_vectors_give_finite_codes(kind: str, scale: bool | None, vectors: np.ndarray) -> None:
    strange = {
        "zero": np.zeros((600, DIM)),
        "constant": np.ones((600, DIM)),
        "duplicates": np.repeat(vectors[:6], 100, axis=0),
        "huge": vectors[:600] * 1e4,
        "tiny": vectors[:600] * 1e-12,
    }[kind].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CodecWarning)
        codec = RecurrentBinary(8, hidden=8, steps=2, scale=scale).fit(strange)
        decoded = codec.decode(codec.encode(np.concatenate([strange, np.zeros((1, DIM), np.float32)])))
    assert np.isfinite(decoded).all()
    assert all(np.isfinite(array).all() for array in codec._arrays().values())
    if kind == "constant":
        assert np.allclose(decoded[:-1], 1, atol=1e-3)


def test_varying_lengths_put_a_factor_into_the_code(vectors: np.ndarray) -> None:
    lengths = np.random.default_rng(2).uniform(0.5, 2, (2000, 1)).astype(np.float32)
    codec = RecurrentBinary(10, steps=0).fit(vectors * lengths)
    plain = RecurrentBinary(10, steps=0).fit(vectors)
    assert (codec.code_size, codec.out_dim, plain.out_dim) == (10, 32, 40)
    decoded = codec.decode(codec.encode(vectors * lengths))
    assert np.corrcoef(np.linalg.norm(decoded, axis=1), lengths[:, 0])[0, 1] > 0.9
    whole = RecurrentBinary(bits_per_dim=3, steps=0).fit(vectors * lengths)
    assert (whole.out_dim, whole.code_size) == (DIM, DIM * 3 // 8 + 2)


def test_wrong_arguments_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="bits_per_dim=9"):
        RecurrentBinary(48, 9)
    with pytest.raises(CodecError, match="raise code_size"):
        RecurrentBinary(2, scale=True, steps=0).fit(vectors)
    with pytest.raises(NotFittedError, match="fit"):
        RecurrentBinary(48).encode(vectors)
    with pytest.raises(NotFittedError, match="fit"):
        _ = RecurrentBinary().code_size


@pytest.mark.unchecked
def test_unknown_transforms_and_losses_are_refused() -> None:
    for wrong in ({"transform": "conv"}, {"loss": "mse"}):
        with pytest.raises(InputError, match=r"'linear'.*'contrastive'"):
            RecurrentBinary(48, **wrong)
