"""Fine-tuning of an encoder that is to read chunks, alone or with their contexts, by sentence-transformers' trainer.

SitEmb (2508.01959) trains an encoder on chunks alone first, and then a second one, which reads the context too, through the sum
of both, so that it learns what the first leaves open:

.. code-block:: python

    fine_tune(alone, examples, "alone", context=False)
    fine_tune(situated, examples, "situated", beside=alone)
    encoders = TwoEncoders(alone, situated)

What a context brings is seen beside the same training without it: ``fine_tune(second, examples, "second", context=False,
beside=alone)``. Most of what fine-tuning gains, it gains without any context.

Needs torch, sentence-transformers, accelerate and datasets: the extra ``train``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rarebit.errors import DimensionError, InputError
from rarebit.extras import require
from rarebit.retrievers.situating.context_blocks import BLOCK
from rarebit.retrievers.situating.text_examples import TextExamples
from rarebit.retrievers.situating.two_encoders import check_reader, dimension_of, separator_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

HELD_OUT: Final = 0.1
"""Share of the documents that are asked about which training does not see."""

FEWEST_DOCUMENTS: Final = 10
RUN_FILE: Final = "run.json"


@dataclass(frozen=True)
class FineTuningReport:
    """The loss on questions about documents that training did not see."""

    before: float
    after: float
    """Of the weights that were kept; never higher."""
    steps: int
    """After how many steps they stood; 0 if training brought nothing."""
    questions: int
    """How many questions were kept apart."""


def fine_tune(
    encoder: SentenceTransformer,
    examples: TextExamples,
    folder: str | os.PathLike[str],
    *,
    context: bool = True,
    beside: SentenceTransformer | None = None,
    block: int = BLOCK,
    negatives: int = 4,
    temperature: float = 0.05,
    epochs: float = 1,
    batch_size: int = 32,
    learning_rate: float = 2e-5,
    seed: int = 0,
    progress: bool = False,
    **arguments: Any,
) -> FineTuningReport:
    """Train an encoder in place, and leave it with the weights that did best on held-out documents.

    A tenth of the documents is kept apart. Checkpoints are written to the folder, and a run that was interrupted goes on
    from the last one when it is called again with the same things; one that had come to its end is only loaded.

    For LoRA, give the encoder an adapter before: ``encoder.add_adapter(peft.LoraConfig(...))``; the rest is then left alone.

    Args:
        encoder: of sentence-transformers, whose vectors have length 1. With context it reads ``chunk </s> context`` and cuts
            the end: set its ``max_seq_length`` so that there is room (:func:`.extend_context`).
        examples: labelled, or made of documents alone (:meth:`TextExamples.unlabelled`).
        folder: for checkpoints.
        context: whether chunks are read with their contexts, as :class:`.TwoEncoders` reads them.
        beside: another encoder of the same dimension, which stays as it is and reads chunks alone. What is trained is then the
            sum with it.
        block: chunks of a context.
        negatives: chunks of each document to compare with, beside those that other questions of the batch are about.
        temperature: of the InfoNCE loss.
        epochs: how often every question is asked.
        batch_size: questions of a step, up to eight about one document.
        learning_rate: at its highest.
        seed: of what is kept apart, of batches and of negatives.
        progress: show the trainer's bar.
        **arguments: others of ``SentenceTransformerTrainingArguments``, such as ``bf16=True``.

    Returns:
        What training brought.

    Raises:
        InputError: questions about fewer than ten documents; a folder of another run; an encoder that cannot read a context.
        DimensionError: the two encoders have different dimensions.
        MissingExtraError: something that training needs is not installed.
    """
    for module in ("sentence_transformers", "accelerate", "datasets"):
        require(module, "train")
    if beside is not None and dimension_of(encoder) != dimension_of(beside):
        raise DimensionError(
            f"got encoders of dimensions {dimension_of(encoder)} and {dimension_of(beside)}, wanted two of one dimension: "
            "their vectors are summed"
        )
    separator = None
    if context:
        check_reader(encoder)
        separator = separator_of(encoder)
    trained, held = _parted(examples, seed)
    from rarebit.retrievers.situating.fine_tuning_trainer import Run

    run = Run(
        encoder=encoder,
        examples=examples,
        trained=trained,
        held=held,
        separator=separator,
        beside=beside,
        block=block,
        negatives=negatives,
        temperature=temperature,
        seed=seed,
        arguments={
            "num_train_epochs": epochs,
            "per_device_train_batch_size": batch_size,
            "per_device_eval_batch_size": batch_size,
            "learning_rate": learning_rate,
            "disable_tqdm": not progress,
            **arguments,
        },
    )
    path = Path(folder)
    known = _Known.of(path, run.identity)
    if known is None:
        known = _Known(run.identity, run.loss())
        known.save(path)
    after, steps = run.train(path, unless_above=known.before)
    return FineTuningReport(known.before, after, steps, len(held))


@dataclass(frozen=True)
class _Known:
    """What a folder says of its run."""

    identity: str
    before: float

    @classmethod
    def of(cls, folder: Path, identity: str) -> _Known | None:
        """Read it; None if there is nothing yet."""
        kept = folder / RUN_FILE
        if not kept.exists():
            if folder.exists() and any(folder.iterdir()):
                raise InputError(f"got the folder {folder}, which holds something else, wanted an empty one: name another")
            return None
        try:
            known = cls(**json.loads(kept.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"got {kept}, which cannot be read ({error}): delete the folder, or name another") from error
        if known.identity != identity:
            raise InputError(
                f"got the folder {folder} of another run, wanted the same encoders, examples and settings, to go on with it: "
                "delete it, or name another"
            )
        return known

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{RUN_FILE}.tmp"
        aside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        aside.replace(folder / RUN_FILE)


def _parted(examples: TextExamples, seed: int) -> tuple[list[int], list[int]]:
    """Give the numbers of the questions about documents to train on, and of those about documents kept apart."""
    documents = sorted({document for document, _ in examples.places})
    if len(documents) < FEWEST_DOCUMENTS:
        raise InputError(
            f"got questions about {len(documents)} documents, wanted {FEWEST_DOCUMENTS} at least: an encoder that is to be "
            "used on other documents has to be measured on some"
        )
    count = max(1, round(HELD_OUT * len(documents)))
    apart = set(np.random.default_rng(seed).permutation(documents)[:count].tolist())
    parts: tuple[list[int], list[int]] = ([], [])
    for which, (document, _) in enumerate(examples.places):
        parts[document in apart].append(which)
    return parts
