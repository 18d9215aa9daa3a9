"""Models in folders: what is loaded does what was saved, without torch, and what is damaged is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from rarebit.errors import InputError
from rarebit.retrievers.collection.settings import EmbeddingFingerprint
from rarebit.retrievers.relevance import (
    Asked,
    Background,
    CosineAdapter,
    FixedCount,
    Isotonic,
    Judge,
    LabelledScores,
    Platt,
    RawScore,
    RelevanceModel,
    ScoreGap,
    ScoreSource,
    model_from,
)
from rarebit.retrievers.relevance.adapter import FitReport
from rarebit.retrievers.relevance.model import ARRAYS_FILE, CONFIG_FILE

DIM = 8
Scored = Callable[..., LabelledScores]
Random = Callable[..., CosineAdapter]
SOURCE = ScoreSource(EmbeddingFingerprint("a model", prompts={"query": "q: "}), "cosine", "sq8")


def full(random_adapter: Random, scored: Scored) -> CosineAdapter:
    """Make an adapter of which every part is something."""
    own = random_adapter(DIM, family="quadratic").with_background(Background.of(np.random.default_rng(0).random((9, DIM))))
    own = own.choose_threshold(scored(), lost=0.2, confidence=0.8).keeping(least=1, most=3).with_source(SOURCE)
    own.unit, own.fit_report = 2.5, FitReport(0.5, 0.25, "evidence", 60, 3)
    own._seen = {"best_score": np.linspace(0.2, 0.9, 50, dtype=np.float32)}
    return own


def assert_same(one: CosineAdapter, other: CosineAdapter, labelled: LabelledScores) -> None:
    assert repr(one) == repr(other)
    for name in ("dim", "family", "hidden", "unit", "threshold", "target", "min_keep", "max_keep", "source", "fit_report"):
        assert getattr(one, name) == getattr(other, name), name
    assert one._seen.keys() == other._seen.keys()
    assert all(np.array_equal(one._seen[name], other._seen[name]) for name in one._seen)
    assert np.array_equal(one.relevances(labelled), other.relevances(labelled))
    assert (one.background is None) == (other.background is None)
    if one.background is not None and other.background is not None:
        assert one.background.rest == other.background.rest
        assert np.array_equal(one.background.moments(labelled.queries), other.background.moments(labelled.queries))


def test_save_then_load_is_the_identity(tmp_path: Path, scored: Scored, random_adapter: Random) -> None:
    plain, own = CosineAdapter(DIM), full(random_adapter, scored)
    for number, given in enumerate((plain, random_adapter(DIM), own.with_background(None), own)):
        given.save_pretrained(tmp_path / str(number))
        loaded = CosineAdapter.from_pretrained(str(tmp_path / str(number)))
        assert_same(given, loaded, scored(holes=0.2))
        loaded.save_pretrained(tmp_path / "again")
        for name in (CONFIG_FILE, ARRAYS_FILE):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / str(number) / name).read_bytes()


def test_a_loaded_adapter_works_without_torch(tmp_path: Path, scored: Scored, random_adapter: Random) -> None:
    own = full(random_adapter, scored)
    own.save_pretrained(tmp_path)
    script = f"""
import sys
for name in ("torch", "sklearn", "scipy", "transformers"):
    sys.modules[name] = None
from rarebit.retrievers.relevance import Asked, CosineAdapter
adapter = CosineAdapter.from_pretrained({str(tmp_path)!r})
verdict = adapter.judge(Asked.of([0.5, 0.25], [0.1] * {DIM}))
print(verdict.kept, verdict.relevances.tobytes().hex())
print(len(CosineAdapter.shipped().judge(Asked.of([0.5, 0.25], [0.1] * 384)).relevances))
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    verdict = own.judge(Asked.of([0.5, 0.25], [0.1] * DIM))
    assert printed.splitlines() == [f"{verdict.kept} {verdict.relevances.tobytes().hex()}", "2"]


@pytest.mark.parametrize(
    "own", [RawScore(0.4), Platt(7.0, -2.0), Isotonic([0.1, 0.3, 0.9], [0, 0.5, 1]), FixedCount(3), ScoreGap(2)]
)
def test_each_kind_is_restored(tmp_path: Path, own: RelevanceModel) -> None:
    own._with(source=SOURCE).keeping(least=1, most=4).save_pretrained(tmp_path)
    for loaded in (model_from(tmp_path), type(own).from_pretrained(tmp_path), RelevanceModel.from_pretrained(tmp_path)):
        asked = Asked.of([0.2, 0.9, 0.8, 0.1, 0.3])
        assert type(loaded) is type(own)
        assert (loaded.threshold, loaded.min_keep, loaded.max_keep, loaded.source) == (own.threshold, 1, 4, SOURCE)
        assert np.array_equal(loaded.relevances_of(asked), own.relevances_of(asked))
    with pytest.raises(InputError, match=f"holds a {type(own).__name__}, wanted a CosineAdapter"):
        CosineAdapter.from_pretrained(tmp_path)


def test_a_folder_is_written_over(tmp_path: Path, random_adapter: Random) -> None:
    random_adapter(DIM).save_pretrained(tmp_path)
    Platt(3.0, 1.0).save_pretrained(tmp_path)
    assert Platt.from_pretrained(tmp_path).slope == 3


def test_a_judge_is_kept_by_nobody(tmp_path: Path) -> None:
    def kept() -> RelevanceModel:
        Judge(lambda pairs: [0.0] * len(pairs)).save_pretrained(tmp_path)
        return model_from(tmp_path)

    with pytest.raises(InputError, match="function of yours"):
        kept()


@pytest.mark.parametrize("name", [CONFIG_FILE, ARRAYS_FILE])
@pytest.mark.parametrize("damage", [None, b"", b"nothing", b"\xff\xfe", b"[]", b"{}", b'{"kind": "cosine adapter"}'])
def test_a_damaged_file_is_refused(tmp_path: Path, random_adapter: Random, name: str, damage: bytes | None) -> None:
    random_adapter(DIM).save_pretrained(tmp_path)
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(InputError, match=r"wanted a folder with config\.json"):
        CosineAdapter.from_pretrained(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="check the path"):
            model_from(path)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "nothing"},
        {"kind": ["cosine adapter"]},
        {"dim": "8"},
        {"dim": 9},
        {"family": "cubic"},
        {"hidden": 0},
        {"unit": None},
        {"target": {"recall": 2}},
        {"target": {"loss": 0.1}},
        {"source": {}},
        {"fit_report": {"steps": 1}},
        {"threshold": None},
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"min_keep": -1},
        {"max_keep": "all"},
        {"unit": 0},
    ],
)
def test_a_damaged_configuration_is_refused(
    tmp_path: Path, scored: Scored, random_adapter: Random, change: dict[str, Any]
) -> None:
    full(random_adapter, scored).save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match="wanted a folder"):
        CosineAdapter.from_pretrained(tmp_path)


NAMES = (*CosineAdapter(1)._arrays, "background.mean", "background.directions", "background.variances")


@pytest.mark.unchecked
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lost", [False, True])
def test_damaged_arrays_are_refused(tmp_path: Path, scored: Scored, random_adapter: Random, name: str, *, lost: bool) -> None:
    full(random_adapter, scored).save_pretrained(tmp_path)
    arrays = safetensors.numpy.load_file(tmp_path / ARRAYS_FILE)
    shape = np.array(arrays.pop(name).shape) + 1
    safetensors.numpy.save_file(arrays if lost else {**arrays, name: np.ones(shape, np.float32)}, tmp_path / ARRAYS_FILE)
    with pytest.raises(InputError, match="wanted a folder"):
        CosineAdapter.from_pretrained(tmp_path)
