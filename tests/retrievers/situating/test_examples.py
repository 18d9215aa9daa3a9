"""What a head learns from: questions and their chunks, and sentences that take the place of questions."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.arrays import normalized
from rarebit.errors import InputError, MissingExtraError
from rarebit.retrievers.situating import Examples, RemovedSentence, SituatingHead, removed_sentences, unlabelled

DIM = 32


def test_lengths_of_vectors_survive_the_removal() -> None:
    document = 3 * normalized(np.random.default_rng(0).standard_normal((4, DIM)).astype(np.float32))
    examples = unlabelled([document], [RemovedSentence(0, 2, "", 0.9)], document[1:2])
    assert examples.without is not None
    assert np.linalg.norm(examples.without[0]) == pytest.approx(3, abs=1e-4)


def test_sentences_are_drawn_from_chunks_that_can_spare_one() -> None:
    first = "Alice sat by her sister on the bank. She was very tired of sitting there! Why did nobody call her in for tea?"
    code = "fn executor(&mut self) { let observers = self.observers(); observers.pre_exec(state, input)?; run(input) }"
    chinese = "她很早就醒来了、因为外面下着大雨、整个村子都在谈论那个奇怪的旅人。" * 3
    documents = [[first, "One. Two."], [code], ["", "No end in sight"], [chinese]]
    drawn = removed_sentences(documents, per_chunk=5)
    assert {(sentence.document, sentence.chunk) for sentence in drawn} == {(0, 0), (1, 0), (3, 0)}
    for sentence in drawn:
        assert sentence.text in documents[sentence.document][sentence.chunk]
        assert 30 <= len(sentence.text) <= 250
        assert sentence.share == pytest.approx(len(sentence.text) / len(documents[sentence.document][sentence.chunk]))
    assert removed_sentences(documents, seed=7) == removed_sentences(documents, seed=7)
    assert len(removed_sentences(documents, per_chunk=1)) == 3


@pytest.mark.unchecked
def test_examples_that_cannot_be_are_named() -> None:
    document = np.ones((3, DIM), np.float32)
    question = np.ones((1, DIM), np.float32)
    with pytest.raises(InputError, match="chunk 3 of document 0"):
        Examples([document], question, [(0, 3)])
    with pytest.raises(InputError, match="document 1"):
        Examples([document], question, [(1, 0)])
    with pytest.raises(InputError, match="1 questions, 2 places"):
        Examples([document], question, [(0, 0), (0, 1)])
    with pytest.raises(InputError, match="dimension"):
        Examples([document[:, :5]], question, [(0, 0)])
    with pytest.raises(InputError, match="1 sentences and 2 vectors"):
        unlabelled([document], [RemovedSentence(0, 0, "", 0.1)], np.ones((2, DIM), np.float32))
    with pytest.raises(InputError, match="no sentences to learn from"):
        unlabelled([document], [], [])
    with pytest.raises(InputError, match=r"'one whole text' as document 1, wanted a list"):
        removed_sentences([["a"], "one whole text"])


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="models"):
        SituatingHead.fit(Examples([np.ones((1, DIM))], np.ones((1, DIM)), [(0, 0)]))
