"""A forked child of a process that has searched: it has none of the parent's threads, locks or connections."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.vectors import clustered

from rarebit import Collection, Compare, Where
from rarebit.errors import ClosedError, StorageError

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


@contextmanager
def held(*locks: AbstractContextManager[object]) -> Iterator[None]:
    """Have another thread hold locks meanwhile."""
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            ready.set()
            done.wait(2 * SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(SECONDS)
    try:
        yield
    finally:
        done.set()
        thread.join()


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
    engine = searched._engine
    with held(engine.index.lock, engine.known.matches._lock, engine.known.columns._lock):
        assert exit_status(lambda: len(searched.search(np.ones(64), 3, filter=Compare("n", "exists", False))) == 3) == 0


@pytest.mark.parametrize("use", ["read", "write"])
def test_a_child_of_a_process_in_the_middle_of_a_call_is_refused(searched: Collection, use: str) -> None:
    """What SQLite in the child would take for its own locks are those of the parent."""
    path = searched.path
    assert path is not None

    def refused() -> bool:
        for call in (searched.count, lambda: searched.add(clustered(1)), lambda: Collection.open(path)):
            with pytest.raises(StorageError, match="fork between calls"):
                call()
        return True

    with held(getattr(searched._engine.storage, use)()):
        assert exit_status(refused) == 0
    assert searched.add(clustered(1, seed=9), ids=["parent"]) == ["parent"]
    assert exit_status(lambda: "parent" in searched) == 0


def test_a_fork_waits_for_short_calls(searched: Collection) -> None:
    over, found = threading.Event(), []

    def search() -> None:
        while not over.is_set():
            found.append(len(searched.search(np.ones(64), 3)))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(5):
            assert exit_status(lambda: len(searched.search(np.ones(64), 3)) == 3) == 0
            searched.add(clustered(1, seed=turn), ids=["new"])
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert set(found) == {3}


def test_a_parent_that_closes_leaves_the_child_its_log(searched: Collection) -> None:
    closed_in_child, (reading, writing) = os.pipe(), os.pipe()
    path = searched.path
    assert path is not None

    def work() -> bool:
        def slowly(_: object) -> bool:
            if not told:
                told.append(os.write(closed_in_child[1], b"x"))
                os.read(reading, 1)  # the parent has closed the collection
            return True

        told: list[int] = []
        searched.search(np.ones(64), 3)
        deleted = searched.delete([str(number) for number in range(10)], filter=Where(slowly))
        searched.add(clustered(1, seed=9), ids=["child"])
        return deleted == 10 and searched.count() == 2991

    def close() -> None:
        os.read(closed_in_child[0], 1)
        searched.close()
        os.write(writing, b"x")

    closer = threading.Thread(target=close)
    closer.start()
    assert exit_status(work) == 0
    closer.join()
    with Collection.open(path) as again:
        assert again.count() == 2991
        assert "child" in again


@pytest.mark.parametrize("write", ["add", "delete", "share", "delete_tenant", "compact"])
def test_a_log_that_goes_during_a_write_is_an_error(searched: Collection, write: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searched.tenant("ann").add(clustered(10))
    log = Path(f"{searched.path}-wal")
    calls: dict[str, Callable[[], object]] = {
        "add": lambda: searched.add(clustered(1)),
        "delete": lambda: searched.delete(["7"]),
        "share": lambda: searched.share(["7"]),
        "delete_tenant": lambda: searched.delete_tenant("ann"),
        "compact": searched.compact,
    }
    monkeypatch.setattr(searched._engine.storage, "_check_no_filter_is_running", log.unlink)  # when the file was looked at
    with pytest.raises(StorageError, match="was removed"):
        calls[write]()


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
    assert len(collection.search([1.0, 2.0])) == 1
