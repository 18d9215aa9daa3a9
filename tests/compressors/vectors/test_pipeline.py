"""Pipelines: the transforms before the codec, for vectors, queries and back; saved as one codec."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rarebit.compressors import vectors as package
from rarebit.compressors.vectors.codec import Codec
from rarebit.compressors.vectors.exact import Exact
from rarebit.compressors.vectors.int8 import Int8
from rarebit.compressors.vectors.matryoshka import Matryoshka
from rarebit.compressors.vectors.opq import OPQ
from rarebit.compressors.vectors.pca import PCA
from rarebit.compressors.vectors.pipeline import Pipeline
from rarebit.compressors.vectors.product import Product
from rarebit.compressors.vectors.rabitq import RaBitQ
from rarebit.compressors.vectors.rotation import Rotation
from rarebit.compressors.vectors.scalar import Scalar
from rarebit.errors import CodecError, DimensionError, InputError, NotFittedError

DIM = 34
"""No multiple of what follows."""


def drawn(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM)) * np.geomspace(2, 0.05, DIM) + 0.2
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pipelines() -> list[Pipeline]:
    return [
        Pipeline(PCA(12), Scalar(8)),
        Pipeline(Matryoshka(16), Rotation(1), Product(4)),
        Pipeline(OPQ(8), Product(4)),
        Pipeline(OPQ(5), Product(5, bits=8)),
        Pipeline(PCA(20), Rotation(), Matryoshka(10), RaBitQ(4)),
        Pipeline(Matryoshka(9), Exact()),
        Pipeline(Scalar(4)),
        Pipeline(Rotation(), Pipeline(PCA(6), Exact())),
    ]


LINEAR = (0, 1, 2, 3, 5, 6, 7)
"""Those whose scores are inner products with the decoded codes."""


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return drawn(1200)


@pytest.fixture(scope="module", params=range(len(pipelines())), ids=lambda place: repr(pipelines()[place]))
def codec(request: pytest.FixtureRequest, vectors: np.ndarray) -> Pipeline:
    return pipelines()[request.param].fit(vectors)


def test_it_is_its_stages_one_after_the_other(vectors: np.ndarray) -> None:
    queries = drawn(5, seed=1)
    codec = Pipeline(PCA(12), Rotation(2), Scalar(8)).fit(vectors)
    pca = PCA(12).fit(vectors)
    rotation = Rotation(2).fit(pca.apply(vectors))
    scalar = Scalar(8).fit(rotation.apply(pca.apply(vectors)))
    codes = scalar.encode(rotation.apply(pca.apply(vectors)))
    assert np.array_equal(codec.encode(vectors), codes)
    assert np.array_equal(codec.decode(codes), pca.invert(rotation.invert(scalar.decode(codes))))
    assert np.array_equal(codec.prepare_queries(queries), rotation.apply(pca.apply(queries)))
    assert codec.code_size == scalar.code_size == 12
    assert codec.state_bytes == 4 * (DIM * 12 + 12 * 12 + 2 * 12)


@pytest.mark.parametrize("place", LINEAR)
def test_scores_are_inner_products_of_mapped_queries_with_decoded_codes(place: int, vectors: np.ndarray) -> None:
    codec = pipelines()[place].fit(vectors)
    queries = drawn(10, seed=1)
    codes = codec.encode(vectors)
    scores, _ = codec.scanner(codes).search(codec.prepare_queries(queries), 10)
    mapped = queries
    decoded = codec
    for transform in codec.stages[:-1]:
        mapped = transform.apply_queries(mapped)
        decoded = codec.stages[-1]
    if isinstance(decoded, Pipeline) and decoded is not codec:
        mapped, decoded = decoded.stages[0].apply_queries(mapped), decoded.stages[-1]
    exact = mapped @ decoded.decode(codes).T
    assert np.allclose(scores, -np.sort(-exact, axis=1)[:, :10], atol=1e-4)


def test_the_vectors_themselves_are_found(codec: Pipeline, vectors: np.ndarray) -> None:
    codes = codec.encode(vectors)
    _, places = codec.scanner(codes).search(codec.prepare_queries(vectors[:100]), 20)
    assert np.mean([place in found for place, found in enumerate(places)]) > 0.8


def test_decoded_vectors_are_near(codec: Pipeline, vectors: np.ndarray) -> None:
    decoded = codec.decode(codec.encode(vectors))
    assert decoded.shape == vectors.shape
    cosines = (decoded * vectors).sum(axis=1) / np.linalg.norm(decoded, axis=1)
    assert cosines.mean() > 0.6


def test_saved_and_restored_it_is_the_same(codec: Pipeline, vectors: np.ndarray, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["codec"] == "pipeline"
    loaded = package.load_codec(tmp_path)
    assert isinstance(loaded, Pipeline)
    assert repr(loaded) == repr(codec)
    assert loaded.config == codec.config
    assert loaded.state_bytes == codec.state_bytes
    codes = codec.encode(vectors)
    assert np.array_equal(loaded.encode(vectors), codes)
    assert np.array_equal(loaded.decode(codes), codec.decode(codes))
    queries = drawn(3, seed=2)
    one = codec.scanner(codes).search(codec.prepare_queries(queries), 5)
    other = loaded.scanner(codes).search(loaded.prepare_queries(queries), 5)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_its_configuration_creates_it_again(codec: Pipeline, vectors: np.ndarray) -> None:
    again = Pipeline(**json.loads(json.dumps(codec.config))).fit(vectors)
    assert np.array_equal(again.encode(vectors), codec.encode(vectors))


def test_queries_for_training_go_through_the_transforms(vectors: np.ndarray) -> None:
    seen: list[np.ndarray] = []

    class Learner(Exact):
        def _fit(self, vectors: np.ndarray, queries: np.ndarray | None, *, progress: bool) -> None:
            assert progress
            seen.extend([vectors, queries])

    queries = drawn(7, seed=1)
    Pipeline(Matryoshka(5), Learner()).fit(vectors, queries, progress=True)
    matryoshka = Matryoshka(5).fit(vectors)
    assert np.array_equal(seen[0], matryoshka.apply(vectors))
    assert np.array_equal(seen[1], matryoshka.apply(queries))


def test_what_learns_nothing_is_ready_with_a_dimension(vectors: np.ndarray) -> None:
    fitted = Pipeline(Matryoshka(16), Exact()).fit(vectors)
    ready = Pipeline(Matryoshka(16), Exact()).with_dim(DIM)
    assert ready.training_minimum == 0
    assert np.array_equal(ready.encode(vectors), fitted.encode(vectors))
    assert np.array_equal(ready.decode(ready.encode(vectors)), fitted.decode(fitted.encode(vectors)))
    with pytest.raises(CodecError, match="learns"):
        Pipeline(PCA(4), Exact()).with_dim(DIM)
    with pytest.raises(CodecError, match="learns"):
        Pipeline(Rotation(1), Exact()).with_dim(DIM)  # what was drawn has to be kept


def test_the_training_minimum_is_the_largest_of_the_stages() -> None:
    assert Pipeline(Matryoshka(4), Exact()).training_minimum == 0
    assert Pipeline(Matryoshka(4), Scalar(8)).training_minimum == Scalar.training_minimum
    assert Pipeline(PCA(4), Exact()).training_minimum == PCA(4).training_minimum == 1024
    assert Pipeline(PCA(3000), Exact()).training_minimum == 3000


@pytest.mark.parametrize("stages", [(), (PCA(4),), (Exact(), Exact()), (Scalar(8), PCA(4)), (PCA(4), Int8())], ids=repr)
def test_other_orders_are_refused(stages: tuple[Codec, ...]) -> None:
    with pytest.raises(InputError, match="any number of transforms and then one searchable codec"):
        Pipeline(*stages)


def test_wrong_input_is_refused(codec: Pipeline) -> None:
    with pytest.raises(DimensionError, match=f"dimension 3, wanted {DIM}"):
        codec.encode([[1.0, 2.0, 3.0]])
    with pytest.raises(InputError, match="bytes"):
        codec.decode(np.zeros((2, codec.code_size + 1), np.uint8))
    assert codec.encode(np.empty((0, DIM), np.float32)).shape == (0, codec.code_size)
    assert codec.decode(np.empty((0, codec.code_size), np.uint8)).shape == (0, DIM)


def test_unfitted_it_says_so() -> None:
    with pytest.raises(NotFittedError, match=r"Pipeline\(PCA\(out_dim=4\), Scalar\(bits=8\)\).*fit"):
        Pipeline(PCA(4), Scalar(8)).encode([[1.0, 2.0]])


def test_restored_it_works_without_torch(vectors: np.ndarray, tmp_path: Path) -> None:
    codec = Pipeline(OPQ(8), Product(4)).fit(vectors)
    codec.save_pretrained(tmp_path)
    script = f"""
import sys
sys.modules["torch"] = None
import json
from pathlib import Path
from rarebit.compressors import vectors as package
codec = package.load_codec({str(tmp_path)!r})
print(codec.encode([[0.1] * {DIM}]).tobytes().hex())
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == codec.encode([[0.1] * DIM]).tobytes().hex()
