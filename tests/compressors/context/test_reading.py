"""What a model expects: as in a plain forward pass for each exercise alone, whatever is shared, padded or projected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.tiny_language_model import HIDDEN, language_model

from rarebit.compressors.context import reading
from rarebit.compressors.context.reading import WORTH_SHARING, Exercise, Expected, expected

pytestmark = pytest.mark.usefixtures("_one_thread")

BEGINNING = [[5, 9, 30, 41, 7, 7, 12, 99, 101, 64], [5, 9, 30, 41]]
"""Token ids with which prompts begin; the first are worth sharing."""


@pytest.fixture(scope="module")
def model() -> Any:
    return language_model().requires_grad_(requires_grad=False)


def ids(rng: np.random.Generator, count: int) -> list[int]:
    return rng.integers(3, 340, size=count).tolist()


def embedded(rng: np.random.Generator, count: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((count, HIDDEN)).astype(np.float32) * 0.3)


def exercises_of(kind: str) -> list[Exercise]:
    """Make exercises of all lengths, which begin alike or not."""
    rng = np.random.default_rng(0)
    answers = [ids(rng, count) for count in (3, 1, 6)]
    begin = BEGINNING[0] if kind.startswith("shared") else BEGINNING[1]
    match kind:
        case "shared text" | "text":
            prompts: list[list[Any]] = [[begin + ids(rng, count)] for count in (4, 9, 1)]
        case "shared whole" | "whole":
            prompts = [[begin[:]] for _ in answers]
        case "shared embedded" | "embedded":
            prompts = [
                [begin + ids(rng, count), embedded(rng, parts), ids(rng, 3)] for count, parts in ((4, 1), (0, 4), (9, 2))
            ]
        case "shared mixed":
            prompts = [[begin + ids(rng, 3)], [begin[:], embedded(rng, 1)], [begin[:], embedded(rng, 2), [], ids(rng, 5)]]
        case "embedded first":
            prompts = [[embedded(rng, 1), ids(rng, 12)], [BEGINNING[0] + ids(rng, 2)], [embedded(rng, 3)]]
        case _:
            prompts = [[ids(rng, 12)], [BEGINNING[0] + ids(rng, 2)], [ids(rng, 1)]]
    return [Exercise(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


KINDS = [
    "shared text",
    "text",
    "shared whole",
    "whole",
    "shared embedded",
    "embedded",
    "shared mixed",
    "embedded first",
    "apart",
]


def alone(model: Any, exercise: Exercise) -> torch.Tensor:
    """Give the logits in place of the answer, of one full forward pass."""
    table = model.get_input_embeddings().weight
    rows = [table[part] if isinstance(part, list) else part for part in [*exercise.prompt, exercise.answer]]
    logits: torch.Tensor = model(inputs_embeds=torch.cat(rows)[None]).logits[0]
    return logits[-len(exercise.answer) - 1 : -1]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_plain_forward_passes(model: Any, kind: str) -> None:
    exercises = exercises_of(kind)
    given = expected(model, exercises)
    wanted = [alone(model, exercise) for exercise in exercises]
    torch.testing.assert_close(given.logits, torch.cat(wanted), atol=2e-5, rtol=1e-5)
    assert given.tokens.tolist() == [token for exercise in exercises for token in exercise.answer]
    assert given.exercises.tolist() == [0] * 3 + [1] + [2] * 6
    means = [
        -float(np.mean([float(row.log_softmax(-1)[token]) for row, token in zip(logits, exercise.answer, strict=True)]))
        for logits, exercise in zip(wanted, exercises, strict=True)
    ]
    np.testing.assert_allclose(given.mean_nll().tolist(), means, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_as_each_alone(model: Any, kind: str) -> None:
    exercises = exercises_of(kind)
    singles = [expected(model, [exercise]).logits for exercise in exercises]
    torch.testing.assert_close(expected(model, exercises).logits, torch.cat(singles), atol=2e-5, rtol=1e-5)


def test_what_is_shared_is_read_once(model: Any) -> None:
    read: list[int] = []
    plain = model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        read.append(kwargs["inputs_embeds"].shape[:2].numel() if "inputs_embeds" in kwargs else kwargs["input_ids"].numel())
        return plain(*args, **kwargs)

    model.forward = watched
    try:
        expected(model, exercises_of("shared whole"))
        expected(model, exercises_of("whole"))
    finally:
        del model.forward
    shared = len(BEGINNING[0]) - 1
    assert read == [shared, 3 * (1 + 6 - 1), 3 * (len(BEGINNING[1]) + 6 - 1)]


@pytest.mark.parametrize("count", [WORTH_SHARING - 1, WORTH_SHARING, WORTH_SHARING + 1])
def test_few_tokens_are_not_worth_sharing(model: Any, count: int) -> None:
    exercises = [Exercise([[*BEGINNING[0][:count], 200 + place], [4, 5]], [6]) for place in range(2)]
    assert reading._shared(exercises) == (count if count >= WORTH_SHARING else 0)
    torch.testing.assert_close(
        expected(model, exercises).logits, torch.cat([alone(model, exercise) for exercise in exercises]), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["shared embedded", "embedded", "embedded first", "shared mixed"])
def test_gradients_flow_to_embeddings_alone(kind: str) -> None:
    model = language_model().requires_grad_(requires_grad=False)
    exercises = exercises_of(kind)
    parts = [part.requires_grad_() for exercise in exercises for part in exercise.prompt if isinstance(part, torch.Tensor)]
    expected(model, exercises).nll.sum().backward()
    grads = [part.grad.clone() for part in parts if part.grad is not None]
    assert len(grads) == len(parts)
    assert all(weight.grad is None for weight in model.parameters())
    for part in parts:
        part.grad = None
    sum(
        torch.nn.functional.cross_entropy(alone(model, each), torch.tensor(each.answer), reduction="sum") for each in exercises
    ).backward()
    for part, grad in zip(parts, grads, strict=True):
        assert float(grad.abs().max()) > 0
        torch.testing.assert_close(grad, part.grad, atol=1e-4, rtol=1e-3)


def test_divergence_is_that_of_torch(model: Any) -> None:
    student, teacher = (expected(model, exercises_of(kind)) for kind in ("shared text", "shared embedded"))
    wanted = torch.nn.functional.kl_div(
        student.logits.log_softmax(-1), teacher.logits.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(student.divergence_from(teacher), wanted)
    assert (wanted > 0).all()
    torch.testing.assert_close(student.divergence_from(student), torch.zeros(10))


def test_means_are_of_each_answer() -> None:
    given = Expected(torch.zeros(4, 5), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 0, 1]))
    assert given.mean_of(torch.tensor([1.0, 2.0, 6.0, 5.0])).tolist() == [3.0, 5.0]
    torch.testing.assert_close(given.mean_nll(), torch.full((2,), float(np.log(5))))
