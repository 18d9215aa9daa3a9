"""How many threads the linear algebra below numpy uses."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_turn = threading.Lock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have BLAS work in the thread that calls it, for work that runs beside other work.

    BLAS's own threads wait for each other spinning, so that beside a busy thread they cost more than they bring. The number is
    mostly that of the whole process: one caller at a time lowers it, and the others find it as it is.
    """
    if not _turn.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _turn.release()


@cache
def _controller() -> Any:
    """Find the libraries once: looking for them takes longer than a small piece of work."""
    return ThreadpoolController()


@contextmanager
def so_many_threads(count: int) -> Iterator[None]:
    """Have BLAS, OpenMP and torch, where it is loaded, work in a fixed number of threads.

    Sums that are cut among another number of threads round otherwise, so what is to come out the same everywhere is computed
    in the same number of them.
    """
    torch: Any = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    with ThreadpoolController().limit(limits=count):
        if torch is not None:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
