"""Where answers end: streamed pieces are together what is given at once, and nothing of a stop text gets out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="language models need the extra models")

from support.tiny_language_model import POSITIONS, embed, generator, naive_tokens, sentence

from rarebit.compressors.context import Generation, OneTokenGenerator, Sampling
from rarebit.compressors.context.stopping import before, until
from rarebit.errors import InputError, MissingRowError

pytestmark = pytest.mark.usefixtures("_one_thread")

stops = st.lists(st.text("ab é😀\n", min_size=1, max_size=4), max_size=3).map(tuple)


@given(pieces=st.lists(st.text("ab é😀\n", max_size=4), max_size=8), stop=stops)
@example(pieces=["a ", "b"], stop=(" ", "a b"))
@example(pieces=["aa", "ab"], stop=("aab",))
@example(pieces=["a", "", "b"], stop=("ab",))
@example(pieces=["😀"], stop=("😀",))
def test_streamed_is_what_is_given_at_once(pieces: list[str], stop: tuple[str, ...]) -> None:
    text = "".join(pieces)
    streamed = list(before(iter(pieces), stop))
    assert "".join(streamed) == until(text, stop)
    assert "" not in streamed
    assert not any(each in until(text, stop) for each in stop)
    assert text.startswith(until(text, stop))


@given(pieces=st.lists(st.text("ab", min_size=1, max_size=3), max_size=6))
def test_without_stop_texts_each_piece_comes_at_once(pieces: list[str]) -> None:
    assert list(before(iter(pieces), ())) == pieces


def test_no_more_is_held_back_than_may_begin_a_stop_text() -> None:
    assert list(before(iter(["aaaa", "bbbb"]), ("xyz",))) == ["aa", "aabb", "bb"]


def finished(stream: Any) -> tuple[list[str], Generation]:
    """Read a stream to its end."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rarebit-stream"]


def some_stops(text: str) -> list[tuple[str, ...]]:
    """Take stop texts out of an answer: at its start, across pieces, of one character, and some that are not there."""
    middle = len(text) // 2
    return [
        (),
        ("never there",),
        (text[:2],),
        (text[middle],),
        (text[middle - 3 : middle + 3],),
        (text[-2:], "never there"),
        (text[middle : middle + 2], text[middle - 2 : middle + 6]),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_a_streamed_answer_is_the_answer(seed: int) -> None:
    own = generator(seed=seed)
    assert own.passages is not None
    (written,) = own.passages.refer([sentence(seed)], [None])
    asked = f"Background: {written}\n\nQuestion: {sentence(9, 3)}?"
    (whole,) = own.generate([asked], Sampling(24))
    for stop in some_stops(whole.text):
        sampling = Sampling(24, stop=stop)
        ended = ended_at(own, naive_tokens(own, asked, 24), stop)
        (given_at_once,) = own.generate([asked], sampling)
        pieces, told = finished(own.stream(asked, sampling))
        assert "".join(pieces) == given_at_once.text == told.text == ended
        for name in ("prompt_tokens", "passage_tokens", "new_tokens", "stopped", "prefill_flops"):
            assert getattr(told, name) == getattr(given_at_once, name)
        assert told.stopped == (ended != whole.text)
    assert writers() == []


def ended_at(own: OneTokenGenerator, written: list[int], stop: Sequence[str]) -> str:
    """Give the answer of tokens: up to the first of the stop texts, at the token with which one of them was whole."""
    texts = [own.tokenizer.decode(written[:count], skip_special_tokens=True) for count in range(len(written) + 1)]
    ended = [min(text.index(each) for each in stop if each in text) for text in texts if any(each in text for each in stop)]
    first = next((text for text in texts if any(each in text for each in stop)), texts[-1])
    return first[: ended[0]] if ended else first


class Spelling(OneTokenGenerator):
    """Writes a given text in place of what the model would write, token by token."""

    spelled = ""

    def _write(self, prompts: Any, sampling: Sampling, watch: Any, streamer: Any = None) -> Any:
        import torch

        written: list[int] = []
        for token in self.tokenizer(self.spelled, add_special_tokens=False, split_special_tokens=True)["input_ids"]:
            written.append(token)
            if streamer is not None:
                streamer.put(torch.tensor([token]))
            if watch(torch.tensor([written]), None)[0]:
                break
        if streamer is not None:
            streamer.end()
        return torch.tensor([written], dtype=torch.long)


@given(
    text=st.lists(st.sampled_from(["bab", " ", "é", "😀", "中", "\n", "teck ", "<|im_end|>", "."]), max_size=10).map("".join),
    stop=st.lists(
        st.sampled_from(["b", "ab", "é", "😀", "中", "中\n", "\n", "k b", "teck bab", " ", "<|im_end|>"]), max_size=2
    ),
)
@example(text="bab 😀 中文 teck", stop=["文"])
@example(text="teck  bab", stop=["  "])
def test_whatever_is_written_streams_as_it_is_given_at_once(text: str, stop: list[str]) -> None:
    made = generator()
    own = Spelling(made.model, made.tokenizer, made.bridge, made.passages)
    own.spelled = text
    sampling = Sampling(stop=tuple(stop))
    ended = ended_at(own, own.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"], stop)
    (at_once,) = own.generate(["bab"], sampling)
    pieces, told = finished(own.stream("bab", sampling))
    assert "".join(pieces) == told.text == at_once.text == ended


def test_closing_a_stream_stops_the_model(generator: OneTokenGenerator) -> None:
    steps = 0
    plain = generator.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return plain(*args, **kwargs)

    generator.model.forward = counted
    stream = generator.stream("bab?", Sampling(POSITIONS))
    next(stream)
    assert len(writers()) == 1
    stream.close()
    assert writers() == []
    assert steps < POSITIONS // 2
    assert generator.generate(["bab?"], Sampling(2))[0].new_tokens == 2  # the next has its turn


def test_a_stream_is_stopped_while_its_reader_waits(generator: OneTokenGenerator) -> None:
    cancelled, steps, plain = Event(), [], generator.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        if len(steps) == 5:
            cancelled.set()
        return plain(*args, **kwargs)

    generator.model.forward = counted
    stop = "never written " * POSITIONS  # so that everything is held back to the end
    pieces = list(generator.stream("bab?", Sampling(POSITIONS, stop=(stop,)), cancelled=cancelled))
    assert len(pieces) <= 1
    assert len(steps) == 5
    assert writers() == []


def test_a_stream_that_is_stopped_before_its_turn_does_not_begin(generator: OneTokenGenerator) -> None:
    cancelled = Event()
    cancelled.set()

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError

    generator.model.forward = never
    pieces, told = finished(generator.stream("bab?", Sampling(9), cancelled=cancelled))
    assert (pieces, told.text, told.new_tokens) == ([], "", 0)


def test_a_stream_that_nobody_reads_starts_nothing(generator: OneTokenGenerator) -> None:
    stream = generator.stream("bab?", Sampling(4))
    assert writers() == []
    stream.close()


def test_an_error_of_the_model_reaches_the_reader(generator: OneTokenGenerator) -> None:
    plain, steps = generator.model.forward, iter(range(100))

    def failing(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == 40:
            raise RuntimeError("the model broke")
        return plain(*args, **kwargs)

    generator.model.forward = failing
    pieces = []
    with pytest.raises(RuntimeError, match="the model broke"):
        pieces.extend(generator.stream("bab?", Sampling(100)))
    assert writers() == []
    del generator.model.forward
    with pytest.raises(InputError, match="wanted fewer"):
        next(generator.stream("." * POSITIONS))
    (written,) = generator.passages.refer(["gone"], [None]) if generator.passages else [""]
    generator.passages = type(generator.passages)(embed=embed, secret=b"x" * 32)
    with pytest.raises(MissingRowError):
        next(generator.stream(written))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "wrong",
    [
        *({"max_new_tokens": value} for value in (0, -1, 1.5, True, None)),
        *({"temperature": value} for value in (-0.1, float("nan"))),
        *({"top_p": value} for value in (0.0, 1.1, float("nan"))),
        *({"stop": value} for value in (("",), "text", (1,), ("a", None))),
    ],
    ids=str,
)
def test_sampling_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)
