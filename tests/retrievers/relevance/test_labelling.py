"""Labels for what a collection finds: by judgements, and by a stronger judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rarebit import Collection, Tenant
from rarebit.arrays import normalized
from rarebit.errors import InputError
from rarebit.retrievers.relevance import LabelledScores, ScoreSource, from_judge, from_judgements

DIM, ROWS = 16, 60


def some(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


VECTORS, QUERIES = some(ROWS, 0), some(5, 1)


@pytest.fixture
def rows() -> Iterator[Collection]:
    """Sixty passages, "0" to "59"."""
    with Collection.open(None, dim=DIM, fingerprint="a model") as collection:
        collection.add(VECTORS, ids=[str(number) for number in range(ROWS)], texts=[f"text {number}" for number in range(ROWS)])
        yield collection


def labels_by_id(rows: Collection | Tenant, labelled: LabelledScores, row: int) -> dict[str, float]:
    """Tell by the scores, all of which differ, which passages the labels are of."""
    scores = dict(zip(ids := [kept.id for kept in rows], rows.scores(labelled.queries[row], ids), strict=True))
    found = {}
    for score, label in zip(labelled.scores[row], labelled.labels[row], strict=True):
        if not np.isnan(score):
            nearest = min(scores, key=lambda key: abs(scores[key] - score))
            assert scores[nearest] == pytest.approx(score, abs=1e-6)
            found[nearest] = float(label)
    return found


def best(rows: Collection | Tenant, row: int, k: int) -> list[str]:
    return [hit.id for hit in rows.search(QUERIES[row], k)]


def test_what_is_found_is_labelled_by_judgements(rows: Collection) -> None:
    judgements: list[dict[str, float]] = [
        {best(rows, row, 9)[place]: grade for place, grade in ((0, 2), (2, 1), (4, 0))} for row in range(5)
    ]
    for cut in (0.5, 1, 2):
        labelled = from_judgements(rows, QUERIES, judgements, k=7, cut=cut)
        assert labelled.scores.shape == (5, 7)
        assert (np.diff(labelled.scores, axis=1) <= 0).all()
        for row in range(5):
            wanted = {key: float(judgements[row].get(key, -1) >= cut) for key in best(rows, row, 7)}
            assert labels_by_id(rows, labelled, row) == wanted
    unknown = from_judgements(rows, QUERIES, judgements, k=7, unjudged="unknown")
    assert np.isnan(unknown.labels).sum(axis=1).tolist() == [4] * 5
    assert unknown.relevant.sum(axis=1).tolist() == [2] * 5
    assert labelled.source == ScoreSource.of(rows)
    assert labelled.background is not None
    assert np.allclose(labelled.moments, labelled.background.moments(normalized(QUERIES)), rtol=1e-3, atol=1e-3)


def test_a_judged_passage_that_was_not_found_is_added(rows: Collection) -> None:
    last, missing = best(rows, 0, ROWS)[-1], "not there"
    judgements: list[dict[str, float]] = [{last: 1, missing: 1}, {}, {}, {}, {}]
    labelled = from_judgements(rows, QUERIES, judgements, k=4)
    assert labelled.scores.shape == (5, 5)
    assert labelled.scores[0, 4] == pytest.approx(rows.scores(QUERIES[0], [last])[0])
    assert labelled.labels[0].tolist() == [0, 0, 0, 0, 1]
    assert np.isnan(labelled.scores[1:, 4]).all()
    assert np.isnan(labelled.labels[1:, 4]).all()


def test_a_copy_of_what_is_relevant_is_unknown(rows: Collection) -> None:
    relevant, judged = best(rows, 0, 2)
    own = VECTORS[int(relevant)]
    near = own + 0.1 * np.linalg.norm(own) * normalized(some(1, 9))[0]
    rows.add([3 * own, near, own], ids=["copy", "near", "judged copy"])
    judgements: list[dict[str, float]] = [{relevant: 1, judged: 0, "judged copy": 0}]
    labels = labels_near(rows, from_judgements(rows, QUERIES[:1], judgements, k=8))
    assert labels == {relevant: 1, judged: 0, "judged copy": 0, "copy": None, "near": None}
    closer = labels_near(rows, from_judgements(rows, QUERIES[:1], judgements, k=8, guard=0.9999))
    assert closer == {relevant: 1, judged: 0, "judged copy": 0, "copy": None, "near": 0}
    without = labels_near(rows, from_judgements(rows, QUERIES[:1], judgements, k=8, guard=None))
    assert without == {relevant: 1, judged: 0, "judged copy": 0, "copy": 0, "near": 0}


def labels_near(rows: Collection, labelled: LabelledScores) -> dict[str, float | None]:
    """Give the labels of the best five by id; None where there is none. Of equal scores, hits come as they do in a search."""
    ids, labels = [hit.id for hit in rows.search(QUERIES[0], 8)], labelled.labels[0].tolist()
    chosen = {key: None if np.isnan(label) else label for key, label in zip(ids, labels, strict=True)}
    assert all(label == 0 for key, label in chosen.items() if key.isdigit() and key not in ids[:5])
    named = ("copy", "near", "judged copy")
    return {
        key: label for key, label in chosen.items() if key in named or key in sorted(set(ids) - set(named), key=ids.index)[:2]
    }


def test_a_tenant_has_labels_of_what_it_sees(rows: Collection) -> None:
    ann = rows.tenant("ann")
    ann.add(some(10, 2), ids=[f"own {number}" for number in range(10)])
    rows.tenant("bob").add(QUERIES, ids=list("abcde"))
    labelled = from_judgements(ann, QUERIES, [{"own 3": 1, "a": 1, "7": 1}] * 5, k=4)
    assert labelled.relevant.sum(axis=1).tolist() == [1] * 5
    for row in range(5):
        found = labels_by_id(ann, labelled, row)
        assert found["own 3"] == 1
        assert all(key.startswith("own") for key in found)
    alone = Collection.open(None, dim=DIM)
    alone.add(some(10, 2))
    assert labelled.background is not None
    assert np.allclose(labelled.background.mean, alone.sample_vectors(10).mean(axis=0), atol=1e-6)


def test_many_queries_are_searched_in_parts(rows: Collection) -> None:
    queries = some(150, 3)
    judgements: list[dict[str, float]] = [{str(number % ROWS): 1} for number in range(150)]
    labelled = from_judgements(rows, queries, judgements, k=3, guard=None)
    for row in (0, 63, 64, 127, 128, 149):
        one = from_judgements(rows, queries[row : row + 1], judgements[row : row + 1], k=3, guard=None)
        width = one.scores.shape[1]
        assert np.allclose(labelled.scores[row, :width], one.scores[0], atol=1e-6, equal_nan=True)
        assert np.array_equal(labelled.labels[row, :width], one.labels[0], equal_nan=True)
    assert (labelled.relevant.sum(axis=1) == 1).all()


def test_an_empty_collection_and_no_queries(rows: Collection) -> None:
    nothing = from_judgements(Collection.open(None, dim=DIM), QUERIES, [{"a": 1}] * 5)
    assert nothing.scores.shape == (5, 0)
    assert nothing.background is None
    assert len(from_judgements(rows, [], [])) == 0


def test_a_judge_labels_what_is_found(rows: Collection) -> None:
    read: list[tuple[str, str]] = []

    def score(pairs: list[tuple[str, str]]) -> list[float]:
        read.extend(pairs)
        return [float(text.removeprefix("text ")) / 10 - 3 for _, text in pairs]

    def embed(texts: list[str]) -> np.ndarray:
        return QUERIES[[int(text) for text in texts]]

    labelled = from_judge(rows, ["3", "1"], embed, score, k=6)
    found = [best(rows, row, 6) for row in (3, 1)]
    assert read == [("3", f"text {key}") for key in found[0]] + [("1", f"text {key}") for key in found[1]]
    logits = np.array([[float(key) / 10 - 3 for key in own] for own in found])
    assert np.allclose(labelled.labels, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert np.array_equal(labelled.queries, QUERIES[[3, 1]])
    shares = from_judge(rows, ["3"], embed, lambda pairs: np.linspace(1, 0, len(pairs)).tolist(), k=3, logits=False)
    assert shares.labels.tolist() == [[1, 0.5, 0]]
    assert len(from_judge(rows, [], embed, score)) == 0
    assert len(read) == 12
    with pytest.raises(InputError, match="cut grades first"):
        from_judge(rows, ["3"], embed, lambda pairs: [2.0] * len(pairs), logits=False)


@pytest.mark.unchecked
def test_what_does_not_fit_together_is_refused(rows: Collection) -> None:
    wrong: dict[str, Any]
    judgements: list[dict[str, float]]
    for judgements, wrong in (([{}], {}), ([{}] * 5, {"unjudged": "maybe"})):
        with pytest.raises(InputError, match="judgements for each query"):
            from_judgements(rows, QUERIES, judgements, **wrong)
    for wrong in ({"k": 0}, {"k": "many"}, {"guard": 1.5}):
        with pytest.raises(InputError, match="wanted"):
            from_judgements(rows, QUERIES, [{}] * 5, **wrong)
    with pytest.raises(InputError, match="dimension 3"):
        from_judgements(rows, np.eye(3), [{}] * 3)


@pytest.mark.parametrize("given", [1, 5])
def test_a_judge_gives_a_score_for_each_passage(rows: Collection, given: int) -> None:
    with pytest.raises(InputError):
        from_judge(rows, ["?"], lambda texts: QUERIES[: len(texts)], lambda pairs: [0.5] * given, k=3)
