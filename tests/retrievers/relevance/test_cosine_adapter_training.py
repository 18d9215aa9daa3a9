"""Training of the cosine adapter: it learns what there is to learn, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from rarebit.errors import CalibrationError, InputError
from rarebit.retrievers.relevance import Background, CosineAdapter, LabelledScores, RawScore, ScoreSource
from rarebit.retrievers.relevance.curves import FAMILIES, Family, sigmoid

torch = pytest.importorskip("torch", reason="training needs the extra models")
from rarebit.retrievers.relevance import training  # noqa: E402
from rarebit.retrievers.relevance.training import Stage, Student, Tensors  # noqa: E402

DIM = 8
Scored = Callable[..., LabelledScores]
Random = Callable[..., CosineAdapter]

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hold fewer parts out, and fit less closely, but where a test is about what comes out of it."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(training, "FOLDS", 3)
        monkeypatch.setattr(training, "FIT_STEPS", 30)
        monkeypatch.setattr(training, "PENALTIES", (0.03,))


@pytest.mark.parametrize("family", FAMILIES)
def test_numpy_does_what_torch_trains(scored: Scored, random_adapter: Random, family: Family) -> None:
    labelled, own = scored(holes=0.2), random_adapter(DIM, family=family)
    own.unit = 0.5
    student = Student(own, Stage(0.03, query=True)).eval()
    with torch.no_grad():
        found = sigmoid(student(Tensors.of(own, labelled)).numpy())
    there = ~np.isnan(labelled.scores)
    assert np.allclose(found[there], own.relevances(labelled)[there], atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "raw"])
def test_the_gradient_is_that_of_the_loss(scored: Scored, random_adapter: Random, family: Family) -> None:
    labelled = scored(6, 5, holes=0.2, groups=np.arange(6) % 2)
    own = random_adapter(DIM, family=family, scale=0.3)
    student = Student(own, Stage(0.03, query=True), groups=2).double().eval()
    tensors = Tensors.of(own, labelled)
    exact = Tensors(
        *(value.double() if value.is_floating_point() else value for value in (getattr(tensors, name) for name in FIELDS))
    )
    names, weights = zip(*student.named_parameters(), strict=True)

    def loss(*given: torch.Tensor) -> torch.Tensor:
        now = dict(zip(names, given, strict=True))
        numbers = now["base"][exact.groups] + exact.evidence @ now["evidence_weight"].T
        hidden = torch.tanh(exact.directions @ now["query_in"].T + now["query_bias"])
        logits = training.curve(family, exact.scores, numbers + hidden @ now["query_out"].T)
        each = torch.nn.functional.softplus(logits) - exact.labels * logits
        found = (each * exact.known).sum(1) * exact.weights
        assert torch.allclose(found, torch.func.functional_call(_Losses(student), _prefixed(now), (exact,)))
        return found

    assert torch.autograd.gradcheck(loss, weights)


FIELDS = tuple(Tensors.__dataclass_fields__)


class _Losses(torch.nn.Module):
    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, given: Tensors) -> torch.Tensor:
        return self.student.losses(given)


def _prefixed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"student.{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize("told", ["evidence", "query"])
def test_it_learns_how_high_the_scores_of_a_query_have_to_be(scored: Scored, told: Literal["evidence", "query"]) -> None:
    labelled, fresh = (scored(count, seed=seed, told=told) for count, seed in ((300, 1), (300, 2)))
    own = CosineAdapter.fit(labelled, reads=told, steps=200)
    assert own.fit_report is not None
    assert own.fit_report.chosen == told
    assert own.fit_report.trained < own.fit_report.calibrated - 0.05
    assert own.report(fresh).pr_auc > RawScore().report(fresh).pr_auc + 0.1
    if told == "evidence":
        assert own.report(fresh).calibration_error < 0.05


def test_where_nothing_is_to_be_told_nothing_is(scored: Scored) -> None:
    labelled, fresh = scored(200, seed=1), scored(200, seed=2)
    own = CosineAdapter.fit(labelled, steps=60)
    assert own.fit_report is not None
    assert own.fit_report.chosen == "nothing"
    assert own.fit_report.trained == own.fit_report.calibrated
    order = np.argsort(fresh.scores, axis=None, kind="stable")
    assert (np.diff(own.relevances(fresh).ravel()[order]) >= 0).all()
    assert own.report(fresh).calibration_error < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_fitted(scored: Scored, family: Family) -> None:
    own = CosineAdapter.fit(scored(40, seed=1), family=family, steps=5)
    assert own.fit_report is not None
    assert own.fit_report.trained <= own.fit_report.calibrated
    assert own.family == family


def test_the_same_seed_gives_the_same_adapter(scored: Scored) -> None:
    labelled = scored(80, told="query")
    one, same, other = (CosineAdapter.fit(labelled, reads="query", steps=50, seed=seed) for seed in (3, 3, 4))
    assert one.fit_report is not None
    assert one.fit_report.chosen == "query"
    assert one.fit_report == same.fit_report
    assert all(np.array_equal(one._arrays[name], same._arrays[name]) for name in one._arrays)
    assert not np.array_equal(one._arrays["query_out"], other._arrays["query_out"])


def test_training_leaves_torch_and_what_is_given_as_they_were(scored: Scored) -> None:
    labelled = scored(20, holes=0.1, background=Background.of(np.eye(DIM)))
    before = [getattr(labelled, name).copy() for name in ("queries", "scores", "labels", "moments", "weights")]
    state, deterministic = torch.random.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    CosineAdapter.fit(labelled, steps=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    after = [getattr(labelled, name) for name in ("queries", "scores", "labels", "moments", "weights")]
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(before, after, strict=True))


def test_what_was_known_of_the_scores_is_kept(scored: Scored) -> None:
    background, source = Background.of(np.eye(DIM)), ScoreSource(metric="inner_product")
    given = scored(40)
    labelled = LabelledScores(given.queries, 50 * given.scores, given.labels, source=source, background=background)
    own = CosineAdapter.fit(labelled, steps=5)
    assert (own.source, own.background) == (source, background)
    assert own.unit == pytest.approx(np.quantile(np.abs(labelled.scores), 0.95))
    assert own.report(labelled).calibration_error < 0.1


def test_it_starts_from_another(scored: Scored) -> None:
    many, few, fresh = (scored(count, seed=seed, told="evidence") for count, seed in ((300, 1), (12, 2), (300, 3)))
    start = CosineAdapter.fit(many, reads="evidence")
    weights = start._arrays["evidence_weight"].copy()
    alone, started = (CosineAdapter.fit(few, reads="evidence", start=own) for own in (None, start))
    assert started.fit_report is not None
    assert started.fit_report.queries == 12
    assert started.report(fresh).pr_auc > alone.report(fresh).pr_auc - 0.01
    assert started.report(fresh).pr_auc > start.report(fresh).pr_auc - 0.05
    assert np.array_equal(start._arrays["evidence_weight"], weights)
    with pytest.raises(CalibrationError, match="start"):
        CosineAdapter.fit(few, start=start, family="linear")


def test_groups_are_fitted_each_with_a_level_of_its_own(scored: Scored) -> None:
    low, high = scored(150, seed=1, shift=-0.1), scored(150, seed=2, shift=0.1)
    own = CosineAdapter.fit(LabelledScores.joined([low, high]), reads="evidence")
    # Which group a query is of is not told when it is asked: the level between both serves it.
    middle, one = scored(300, seed=3), CosineAdapter.fit(low, reads="evidence")
    assert own.report(middle).pr_auc > RawScore().report(middle).pr_auc - 0.02
    assert own.report(middle).calibration_error < one.report(middle).calibration_error


def test_groups_without_queries_do_not_count(scored: Scored) -> None:
    labelled, other = scored(100, seed=1), scored(100, seed=2, shift=0.3)
    alone = CosineAdapter.fit(labelled, reads="evidence")
    chosen = LabelledScores.joined([other, other, labelled])[200:]
    assert np.allclose(CosineAdapter.fit(chosen, reads="evidence")._arrays["base"], alone._arrays["base"], atol=0.05)


def test_losses_are_those_of_one_passage_however_many_are_held_out(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = scored(200, seed=1)
    parts = CosineAdapter.fit(labelled, reads="evidence").fit_report
    monkeypatch.setattr(training, "MANY", 100)
    own = CosineAdapter.fit(labelled, reads="evidence")
    relevances = own.relevances(labelled).astype(np.float64)
    right = np.where(labelled.relevant, relevances, 1 - relevances)
    assert parts is not None
    assert own.fit_report is not None
    assert parts.calibrated == pytest.approx(-np.log(right).mean(), rel=0.2)
    assert own.fit_report.calibrated == pytest.approx(-np.log(right).mean(), rel=0.2)


def test_passages_without_a_label_are_not_learned_from(scored: Scored) -> None:
    given = scored(30, seed=1)
    labels = np.where(np.arange(8) < 6, given.labels, np.nan).astype(np.float32)
    missing = np.concatenate([given.queries, np.ones((5, DIM), np.float32)])
    more = np.concatenate([given.scores, np.full((5, 8), 0.5, np.float32)])
    unknown = np.concatenate([labels, np.full((5, 8), np.nan, np.float32)])
    own = CosineAdapter.fit(LabelledScores(missing, more, unknown), reads="query", steps=0)
    assert own.fit_report is not None
    assert own.fit_report.queries == 30
    alone = CosineAdapter.fit(LabelledScores(given.queries, given.scores, labels), reads="query", steps=0)
    assert np.allclose(own._arrays["base"], alone._arrays["base"], atol=1e-5)


def test_too_little_is_refused(scored: Scored) -> None:
    labelled = scored(30)
    for few in (labelled[:9], labelled[:0]):
        with pytest.raises(InputError, match=rf"got {len(few)} labelled queries .* 10 queries at least"):
            CosineAdapter.fit(few)
    for label in (0.0, 1.0, np.nan):
        same = LabelledScores(labelled.queries, labelled.scores, np.full_like(labelled.labels, label))
        with pytest.raises(InputError, match="some that are not"):
            CosineAdapter.fit(same)


@pytest.mark.unchecked
def test_what_it_reads_has_a_name(scored: Scored) -> None:
    with pytest.raises(InputError, match="reads='both of them'"):
        CosineAdapter.fit(scored(), reads="both of them")  # type: ignore[arg-type]
