"""The situating head: what it says of documents of any length, and files that keep it; training is tested beside this."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rarebit.arrays import normalized
from rarebit.errors import DimensionError, InputError, VectorError
from rarebit.retrievers.situating import SituatingHead, SituatingReport, head

DIM = 24


def some(count: int, seed: int = 0) -> np.ndarray:
    """Make (count, 24) unit vectors."""
    return normalized(np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32))


def filled(seed: int = 0) -> SituatingHead:
    """Make a head with random weights."""
    new, rng = SituatingHead(DIM, heads=3, width=5), np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in new._shapes().items()}
    return new.with_arrays(arrays)


def one_by_one(own: SituatingHead, chunks: np.ndarray) -> np.ndarray:
    """Situate each chunk by the formula, in float64 and without the linear algebra that the head uses."""
    vectors, arrays = chunks.astype(float), {name: array.astype(float) for name, array in own._arrays.items()}
    mean = vectors.mean(axis=0)
    situated = []
    for place, chunk in enumerate(vectors):
        around = range(max(0, place - head.SPAN), min(len(vectors), place + head.SPAN + 1))
        seen = np.array([*vectors[list(around)], mean])
        found = []
        for number in range(own.heads):
            part = slice(number * own.width, (number + 1) * own.width)
            query, keys, values = (arrays[name][part] for name in ("queries", "keys", "values"))
            asked = np.einsum("wd,d->w", query, chunk) * head.SHARPNESS / np.sqrt(own.width)
            scores = np.einsum("sw,w->s", np.einsum("sd,wd->sw", seen, keys), asked)
            distances = np.clip(np.array(around) - place, -head.REACH, head.REACH) + head.REACH
            scores += np.append(arrays["distances"][number][distances], arrays["document"][number])
            weights = np.exp(scores - scores.max())
            found.append(np.einsum("s,sw->w", weights / weights.sum(), np.einsum("sd,wd->sw", seen, values)))
        near = range(max(0, place - head.NEAR), min(len(vectors), place + head.NEAR + 1))
        residual = sum(arrays["near"][other - place + head.NEAR] * vectors[other] for other in near)
        residual = residual + arrays["document_share"] * mean
        situated.append(chunk + residual + np.einsum("dw,w->d", arrays["output"], np.concatenate([*found, []])))
    return np.array(situated)


@pytest.mark.parametrize("count", [1, head.SPAN + 1, 2 * head.SPAN + 3, 120])
@pytest.mark.parametrize("block", [1, 7, 256])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, count: int, block: int) -> None:
    monkeypatch.setattr(head, "BLOCK", block)
    own, chunks = filled(1), some(count)
    assert np.allclose(own.situate(chunks), one_by_one(own, chunks), atol=1e-5)


def test_a_new_head_changes_nothing() -> None:
    chunks = some(30)
    assert np.array_equal(SituatingHead(DIM).situate(chunks), chunks)


def test_what_is_far_away_counts_through_the_mean_alone() -> None:
    own, chunks = filled(2), some(400)
    other = chunks.copy()
    other[[300, 301]] = other[[301, 300]]
    before, after = own.situate(chunks), own.situate(other)
    near = np.arange(300 - head.SPAN, 302 + head.SPAN)
    far = np.setdiff1d(np.arange(400), near)
    assert np.allclose(before[far], after[far], atol=1e-5)
    assert not np.allclose(before[near], after[near], atol=1e-3)


def test_ten_thousand_chunks_of_one_document() -> None:
    assert filled().situate(some(10_000)).shape == (10_000, DIM)


def test_documents_are_situated_by_themselves_in_whatever_order_they_come() -> None:
    own, chunks = filled(), some(12)
    names = ["a", "b", "a", "c", "b", "a", "a", "b", "a", "b", "b", "a"]
    situated = own.situate_grouped(chunks, names)
    for name in "abc":
        places = [place for place, other in enumerate(names) if other == name]
        assert np.array_equal(situated[places], own.situate(chunks[places]))


def test_what_is_given_is_not_changed() -> None:
    chunks = some(5)
    before = chunks.copy()
    filled().situate(chunks)
    assert np.array_equal(chunks, before)


@pytest.mark.parametrize("report", [None, SituatingReport(0.25, 0.5, 100, 40)])
def test_save_then_load_is_the_identity(tmp_path: Path, report: SituatingReport | None) -> None:
    own = filled().with_arrays(filled()._arrays, report)
    own.save_pretrained(tmp_path / "head")
    loaded = SituatingHead.from_pretrained(tmp_path / "head")
    assert repr(loaded) == repr(own)
    assert np.array_equal(loaded.situate(some(9)), own.situate(some(9)))
    assert (loaded.dim, loaded.heads, loaded.width, loaded.report) == (DIM, 3, 5, report)


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        SituatingHead.from_pretrained(tmp_path)
    filled().save_pretrained(tmp_path)
    (tmp_path / "situating_head.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="save the head again"):
        SituatingHead.from_pretrained(tmp_path)
    SituatingHead(DIM, heads=2).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "situating_head.safetensors").rename(tmp_path / "situating_head.safetensors")
    with pytest.raises(InputError, match="arrays"):
        SituatingHead.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="wanted a folder"):
        SituatingHead.from_pretrained(tmp_path)


@pytest.mark.unchecked
def test_wrong_input_is_named() -> None:
    own = filled()
    with pytest.raises(DimensionError):
        own.situate(np.zeros((3, DIM + 1), np.float32))
    with pytest.raises(VectorError):
        own.situate(np.full((3, DIM), np.nan, np.float32))
    with pytest.raises(InputError, match="names of documents"):
        own.situate_grouped(some(3), ["a", "b"])
    with pytest.raises(InputError, match="at least 1"):
        SituatingHead(DIM, heads=-1)


def test_chunks_are_put_in_order_document_by_document() -> None:
    own, one, other = filled(3), some(9, seed=1), some(4, seed=2)
    names, order = ["one"] * 9 + ["other"] * 4, [*range(9), *range(4)]
    wanted = np.concatenate([own.situate(one), own.situate(other)])
    drawn = np.random.default_rng(0).permutation(13)
    mixed = np.concatenate([one, other])[drawn]
    found = own.situate_grouped(mixed, [names[place] for place in drawn], [order[place] for place in drawn])
    assert np.allclose(found, wanted[drawn], atol=1e-6)
    with pytest.raises(InputError, match="3 chunks, 3 names of documents and 2 numbers of their order"):
        own.situate_grouped(some(3), "abc", [1, 2])


def test_the_shipped_head_lends_shares_in_any_dimension() -> None:
    shipped = SituatingHead.shipped(DIM)
    chunks = some(20)
    assert np.allclose(shipped.situate(chunks), one_by_one(shipped, chunks), atol=1e-5)
    assert shipped.report is not None
    assert shipped.report.trained < shipped.report.plain
    assert 0 < shipped._arrays["document_share"][0] < 1
    assert np.abs(shipped._arrays["near"]).max() < 0.5
    assert SituatingHead.shipped(7).fingerprint == shipped.fingerprint


def test_a_fingerprint_is_of_what_a_head_does(tmp_path: Path) -> None:
    one, same, other = filled(1), filled(1), filled(2)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    one.save_pretrained(tmp_path)
    assert SituatingHead.from_pretrained(tmp_path).fingerprint == one.fingerprint
