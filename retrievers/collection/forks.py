"""Forks: what every open file does before one, and after it in both processes.

SQLite in a child takes the locks of its parent for its own. So no connection is open across a fork: before it, every file waits
for the threads that use one, and closes all. Where that takes too long, the file cannot be used in the child.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from typing import Protocol, runtime_checkable
from weakref import WeakValueDictionary

from rarebit.retrievers.collection.in_place import Identity

FORK_PATIENCE = 1.0
"""Seconds that a fork waits for other threads in the middle of a read or a write."""


class Fork:
    """A fork that is under way; clean if no connection is open that the child would inherit."""

    def __init__(self, *, has_turn: bool) -> None:
        """Begin; ``has_turn`` says whether no thread is writing."""
        self.has_turn = has_turn
        self.is_clean = False
        self.is_over = threading.Event()


@runtime_checkable
class Forked(Protocol):
    """Something with connections."""

    def before_fork(self, until: float) -> None:
        """Close every connection, and give none until the fork is over; wait until then for those that are used."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew."""


def tell_of_forks(one: Forked) -> None:
    """Tell something of every fork for as long as it is there."""
    _TOLD[id(one)] = one


def leave_to_parent(*connections: sqlite3.Connection) -> None:
    """Keep what a child must never close: its parent uses it."""
    _LEFT_TO_PARENT.extend(connections)


def mark_left_open(file: Identity | None) -> None:
    """Note a file that threads of the parent were using at the fork: SQLite takes their locks on it for this process's own."""
    _LEFT_OPEN.add(file)


def was_left_open(file: Identity | None) -> bool:
    """Tell whether a file was noted."""
    return file in _LEFT_OPEN


_TOLD: WeakValueDictionary[int, Forked] = WeakValueDictionary()
_FORKING = threading.Lock()
_LEFT_TO_PARENT: list[sqlite3.Connection] = []
_LEFT_OPEN: set[Identity | None] = set()


def _told() -> list[Forked]:
    return [one for reference in _TOLD.valuerefs() if (one := reference()) is not None]


def _before_fork() -> None:
    _FORKING.acquire()
    until = time.monotonic() + FORK_PATIENCE
    for one in _told():
        one.before_fork(until)


def _after_fork_in_parent() -> None:
    for one in _told():
        one.after_fork_in_parent()
    _FORKING.release()


def _after_fork_in_child() -> None:
    for one in _told():
        one.after_fork_in_child()
    _FORKING.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
