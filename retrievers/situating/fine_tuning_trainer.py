"""A run of sentence-transformers' trainer: what it is given, and what is kept of it. Needs the extra ``train``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import datasets
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from transformers import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging as transformers_logging

from rarebit.retrievers.situating.encoder_identity import how_it_reads, weights_of
from rarebit.retrievers.situating.fine_tuning_batches import Beside, DocumentBatches, DocumentCollator, SituatingLoss
from rarebit.retrievers.situating.text_examples import TextExamples

last_checkpoint: Any = get_last_checkpoint  # it has no types

LOOKS: Final = 4
"""How often in an epoch held-out questions are asked, and a checkpoint is written."""

RISING: Final = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass
class Run:
    """What a run is made of."""

    encoder: SentenceTransformer
    examples: TextExamples
    trained: list[int]
    held: list[int]
    separator: str | None
    beside: SentenceTransformer | None
    block: int
    negatives: int
    temperature: float
    seed: int
    arguments: dict[str, Any]

    @cached_property
    def identity(self) -> str:
        """A hash of everything that decides about the weights in the end, those at the beginning included."""
        return _digest(self._parts())

    def loss(self) -> float:
        """Ask the held-out questions."""
        with self._quiet(), TemporaryDirectory() as folder:
            return float(self._trainer(Path(folder)).evaluate()["eval_loss"])

    def train(self, folder: Path, *, unless_above: float) -> tuple[float, int]:
        """Train, or go on with it; give the loss of the weights that are kept, and the step at which they stood."""
        start = {name: own.detach().clone() for name, own in self.encoder.named_parameters() if own.requires_grad}
        with self._quiet():
            trainer = self._trainer(folder)
            trainer.train(resume_from_checkpoint=last_checkpoint(str(folder)))
        best = trainer.state.best_metric
        self.encoder.eval()
        if best is None or best >= unless_above:
            for name, own in self.encoder.named_parameters():
                if name in start:
                    own.data.copy_(start[name])
            return unless_above, 0
        return float(best), int(trainer.state.best_global_step or 0)

    def _trainer(self, folder: Path) -> SentenceTransformerTrainer:
        collator: Any = DocumentCollator(
            encoder=self.encoder,
            examples=self.examples,
            separator=self.separator,
            block=self.block,
            negatives=self.negatives,
            beside=None if self.beside is None else Beside(self.beside),
            guide=self._guide if self.examples.taken_out else None,
            seed=self.seed,
        )
        trainer = SentenceTransformerTrainer(
            model=self.encoder,
            args=self._arguments(folder),
            train_dataset=self._rows(self.trained),
            eval_dataset=self._rows(self.held),
            loss=SituatingLoss(self.encoder, self.temperature),
            data_collator=collator,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _arguments(self, folder: Path) -> SentenceTransformerTrainingArguments:
        steps = self._steps
        regular = {
            "seed": self.seed,
            "lr_scheduler_type": "linear",
            "warmup_steps": int(RISING * steps),
            "weight_decay": 0.05,
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "logging_strategy": "no",
            "save_total_limit": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "report_to": "none",
            "dataloader_pin_memory": torch.accelerator.is_available(),
            "use_cpu": not torch.accelerator.is_available(),  # with bf16, the trainer wants to be told
        }
        every = max(1, min(steps, self._steps_of_epoch) // LOOKS)
        given = {**regular, "eval_steps": every, "save_steps": every, **self.arguments}
        return SentenceTransformerTrainingArguments(
            str(folder), batch_sampler=DocumentBatches, remove_unused_columns=False, **given
        )

    @property
    def _steps(self) -> int:
        """Count the steps of the optimiser, as the trainer does."""
        most = int(self.arguments.get("max_steps", -1))
        return most if most > 0 else ceil(self.arguments["num_train_epochs"] * self._steps_of_epoch)

    @cached_property
    def _steps_of_epoch(self) -> int:
        batches = len(DocumentBatches(self._rows(self.trained), self.arguments["per_device_train_batch_size"]))
        return ceil(batches / int(self.arguments.get("gradient_accumulation_steps", 1)))

    @cached_property
    def _guide(self) -> Beside:
        """Know every question and chunk as they are before training."""
        guide = Beside(self.beside or self.encoder)
        guide.questions(self.examples.questions)
        guide.chunks([chunk for document in self.examples.documents for chunk in document])
        return guide

    def _rows(self, questions: list[int]) -> Dataset:
        documents = [self.examples.places[which][0] for which in questions]
        return Dataset.from_dict({"question": questions, "document": documents})

    def _parts(self) -> Iterator[bytes]:
        settings = [self.separator, self.block, self.negatives, self.temperature, self.seed, self.examples.taken_out]
        deciding = {key: repr(value) for key, value in sorted(self.arguments.items()) if key != "disable_tqdm"}
        yield json.dumps([*settings, deciding]).encode()
        yield json.dumps([self.examples.documents, self.examples.questions, self.examples.places]).encode()
        for encoder in [self.encoder, *([] if self.beside is None else [self.beside])]:
            yield how_it_reads(encoder)
            yield from weights_of(encoder)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Show no bars of loading and saving where none is wanted; the two libraries have one switch for a whole process."""
        hidden = [
            (
                transformers_logging.is_progress_bar_enabled,
                transformers_logging.disable_progress_bar,
                transformers_logging.enable_progress_bar,
            ),
            (datasets.is_progress_bar_enabled, datasets.disable_progress_bars, datasets.enable_progress_bars),
        ]
        switched = [(hide, show) for is_shown, hide, show in hidden if self.arguments["disable_tqdm"] and is_shown()]
        for hide, _ in switched:
            hide()
        try:
            yield
        finally:
            for _, show in switched:
                show()


def _digest(parts: Iterator[bytes]) -> str:
    """Hash parts, each with its length."""
    hashed = sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little") + part)
    return hashed.hexdigest()
