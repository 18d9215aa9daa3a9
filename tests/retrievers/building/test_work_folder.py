"""The work folder is one run's own, apart from the inputs, and what is not as it was written there is named."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.building import DIM, RECORDS, ROWS, SETTINGS, SHARD_ROWS, Hashed, as_lines, rows_in

from rarebit import Collection
from rarebit.compressors.vectors.exact import Exact
from rarebit.errors import DamagedFileError, InputError, LockedError, SettingsError, StorageError
from rarebit.retrievers.building import InProcess, Recipe, Shards, build
from rarebit.retrievers.building.fitting import Fitted
from rarebit.retrievers.building.loading import FinishedShards
from rarebit.retrievers.building.locking import held
from rarebit.retrievers.building.tables import read_table, write_table
from rarebit.retrievers.building.work_folder import WorkFolder
from rarebit.retrievers.engines.engine import OWN


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


def noted(work: Path) -> Any:
    return json.loads((work / "manifest.json").read_text())


def note(work: Path, manifest: Any) -> None:
    (work / "manifest.json").write_text(json.dumps(manifest))


def test_a_codec_that_was_not_noted_is_noted_by_the_next_run(building: Any, tmp_path: Path) -> None:
    building()
    wanted = noted(tmp_path / "work")
    note(tmp_path / "work", {name: part for name, part in wanted.items() if name not in ("codec", "shards")})
    building()
    assert noted(tmp_path / "work") == wanted


def test_another_codec_than_the_noted_one_is_named(building: Any, built: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"
    building()
    folder = WorkFolder(work, json.loads((work / "codec.json").read_text())["build"])
    Fitted(Fitted.load(folder).settings, Exact().with_dim(DIM)).save(folder)
    with pytest.raises(DamagedFileError, match=r"codec\.json is the codec .*, wanted .*: delete it and .*shards"):
        building()
    note(work, {name: part for name, part in noted(work).items() if name != "codec"})
    with pytest.raises(DamagedFileError, match=r"000000\.parquet .*its codes are of another codec"):
        building()
    with pytest.raises(DamagedFileError, match="its codes are of another codec"):
        FinishedShards(folder, [SHARD_ROWS]).read(OWN, 0)
    (work / "codec.json").unlink()
    assert building()[1] == built[1]


@pytest.mark.parametrize("name", ["checksum", "rows"])
def test_a_shard_that_is_not_the_noted_one_is_named_and_made_anew(building: Any, built: Any, tmp_path: Path, name: str) -> None:
    work = tmp_path / "work"
    building()
    manifest = noted(work)
    manifest["shards"][3][name] = 7
    note(work, manifest)
    with pytest.raises(DamagedFileError, match=r"000003\.parquet .*its checksum is not the one .*: delete it and run"):
        building()
    (work / "shards" / "000003.parquet").unlink()
    assert building()[1] == built[1]
    assert building()[0].encoded == 0


def test_a_shard_with_too_few_rows_is_named(building: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"
    building()
    folder = WorkFolder(work, json.loads((work / "codec.json").read_text())["build"])
    stamp = Fitted.load(folder).stamp(folder, 3)
    columns, _ = read_table(folder.file("shards", 3), stamp)
    write_table(folder.file("shards", 3), {key: column[:-1] for key, column in columns.items()}, stamp)
    with pytest.raises(DamagedFileError, match=r"000003\.parquet .*it has 19 rows instead of 20"):
        building()


@pytest.mark.parametrize(
    "change",
    [
        lambda _: [],
        lambda _: {},
        lambda _: None,
        lambda manifest: {**manifest, "read": None},
        lambda manifest: {**manifest, "read": {"rows": "7"}},
        lambda manifest: {**manifest, "asked": {}},
        lambda manifest: {**manifest, "asked": {"inputs": [7]}},
        lambda manifest: {**manifest, "shards": 7},
    ],
)
def test_a_manifest_that_no_build_has_written_is_named(building: Any, tmp_path: Path, change: Any) -> None:
    building()
    note(tmp_path / "work", change(noted(tmp_path / "work")))
    with pytest.raises(DamagedFileError, match=r"manifest\.json cannot be read .*build in another folder"):
        building()


@pytest.mark.parametrize("damage", ["cut", "none", "fewer"])
def test_damaged_ids_are_named_and_made_anew(lines: Path, tmp_path: Path, built: Any, damage: str) -> None:
    path = tmp_path / "work" / "ids.sqlite"
    with Collection.open() as target:
        build(recipe_of(lines), tmp_path / "work", target)
        if damage == "fewer":
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("DELETE FROM ids WHERE row = 7")
        else:
            path.write_bytes(path.read_bytes()[:5000] if damage == "cut" else b"no database" * 99)
        with pytest.raises(DamagedFileError, match=rf"{path} cannot be used .*: delete this one file and run"):
            build(recipe_of(lines), tmp_path / "work", target)
        path.unlink()
        assert build(recipe_of(lines), tmp_path / "work", target).encoded == 0
        assert rows_in(target) == built[1]


def test_the_disk_has_the_ids_before_they_have_their_name(
    monkeypatch: pytest.MonkeyPatch, building: Any, tmp_path: Path
) -> None:
    synced = []

    def fsync(descriptor: int, original: Any = os.fsync) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    building()
    assert (tmp_path / "work" / "ids.sqlite").stat().st_ino in synced
