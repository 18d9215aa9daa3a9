"""Blocks of chunks: which context a chunk gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import InputError
from rarebit.retrievers.situating import block_contexts, grouped_contexts


def numbered(count: int) -> list[str]:
    return [f"<{number}>" for number in range(count)]


@given(st.integers(0, 60), st.integers(1, 20))
def test_a_chunk_has_the_chunks_of_its_block_in_their_order(count: int, block: int) -> None:
    chunks = numbered(count)
    contexts = block_contexts(chunks, block=block, joiner=" ")
    assert len(contexts) == count
    for place, context in enumerate(contexts):
        assert context.split() == [chunk for other, chunk in enumerate(chunks) if other // block == place // block]


def test_blocks_are_of_sixteen_as_in_the_paper() -> None:
    contexts = block_contexts(numbered(35))
    assert contexts[0] == contexts[15] == "\n".join(numbered(16))
    assert contexts[16] == contexts[31] == "\n".join(numbered(32)[16:])
    assert contexts[32] == contexts[34] == "<32>\n<33>\n<34>"


def test_one_chunk_is_its_own_context() -> None:
    assert block_contexts(["alone"]) == ["alone"]
    assert block_contexts([]) == []
    assert block_contexts(numbered(17))[16] == "<16>"


def test_empty_chunks_take_a_place_and_add_nothing() -> None:
    assert block_contexts(["a", "", " \n", "b", "c"], block=4) == ["a\nb"] * 4 + ["c"]
    assert block_contexts(["", " "]) == ["", ""]


def test_documents_have_blocks_of_their_own_in_whatever_order_they_come() -> None:
    names = ["a", "b", "a", "c", "b", "a", "a", "b", "a", "b", "b", "a"]
    chunks = numbered(12)
    contexts = grouped_contexts(chunks, names, block=2)
    for name in "abc":
        places = [place for place, other in enumerate(names) if other == name]
        assert [contexts[place] for place in places] == block_contexts([chunks[place] for place in places], block=2)


def test_chunks_are_put_in_order_document_by_document() -> None:
    drawn = np.random.default_rng(0).permutation(13).tolist()
    chunks, names, order = numbered(13), ["one"] * 9 + ["other"] * 4, [*range(9), *range(4)]
    wanted = block_contexts(chunks[:9], block=4) + block_contexts(chunks[9:], block=4)
    found = grouped_contexts(
        [chunks[place] for place in drawn],
        [names[place] for place in drawn],
        [order[place] for place in drawn],
        block=4,
    )
    assert found == [wanted[place] for place in drawn]


@pytest.mark.unchecked
def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="got one text, wanted a sequence"):
        block_contexts("a chunk")
    with pytest.raises(InputError, match="chunk 1 is NoneType, wanted a text"):
        block_contexts(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="chunk 0 is no Unicode text"):
        block_contexts(["\ud800"])
    with pytest.raises(InputError, match="blocks of 0 chunks"):
        block_contexts(["a"], block=0)
    with pytest.raises(InputError, match="got 2 chunks, 1 names of documents, wanted one"):
        grouped_contexts(["a", "b"], ["x"])
    with pytest.raises(InputError, match="2 names of documents and 3 numbers of their order"):
        grouped_contexts(["a", "b"], ["x", "x"], [1, 2, 3])
