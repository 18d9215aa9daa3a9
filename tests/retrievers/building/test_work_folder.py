"""The work folder is one run's own, apart from the inputs, and what is not as it was written there is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.building import RECORDS, ROWS, SETTINGS, SHARD_ROWS, Hashed, as_lines

from rarebit import Collection
from rarebit.errors import InputError, LockedError, SettingsError, StorageError
from rarebit.retrievers.building import InProcess, Recipe, Shards, build
from rarebit.retrievers.building.locking import held


def recipe_of(*inputs: Path, **given: Any) -> Recipe:
    return Recipe(inputs, Hashed(), **{"collection": SETTINGS, "shard_rows": SHARD_ROWS, **given})


@pytest.mark.parametrize("name", ["", "work", "a/b/work"])
def test_a_work_folder_in_the_inputs_is_refused(tmp_path: Path, name: str) -> None:
    as_lines(tmp_path / "p.jsonl", RECORDS[:3])
    with pytest.raises(InputError, match=r"the work folder .* lies in the inputs .* elsewhere"):
        build(recipe_of(tmp_path), tmp_path / name, Collection.open())
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_hidden_work_folder_is_never_read(tmp_path: Path) -> None:
    as_lines(tmp_path / "p.jsonl", RECORDS[:3])
    for _ in range(2):
        assert build(recipe_of(tmp_path), tmp_path / ".work", Collection.open()).rows == 3


def test_an_input_in_the_work_folder_is_refused(tmp_path: Path) -> None:
    given = as_lines(tmp_path / "p.jsonl", RECORDS[:3])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "linked.jsonl").symlink_to(given)
    for path in (given, tmp_path / "other"):
        with pytest.raises(InputError, match=r"the input .* lies in the work folder"):
            build(recipe_of(path), tmp_path, Collection.open())


def test_two_runs_do_not_share_a_folder(building: Any, built: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with held(tmp_path / "work"), pytest.raises(LockedError, match=r"another run is building in .*: wait for it or end it"):
        building()
    assert [each.name for each in (tmp_path / "work").iterdir()] == ["lock"]
    assert building()[1] == built[1]


def test_nothing_is_loaded_while_another_run_is_at_work(lines: Path, tmp_path: Path) -> None:
    shards = Shards(recipe_of(lines), tmp_path / "work", InProcess()).make()
    with Collection.open() as target:
        with held(tmp_path / "work"), pytest.raises(LockedError, match="another run"):
            shards.load_into(target)
        assert shards.load_into(target).rows == ROWS


def test_a_killed_run_lets_go(building: Any, built: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    script = (
        "import sys, pathlib, time; from rarebit.retrievers.building.locking import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path / "work"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError):
            building()
        other.kill()
    assert building()[1] == built[1]


def test_a_run_that_began_later_with_other_settings_is_seen(lines: Path, tmp_path: Path) -> None:
    early = Shards(recipe_of(lines), tmp_path / "work", InProcess())
    Shards(recipe_of(lines, shard_rows=50), tmp_path / "work", InProcess()).make()
    with pytest.raises(SettingsError, match="began with other settings"):
        early.make()


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(StorageError, match="lock cannot be written"), held(tmp_path):
        pass
