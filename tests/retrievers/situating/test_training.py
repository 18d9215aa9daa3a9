"""Training: a head learns what the surroundings say, from labels or from nothing but documents, and never makes it worse."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rarebit.arrays import normalized
from rarebit.errors import InputError, MissingExtraError
from rarebit.retrievers.situating import Examples, RemovedSentence, SituatingHead, removed_sentences, unlabelled
from rarebit.retrievers.situating.training import mean_reciprocal_rank

DIM, CHUNKS = 32, 12


def vectors(count: int, rng: np.random.Generator) -> np.ndarray:
    return normalized(rng.standard_normal((count, DIM)).astype(np.float32))


def library(documents: int, seed: int = 0, *, situated: bool = True) -> Examples:
    """Make documents whose chunks name their matter clearly and their subject hardly, as pronouns do; questions name both.

    Matters are the same ones in every document, so the chunk's own vector cannot tell which document is meant. Some chunks of
    each document are about its subject alone. Without ``situated`` a question is about its chunk and nothing else.
    """
    rng = np.random.default_rng(seed)
    matters = vectors(CHUNKS, np.random.default_rng(99))
    chunks, questions, places = [], [], []
    for document in range(documents):
        subject = vectors(1, rng)[0]
        own = matters + 0.15 * subject + 0.05 * rng.standard_normal((CHUNKS, DIM))
        own[::4] = subject + 0.3 * vectors(len(own[::4]), rng)
        if not situated:
            own = vectors(CHUNKS, rng)
        own = normalized(own.astype(np.float32))
        chunks.append(own)
        for chunk in range(CHUNKS):
            if situated and chunk % 4 == 0:
                continue
            wanted = matters[chunk] + 0.8 * subject if situated else own[chunk]
            questions.append(wanted + 0.05 * rng.standard_normal(DIM))
            places.append((document, chunk))
    return Examples(chunks, normalized(np.array(questions, np.float32)), places)


def rank(head: SituatingHead, examples: Examples) -> float:
    return mean_reciprocal_rank(head, examples, np.arange(len(examples)))


def test_a_head_learns_what_the_surroundings_say() -> None:
    head = SituatingHead.fit(library(60), steps=150)
    others = library(30, seed=5)
    plain = rank(SituatingHead(DIM), others)
    assert head.report is not None
    assert head.report.steps > 0
    assert head.report.trained > head.report.plain
    assert rank(head, others) > plain + 0.15


def test_where_surroundings_say_nothing_nothing_is_lost() -> None:
    head = SituatingHead.fit(library(30, situated=False), steps=100)
    others = library(30, seed=5, situated=False)
    assert head.report is not None
    assert head.report.trained >= head.report.plain
    assert rank(head, others) >= rank(SituatingHead(DIM), others) - 0.01


def test_the_same_seed_gives_the_same_head() -> None:
    one, same, other = (SituatingHead.fit(library(60), steps=50, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(one._arrays[name], same._arrays[name]) for name in one._arrays)
    assert not np.array_equal(one._arrays["values"], other._arrays["values"])


def test_it_learns_from_sentences_taken_out_of_their_chunks() -> None:
    rng = np.random.default_rng(1)
    labelled = library(60)
    sentences = [RemovedSentence(document, chunk, "", 0.4) for document, chunk in labelled.places.tolist()]
    # The chunk as it stands holds the sentence; taken out, it says its matter, and hardly its subject.
    whole = [document.copy() for document in labelled.documents]
    for question, (document, chunk) in zip(labelled.questions, labelled.places.tolist(), strict=True):
        whole[document][chunk] = normalized((whole[document][chunk] + 0.4 * question)[np.newaxis])[0]
    examples = unlabelled(whole, sentences, labelled.questions)
    assert examples.without is not None
    places = [examples.documents[document][chunk] for document, chunk in examples.places.tolist()]
    assert ((examples.without * examples.questions).sum(1) < (np.array(places) * examples.questions).sum(1)).all()
    head = SituatingHead.fit(examples, steps=150, seed=int(rng.integers(10)))
    others = library(30, seed=5)
    assert rank(head, others) > rank(SituatingHead(DIM), others) + 0.1


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
    with pytest.raises(InputError, match="questions about 2 documents, wanted 10"):
        SituatingHead.fit(Examples([document] * 2, np.ones((2, DIM), np.float32), [(0, 0), (1, 0)]))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="models"):
        SituatingHead.fit(library(10))
