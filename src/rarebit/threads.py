"""How many threads the linear algebra below numpy uses."""

from __future__ import annotations

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
