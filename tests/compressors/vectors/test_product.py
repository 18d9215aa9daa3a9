"""The product quantiser: scores, codes against plain numpy, unequal parts, few vectors, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rarebit.compressors.vectors.product import Product
from rarebit.errors import CodecError, InputError, NotFittedError

DIM = 30


def drawn(count: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)) + 0.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


CODECS = [Product(5), Product(7), Product(15), Product(6, bits=8), Product(7, bits=8)]
"""Ten parts of three dimensions; 14 parts of two or three; a part a dimension; five a part; four or five a part."""


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return drawn(1500)


@pytest.fixture(scope="module", params=CODECS, ids=repr)
def codec(request: pytest.FixtureRequest, vectors: np.ndarray) -> Product:
    return request.param.fit(vectors)


def centroids_of(codec: Product) -> list[np.ndarray]:
    """The centroids of each part, without the zeros that fill it up."""
    groups = np.array_split(np.arange(codec.dim), codec.parts)
    return [part[:, : len(group)] for part, group in zip(codec._arrays()["centroids"], groups, strict=True)]


def test_codes_are_the_nearest_centroids(codec: Product, vectors: np.ndarray) -> None:
    codes = codec.encode(vectors)
    assert codes.shape == (len(vectors), codec.code_size)
    values = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1) if codec.bits == 4 else codes
    groups = np.array_split(np.arange(DIM), codec.parts)
    for part, (group, centroids) in enumerate(zip(groups, centroids_of(codec), strict=True)):
        distances = np.square(vectors[:, np.newaxis, group] - centroids).sum(axis=2)
        chosen = distances[np.arange(len(vectors)), values[:, part]]
        assert np.allclose(chosen, distances.min(axis=1), atol=1e-5)


def test_decoding_puts_the_centroids_back(codec: Product, vectors: np.ndarray) -> None:
    codes = codec.encode(vectors[:50])
    values = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1) if codec.bits == 4 else codes
    expected = np.concatenate([part[values[:, place]] for place, part in enumerate(centroids_of(codec))], axis=1)
    assert np.array_equal(codec.decode(codes), expected)


def test_scores_are_inner_products_with_the_decoded_vectors(codec: Product, vectors: np.ndarray) -> None:
    queries = drawn(20, seed=1)
    codes = codec.encode(vectors)
    scores, places = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    exact = queries @ codec.decode(codes).T
    assert np.allclose(scores, np.take_along_axis(exact, places, axis=1), atol=1e-4)
    assert np.allclose(scores, -np.sort(-exact, axis=1)[:, :10], atol=1e-4)


def test_a_mask_limits_the_search(codec: Product, vectors: np.ndarray) -> None:
    mask = np.zeros(len(vectors), dtype=bool)
    mask[[3, 500, 1499]] = True
    scores, places = codec.scanner(codec.encode(vectors)).search(codec.prepare_queries(vectors[:2]), 5, mask)
    assert set(places[0]) == set(places[1]) == {3, 500, 1499, -1}
    assert np.isneginf(scores[:, 3:]).all()
    assert (places[:, 3:] == -1).all()
    exact = vectors[:2] @ codec.decode(codec.encode(vectors)).T
    assert np.allclose(scores[:, :3], np.take_along_axis(exact, places[:, :3], axis=1), atol=1e-4)
    assert (np.diff(scores[:, :3], axis=1) <= 0).all()


def test_a_mask_without_a_place_finds_nothing(codec: Product, vectors: np.ndarray) -> None:
    for count in (0, 50):
        scanner = codec.scanner(codec.encode(vectors[:count]))
        scores, places = scanner.search(codec.prepare_queries(vectors[:2]), 5, np.zeros(count, dtype=bool))
        assert np.isneginf(scores).all()
        assert (places == -1).all()


def test_two_scanners_of_one_codec_do_not_share_codes(codec: Product, vectors: np.ndarray) -> None:
    one, other = codec.scanner(codec.encode(vectors[:10])), codec.scanner(codec.encode(vectors[10:50]))
    assert (len(one), len(other)) == (10, 40)
    del one
    assert codec.decode(codec.encode(vectors[:3])).shape == (3, DIM)


def test_more_bytes_lose_less(vectors: np.ndarray) -> None:
    def error(codec: Product) -> float:
        return float(np.square(codec.decode(codec.fit(vectors).encode(vectors)) - vectors).sum(axis=1).mean())

    assert error(Product(5)) > error(Product(7)) > error(Product(10)) > error(Product(15))
    assert error(Product(5, bits=8)) < error(Product(5))
    assert error(Product(15)) < 0.02


def test_fitting_is_deterministic_and_the_seed_matters(codec: Product, vectors: np.ndarray) -> None:
    again = Product(**codec.config).fit(vectors)
    assert np.array_equal(again._arrays()["centroids"], codec._arrays()["centroids"])
    other = Product(**{**codec.config, "seed": 1}).fit(vectors)
    assert not np.array_equal(other.encode(vectors), codec.encode(vectors))


def test_restored_it_is_the_same(codec: Product, vectors: np.ndarray) -> None:
    restored = Product.restore(dim=DIM, config=codec.config, learned=codec.learned())
    codes = codec.encode(vectors)
    assert restored.config == codec.config
    assert restored.state_bytes == codec.state_bytes
    assert np.array_equal(restored.encode(vectors), codes)
    assert np.array_equal(restored.decode(codes), codec.decode(codes))
    queries = drawn(3, seed=2)
    one = codec.scanner(codes).search(codec.prepare_queries(queries), 5)
    other = restored.scanner(codes).search(restored.prepare_queries(queries), 5)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("count", [1, 7])
def test_fewer_vectors_than_centroids_are_kept_exactly(bits: int, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = drawn(count)
    codec = Product(7, bits).fit(vectors)
    assert np.array_equal(codec.decode(codec.encode(vectors)), vectors)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("odd", [np.zeros((400, DIM)), np.full((400, DIM), 0.3), np.repeat(drawn(3), 200, axis=0)])
def test_constant_and_repeated_vectors(bits: int, odd: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    codec = Product(7, bits).fit(odd)
    assert np.allclose(codec.decode(codec.encode(odd)), odd, atol=1e-3)
    assert capfd.readouterr() == ("", "")


def test_training_takes_a_sample_of_many_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.compressors.vectors.product.SAMPLE", 100)
    vectors = np.concatenate([np.zeros((5000, 4)), np.ones((5000, 4))]).astype(np.float32)
    codec = Product(2).fit(vectors)
    assert np.allclose(codec.decode(codec.encode(vectors)), vectors, atol=1e-3)


def test_nothing_encoded_is_an_empty_matrix(codec: Product) -> None:
    codes = codec.encode(np.empty((0, DIM), np.float32))
    assert codes.shape == (0, codec.code_size)
    assert codec.decode(codes).shape == (0, DIM)
    assert len(codec.scanner(codes)) == 0


@pytest.mark.parametrize(("codec", "advice"), [(Product(16), "at most code_size=15"), (Product(31, 8), "at most code_size=30")])
def test_more_parts_than_dimensions_are_refused(codec: Product, advice: str) -> None:
    with pytest.raises(CodecError, match=advice):
        codec.fit(drawn(100))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[4, 8\]"):
        Product(4, bits=5)
    with pytest.raises(InputError, match="at least 1 byte"):
        Product(0)
    with pytest.raises(CodecError, match="bits=8"):
        Product(1).fit([[1.0], [2.0]])
    with pytest.raises(NotFittedError, match="fit"):
        Product(2).encode([[1.0, 2.0]])


def test_a_loaded_codec_works_without_torch(vectors: np.ndarray, tmp_path: Path) -> None:
    codec = Product(7).fit(vectors)
    codec.save_pretrained(tmp_path)
    script = f"""
import sys
sys.modules["torch"] = None
import json
from pathlib import Path
from rarebit.compressors.vectors.product import Product
folder = Path({str(tmp_path)!r})
described = json.loads((folder / "config.json").read_text())
learned = (folder / "codec.safetensors").read_bytes()
codec = Product.restore(dim=described["dim"], config=described["config"], learned=learned)
codes = codec.encode([[0.1] * {DIM}])
print(codec.scanner(codes).search(codec.prepare_queries(codec.decode(codes)), 1)[1][0, 0], codes.tobytes().hex())
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["0", codec.encode([[0.1] * DIM]).tobytes().hex()]
