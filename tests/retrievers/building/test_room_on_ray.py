"""A task that no machine of a Ray has room for is refused: Ray itself would wait for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.data", reason="workers need the extra ray")

from support.building import Hashed

from rarebit.errors import BuildError
from rarebit.retrievers.building import OnRay
from rarebit.retrievers.building.on_ray import _places
from rarebit.retrievers.building.tasks import Embedding
from rarebit.retrievers.building.work_folder import WorkFolder


class Machines:
    """A Ray of machines with so many processors and GPUs, which schedules nothing; the last one is lost."""

    def __init__(self, *given: tuple[float, float]) -> None:
        self._given = [*given, (128.0, 8.0)]

    def nodes(self) -> list[dict[str, Any]]:
        # Ray leaves out what a machine has none of
        resources = [{"CPU": cpus, **({"GPU": gpus} if gpus else {})} for cpus, gpus in self._given]
        return [{"Alive": place < len(self._given) - 1, "Resources": each} for place, each in enumerate(resources)]


def task_of(tmp_path: Path, threads: int, device: str) -> Embedding:
    return Embedding(WorkFolder(tmp_path, "build"), Hashed(device=device), threads)


@pytest.mark.parametrize(
    ("machines", "wanted", "message"),
    [
        ([(2.0, 0.0)], (1, "cuda"), r"has 1 processors and 1 GPUs for a worker \(they have 2 and 0\): ask for fewer"),
        ([(32.0, 0.0), (32.0, 0.0)], (64, "cpu"), r"has 64 processors and 0 GPUs .*\(they have 32 and 0, 32 and 0\)"),
        ([(32.0, 0.0), (2.0, 1.0)], (4, "cuda:0"), "has 4 processors and 1 GPUs"),
        ([], (1, "cpu"), "they have none"),
    ],
    ids=str,
)
def test_no_machine_has_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machines: Any, wanted: tuple[int, str], message: str
) -> None:
    runner, task = OnRay(2), task_of(tmp_path, *wanted)
    monkeypatch.setattr(runner, "start", lambda _: Machines(*machines))
    with pytest.raises(BuildError, match=message):
        runner.check(task)
    with pytest.raises(BuildError, match=message):
        list(runner.run(task, [0]))


@pytest.mark.parametrize(
    ("machines", "threads", "device", "room"),
    [
        ([(2.0, 0.0)], 1, "cpu", 2),
        ([(3.0, 0.0), (5.0, 0.0)], 2, "cpu", 3),
        ([(8.0, 2.0), (8.0, 0.0)], 2, "cuda", 2),
        ([(3.0, 8.0)], 2, "cuda", 1),
    ],
    ids=str,
)
def test_room_for_workers(tmp_path: Path, machines: Any, threads: int, device: str, room: int) -> None:
    assert _places(Machines(*machines), task_of(tmp_path, threads, device)) == room
