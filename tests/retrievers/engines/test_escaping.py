"""Strings that PostgreSQL cannot hold go there and back, in the same order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rarebit.retrievers.engines.postgres.escaping import escaped, unescaped

TEXTS = st.text(st.sampled_from("\0\1\2ab"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
)


@given(JSON)
def test_there_and_back(value: Any) -> None:
    assert unescaped(escaped(value)) == value
    assert "\0" not in str(escaped(value))


@given(TEXTS, TEXTS)
def test_the_order_stays(one: str, other: str) -> None:
    assert (escaped(one) < escaped(other)) == (one < other)
