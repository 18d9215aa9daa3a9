"""The recipe that trains a bridge for another pair of models, with a tiny pair."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="encoders need the extra models")

from support import tiny_encoders
from support.tiny_language_model import HIDDEN, chat_tokenizer, language_model, sentence

from rarebit.compressors.context import BridgeConfig, Lessons, ModalityBridge, Reading, training
from rarebit.cookbook import own_bridge, python_docs
from rarebit.errors import DuplicateIdError, InputError

pytestmark = pytest.mark.usefixtures("_one_thread")

TEXTS = [sentence(seed) for seed in range(60)]
IDS = [f"p{number}" for number in range(len(TEXTS))]
APART = [place for place, text in enumerate(TEXTS) if own_bridge.held_out(text)]
KEPT = [place for place in range(len(TEXTS)) if place not in APART]


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def question(place: int, **settings: Any) -> dict[str, Any]:
    return {"question": f"{TEXTS[place].split()[0]}?", "answer": TEXTS[place].split()[1], "passages": [IDS[place]], **settings}


QUESTIONS = [question(place, others=[IDS[place - 1]]) for place in range(0, len(TEXTS), 2)]


@pytest.fixture(scope="module")
def pair(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write a tiny pair of models, and give the options that name it."""
    root = tmp_path_factory.mktemp("pair")
    tiny_encoders.encoder(folders["bert"], normalize=True).save_pretrained(str(root / "tiny-bert"), create_model_card=False)
    language_model().save_pretrained(root / "tiny-llama")
    chat_tokenizer().save_pretrained(root / "tiny-llama")
    return ["--encoder", str(root / "tiny-bert"), "--language-model", str(root / "tiny-llama"), "--device", "cpu"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write passages and questions, and give the options that name them."""
    root = tmp_path_factory.mktemp("files")
    texts = write(root / "texts.jsonl", [{"text": text, "id": key} for text, key in zip(TEXTS, IDS, strict=True)])
    return ["--texts", str(texts), "--questions", str(write(root / "questions.jsonl", QUESTIONS))]


def few(out: Path, *more: str) -> list[str]:
    return ["--out", str(out), "--paraphrases", "2", "--readings", "2", *more]


def test_a_bridge_is_trained_written_measured_and_answered_with(
    pair: list[str], files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_bridge.main([*pair, *files, *few(tmp_path, "--tokens", "2")])
    made = ModalityBridge.from_pretrained(tmp_path)
    assert made.config == BridgeConfig(
        tiny_encoders.HIDDEN,
        HIDDEN,
        2,
        input_length=tiny_encoders.HIDDEN**0.5,
        embedding_model="tiny-bert",
        language_model="tiny-llama",
    )
    printed = capsys.readouterr().out
    assert f"{len(APART)} passages held out" in printed
    asked = next(place for place in APART if place % 2 == 0)
    assert f"Background: <passage>\n\nQuestion: {question(asked)['question']}\n\nThe passage: {TEXTS[asked]}" in printed
    assert "2 of them the passage's" in printed


def test_without_questions_passages_are_said_alone(
    pair: list[str], files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(own_bridge, "train_bridge", partial(watched, seen))
    own_bridge.main([*pair, *files[:2], *few(tmp_path)])
    ((lessons, stages),) = seen
    assert [stage.kind for stage in stages] == ["paraphrase"]
    assert not lessons.readings
    assert (
        f"Background: <passage>\n\nSay what the background says.\n\nThe passage: {TEXTS[APART[0]]}" in capsys.readouterr().out
    )


def watched(seen: list[Any], *given: Any, **settings: Any) -> ModalityBridge:
    """Train, and keep the lessons and stages."""
    seen.append((given[2], given[4]))
    return training.train_bridge(*given, **settings)


def test_what_is_held_out_takes_no_part(
    pair: list[str], files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(own_bridge, "train_bridge", partial(watched, seen))
    own_bridge.main([*pair, *files, *few(tmp_path)])
    ((lessons, stages),) = seen
    assert 1 < len(APART) < len(TEXTS) / 5
    assert [stage.kind for stage in stages] == ["paraphrase", "reading"]
    assert lessons.texts == [TEXTS[place] for place in KEPT]
    encoder = own_bridge.load_encoder(pair[1])
    np.testing.assert_allclose(lessons.vectors, encoder.encode(lessons.texts), atol=1e-5)
    asked = [place for place in KEPT if place % 2 == 0]
    assert [reading.question for reading in lessons.readings] == [question(place)["question"] for place in asked]
    for place, reading in zip(asked, lessons.readings, strict=True):
        beside = (place - 1) % len(TEXTS)
        assert [lessons.texts[own] for own in reading.passages] == [TEXTS[place]]
        assert [lessons.texts[own] for own in reading.others] == ([TEXTS[beside]] if beside in KEPT else [])


def test_questions_are_held_out_with_any_passage_that_answers_them() -> None:
    right, apart = KEPT[0], APART[0]
    vectors = np.random.default_rng(0).standard_normal((len(TEXTS), 3)).astype(np.float32)
    readings = [Reading("both?", "bab", (right, apart), (APART[1], KEPT[1])), Reading("one?", "beck", (right,), (apart,))]
    learned, held = own_bridge.parted(Lessons(TEXTS, vectors, readings))
    assert learned.readings == [Reading("one?", "beck", (0,))]
    assert held.readings == [Reading("both?", "bab", (0,), (1,))]
    np.testing.assert_array_equal(held.vectors, vectors[APART])
    assert [*learned.texts, *held.texts] == [TEXTS[place] for place in (*KEPT, *APART)]


class Interrupted(Exception):  # noqa: N818 -- it is no error
    """Somebody ended the training."""


def test_an_interrupted_training_goes_on_to_the_same_bridge(
    pair: list[str], files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_bridge.main([*pair, *files, *few(tmp_path / "whole")])
    monkeypatch.setattr(own_bridge, "train_bridge", partial(training.train_bridge, save_every=1))
    taken: list[int] = []
    plain = training._Course.step

    def failing(self: Any, step: int) -> float:
        if step == 3 and 3 not in taken:
            taken.append(step)
            raise Interrupted
        taken.append(step)
        return plain(self, step)

    monkeypatch.setattr(training._Course, "step", failing)
    asked = [*pair, *files, *few(tmp_path / "parts"), "--checkpoint", str(tmp_path / "kept")]
    with pytest.raises(Interrupted):
        own_bridge.main(asked)
    assert not (tmp_path / "parts").exists()
    own_bridge.main(asked)
    assert taken == [0, 1, 2, 3, 3]
    whole, parts = (ModalityBridge.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    assert parts.fingerprint == whole.fingerprint


def test_vectors_are_kept_and_taken_again_only_of_the_same_passages_and_model(tmp_path: Path) -> None:
    calls: list[int] = []

    def embed(texts: list[str], scale: float = 1.0) -> np.ndarray:
        calls.append(len(texts))
        return scale * np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    first = own_bridge.embedded(embed, TEXTS, tmp_path / "new")
    assert calls == [60]
    np.testing.assert_array_equal(own_bridge.embedded(embed, TEXTS, tmp_path / "new"), first)
    assert calls == [60, own_bridge.PROBED]
    own_bridge.embedded(embed, TEXTS[1:], tmp_path / "new")
    assert calls[2:] == [59]
    another = own_bridge.embedded(partial(embed, scale=2.0), TEXTS, tmp_path / "new")
    assert calls[3:] == [own_bridge.PROBED, 60]
    np.testing.assert_array_equal(another, 2 * first)
    np.testing.assert_array_equal(own_bridge.embedded(embed, TEXTS, None), first)


def test_vectors_of_their_own_lengths_are_taken_as_they_are() -> None:
    names = ("owner/encoder", "folder/model/")
    unit = np.eye(5, dtype=np.float32)
    config = BridgeConfig(5, HIDDEN, 3, input_length=5**0.5, embedding_model="encoder", language_model="model")
    assert own_bridge.config_of(unit, language_model(), 3, names) == config
    longer = np.diag(np.array([1, 1, 1, 1, 2], np.float32))
    assert own_bridge.config_of(longer, language_model(), 1, names).input_length is None


@pytest.mark.slow
def test_training_makes_held_out_passages_likelier_behind_their_own_tokens(
    pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{f'{first} ' * 6}{last}" for first in tiny_encoders.WORDS[:8] for last in tiny_encoders.WORDS[::3]]
    file = write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    found: list[own_bridge.Likelihoods] = []
    plain = own_bridge.likelihoods
    monkeypatch.setattr(own_bridge, "likelihoods", lambda *given: found.append(plain(*given)) or found[-1])
    for steps in ("0", "120"):
        own_bridge.main(
            [*pair, "--texts", str(file), "--out", str(tmp_path / steps), "--paraphrases", steps, "--learning-rate", "2e-3"]
        )
    begun, trained = found
    assert trained.own < begun.own - 0.5
    assert trained.own < trained.other
    assert trained.own < trained.none == begun.none


def test_likelihoods_are_told_as_factors() -> None:
    told = str(own_bridge.Likelihoods(2.0, 2.0 + math.log(2), 2.0 + math.log(3), 7)).splitlines()
    assert told[0].startswith("7 passages held out")
    assert [line.split()[-1] for line in told[1:]] == ["2.000", "2.00", "3.00"]


def test_passages_are_lines_of_json_with_ids_or_without(tmp_path: Path) -> None:
    records = [{"text": text} for text in TEXTS[:-2]] + ["", {"id": 7.5, "text": TEXTS[-2]}, {"id": None, "text": TEXTS[-1]}]
    found = own_bridge.read_passages(write(tmp_path / "texts.jsonl", records))
    assert list(found.values()) == TEXTS
    assert list(found) == [*map(str, range(1, 59)), "7.5", "61"]


def test_passages_are_a_folder_of_texts(tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number:02d}.txt").write_text(text)
    assert list(own_bridge.read_passages(tmp_path).values()) == TEXTS


def test_passages_are_a_folder_in_beir_layout(tmp_path: Path) -> None:
    records = [{"_id": key, "title": "bab", "text": text} for key, text in zip(IDS, TEXTS, strict=True)]
    write(tmp_path / "corpus.jsonl", [*records, {"_id": "empty", "text": ""}])
    assert own_bridge.read_passages(tmp_path) == {key: f"bab {text}" for key, text in zip(IDS, TEXTS, strict=True)}


def test_passages_are_the_documentation_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [python_docs.Entry(text, "name", "module", "kind") for text in TEXTS]
    monkeypatch.setattr(python_docs, "corpus", lambda: entries)
    assert list(own_bridge.read_passages(None).values()) == TEXTS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "x"}, "line 61 of .* has no text for text, wanted an object such as"),
        ({"text": ["x"]}, "line 61 of .* has no text for text"),
        ({"text": " "}, "line 61 of .* has no text for text"),
        (["x"], "line 61 of .* has no text for text"),
        ('{"text": ', "line 61 of .* is no JSON"),
        ({"text": "x", "id": "p3"}, "line 61 of .* has the id 'p3', which an earlier line has"),
    ],
)
def test_wrong_passages_are_refused(tmp_path: Path, line: Any, message: str) -> None:
    records = [{"text": text, "id": key} for text, key in zip(TEXTS, IDS, strict=True)]
    with pytest.raises(InputError, match=message):
        own_bridge.read_passages(write(tmp_path / "texts.jsonl", [*records, line]))


def test_an_id_that_comes_twice_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DuplicateIdError):
        own_bridge.read_passages(write(tmp_path / "texts.jsonl", [{"text": "a", "id": 1}, {"text": "b", "id": "1"}]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (TEXTS[:5], "got 5 passages, of which . would be held out, wanted at least 20 and 2"),
        ([TEXTS[place] for place in (*KEPT[:30], APART[0])], "got 31 passages, of which 1 would be held out"),
        ([TEXTS[place] for place in (*KEPT[:30], APART[0], APART[0])], "got 32 passages, of which 1 would be held out"),
    ],
)
def test_too_few_passages_are_refused(tmp_path: Path, texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        own_bridge.read_passages(write(tmp_path / "texts.jsonl", [{"text": text} for text in texts]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "bab?", "passages": ["p0"]}, "line 2 of .* has no text for answer, wanted an object such as"),
        ({"passages": ["p0"]}, "line 2 of .* has no text for question, answer"),
        (question(0, answer=3), "line 2 of .* has no text for answer"),
        ({"question": "bab?", "answer": "beck"}, "line 2 of .* names no passage, wanted ids of passages that answer"),
        (question(0, passages="p0"), "line 2 of .* has 'p0' where a list of passages' ids was wanted"),
        (question(0, passages=["p0", "p60"]), "line 2 of .* names the passage 'p60', wanted an id that a passage"),
        (question(0, others=["q"]), "line 2 of .* names the passage 'q', wanted an id that a passage"),
    ],
)
def test_wrong_questions_are_refused(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        own_bridge.read_questions(write(tmp_path / "questions.jsonl", [QUESTIONS[0], line]), IDS)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"text": "h\xf6r"}'.encode("latin-1"))
    for name in ("latin.jsonl", "missing.jsonl"):
        with pytest.raises(InputError, match=f"{name} cannot be read .* wanted a UTF-8 file with lines such as"):
            own_bridge.read_passages(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        own_bridge.read_passages(tmp_path / "missing")


def test_questions_about_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        own_bridge.main(["--out", str(tmp_path), "--questions", "questions.jsonl"])
    assert "--questions are about passages of --texts" in capsys.readouterr().err


def test_unknown_language_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"the language model .* cannot be loaded .* wanted the name of a causal language model"
    ):
        own_bridge.language_model(str(tmp_path), device="cpu")
