"""Training: a head learns what the surroundings say, from labels or from nothing but documents, and never makes it worse."""

from __future__ import annotations

import numpy as np
import pytest

from rarebit.arrays import normalized
from rarebit.errors import InputError
from rarebit.retrievers.situating import Examples, RemovedSentence, SituatingHead, head, unlabelled

torch = pytest.importorskip("torch", reason="training needs the extra models")
from rarebit.retrievers.situating import training  # noqa: E402
from rarebit.retrievers.situating.training import Student, typical_rank  # noqa: E402

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
    """Give the mean reciprocal rank of the right chunk among all chunks."""
    return float((1 / ranks(head, examples)).mean())


def ranks(head: SituatingHead, examples: Examples) -> np.ndarray:
    """Rank the right chunk of each question, taken out of the documents as they are."""
    situated = [head.situate(document) for document in examples.documents]
    scores = examples.questions @ np.concatenate(situated).T
    starts = np.cumsum([0, *map(len, situated)])
    right = [starts[document] + chunk for document, chunk in examples.places.tolist()]
    found: np.ndarray = 1 + (scores > scores[np.arange(len(scores)), right][:, np.newaxis]).sum(axis=1)
    return found


def test_a_head_learns_what_the_surroundings_say() -> None:
    head = SituatingHead.fit(library(60), steps=150)
    others = library(30, seed=5)
    plain = rank(SituatingHead(DIM), others)
    assert head.report is not None
    assert head.report.steps > 0
    assert head.report.trained < head.report.plain
    assert rank(head, others) > plain + 0.15


def test_where_surroundings_say_nothing_nothing_is_lost() -> None:
    head = SituatingHead.fit(library(30, situated=False), steps=100)
    others = library(30, seed=5, situated=False)
    assert head.report is not None
    assert head.report.trained <= head.report.plain
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


def test_the_typical_rank_is_that_of_the_chunk_without_its_sentence() -> None:
    rng = np.random.default_rng(3)
    documents = [vectors(count, rng) for count in (5, 1, 9)]
    places = [(0, 0), (0, 4), (1, 0), (2, 3), (2, 3), (2, 8)]
    questions, without = vectors(len(places), rng), vectors(len(places), rng)
    head = random_head()
    labelled = Examples(documents, questions, places)
    assert np.isclose(typical_rank(head, labelled), np.exp(np.log(ranks(head, labelled)).mean()))
    wanted = []
    for question, place, instead in zip(questions, places, without, strict=True):
        changed = [document.copy() for document in documents]
        changed[place[0]][place[1]] = instead
        others = [document for number, document in enumerate(documents) if number != place[0]]
        alone = Examples([changed[place[0]], *others], question[np.newaxis], [(0, place[1])])
        wanted.append(ranks(head, alone)[0])
    measured = typical_rank(head, Examples(documents, questions, places, without))
    assert np.isclose(measured, np.exp(np.log(wanted).mean()))


def test_attention_is_for_labels_unless_it_is_asked_for() -> None:
    labelled = library(20)
    places = [(document, chunk) for document, chunk in labelled.places.tolist()]
    unlabelled_ones = Examples(labelled.documents, labelled.questions, places, labelled.questions)
    assert SituatingHead.fit(labelled, steps=1).heads == 4
    assert SituatingHead.fit(unlabelled_ones, steps=1).heads == 0
    assert SituatingHead.fit(unlabelled_ones, steps=1, heads=2).heads == 2


def random_head(heads: int = 3) -> SituatingHead:
    """Make a head with random weights."""
    new, rng = SituatingHead(DIM, heads=heads, width=5), np.random.default_rng(0)
    arrays = {name: rng.standard_normal(shape).astype(np.float32) * 0.5 for name, shape in new._shapes().items()}
    return new.with_arrays(arrays)


def by_torch(own: SituatingHead, chunks: np.ndarray) -> np.ndarray:
    """Situate a short document as training does, beside a longer one: what it is filled up with must not be looked at."""
    student, count = Student(own), len(chunks)
    longer = vectors(count + 3, np.random.default_rng(8))
    side_by_side = torch.from_numpy(np.stack([np.concatenate([chunks, np.zeros((3, DIM), np.float32)]), longer]))
    there = torch.arange(count + 3) < torch.tensor([[count], [count + 3]])
    means = torch.from_numpy(np.stack([chunks.mean(axis=0), longer.mean(axis=0)]))
    with torch.no_grad():
        for name, weight in student.named_parameters():
            weight.copy_(torch.from_numpy(own._arrays[name]))
        situated: np.ndarray = student(side_by_side, means, there)[0, :count].numpy()
    return situated


@pytest.mark.parametrize("heads", [0, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 20, head.SPAN])
def test_numpy_does_what_torch_trains(count: int, heads: int) -> None:
    own, chunks = random_head(heads), vectors(count, np.random.default_rng(0))
    assert np.allclose(own.situate(chunks), by_torch(own, chunks), atol=1e-4)


@pytest.mark.parametrize(("documents", "chunks"), [(12, 3 * head.SPAN), (2, 8 * head.SPAN)])
def test_what_is_kept_apart_is_of_other_documents_if_there_are_enough(documents: int, chunks: int) -> None:
    rng = np.random.default_rng(0)
    places = [(document, chunk) for document in range(documents) for chunk in range(0, chunks, 20)]
    examples = Examples([vectors(chunks, rng) for _ in range(documents)], vectors(len(places), rng), places)
    windows = list(training._windows(examples))
    held, rest = training._parted(windows, rng)
    assert sorted(map(id, held + rest)) == sorted(map(id, windows))
    assert len(held) == (2 * 3 if documents == 12 else 3)
    assert documents < 10 or not {window.document for window in held} & {window.document for window in rest}


def test_too_few_documents_are_refused() -> None:
    document = np.ones((3, DIM), np.float32)
    with pytest.raises(InputError, match="questions about 2 documents or parts of 48 chunks, wanted 10"):
        SituatingHead.fit(Examples([document] * 2, np.ones((2, DIM), np.float32), [(0, 0), (1, 0)]))
