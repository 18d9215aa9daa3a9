"""What the store benchmark reads off a process: seconds, bytes of memory and of files, and which cores it runs on."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ctypes import CDLL
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

Search: TypeAlias = Callable[[int], Any]
"""Answers the query of that number."""


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Give what a call gives, and the seconds that it took."""
    started = perf_counter()
    result = call()
    return result, perf_counter() - started


def asked_by_two(search: Search, queries: int, seconds: float) -> tuple[int, float]:
    """Ask with two threads for some seconds, or until each query was asked once; give how many, and how many a second."""
    numbers = count()
    started = perf_counter()

    def ask() -> int:
        asked = 0
        while (number := next(numbers)) < queries and (asked == 0 or perf_counter() - started < seconds):
            search(number)
            asked += 1
        return asked

    with ThreadPoolExecutor(2) as pool:
        asked = sum(future.result() for future in [pool.submit(ask) for _ in range(2)])
    return asked, asked / (perf_counter() - started)


def memory() -> dict[str, int]:
    """Read the bytes of memory that the process has, without what it has freed; empty where the system does not tell."""
    gc.collect()
    with suppress(OSError, AttributeError):
        CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    pairs = (line.split(":", maxsplit=1) for line in lines)
    return {name: 1024 * int(value.split()[0]) for name, value in pairs if name in {"RssAnon", "VmRSS", "VmHWM"}}


def on_cores(wanted: int | None) -> None:
    """Let all threads of the process run on the first cores that it may use, None for all; nothing where that cannot be."""
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_setaffinity") or not tasks.exists():
        return
    cores = _cores()
    for task in tasks.iterdir():
        with suppress(OSError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), cores[:wanted])


_all_cores: list[int] = []


def _cores() -> list[int]:
    if not _all_cores:
        _all_cores.extend(sorted(os.sched_getaffinity(0)))
    return _all_cores


def bytes_in(folder: Path) -> int:
    """Sum the blocks that the files of a folder take on the disk."""
    return sum(512 * path.stat().st_blocks for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
