"""The curves that map a score to the logit of its relevance: all rise with the score, whatever their parameters.

With x the score, a >= 0 and 0 < k < 2, as in arXiv 2408.04887::

    raw          x
    linear       a x + b
    square_root  sgn(x) a |x|^(1/2) + b
    quadratic    sgn(x) a x^2 + b
    power        sgn(x) a |x|^k + b

What is learned are three numbers without bounds, from which a, b and k are made: a = softplus(10 + 5 s), b = 3 t - 5, and
k = 2 sigmoid(u). At 0 they are a curve that suits cosines, and steps of one length change each of them about as much.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from rarebit.errors import InputError

Family: TypeAlias = Literal["raw", "linear", "square_root", "quadratic", "power"]
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)

EXPONENTS: Final = {"linear": 1.0, "square_root": 0.5, "quadratic": 2.0}
"""Of the families whose exponent is not learned."""

SLOPE, SLOPE_STEP = 10.0, 5.0
OFFSET, OFFSET_STEP = -5.0, 3.0
UNBOUNDED: Final = 3
"""Numbers that make a curve."""

Parameters: TypeAlias = Float64[npt.NDArray[np.float64], "q 3"]
Logits: TypeAlias = Float64[npt.NDArray[np.float64], "q k"]
ScoresGiven: TypeAlias = Float64[npt.NDArray[np.float64], "q k"]


def as_family(given: str) -> Family:
    """Check the name of a family; InputError for another."""
    for family in FAMILIES:
        if family == given:
            return family
    raise InputError(f"got family={given!r}, wanted one of {list(FAMILIES)}")


def logits(family: Family, scores: ScoresGiven, parameters: Parameters) -> Logits:
    """Map scores to logits.

    Args:
        family: of curves.
        scores: (q, k), NaN where there is none.
        parameters: (q, 3) numbers without bounds, one curve a query.

    Returns:
        (q, k); NaN where the score is.
    """
    if family == "raw":
        return scores
    slope = softplus(SLOPE + SLOPE_STEP * parameters[:, :1])
    offset = OFFSET + OFFSET_STEP * parameters[:, 1:2]
    exponent = EXPONENTS.get(family, 2 * sigmoid(parameters[:, 2:]))
    found: Logits = np.sign(scores) * slope * np.abs(scores) ** exponent + offset
    return found


def sigmoid(given: Any) -> Any:
    """Squeeze numbers into [0, 1] without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * given))


def softplus(given: Any) -> Any:
    """Give log(1 + exp(x)), without overflow."""
    return np.logaddexp(0.0, given)
