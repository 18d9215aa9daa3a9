"""What a chunk's vector may be made of: each method against the thing itself, whatever the order in which chunks come."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.heads import some_head

from rarebit.arrays import normalized
from rarebit.errors import InputError
from rarebit.retrievers.situating import (
    Chunks,
    LateChunking,
    NeighbourWindow,
    Plain,
    SituatingHead,
    TitleHeaders,
    TwoEncoders,
    method_of,
)
from rarebit.retrievers.situating.encoder_identity import hash_of
from rarebit.retrievers.situating.spans import joined

DIM = 8
BOOKS = {"ash": ["one", "two", "three", "four"], "elm": ["five"], "oak": ["six", "seven"]}
WORDS = ["bab", "beck", "bidge", "bong", "bull", "dab", "deck", "didge"]


def mixed(books: dict[str, list[str]] = BOOKS, *, numbered: bool = True, seed: int = 3) -> Chunks:
    """The chunks of some books, shuffled, so that only their numbers tell their order; or in their order, without numbers."""
    found = [(book, place, text) for book, texts in books.items() for place, text in enumerate(texts)]
    if numbered:
        random.Random(seed).shuffle(found)
    return Chunks(
        [text for _, _, text in found],
        [book for book, _, _ in found],
        [10.0 * place if numbered else None for _, place, _ in found],
        [{"title": book.title(), "section": place} for book, place, _ in found],
    )


def by_text(chunks: Chunks, values: object) -> dict[str, object]:
    return dict(zip(chunks.texts, values, strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize("numbered", [True, False])
def test_a_window_has_the_neighbours_of_its_own_document(*, numbered: bool) -> None:
    chunks = mixed(numbered=numbered)
    assert by_text(chunks, NeighbourWindow().to_embed(chunks)) == {
        "one": "one\ntwo",
        "two": "one\ntwo\nthree",
        "three": "two\nthree\nfour",
        "four": "three\nfour",
        "five": "five",
        "six": "six\nseven",
        "seven": "six\nseven",
    }
    assert by_text(chunks, NeighbourWindow(9).to_embed(chunks))["one"] == "one\ntwo\nthree\nfour"


def test_headers_are_those_of_the_metadata() -> None:
    chunks = mixed()
    assert by_text(chunks, TitleHeaders().to_embed(chunks))["two"] == "Ash\ntwo"
    assert by_text(chunks, TitleHeaders(("title", "section", "missing")).to_embed(chunks))["two"] == "Ash > 1\ntwo"
    assert TitleHeaders(("missing",)).to_embed(chunks) == list(chunks.texts)
    assert by_text(chunks, TitleHeaders(("section",)).to_embed(chunks))["one"] == "0\none"


def test_what_changes_texts_leaves_vectors_and_the_other_way_round() -> None:
    chunks, vectors = mixed(), np.random.default_rng(0).standard_normal((7, DIM)).astype(np.float32)
    for method in (Plain(), TitleHeaders(), NeighbourWindow()):
        assert method.situated(chunks, vectors) is vectors
        assert not method.keeps_lengths
    head, vectors = some_head(DIM), normalized(vectors)
    method = method_of(head)
    assert method.to_embed(chunks) == list(chunks.texts)
    assert method.keeps_lengths
    found = by_text(chunks, method.situated(chunks, vectors))
    own = by_text(chunks, vectors)
    for texts in BOOKS.values():
        np.testing.assert_allclose([found[text] for text in texts], head.situate([own[text] for text in texts]), atol=1e-6)


def test_without_a_method_it_is_the_shipped_head() -> None:
    chunks, vectors = mixed(), np.random.default_rng(0).standard_normal((7, DIM)).astype(np.float32)
    shipped = method_of(SituatingHead.shipped(DIM))
    np.testing.assert_array_equal(method_of(None).situated(chunks, vectors), shipped.situated(chunks, vectors))
    assert method_of(None).fingerprint == shipped.fingerprint


def test_methods_are_told_apart() -> None:
    methods = [None, some_head(DIM), some_head(DIM, seed=1), Plain(), TitleHeaders(), TitleHeaders(("a",)), NeighbourWindow()]
    methods += [NeighbourWindow(2)]
    assert len({method_of(method).fingerprint for method in methods}) == len(methods)


def test_nothing_is_situated_to_nothing() -> None:
    none = Chunks([], [], [], [])
    for method in (None, some_head(DIM), Plain(), TitleHeaders(), NeighbourWindow()):
        assert method_of(method).to_embed(none) == []
        assert method_of(method).situated(none, np.empty((0, 0), np.float32)).shape == (0, 0)


@pytest.mark.unchecked
def test_what_situates_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"got by='window', wanted a SituatingHead, Plain\(\)"):
        method_of("window")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 neighbours, wanted 1 at least"):
        NeighbourWindow(0)
    with pytest.raises(InputError, match=r"keys='title', wanted a sequence"):
        TitleHeaders("title")


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("kind", ["late", "two"])
def test_encoders_of_their_own_embed_documents_and_queries(folders: dict[str, Path], kind: str) -> None:
    tiny_encoders = pytest.importorskip("support.tiny_encoders", reason="encoders need the extra models")
    encoder = tiny_encoders.encoder(folders["bert"], normalize=True)
    books = {"ash": [" ".join(WORDS[start : start + 2]) for start in range(0, 8, 2)], "oak": ["deck bab", "dab"]}
    for by in [LateChunking(encoder)] if kind == "late" else [TwoEncoders(encoder, encoder)]:
        method, chunks = method_of(by), mixed(books)
        assert not method.needs_model
        assert method.keeps_lengths == (kind == "two")
        assert method.to_embed(chunks) == []
        found = by_text(chunks, method.situated(chunks, np.empty((0, 0), np.float32)))
        for texts in books.values():
            alone = by.embed("\n".join(texts), texts) if isinstance(by, LateChunking) else by.embed_document(texts)
            np.testing.assert_allclose([found[text] for text in texts], alone, atol=1e-5)
        asked = method.queries(["deck dab", "bull"])
        np.testing.assert_allclose(asked, by.embed_queries(["deck dab", "bull"]), atol=1e-6)
        if isinstance(by, LateChunking):
            np.testing.assert_allclose(asked, encoder.encode(["deck dab", "bull"]), atol=1e-5)
            assert by.embed_queries([]).shape == (0, asked.shape[1])


@pytest.mark.usefixtures("_one_thread")
def test_encoders_with_other_weights_are_told_apart(folders: dict[str, Path]) -> None:
    tiny_encoders = pytest.importorskip("support.tiny_encoders", reason="encoders need the extra models")
    one, same, other = (tiny_encoders.encoder(folders["bert"]) for _ in range(3))
    last = list(other.parameters())[-3]
    last.data += 0.01
    for make in (LateChunking, lambda encoder: TwoEncoders(encoder, one), lambda encoder: TwoEncoders(one, encoder)):
        names = [method_of(make(encoder)).fingerprint for encoder in (one, same, other)]
        assert names[0] == names[1] != names[2]


@pytest.mark.usefixtures("_one_thread")
def test_encoders_that_read_otherwise_are_told_apart(folders: dict[str, Path]) -> None:
    tiny_encoders = pytest.importorskip("support.tiny_encoders", reason="encoders need the extra models")
    from rarebit.retrievers.situating import extend_context

    bert, qwen = (tiny_encoders.encoder(folders[name], normalize=True) for name in ("bert", "qwen"))
    prompted, shorter, cut = (tiny_encoders.encoder(folders["bert"], normalize=True) for _ in range(3))
    prompted.prompts |= {"document": "dong "}
    shorter.max_seq_length = 20
    cut.truncate_dim = 16
    extended = [extend_context(qwen, 2 * tiny_encoders.POSITIONS, method=method) for method in ("ntk", "self_extend")]
    encoders = [bert, prompted, shorter, cut, tiny_encoders.encoder(folders["bert"], pooling="cls", normalize=True)]
    assert len({hash_of([encoder]) for encoder in (*encoders, qwen, *extended)}) == len(encoders) + 3
    assert hash_of([tiny_encoders.encoder(folders["bert"], normalize=True)]) == hash_of([bert])


PIECES = st.lists(st.text(alphabet="abc \n", max_size=40), max_size=8)


@given(PIECES)
def test_joined_chunks_stand_where_their_spans_say(chunks: list[str]) -> None:
    text, spans = joined(chunks)
    assert [text[start:stop] for start, stop in spans] == chunks
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)


@given(st.text(min_size=1, max_size=300), st.integers(20, 60), st.integers(8, 15))
def test_what_a_splitter_repeats_comes_once(document: str, size: int, overlap: int) -> None:
    document = "".join(f"{number}{letter}" for number, letter in enumerate(document))  # nothing in it repeats
    chunks = [document[max(0, start - overlap) : start + size] for start in range(0, len(document), size)]
    text, spans = joined(chunks)
    assert text.replace("\n", "") == document.replace("\n", "")
    assert [text[start:stop] for start, stop in spans] == chunks
