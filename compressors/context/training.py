"""Training of a bridge between frozen models: paraphrases first, then questions.

As published (xRAG, arXiv 2405.13792): the language model learns nothing; first it is to say what a passage says from its
embedding alone; then to answer questions as it answers them from the passage's text, by cross-entropy of the answer and by the
divergence from the same model reading the text. Beyond that, questions come with passages that do not answer them, and with
some passages as text, since that is what a :class:`.budget.ContextBudget` makes of retrieved ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm

from rarebit.arrays import Vectors
from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.embeddings import usual_length
from rarebit.compressors.context.exercises import WITH_TEXT, ExerciseBook, Lesson, Line, drawn_layout
from rarebit.compressors.context.lessons import Lessons
from rarebit.compressors.context.reading import Exercise, expected
from rarebit.compressors.context.warm_start import warm_start
from rarebit.compressors.vectors.course import reproducible
from rarebit.errors import InputError

Tensors: TypeAlias = dict[str, torch.Tensor]
Kind: TypeAlias = Literal["paraphrase", "reading"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

NORM_WEIGHT: Final = 0.01
"""Of the penalty on embeddings that are longer or shorter than the model's own."""

WARM_UP: Final = 0.03
"""Share of the steps in which the learning rate rises."""

CLIP: Final = 1.0
"""Longest gradient."""

SORTED: Final = 16
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""

FEWER: Final = 4
"""So many times fewer exercises of a batch are taken where passages are given as text, for as many tokens."""

WARM: Final = 8192
"""Passages that the first weights are fitted to."""

TENSORS_FILE: Final = "training.safetensors"


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Args:
        kind: ``"paraphrase"``, or ``"reading"``, which needs questions.
        steps: batches.
        batch_size: passages or questions of each.
        learning_rate: the highest; it rises over the first 3 % of the steps and falls to nothing. Ten times the default wanders
            off from where training begins.
        longest: tokens of a paraphrase or an answer that are learned, at most.
        nll: weight of the cross-entropy.
        divergence: weight of the divergence from the model that reads the text; of questions alone.
    """

    kind: Kind
    steps: int
    batch_size: int = 32
    learning_rate: float = 3e-4
    longest: int = 48
    nll: float = 1.0
    divergence: float = 2.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is out of range, or the kind is none.
        """
        if self.kind not in KINDS:
            raise InputError(f"got a stage of kind {self.kind!r}, wanted one of {list(KINDS)}")
        for name, least in (("steps", 0), ("batch_size", 1), ("longest", 1)):
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or given < least:
                raise InputError(f"got {name}={given!r} for a stage, wanted a whole number from {least} on")
        if not (self.learning_rate >= 0 and self.nll >= 0 and self.divergence >= 0):
            raise InputError(
                f"got learning_rate={self.learning_rate}, nll={self.nll}, divergence={self.divergence}, wanted numbers from "
                "0 on"
            )


STAGES: Final = (Stage("paraphrase", 2000), Stage("reading", 2000, 16))


def train_bridge(
    model: Any,
    tokenizer: Any,
    lessons: Lessons,
    config: BridgeConfig,
    stages: Sequence[Stage] = STAGES,
    *,
    blind: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> ModalityBridge:
    """Train a bridge; the model's weights stay as they are.

    It computes in the model's dtype and on its device: bfloat16 is several times faster where the processor has it. The same
    seed gives the same bridge on the same machine, also if training was interrupted and taken up again.

    Args:
        model: a causal language model of Hugging Face.
        tokenizer: of the model.
        lessons: passages, vectors and questions.
        config: the bridge's shape.
        stages: of the training, in order.
        blind: give every passage the same vector: what is learned then is a soft prompt that knows nothing of any passage, for
            comparison.
        checkpoint: a folder in which training is kept now and then, and from which it is taken up again.
        save_every: steps between two savings.
        seed: of the first weights and of every draw.
        progress: show a bar.

    Raises:
        InputError: no question for a stage that needs some, vectors of another dimension, or a folder with the checkpoint of
            another training.
    """
    if any(stage.kind == "reading" for stage in stages) and not lessons.readings:
        raise InputError("got a stage of reading and no readings, wanted questions with their answers")
    width = model.get_input_embeddings().weight.shape[1]
    if (config.dim, config.width) != (lessons.dim, width):
        raise InputError(
            f"got a bridge from dimension {config.dim} to width {config.width}, wanted one from {lessons.dim}, that of the "
            f"vectors, to {width}, that of the model"
        )
    if not isinstance(save_every, int) or save_every < 1:
        raise InputError(f"got save_every={save_every!r}, wanted a whole number from 1 on")
    if tokenizer.eos_token_id is None:
        raise InputError("got a tokenizer without an end token, wanted its eos_token set: answers are learned with their end")
    with _frozen(model), reproducible(), torch.random.fork_rng():
        torch.manual_seed(seed)
        course = _Course(model, ExerciseBook(tokenizer, lessons), config, stages, seed, blind=blind)
        folder = None if checkpoint is None else Path(checkpoint)
        done = 0 if folder is None else course.resume(folder)
        for step in tqdm(range(done, course.steps), "training", initial=done, total=course.steps, disable=not progress):
            course.step(step)
            if folder is not None and ((step + 1) % save_every == 0 or step + 1 == course.steps):
                course.save(folder, step + 1)
    return course.bridge.requires_grad_(requires_grad=False).eval()


class _Course:
    """The bridge that is trained, and how."""

    def __init__(
        self,
        model: Any,
        book: ExerciseBook,
        config: BridgeConfig,
        stages: Sequence[Stage],
        seed: int,
        *,
        blind: bool,
    ) -> None:
        self.model, self.book, self.stages, self.seed = model, book, stages, seed
        self.steps = sum(stage.steps for stage in stages)
        vectors = book.lessons.vectors
        self._vectors: Vectors = np.broadcast_to(vectors.mean(0), vectors.shape) if blind else vectors
        table = model.get_input_embeddings()
        self._device = table.weight.device
        self._usual_norm = usual_length(table)
        self.bridge = ModalityBridge(config)
        sample = np.random.default_rng([seed, WARM]).permutation(len(vectors))[:WARM].tolist()
        warm_start(self.bridge, table, book.tokenizer, list(map(book.tokens_of, sample)), self._taken(sample).cpu())
        self.bridge.to(self._device)
        self._optimizer = torch.optim.AdamW(self.bridge.parameters(), lr=0.0, weight_decay=0.0)
        self._told = {
            "seed": seed,
            "blind": blind,
            "stages": [asdict(stage) for stage in stages],
            "bridge": vars(config),
            "lessons": book.lessons.digest,
            "model": _digest_of(model, book.tokenizer),
        }

    def step(self, step: int) -> float:
        """Take one batch."""
        number, within = self._stage_at(step)
        stage = self.stages[number]
        warm_up = max(1, round(WARM_UP * stage.steps))
        rate = min((within + 1) / warm_up, (stage.steps - within) / max(1, stage.steps - warm_up))
        for group in self._optimizer.param_groups:
            group["lr"] = stage.learning_rate * rate
        loss = self._loss(stage, number, within)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.bridge.parameters(), CLIP)
        self._optimizer.step()
        return float(loss.detach())

    def save(self, folder: Path, step: int) -> None:
        """Keep everything that going on needs, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        kept: Tensors = {f"bridge.{name}": weight.detach().contiguous() for name, weight in self.bridge.state_dict().items()}
        for name, weight in self.bridge.named_parameters():
            moments = self._optimizer.state[weight]
            kept |= {f"{key}.{name}": torch.as_tensor(value).contiguous() for key, value in moments.items()}
        told = {**self._told, "step": step}
        safetensors.torch.save_file(kept, folder / f"{TENSORS_FILE}.new", {"told": json.dumps(told)})
        (folder / f"{TENSORS_FILE}.new").replace(folder / TENSORS_FILE)

    def resume(self, folder: Path) -> int:
        """Take up a training that was kept; gives how many steps were done, 0 if there is none.

        Raises:
            InputError: what is there is of another training, or damaged.
        """
        path = folder / TENSORS_FILE
        if not path.exists():
            return 0
        try:
            with safetensors.safe_open(path, framework="pt", device=str(self._device)) as kept:
                told = json.loads(kept.metadata()["told"])
                tensors: Tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
            done = int(told.pop("step"))
            weights = {name: tensors[f"bridge.{name}"] for name in self.bridge.state_dict()}
            moments = {
                name: {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                for name, _ in self.bridge.named_parameters()
            }
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"got {path}, which is no checkpoint or a damaged one ({error}): delete it to begin anew"
            ) from error
        wanted = json.loads(json.dumps(self._told))
        if told != wanted:
            other = ", ".join(f"{key}={told.get(key)}, not {value}" for key, value in wanted.items() if told.get(key) != value)
            raise InputError(
                f"got {path}, the checkpoint of another training ({other}), wanted one of this: take another folder, or delete "
                "it"
            )
        self.bridge.load_state_dict(weights)
        for name, weight in self.bridge.named_parameters():
            self._optimizer.state[weight] = moments[name]
        return done

    def _stage_at(self, step: int) -> tuple[int, int]:
        for number, stage in enumerate(self.stages):
            if step < stage.steps:
                return number, step
            step -= stage.steps
        raise IndexError(step)

    def _loss(self, stage: Stage, number: int, step: int) -> torch.Tensor:
        rng = np.random.default_rng([self.seed, number, step])
        lessons = self._lessons(stage, self._batch(stage, number, step), rng)
        exercises, embedded = self._exercises([lesson.student for lesson in lessons])
        student = expected(self.model, exercises)
        told = torch.tensor([lesson.told for lesson in lessons], device=student.logits.device)[student.exercises]
        loss = stage.nll * (student.nll * told).sum() / told.sum().clamp_min(1)
        if embedded is not None:
            loss = loss + NORM_WEIGHT * (embedded.norm(dim=-1) / self._usual_norm).log().square().mean()
        teachers = [lesson.teacher for lesson in lessons if lesson.teacher is not None]
        if teachers and stage.divergence:
            with torch.no_grad():
                teacher = expected(self.model, self._exercises(teachers)[0])
            loss = loss + stage.divergence * student.divergence_from(teacher).mean()
        return loss

    def _lessons(self, stage: Stage, places: Sequence[int], rng: np.random.Generator) -> list[Lesson]:
        if stage.kind == "paraphrase":
            return [self.book.paraphrase(place, stage.longest, rng) for place in places]
        layout = drawn_layout(rng, taught=stage.divergence > 0)  # one for all: a text among tokens would make the others wait
        if layout in WITH_TEXT:
            places = places[: max(1, len(places) // FEWER)]
        return [self.book.reading(place, stage.longest, rng, layout) for place in places]

    def _batch(self, stage: Stage, number: int, step: int) -> list[int]:
        """Draw what a step is about: everything once before anything twice, and what is about as long together."""
        count = len(self.book.lessons.texts if stage.kind == "paraphrase" else self.book.lessons.readings)
        drawn = stage.batch_size * SORTED
        block, within = divmod(step, SORTED)
        numbers = range(block * drawn, (block + 1) * drawn)
        places = [int(self._order(number, place // count, count)[place % count]) for place in numbers]
        places.sort(key=lambda place: self.book.length_of(stage.kind, place, stage.longest))
        batch = int(np.random.default_rng([self.seed, number, block]).permutation(SORTED)[within])
        return places[batch * stage.batch_size : (batch + 1) * stage.batch_size]

    def _order(self, number: int, epoch: int, count: int) -> Any:
        if self._drawn[:2] != (number, epoch):
            order = np.random.default_rng([self.seed, number, epoch, count]).permutation(count)
            self._drawn = (number, epoch, order)
        return self._drawn[2]

    _drawn: tuple[int, int, Any] = (-1, -1, None)

    def _exercises(self, lines: Sequence[Line]) -> tuple[list[Exercise], torch.Tensor | None]:
        """Project all passages of some lines at once; give the lines with them, and what was projected."""
        places = [part for line in lines for part in line.prompt if isinstance(part, int)]
        embedded = self.bridge(self._taken(places)) if places else None
        following = iter(embedded if embedded is not None else ())
        exercises = [
            Exercise([next(following) if isinstance(part, int) else part for part in line.prompt], line.answer)
            for line in lines
        ]
        return exercises, embedded

    def _taken(self, places: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._vectors[list(places)], np.float32)).to(self._device)


def _digest_of(model: Any, tokenizer: Any) -> str:
    """Give a short hash of a model's shape and some of each of its weights, and of how prompts are laid out."""
    told = sha256(repr(sorted(tokenizer.get_vocab().items())).encode() + str(tokenizer.chat_template).encode())
    for name, weight in model.named_parameters():
        told.update(f"{name}{tuple(weight.shape)}".encode() + weight.flatten()[:64].float().cpu().numpy().tobytes())
    return told.hexdigest()[:16]


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Let a model be as it is in use, without gradients of its own."""
    was_training, needed = model.training, [weight.requires_grad for weight in model.parameters()]
    model.eval().requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        model.train(was_training)
        for weight, need in zip(model.parameters(), needed, strict=True):
            weight.requires_grad_(need)
