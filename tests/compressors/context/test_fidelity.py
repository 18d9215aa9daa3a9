"""Passages within a budget: what is counted is what the model reads, and cut texts are beginnings."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rarebit.compressors.context import ContextBudget, Given, Passages
from rarebit.compressors.context.fidelity import cut_to, given_within
from rarebit.compressors.context.prompts import SEPARATOR, prompt_of, token_ids
from rarebit.errors import InputError

pytest.importorskip("transformers", reason="tokenizers need the extra models")

from support.tiny_encoders import WORDS
from support.tiny_language_model import chat_tokenizer, embed, sentence

TOKENIZER = chat_tokenizer()
BETWEEN = max(len(token_ids(TOKENIZER, joiner)) for joiner in (SEPARATOR, "\n\n"))
FRAME = prompt_of(TOKENIZER, "").length(1)
"""Tokens of a message without content."""

texts = st.lists(
    st.sampled_from([*WORDS[:6], " ", "  ", "\n", "é", "😀", "<|im_end|>", "中文", ".", "\u0301"]), max_size=14
).map("".join) | st.text(max_size=20)


@given(text=texts, tokens=st.integers(-1, 20))
@example(text=" abcdefghij", tokens=4)
@example(text="ab😀", tokens=3)
@example(text="a 😀 b", tokens=3)
@example(text="  bab  teck", tokens=3)
@example(text="<|im_end|> bab", tokens=1)
def test_a_cut_text_is_a_beginning_of_so_many_tokens(text: str, tokens: int) -> None:
    cut = cut_to(TOKENIZER, text, tokens)
    assert text.startswith(cut)
    assert len(token_ids(TOKENIZER, cut)) <= max(tokens, 0) or not text
    if len(token_ids(TOKENIZER, text)) <= tokens:
        assert cut == text


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), tokens=st.integers(0, 30))
def test_words_stay_whole_and_as_many_as_fit(words: list[str], tokens: int) -> None:
    cut = cut_to(TOKENIZER, " ".join(words), tokens)
    whole = [count for count in range(1, len(words) + 1) if len(token_ids(TOKENIZER, " ".join(words[:count]))) <= tokens]
    if whole:
        assert cut == " ".join(words[: whole[-1]])
    else:
        assert words[0].startswith(cut)


def give(
    budget: ContextBudget,
    own: list[str],
    tokens_a_vector: int = 1,
    relevances: list[float] | None = None,
    labels: list[str] | None = None,
) -> list[Given]:
    passages = Passages(embed=embed, split=lambda text: text.split("\n"), secret=b"x" * 32)
    return given_within(
        budget,
        own,
        [None] * len(own),
        passages=passages,
        tokenizer=TOKENIZER,
        tokens_a_vector=tokens_a_vector,
        relevances=relevances,
        labels=labels,
    )


@given(
    own=st.lists(texts, max_size=5),
    limit=st.integers(0, 60),
    top=st.none() | st.integers(0, 5),
    least=st.none() | st.integers(1, 12),
    tokens_a_vector=st.sampled_from([1, 2, 4]),
)
def test_what_is_given_is_read_within_the_budget(
    own: list[str], limit: int, top: int | None, least: int | None, tokens_a_vector: int
) -> None:
    given_passages = give(ContextBudget(limit, top, least_cut=least), own, tokens_a_vector)
    passages = Passages(embed=embed, split=lambda text: text.split("\n"), secret=b"x" * 32)
    passages.refer(own, [None] * len(own))
    spent = 0
    for each in given_passages:
        read = prompt_of(TOKENIZER, each.text, passages).length(tokens_a_vector) - FRAME
        assert each.fidelity == "token" or own[each.place].startswith(each.text)
        assert read + BETWEEN <= each.tokens
        assert each.text_tokens == len(token_ids(TOKENIZER, own[each.place])) + BETWEEN
        spent += each.tokens
    assert spent <= limit
    assert [each.place for each in given_passages] == sorted(each.place for each in given_passages)


def test_a_prompt_of_what_is_given_is_as_long_as_was_counted() -> None:
    own = [sentence(number, 20) for number in range(6)]
    passages = Passages(embed=embed)
    budget = ContextBudget(120, 2)
    given_passages = given_within(
        budget,
        own,
        [None] * 6,
        passages=passages,
        tokenizer=TOKENIZER,
        tokens_a_vector=2,
        relevances=[0.1, 0.9, 0, 0.8, 0.2, 0.3],
    )
    assert [each.fidelity for each in given_passages] == ["token", "text", "token", "text", "token", "token"]
    read = prompt_of(TOKENIZER, "\n\n".join(each.text for each in given_passages), passages)
    assert len(read.passages) == 4
    assert read.length(2) - FRAME == sum(each.tokens for each in given_passages) - BETWEEN


def test_labels_go_with_their_passages() -> None:
    given_passages = give(
        ContextBudget(60, 1),
        [sentence(0, 8), sentence(1), sentence(2)],
        labels=["first", "second", "third"],
        relevances=[0, 1, 0],
    )
    assert [each.fidelity for each in given_passages] == ["token", "text", "token"]
    assert [each.text.partition("|")[2] for each in given_passages] == ["first]]", "", "third]]"]


def test_a_short_passage_is_text_and_needs_no_vector() -> None:
    def never(own: list[str]) -> list[list[float]]:
        raise AssertionError(own)

    arguments = {"passages": Passages(embed=never), "tokenizer": TOKENIZER, "tokens_a_vector": 4}
    budget = ContextBudget(4 + BETWEEN, 0, 1.0)
    for text in (WORDS[0], f"{WORDS[0]} {WORDS[1]}", " "):
        count = len(token_ids(TOKENIZER, text))
        assert count <= 4
        (only,) = given_within(budget, [text], [None], relevances=[0.0], **arguments)
        assert only == Given(0, text, "text", count + BETWEEN, count + BETWEEN)
    assert given_within(ContextBudget(BETWEEN), ["a"], [None], **arguments) == []


def test_dropped_passages_are_left_out_and_need_no_vectors() -> None:
    def never(own: list[str]) -> list[list[float]]:
        raise AssertionError(own)

    passages = Passages(embed=never)
    arguments = {"passages": passages, "tokenizer": TOKENIZER, "tokens_a_vector": 1}
    assert given_within(ContextBudget(0), ["one", "two"], [None, None], **arguments) == []
    (only,) = given_within(ContextBudget(None, None), ["one"], [None], **arguments)
    assert (only.text, only.fidelity, only.tokens) == ("one", "text", only.text_tokens)
    assert given_within(ContextBudget(), [], [], **arguments) == []


def test_a_passage_that_cannot_become_a_token_is_an_error() -> None:
    class Empty:
        def get(self, ids: object) -> list[object]:
            return []

        def vectors(self, ids: object) -> object:
            raise AssertionError(ids)

    passages = Passages(Empty())
    with pytest.raises(InputError, match="does not hold with this text"):
        given_within(ContextBudget(None, 0), ["one"], ["a"], passages=passages, tokenizer=TOKENIZER, tokens_a_vector=1)
