"""Training: the bridge learns and the model does not; the same seed, interrupted or not, gives the same bridge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.tiny_language_model import DIM, HIDDEN, chat_tokenizer, embed, language_model, sentence

from rarebit.compressors.context import BridgeConfig, Lessons, ModalityBridge, Reading, Stage, train_bridge, training
from rarebit.compressors.context.exercises import LAYOUTS, PARAPHRASES, ExerciseBook, mark
from rarebit.compressors.context.reading import Exercise, expected
from rarebit.errors import InputError

pytestmark = pytest.mark.usefixtures("_one_thread")

TEXTS = [sentence(number, 6) for number in range(8)]
LESSONS = Lessons(
    TEXTS,
    embed(TEXTS),
    [
        Reading("gull?", "bab teck", (0,), (1, 2)),
        Reading("mong?", "lidge", (3, 4)),
        Reading("peck tong?", "dull dab deck", (5,), (5, 6)),
    ],
)
CONFIG = BridgeConfig(DIM, HIDDEN, hidden=64, input_length=3.0)
STAGES = (Stage("paraphrase", 4, 4, longest=6), Stage("reading", 4, 2, longest=6))


def train(lessons: Lessons = LESSONS, stages: Sequence[Stage] = STAGES, model: Any = None, **settings: Any) -> ModalityBridge:
    config = settings.pop("config", CONFIG)
    return train_bridge(model or language_model(), chat_tokenizer(), lessons, config, stages, **settings)


@pytest.fixture(scope="module")
def trained() -> ModalityBridge:
    return train()


def test_the_same_seed_gives_the_same_bridge(trained: ModalityBridge) -> None:
    assert train().fingerprint == trained.fingerprint
    assert train(seed=1).fingerprint != trained.fingerprint
    assert trained.config == CONFIG
    assert not trained.training
    assert not any(weight.requires_grad for weight in trained.parameters())


def test_the_draws_of_others_are_left_alone(trained: ModalityBridge) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert train().fingerprint == trained.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


class Interrupted(Exception):  # noqa: N818 -- it is no error
    """Somebody ended the training."""


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End the training when it comes to a step."""
    plain: Callable[..., float] = training._Course.step

    def failing(self: Any, number: int) -> float:
        if number == step:
            raise Interrupted
        return plain(self, number)

    monkeypatch.setattr(training._Course, "step", failing)


@pytest.mark.parametrize(("step", "save_every"), [(0, 1), (1, 1), (3, 2), (5, 1), (7, 3), (7, 100)])
def test_interrupted_training_goes_on_as_if_nothing_had_been(
    trained: ModalityBridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, save_every: int
) -> None:
    with monkeypatch.context() as patched:
        interrupt(patched, step)
        with pytest.raises(Interrupted):
            train(checkpoint=tmp_path / "kept", save_every=save_every)
    taken: list[int] = []
    plain = training._Course.step
    monkeypatch.setattr(training._Course, "step", lambda self, number: taken.append(number) or plain(self, number))
    assert train(checkpoint=str(tmp_path / "kept"), save_every=save_every).fingerprint == trained.fingerprint
    assert taken == list(range(step // save_every * save_every, 8))
    taken.clear()
    assert train(checkpoint=tmp_path / "kept", save_every=save_every).fingerprint == trained.fingerprint
    assert taken == []


OTHERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "blind": {"blind": True},
    "stages": {"stages": (STAGES[0],)},
    "bridge": {"config": BridgeConfig(DIM, HIDDEN, 2)},
    "texts": {"lessons": Lessons([*TEXTS[:-1], "bab"], embed(TEXTS), LESSONS.readings)},
    "vectors": {"lessons": Lessons(TEXTS, embed(TEXTS[::-1]), LESSONS.readings)},
    "readings": {"lessons": Lessons(TEXTS, embed(TEXTS), LESSONS.readings[::-1])},
    "model": {"model": language_model(seed=3)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path, other: str) -> None:
    train(checkpoint=tmp_path)
    with pytest.raises(InputError, match="the checkpoint of another training"):
        train(**OTHERS[other], checkpoint=tmp_path)


@pytest.mark.parametrize("how", ["cut", "bytes", "empty", "untold", "in part"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, how: str) -> None:
    train(checkpoint=tmp_path, stages=(Stage("paraphrase", 1, 2, longest=4),))
    (file,) = tmp_path.iterdir()
    match how:
        case "cut":
            file.write_bytes(file.read_bytes()[:-50])
        case "bytes":
            file.write_bytes(b"x" * 300)
        case "empty":
            file.write_bytes(b"")
        case "in part":
            import safetensors.torch

            tensors = safetensors.torch.load_file(file)
            tensors.pop("exp_avg.first.weight")
            with safetensors.safe_open(file, framework="pt") as kept:
                told = kept.metadata()
            safetensors.torch.save_file(tensors, file, told)
        case _:
            import safetensors.torch

            safetensors.torch.save_file(safetensors.torch.load_file(file), file)
    with pytest.raises(InputError, match=r"no checkpoint or a damaged one.*delete it"):
        train(checkpoint=tmp_path, stages=(Stage("paraphrase", 1, 2, longest=4),))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    model = language_model().train()
    flags = [place % 3 > 0 for place, _ in enumerate(model.parameters())]
    for weight, flag in zip(model.parameters(), flags, strict=True):
        weight.requires_grad_(flag)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    if fails:
        interrupt(monkeypatch, 2)
        with pytest.raises(Interrupted):
            train(model=model)
    else:
        train(model=model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_models_are_trained_with_bridges_of_float32() -> None:
    made = train(model=language_model().to(torch.bfloat16))
    assert made.first.weight.dtype == torch.float32
    assert all(weight.isfinite().all() for weight in made.parameters())


def nll(model: Any, made: ModalityBridge, shown: int, said: int) -> float:
    """Measure how unexpected a passage is after the token of one."""
    book = ExerciseBook(chat_tokenizer(), LESSONS)
    vectors = torch.from_numpy(LESSONS.vectors[[shown]])
    prompt = [made(vectors)[0] if part == shown else part for part in book.laid_out(PARAPHRASES[0].format(context=mark(shown)))]
    return float(expected(model, [Exercise(prompt, book.tokens_of(said)[:12])]).mean_nll()[0])


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every loss of the trainings to come."""
    seen: list[float] = []
    plain = training._Course.step
    monkeypatch.setattr(training._Course, "step", lambda self, number: seen.append(plain(self, number)))
    return seen


def test_a_passage_is_expected_after_its_own_token(losses: list[float]) -> None:
    model = language_model().requires_grad_(requires_grad=False)
    begun = train(stages=(Stage("paraphrase", 1, 1, learning_rate=0.0),), model=model)
    losses.clear()
    made = train(stages=(Stage("paraphrase", 150, 8, learning_rate=2e-2, longest=12),), model=model)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    matrix = np.array([[nll(model, made, shown, said) for shown in range(8)] for said in range(8)])
    assert (matrix.argmin(axis=1) == np.arange(8)).mean() >= 0.75
    assert matrix.diagonal().mean() < np.mean([nll(model, begun, place, place) for place in range(8)]) - 0.5


def test_answers_are_learned(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "drawn_layout", lambda rng, taught: "alone")
    train(stages=(Stage("reading", 40, 3, learning_rate=2e-2, longest=8),))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_blind_training_learns_one_soft_prompt_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    plain = ModalityBridge.forward

    def watched(self: ModalityBridge, vectors: torch.Tensor) -> torch.Tensor:
        seen.extend(vectors.numpy())
        return plain(self, vectors)

    monkeypatch.setattr(ModalityBridge, "forward", watched)
    made = train(blind=True)
    assert len(seen) > 20
    np.testing.assert_array_equal(np.ptp(np.stack(seen), axis=0), 0)
    np.testing.assert_allclose(seen[0], LESSONS.vectors.mean(0), rtol=1e-5)
    assert made.fingerprint == train(blind=True).fingerprint


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="stage of reading and no readings"):
        train(Lessons(TEXTS, embed(TEXTS)))
    with pytest.raises(InputError, match=f"from dimension {DIM + 1} to width {HIDDEN}, wanted one from {DIM}"):
        train(config=BridgeConfig(DIM + 1, HIDDEN))
    with pytest.raises(InputError, match=f"to width {HIDDEN + 1}, wanted"):
        train(config=BridgeConfig(DIM, HIDDEN + 1))
    assert train(Lessons(TEXTS, embed(TEXTS)), STAGES[:1]).config == CONFIG


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "writing"},
        {"steps": -1},
        {"steps": 1.5},
        {"batch_size": 0},
        {"longest": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"divergence": -1.0},
    ],
)
@pytest.mark.unchecked
def test_stages_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Stage(**{"kind": "paraphrase", "steps": 1, **wrong})


def test_where_everything_answers_nothing_is_held_against_it() -> None:
    lessons = Lessons(TEXTS[:2], embed(TEXTS[:2]), [Reading("gull?", "bab", (0, 1))])
    book = ExerciseBook(chat_tokenizer(), lessons)
    for layout in LAYOUTS:
        lesson = book.reading(0, 8, np.random.default_rng(0), layout)
        assert [part for part in lesson.student.prompt if isinstance(part, int)] == [0]
        assert lesson.told


def test_what_does_not_answer_comes_once() -> None:
    reading = Reading("gull?", "bab", (0,), (1, 2, 3, 4, 5, 6, 7))
    book = ExerciseBook(chat_tokenizer(), Lessons(TEXTS, embed(TEXTS), [reading]))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        others = [part for part in book.reading(0, 8, rng, "others").student.prompt if isinstance(part, int)]
        assert len(set(others)) == len(others) > 0
        assert 0 not in others


@pytest.mark.parametrize("tokens", [2, 4])
def test_bridges_of_many_tokens_are_trained(tokens: int) -> None:
    made = train(config=BridgeConfig(DIM, HIDDEN, tokens))
    assert made(torch.from_numpy(LESSONS.vectors)).shape == (8, tokens, HIDDEN)


def test_passages_without_text_are_no_obstacle() -> None:
    made = train(Lessons(["", "bab", " "], embed(["a", "b", "c"]), [Reading("bab?", "teck", (0,))]))
    assert all(weight.isfinite().all() for weight in made.parameters())
