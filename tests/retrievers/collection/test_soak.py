"""Eight readers, a writer and a deleter in two processes, for as long as RAREBIT_SOAK_SECONDS says."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from support import soaking

from rarebit import Collection

SECONDS = float(os.environ.get("RAREBIT_SOAK_SECONDS", "10"))
PATIENCE = 60
GROWTH = 8
"""MB that a process may grow between its second third and its last one."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by /proc")
def test_two_processes_read_write_and_delete_for_a_while(tmp_path: Path) -> None:
    path, context = tmp_path / "c.rarebit", multiprocessing.get_context("spawn")
    with Collection.open(path, training_minimum=300) as collection:
        soaking.write_base(collection)
    numbers = soaking.Numbers(context.Value("q", 0), context.Value("q", 0))
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=soaking.run, args=(path,), kwargs={**said, "seconds": SECONDS, "numbers": numbers, "pipe": pipe})
        for said, (_, pipe) in zip(({"writes": True}, {"writes": False}), pipes, strict=True)
    ]
    for process in processes:
        process.start()
    reports = []
    for ours, _ in pipes:
        assert ours.poll(SECONDS + PATIENCE), "a process does not come to its end"
        reports.append(ours.recv())
    for process in processes:
        process.join(PATIENCE)
    assert not [error for report in reports for error in report.errors]
    assert all(report.searches and report.writes for report in reports)
    deleted = numbers.deleted.value
    assert deleted, "nothing was deleted"
    wanted = {str(number): version for number, version in reports[0].versions.items() if number >= deleted}
    with Collection.open(path) as collection:
        assert collection.check() == []
        found = {}
        for owner in soaking.OWNERS:
            rows = list(soaking.owned(collection, owner))
            assert all(row.metadata["owner"] == owner for row in rows)
            assert all(f" version {row.metadata['version']} " in row.text for row in rows)
            found.update({row.id: row.metadata["version"] for row in rows})
    base = {key for key in found if key.startswith("base")}
    assert len(base) == soaking.BASE - 1
    assert {key: version for key, version in found.items() if key not in base} == wanted
    grown = [round(report.grown, 1) for report in reports]
    assert max(grown) < GROWTH, f"the processes have grown by {grown} MB, from {[report.resident[-1] for report in reports]}"
