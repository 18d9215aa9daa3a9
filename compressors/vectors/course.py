"""The loop in which everything is trained: steps, looks at held-out queries, and the best of what was seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Generic, TypeVar

from tqdm.auto import tqdm

CHECK = 50
"""Steps between two looks at the held-out queries."""

_TURN = RLock()

PATIENCE = 3
"""Looks without a gain after which training stops."""

Trained = TypeVar("Trained")


class Course(ABC, Generic[Trained]):
    """Training, step by step."""

    @abstractmethod
    def step(self) -> None:
        """Take one batch of queries."""

    @abstractmethod
    def look(self) -> Trained:
        """Give what has been trained so far, as a codec keeps it."""


def best_looked_at(
    start: Trained, course: Course[Trained], steps: int, measure: Callable[[Trained], float], *, progress: bool
) -> tuple[Trained, int]:
    """Train, look now and then, and give the best of all looked at, the start included, and after how many steps it stood.

    Args:
        start: what training begins with.
        course: what takes the steps.
        steps: how many at most.
        measure: recall on held-out queries; the higher, the better.
        progress: whether to show a bar.
    """
    best, best_step, highest = start, 0, measure(start)
    for step in tqdm(range(1, steps + 1), desc="training", unit="step", disable=not progress):
        course.step()
        if step % CHECK and step != steps:
            continue
        now = course.look()
        recall = measure(now)
        if recall > highest:
            best, best_step, highest = now, step, recall
        if step - best_step >= PATIENCE * CHECK:
            break
    return best, best_step


@contextmanager
def reproducible() -> Iterator[None]:
    """Let torch take operations whose results do not depend on the order in which threads come to them.

    A warning says where it has none. torch has one such setting for the whole process, so two trainings in it take turns.
    """
    import torch

    with _TURN:
        before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warned)
