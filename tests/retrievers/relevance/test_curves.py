"""The curves: they rise whatever their parameters, and numpy computes what torch trains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import InputError
from rarebit.retrievers.relevance import CosineAdapter
from rarebit.retrievers.relevance.curves import FAMILIES, Family, as_family, logits, sigmoid, softplus

families = st.sampled_from(FAMILIES)
numbers = st.lists(st.floats(-30, 30), min_size=3, max_size=3)
rows = st.lists(st.floats(-50, 50), min_size=1, max_size=20)


@given(families, numbers, rows)
def test_relevance_never_falls_as_the_score_rises(family: Family, parameters: list[float], scores: list[float]) -> None:
    found = sigmoid(logits(family, np.sort(scores)[np.newaxis], np.array([parameters])))[0]
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_where_there_is_no_score_there_is_no_logit(family: Family) -> None:
    scores = np.array([[0.5, np.nan, 0.0], [np.nan, np.nan, -0.5]])
    found = logits(family, scores, np.random.default_rng(0).standard_normal((2, 3)))
    assert np.array_equal(np.isnan(found), np.isnan(scores))


def test_the_formulas() -> None:
    scores, parameters = np.array([[0.36, -0.5, 0.0]]), np.array([[0.2, 1.5, 0.7]])
    a, b, k = np.log1p(np.exp(10 + 5 * 0.2)), 3 * 1.5 - 5, 2 / (1 + np.exp(-0.7))
    for family, wanted in {
        "raw": scores,
        "linear": a * scores + b,
        "square_root": a * np.array([[0.6, -(0.5**0.5), 0]]) + b,
        "quadratic": a * np.array([[0.36**2, -0.25, 0]]) + b,
        "power": a * np.array([[0.36**k, -(0.5**k), 0]]) + b,
    }.items():
        assert np.allclose(logits(as_family(family), scores, parameters), wanted), family


def test_nothing_overflows() -> None:
    extreme = np.array([-1e300, -1e4, 0.0, 1e4, 1e300])
    assert np.allclose(sigmoid(extreme), [0, 0, 0.5, 1, 1])
    assert np.allclose(softplus(extreme), [0, 0, np.log(2), 1e4, 1e300])


def test_what_torch_trains_is_what_numpy_computes() -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra models")
    from rarebit.retrievers.relevance.training import curve

    @given(families, st.integers(0, 2**32 - 1), st.floats(0, 5))
    def same(family: Family, seed: int, scale: float) -> None:
        rng = np.random.default_rng(seed)
        scores, parameters = rng.uniform(-1.5, 1.5, (4, 6)), scale * rng.standard_normal((4, 3))
        scores[0, 0] = 0
        found = curve(family, torch.from_numpy(scores), torch.from_numpy(parameters)).numpy()
        assert np.allclose(found, logits(family, scores, parameters), rtol=1e-9, atol=1e-9)

    same()


@pytest.mark.unchecked
def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(InputError, match="wanted one of"):
        as_family("cubic")
    with pytest.raises(InputError, match="family='cubic'"):
        CosineAdapter(4, family="cubic")  # type: ignore[arg-type]
