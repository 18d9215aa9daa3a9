"""Tasks on Ray: a pool of actors, one shard a block, and Ray Data's own restarts where one of them dies.

Workers read and write the work folder, so that only numbers of shards travel through Ray; on a cluster every node has to see
that folder under the same path, and have Rarebit installed.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from rarebit import errors
from rarebit.errors import BuildError, InputError, RarebitError
from rarebit.extras import require
from rarebit.retrievers.building.tasks import Task
from rarebit.retrievers.building.work_folder import MANIFEST
from rarebit.retrievers.collection.arguments import as_count

ADDRESS: Final = "RAY_ADDRESS"
QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Ray's own settings, for as long as it is being started."""

OBJECT_STORE: Final = 128 << 20
"""Bytes of a local Ray's memory for objects: only numbers of shards go through it."""

TRIES: Final = 5
"""Workers that one shard may end, at most: Ray itself would start others for ever."""

ATTEMPTS: Final = "attempts"


class OnRay:
    """Has tasks done by workers on Ray: those of a cluster, or of this machine.

    Use it in a ``with`` block, which starts Ray and stops it; a Ray that the process uses already is used, and left as it is.

    Args:
        workers: how many; as many as there are processors for, or GPUs, if left out.
        address: of a cluster, such as ``"host:6379"``, or ``"auto"`` on one of its machines; left out, the one in
            ``RAY_ADDRESS``, and without that a Ray of this machine's own.
        tries: how many workers a shard may end before the build gives up.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, *, tries: int = TRIES) -> None:
        """Look for Ray."""
        require("ray.data", "ray")
        self._workers = None if workers is None else as_count("workers", workers, least=1)
        self._tries = as_count("tries", tries, least=1)
        self._address = address or os.environ.get(ADDRESS) or None
        self._started = False

    def __enter__(self) -> OnRay:
        """Connect to Ray, or start it when the first task says how much it needs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what was started here."""
        if self._started:
            import_module("ray").shutdown()
            self._started = False

    def check(self, task: Task) -> None:
        """As :class:`rarebit.retrievers.building.tasks.Runner` says: by a worker, whose machine may be another one."""
        ray = self.start(task.threads)
        _places(ray, task)
        prepare = ray.remote(_prepared).options(num_cpus=task.threads, num_gpus=task.gpus)
        with _as_ours("while its first worker was prepared"):
            _raise_if_refused(ray.get(prepare.remote(task)))

    def run(self, task: Task, shards: Sequence[int]) -> Iterator[int]:
        """As :class:`rarebit.retrievers.building.tasks.Runner` says."""
        ray = self.start(task.threads)
        places = _places(ray, task)
        shutil.rmtree(task.folder.path / ATTEMPTS, ignore_errors=True)
        with _quiet_data() as data, _as_ours(f"while its workers made the {task.stage}"):
            pool = data.ActorPoolStrategy(size=min(self._workers or places, len(shards)))
            found = data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
                Worker,
                fn_constructor_args=(task, self._tries),
                batch_size=1,
                batch_format="numpy",
                compute=pool,
                num_cpus=task.threads,
                num_gpus=task.gpus,
            )
            for row in found.iter_rows():
                _raise_if_refused(row)
                yield int(row["shard"])
        shutil.rmtree(task.folder.path / ATTEMPTS, ignore_errors=True)

    def start(self, threads: int = 1) -> Any:
        """Give Ray, started or connected to unless this process uses one already; a local one has so many threads a worker."""
        ray = import_module("ray")
        if not ray.is_initialized():
            given: dict[str, Any] = {"address": self._address}
            if self._address is None:
                cpus = threads * (self._workers or max(1, (os.cpu_count() or 1) // threads))
                given = {"address": "local", "num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
            with _environment(QUIET), _as_ours("while it was started"):
                ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
            self._started = True
        return ray


class Worker:
    """What runs in an actor: it does a task for one shard at a time, and tells what Rarebit says against it."""

    def __init__(self, task: Task, tries: int) -> None:
        """Take the task; what it needs is loaded with the first shard, so that a refusal of it can be told."""
        self._task, self._tries = task, tries

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Make the files of shards."""
        told = [self._made(int(shard)) for shard in batch["shard"]]
        return {name: [each[name] for each in told] for name in ("shard", "error", "message")}

    def _made(self, shard: int) -> dict[str, Any]:
        try:
            self._begin(shard)
            self._task(shard)
        except RarebitError as error:
            return _refusal(shard, error)
        return {"shard": shard, "error": "", "message": ""}

    def _begin(self, shard: int) -> None:
        """Count how often a shard was begun, where a worker that dies does not take the count with it."""
        folder = self._task.folder.path
        _check_seen(folder)
        (folder / ATTEMPTS).mkdir(exist_ok=True)
        counter = folder / ATTEMPTS / f"{self._task.stage}-{shard:06d}"
        with counter.open("ab") as file:
            file.write(b".")
        if counter.stat().st_size > self._tries:
            raise BuildError(
                f"shard {shard} ended {self._tries} workers, wanted one that lives: give workers more memory, or make "
                "shards smaller (shard_rows), in another folder"
            )


def _places(ray: Any, task: Task) -> int:
    """Say how many workers the machines have room for.

    Raises:
        BuildError: none has room for one: Ray would wait for such a machine without an end.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    demand = {"CPU": task.threads, "GPU": task.gpus}
    found = sum(min(int(node.get(kind, 0)) // each for kind, each in demand.items() if each) for node in nodes)
    if not found:
        there = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes[:8])
        raise BuildError(
            f"no machine of this Ray has {task.threads} processors and {task.gpus} GPUs for a worker (they have "
            f"{there or 'none'}): ask for fewer threads, for another device, or add such a machine to the cluster, and run the "
            "build again"
        )
    return found


def _prepared(task: Task) -> dict[str, Any]:
    try:
        _check_seen(task.folder.path, within=False)
        task.prepare()
    except RarebitError as error:
        return _refusal(-1, error)
    return {"shard": -1, "error": "", "message": ""}


def _check_seen(folder: Path, *, within: bool = True) -> None:
    if not (folder / MANIFEST if within else folder).exists():
        raise InputError(
            f"the machine {socket.gethostname()} does not see {folder}, wanted a work folder that every node of a cluster has "
            "under the same path: choose one on a shared disk"
        )


def _refusal(shard: int, error: RarebitError) -> dict[str, Any]:
    return {"shard": shard, "error": type(error).__name__, "message": str(error)}


def _raise_if_refused(told: Mapping[str, Any]) -> None:
    if told["error"]:
        raise getattr(errors, str(told["error"]), BuildError)(str(told["message"]))


@contextmanager
def _as_ours(when: str) -> Iterator[None]:
    """Say what Ray says as an error of Rarebit's."""
    ray_errors: Any = import_module("ray.exceptions")
    try:
        yield
    except (ray_errors.RayError, ConnectionError, RuntimeError, ValueError) as error:
        if isinstance(error, RarebitError):
            raise
        reason = " ".join(str(error).split())[:600]
        raise BuildError(
            f"Ray failed {when} ({type(error).__name__}: {reason}); what was finished is kept: mend it and run the build again"
        ) from error


@contextmanager
def _quiet_data() -> Iterator[Any]:
    """Give Ray Data without its bars and lines: there is one bar already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray's own settings warn of themselves
        data = import_module("ray.data")
        context = data.DataContext.get_current()
        kept = {name: getattr(context, name) for name in ("enable_progress_bars", "print_on_execution_start")}
        logger = logging.getLogger("ray.data")
        level = logger.level
        try:
            for name in kept:
                setattr(context, name, False)
            logger.setLevel(logging.ERROR)
            yield data
        finally:
            logger.setLevel(level)
            for name, before in kept.items():
                setattr(context, name, before)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
