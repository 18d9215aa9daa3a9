"""What a model reads for a token is what its module gives, which is not what the weight holds where a model scales it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.tiny_language_model import (
    DIM,
    HIDDEN,
    bridge,
    chat_tokenizer,
    embed,
    generator,
    language_model,
    naive_embeddings,
    naive_tokens,
    scaling_model,
    sentence,
)

from rarebit.compressors.context import (
    BridgeConfig,
    Lessons,
    ModalityBridge,
    OneTokenGenerator,
    Sampling,
    embeddings,
    training,
)
from rarebit.compressors.context.embeddings import embeddings_of, usual_length
from rarebit.compressors.context.exercises import ExerciseBook
from rarebit.compressors.context.reading import Exercise, expected
from rarebit.compressors.context.warm_start import warm_start
from rarebit.errors import InputError

pytestmark = pytest.mark.usefixtures("_one_thread")

TEXTS = [sentence(number, 6) for number in range(8)]
LESSONS = Lessons(TEXTS, embed(TEXTS))


@pytest.fixture
def scaling() -> OneTokenGenerator:
    return generator(2, model=scaling_model(), split=lambda text: text.split("|"))


def read(model: Any) -> torch.Tensor:
    """Give all that a model reads of tokens, from what it holds."""
    weight = model.get_input_embeddings().weight.detach()
    return weight * HIDDEN**0.5 if model.config.model_type == "gemma3_text" else weight


def questions(given: OneTokenGenerator) -> list[str]:
    assert given.passages is not None
    one, two = given.passages.refer([sentence(1), f"{sentence(2)}|{sentence(3)}"], [None, None])
    return ["bab?", f"Background: {one}\n\nQuestion: gull?", f"{two} and {one} {sentence(4)}", sentence(5, 30)]


@torch.no_grad()
def test_a_text_is_read_as_the_model_reads_its_tokens(scaling: OneTokenGenerator) -> None:
    for question in ("bab?", sentence(5, 30)):
        prompt = scaling.prompt(question)
        (ids,) = prompt.parts
        logits = scaling.model(inputs_embeds=scaling.embeddings(prompt)[None]).logits
        torch.testing.assert_close(logits, scaling.model(input_ids=torch.tensor([ids])).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_logits_are_those_of_embeddings_laid_out_by_hand(scaling: OneTokenGenerator) -> None:
    for question in questions(scaling):
        given, wanted = scaling.embeddings(scaling.prompt(question)), naive_embeddings(scaling, question)
        logits = [scaling.model(inputs_embeds=rows[None]).logits for rows in (given, wanted)]
        torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


def test_answers_are_those_of_plain_forward_passes_alone_and_in_a_batch(scaling: OneTokenGenerator) -> None:
    asked, sampling = questions(scaling), Sampling(12)
    for question, given in zip(asked, scaling.generate(asked, sampling), strict=True):
        written = scaling.tokenizer.decode(naive_tokens(scaling, question, given.new_tokens), skip_special_tokens=True)
        assert given.text == scaling.generate([question], sampling)[0].text == written


@torch.no_grad()
def test_exercises_are_read_as_the_model_reads_their_tokens() -> None:
    model = scaling_model()
    ids = [token % 300 + 5 for token in range(0, 400, 7)]
    for shared in (4, 20, 40):
        exercises = [Exercise([ids[:count]], [9, 8, 7]) for count in (shared, shared + 5)]
        wanted = [model(input_ids=torch.tensor([own.prompt[0] + own.answer])).logits[0, -4:-1] for own in exercises]
        torch.testing.assert_close(expected(model, exercises).logits, torch.cat(wanted), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 4096])
@pytest.mark.parametrize("made", [language_model, scaling_model])
def test_embeddings_and_their_length_are_those_that_are_read(made: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS", rows)
    model = made()
    table, wanted = model.get_input_embeddings(), read(model)
    torch.testing.assert_close(embeddings_of(table, [3, 3, 9]), wanted[[3, 3, 9]])
    assert usual_length(table) == pytest.approx(float(wanted.norm(dim=-1).median()))


def test_of_a_big_vocabulary_a_part_is_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "ROWS", 7)
    table = scaling_model().get_input_embeddings()
    taken: list[int] = []
    table.register_forward_hook(lambda module, ids, given: taken.append(len(given)))
    usual_length(table)
    assert max(taken) == 7
    assert sum(taken) == len(table.weight)


@pytest.mark.parametrize("tokens", [1, 2])
def test_training_begins_at_embeddings_as_they_are_read(tokens: int) -> None:
    model = scaling_model()
    plain: Any = torch.nn.Embedding
    book = ExerciseBook(chat_tokenizer(), LESSONS)
    begun = []
    for table in (model.get_input_embeddings(), plain.from_pretrained(read(model))):
        torch.manual_seed(0)
        made = ModalityBridge(BridgeConfig(DIM, HIDDEN, tokens, input_length=3.0))
        warm_start(
            made, table, book.tokenizer, [book.tokens_of(place) for place in range(8)], torch.from_numpy(LESSONS.vectors)
        )
        begun.append(made.last.weight)
    torch.testing.assert_close(*begun, atol=1e-4, rtol=1e-4)


def test_projections_are_held_to_the_length_of_embeddings_as_they_are_read() -> None:
    model = scaling_model().requires_grad_(requires_grad=False)
    stages = (training.Stage("paraphrase", 1, 4),)
    book = ExerciseBook(chat_tokenizer(), LESSONS)
    course = training._Course(model, book, BridgeConfig(DIM, HIDDEN, hidden=64, input_length=3.0), stages, 0, blind=False)
    lengths = read(model).norm(dim=-1)
    assert course._usual_norm == pytest.approx(float(lengths.median()))
    projected = course.bridge(torch.from_numpy(LESSONS.vectors)).norm(dim=-1)
    assert lengths.median() / 3 < projected.median() < lengths.median() * 3


def served_from(folder: Path) -> Any:
    pytest.importorskip("httpx", reason="a served model needs the extra serve")
    from rarebit.compressors.context import ServedGenerator

    chat_tokenizer().save_pretrained(folder)
    passages = generator().passages
    return ServedGenerator.from_pretrained("http://there/v1", folder, bridge(2), passages)


@pytest.mark.parametrize("made", [language_model, scaling_model])
def test_a_served_model_reads_what_the_local_one_reads(made: Any, tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    far, near = served_from(tmp_path), generator(2, model=made())
    near.passages = far.passages
    for question in questions(far)[:2]:
        torch.testing.assert_close(far.embeddings(far.prompt(question)), near.embeddings(near.prompt(question)))
    assert not any(weight.requires_grad for weight in far.table.parameters())


def test_a_module_may_be_given() -> None:
    pytest.importorskip("httpx", reason="a served model needs the extra serve")
    from rarebit.compressors.context import ServedGenerator

    table = scaling_model().get_input_embeddings()
    given = ServedGenerator("http://there/v1", "tiny", table=table, tokenizer=chat_tokenizer(), context_window=256)
    (ids,) = given.prompt("bab?").parts
    torch.testing.assert_close(given.embeddings(given.prompt("bab?")), read(scaling_model())[ids])


def test_a_module_of_unknown_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling_model().save_pretrained(tmp_path)
    from transformers.models.gemma3.modeling_gemma3 import Gemma3PreTrainedModel

    monkeypatch.setattr(Gemma3PreTrainedModel, "_init_weights", lambda self, module: None)
    with pytest.raises(InputError, match=r"a Gemma3TextScaledWordEmbedding, whose numbers are not known .*pass table="):
        served_from(tmp_path)


def test_a_model_of_a_kind_that_is_not_known_is_refused() -> None:
    pytest.importorskip("httpx", reason="a served model needs the extra serve")
    from transformers import PretrainedConfig

    from rarebit.compressors.context import served

    with pytest.raises(InputError, match=r"(?s)transformers does not know .*pass table="):
        served._read_by(PretrainedConfig(), torch.zeros(3, 4))
