"""What labelling needs of a collection: the scores of rows that are known, and a sample of the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit import Collection
from rarebit.arrays import normalized
from rarebit.errors import DimensionError, InputError, MissingRowError

DIM = 16
QUERY = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)


def filled(path: Path | None = None, **settings: Any) -> Collection:
    rows = Collection.open(path, dim=DIM, **settings)
    rows.add(np.random.default_rng(0).standard_normal((40, DIM)), ids=[str(number) for number in range(40)])
    return rows


@pytest.fixture
def rows() -> Iterator[Collection]:
    with filled() as collection:
        yield collection


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
@pytest.mark.parametrize("codec", [None, "float32", "sq4"])
@pytest.mark.parametrize("in_file", [False, True])
def test_scores_are_those_of_searches(tmp_path: Path, metric: str, codec: str | None, *, in_file: bool) -> None:
    with filled(tmp_path / "rows" if in_file else None, metric=metric, codec=codec, training_minimum=20) as rows:
        rows.tenant("ann").add([QUERY], ids=["own"])
        for handle in (rows, rows.tenant("ann")):
            hits = handle.search(QUERY, 100, candidates=100)
            drawn = np.random.default_rng(2).permutation(len(hits))
            found = handle.scores(QUERY, [hits[place].id for place in drawn])
            assert found.dtype == np.float32
            assert np.allclose(found, [hits[place].score for place in drawn], atol=1e-5)


def test_ids_are_scored_in_the_order_given(rows: Collection) -> None:
    one, other, again = rows.scores(QUERY, ["7", "3", "7"])
    assert [one, again] == pytest.approx([rows.scores(QUERY, ["7"])[0]] * 2)
    assert other == pytest.approx(rows.scores(QUERY, ["3"])[0])
    assert rows.scores(QUERY, []).shape == (0,)
    assert Collection.open(None).scores(QUERY, []).shape == (0,)


@pytest.mark.unchecked
def test_wrong_rows_and_queries_are_named(rows: Collection) -> None:
    with pytest.raises(MissingRowError, match=r"1 of 2 ids .*'gone'"):
        rows.scores(QUERY, ["1", "gone"])
    rows.tenant("ann").add([QUERY], ids=["own"])
    with pytest.raises(MissingRowError, match="own"):
        rows.scores(QUERY, ["own"])
    with pytest.raises(MissingRowError, match="'1'"):
        rows.tenant("ann").scores(QUERY, ["own", "1"])
    with pytest.raises(MissingRowError):
        Collection.open(None).scores(QUERY, ["1"])
    with pytest.raises(DimensionError):
        rows.scores(QUERY[:3], ["1"])
    with pytest.raises(InputError, match="ids"):
        rows.scores(QUERY, "1")
    with pytest.raises(InputError, match="count"):
        rows.sample_vectors(-1)


def places(rows: Collection, sample: np.ndarray) -> list[int]:
    """Tell which rows a sample is of."""
    similar = normalized(sample) @ normalized(rows.vectors([str(number) for number in range(40)])).T
    assert np.allclose(similar.max(axis=1), 1, atol=1e-5)
    found: list[int] = similar.argmax(axis=1).tolist()
    return found


def test_a_sample_is_drawn_without_replacement(rows: Collection) -> None:
    sample = rows.sample_vectors(15)
    assert sample.shape == (15, DIM)
    assert len(set(places(rows, sample))) == 15
    assert np.array_equal(rows.sample_vectors(15), sample)
    assert np.array_equal(rows.sample_vectors(15, seed=0), sample)
    assert places(rows, rows.sample_vectors(15, seed=1)) != places(rows, sample)
    assert sorted(places(rows, rows.sample_vectors(1000))) == list(range(40))
    assert rows.sample_vectors(0).shape == (0, DIM)
    drawn = [place for seed in range(200) for place in places(rows, rows.sample_vectors(4, seed=seed))]
    counts = np.bincount(drawn, minlength=40)
    assert 5 <= counts.min() <= counts.max() <= 40  # 20 each


def test_deleted_rows_are_not_drawn(rows: Collection) -> None:
    before = rows.vectors(["0"])
    rows.delete([str(number) for number in range(1, 40)])
    assert np.array_equal(rows.sample_vectors(10), before)
    rows.delete_all()
    assert len(rows.sample_vectors(10)) == 0
    assert len(Collection.open(None).sample_vectors(10)) == 0


def test_a_tenant_draws_from_what_it_sees(rows: Collection) -> None:
    ann = rows.tenant("ann")
    assert len(ann.sample_vectors(10)) == 0
    ann.add(np.eye(3, DIM), ids=["a", "b", "c"])
    assert np.allclose(np.sort(ann.sample_vectors(10), axis=0), np.sort(np.eye(3, DIM), axis=0), atol=0.01)
    assert len(rows.sample_vectors(100)) == 40
    assert len(rows.tenant("bob").sample_vectors(10)) == 0
