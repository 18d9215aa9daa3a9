"""A forked child of a process that has searched: it has none of the parent's threads, locks or connections."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection, Compare
from rarebit.errors import ClosedError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SECONDS = 60


@pytest.fixture
def searched(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c.rarebit") as collection:
        collection.add(clustered(3000), ids=[str(number) for number in range(3000)])
        collection.search_many(clustered(64, seed=1), 5)  # faiss has used a team of threads
        yield collection


def exit_status(child_does: Callable[[], bool]) -> int:
    """Fork, and give what the child's work came to: 0 when it returned True; -14 when it hung."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        try:
            os._exit(0 if child_does() else 1)
        except BaseException:  # noqa: BLE001
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_searches_and_writes(searched: Collection) -> None:
    def work() -> bool:
        found = searched.search(clustered(3000)[7], 1)[0].id == "7"
        searched.search_many(clustered(64, seed=1), 5)
        searched.add(clustered(1, seed=9), ids=["child"])
        return found and searched.count() == 3001

    assert exit_status(work) == 0
    assert "child" in searched
    searched.add(clustered(1, seed=8), ids=["parent"])
    assert searched.count() == 3002


def test_a_child_does_not_wait_for_locks_of_threads_it_does_not_have(searched: Collection) -> None:
    held, done = threading.Event(), threading.Event()
    engine = searched._engine

    def hold() -> None:
        with (
            engine.storage.write(),
            engine.index.lock,
            engine.known.matches._lock,
            engine.known.columns._lock,
            engine.storage._idle_lock,
        ):
            held.set()
            done.wait(2 * SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(SECONDS)
    try:
        # Only reading: the parent's transaction still holds the file itself.
        assert exit_status(lambda: len(searched.search(np.ones(64), 3, filter=Compare("n", "exists", False))) == 3) == 0
    finally:
        done.set()
        thread.join()


def test_memory_is_not_shared_with_a_child() -> None:
    collection = Collection.open()
    collection.add([[1.0, 2.0]])

    def work() -> bool:
        try:
            collection.count()
        except ClosedError as error:
            return "fork" in str(error)
        return False

    assert exit_status(work) == 0
    assert collection.count() == 1
