"""Builds in this process: what they come to, and how they go on."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.building import DIM, MINIMUM, RECORDS, ROWS, SETTINGS, SHARD_ROWS, Hashed, as_lines, as_parquet, rows_in, vector_of

from rarebit import Collection
from rarebit.errors import (
    CodecWarning,
    DamagedFileError,
    InputError,
    RarebitError,
    SettingsError,
    StorageError,
    TransferWarning,
)
from rarebit.retrievers.building import Columns, Recipe, Shards, build
from rarebit.retrievers.building.tasks import InProcess

TESTS = Path(__file__).parents[2]
VECTORS = np.stack([vector_of(each["text"]) for each in RECORDS])


def added(**settings: Any) -> Collection:
    """Fill a collection that learns from all rows, as a build does."""
    collection = Collection.open(fingerprint="hashed", **settings)
    metadatas = [{name: value for name, value in each.items() if name not in ("id", "text")} for each in RECORDS]
    texts, ids = [each["text"] for each in RECORDS], [each["id"] for each in RECORDS]
    collection.add(VECTORS, texts=texts, metadatas=metadatas, ids=ids)
    return collection


def recipe_of(*inputs: Path, encoder: Any = None, **given: Any) -> Recipe:
    given = {"collection": SETTINGS, "shard_rows": SHARD_ROWS, **given}
    return Recipe(inputs, None if given.get("columns", Columns()).vector else encoder or Hashed(), **given)


def test_a_build_is_what_adding_comes_to(lines: Path, tmp_path: Path) -> None:
    settings = {"training_minimum": ROWS}
    with added(**settings) as wanted, Collection.open(tmp_path / "built.rarebit") as target:
        report = build(recipe_of(lines, collection=settings), tmp_path / "work", target)
        assert (report.rows, report.shards, report.embedded, report.encoded, report.copied) == (ROWS, 12, ROWS, ROWS, ROWS)
        assert report.trained
        assert target.settings == wanted.settings
        assert rows_in(target) == rows_in(wanted)
        assert target.check() == []
        for query in VECTORS[:20]:
            assert target.search(query, 10) == wanted.search(query, 10)
        assert target.search_lexical("漢字", 3) == wanted.search_lexical("漢字", 3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"codec": "float32"},
        {"codec": "float16", "fine": "none"},
        {"metric": "inner_product", "codec": "sq8", "training_minimum": ROWS},
        {"memory_per_vector": 16, "training_minimum": ROWS},
    ],
    ids=str,
)
def test_every_kind_of_codes(lines: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with added(**settings) as wanted, Collection.open() as target:
        build(recipe_of(lines, collection=settings), tmp_path, target)
        assert rows_in(target) == rows_in(wanted)
        assert target.settings == wanted.settings
        assert target.stats().trained == wanted.stats().trained


@pytest.mark.parametrize("count", [1, SHARD_ROWS - 1, SHARD_ROWS, SHARD_ROWS + 1])
def test_sizes_about_a_shard(tmp_path: Path, count: int) -> None:
    given = as_parquet(tmp_path / "passages.parquet", RECORDS[:count])
    with Collection.open() as target:
        report = build(recipe_of(given), tmp_path / "work", target)
        assert (report.rows, report.shards, report.trained) == (count, -(-count // SHARD_ROWS), False)
        assert [(row.id, row.text) for row in target] == [(each["id"], each["text"]) for each in RECORDS[:count]]


def test_files_of_every_kind_in_the_order_of_their_names(tmp_path: Path, built: Any) -> None:
    folder = tmp_path / "inputs"
    (folder / "b").mkdir(parents=True)
    as_parquet(folder / "a.parquet", RECORDS[:100])
    as_lines(folder / "b" / "1.ndjson", RECORDS[100:150])
    packed = as_lines(folder / "b" / "2.jsonl", RECORDS[150:])
    with gzip.open(f"{packed}.gz", "wb") as file:
        file.write(packed.read_bytes())
    packed.unlink()
    (folder / ".hidden.jsonl").write_text("{")
    (folder / "README.md").write_text("no passages")
    with Collection.open() as target:
        build(recipe_of(folder), tmp_path / "work", target)
        assert rows_in(target) == built[1]


def test_vectors_that_the_files_have(tmp_path: Path, built: Any) -> None:
    parquet = as_parquet(tmp_path / "a.parquet", RECORDS[:150], VECTORS[:150])
    lines = as_lines(
        tmp_path / "b.jsonl",
        ({**each, "embedding": vector.tolist()} for each, vector in zip(RECORDS[150:], VECTORS[150:], strict=True)),
    )
    with Collection.open() as target:
        recipe = recipe_of(parquet, lines, columns=Columns(vector="embedding"), fingerprint="hashed")
        report = build(recipe, tmp_path / "work", target)
        assert (report.embedded, report.encoded) == (0, ROWS)
        assert rows_in(target) == built[1]
    with Collection.open() as target:  # not named, they are neither taken nor metadata
        build(recipe_of(parquet, lines), tmp_path / "other", target)
        assert rows_in(target) == built[1]


def test_ids_are_those_of_an_import(tmp_path: Path) -> None:
    from rarebit.retrievers.importing import ParquetSource, import_into

    records = [{"text": each["text"]} for each in RECORDS[:30]]
    given = as_parquet(tmp_path / "p.parquet", records, VECTORS[:30])
    with Collection.open() as target, Collection.open() as wanted:
        build(recipe_of(given, columns=Columns(vector="embedding")), tmp_path / "work", target)
        import_into(wanted, ParquetSource(given))
        assert list(target) == list(wanted)


def test_the_first_of_an_id_stays_as_in_an_import(tmp_path: Path) -> None:
    records = [*RECORDS[:30], RECORDS[3], {**RECORDS[4], "text": "another"}, RECORDS[30]]
    given = as_lines(tmp_path / "p.jsonl", records)
    with Collection.open() as target:
        with pytest.warns(TransferWarning, match=r"1 of 33 passages have an id .*'4'"):
            report = build(recipe_of(given), tmp_path / "work", target)
        assert (report.rows, report.unchanged, report.differing) == (31, 1, 1)
        assert [(row.id, row.text) for row in target] == [(each["id"], each["text"]) for each in RECORDS[:31]]


def test_again_nothing_is_done_twice(lines: Path, tmp_path: Path, built: Any) -> None:
    with Collection.open(tmp_path / "built.rarebit") as target:
        for done in (ROWS, 0):
            report = build(recipe_of(lines), tmp_path / "work", target)
            assert (report.embedded, report.encoded, report.copied) == (done, done, done)
            assert report.checksum == built[0].checksum
        target.delete([RECORDS[7]["id"]])
        report = build(recipe_of(lines), tmp_path / "work", target)
        assert (report.embedded, report.encoded, report.copied) == (0, 0, ROWS - 7)
        assert rows_in(target) == built[1]


class Failing(InProcess):
    """Ends after some shards, as an interruption would."""

    def __init__(self, after: int) -> None:
        self._after = after

    def run(self, task: Any, shards: Any) -> Any:
        for shard in super().run(task, shards):
            yield shard
            self._after -= 1
            if not self._after:
                raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 11, 13, 23])
def test_an_interrupted_build_goes_on_where_it_was(building: Any, built: Any, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        building(runner=Failing(after))
    report, rows = building()
    assert rows == built[1]
    assert report.checksum == built[0].checksum
    shards_left = max(0, 12 - after)
    assert report.embedded == max(0, ROWS - after * SHARD_ROWS) if shards_left else report.embedded == 0


def test_a_killed_build_goes_on_where_it_was(lines: Path, tmp_path: Path, building: Any, built: Any) -> None:
    script = TESTS / "support" / "build_until_killed.py"
    done = subprocess.run(
        [sys.executable, str(script), str(lines), str(tmp_path / "work"), "here", "passage 105 "],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    report, rows = building()
    assert report.embedded == ROWS - 100
    assert rows == built[1]
    assert not list((tmp_path / "work").rglob("*.tmp"))


def test_what_a_kill_leaves_unfinished_is_swept(building: Any, tmp_path: Path, built: Any) -> None:
    (tmp_path / "work" / "vectors").mkdir(parents=True)
    (tmp_path / "work" / "vectors" / "000001.parquet.0123.tmp").write_bytes(b"PAR1")
    (tmp_path / "work" / "ids.sqlite.tmp").write_bytes(b"half")
    assert building()[1] == built[1]
    assert not list((tmp_path / "work").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        *(("shards", damage) for damage in ("flipped", "cut", "empty", "another")),
        *((stage, "flipped") for stage in ("passages", "vectors")),
    ],
)
def test_a_damaged_file_is_named_and_made_anew(building: Any, built: Any, tmp_path: Path, stage: str, damage: str) -> None:
    building()
    work = tmp_path / "work"
    path, other = work / stage / "000003.parquet", work / stage / "000004.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4 if damage == "flipped" else 0
    path.write_bytes({"cut": content[:-20], "empty": b"", "another": other.read_bytes()}.get(damage, bytes(content)))
    if stage != "shards":  # what is before a shard is read only where the shard has still to be made
        (work / "shards" / "000003.parquet").unlink()
    with pytest.raises(DamagedFileError, match=r"000003.parquet .*delete it and run"):
        building()
    path.unlink()
    report, rows = building()
    assert (report.embedded, report.encoded) == (SHARD_ROWS * (stage == "vectors"), SHARD_ROWS)
    assert rows == built[1]


def test_a_file_of_another_build_is_named(building: Any, tmp_path: Path, lines: Path) -> None:
    building()
    build(recipe_of(lines, collection={"training_minimum": 210}), tmp_path / "other", Collection.open())
    (tmp_path / "other" / "shards" / "000003.parquet").replace(tmp_path / "work" / "shards" / "000003.parquet")
    with pytest.raises(DamagedFileError, match="it belongs to another build"):
        building()


@pytest.mark.parametrize("name", ["codec.json", "codec.safetensors"])
def test_a_damaged_codec_is_named_and_made_anew(building: Any, built: Any, tmp_path: Path, name: str) -> None:
    building()
    path = tmp_path / "work" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match="delete it and"):
        building()
    (tmp_path / "work" / "codec.json").unlink()
    assert building()[1] == built[1]


def test_a_damaged_manifest_is_named(building: Any, tmp_path: Path) -> None:
    building()
    (tmp_path / "work" / "manifest.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"manifest\.json cannot be read"):
        building()


def test_lost_ids_are_made_anew(lines: Path, tmp_path: Path, built: Any) -> None:
    with Collection.open() as target:
        build(recipe_of(lines), tmp_path / "work", target)
        (tmp_path / "work" / "ids.sqlite").unlink()
        assert build(recipe_of(lines), tmp_path / "work", target).copied == 0
        assert rows_in(target) == built[1]


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    one, two = as_lines(tmp_path / "1.jsonl", RECORDS[:30]), as_lines(tmp_path / "2.jsonl", RECORDS[30:60])
    build(recipe_of(one, two), tmp_path / "work", Collection.open())
    for inputs in ([one], [two, one]):
        with pytest.raises(InputError, match="began with other inputs"):
            build(recipe_of(*inputs), tmp_path / "work", Collection.open())
    as_lines(two, RECORDS[30:61])
    with pytest.raises(InputError, match=r"2\.jsonl has changed since"):
        build(recipe_of(one, two), tmp_path / "work", Collection.open())


@pytest.mark.parametrize(
    "other",
    [
        {"shard_rows": 21},
        {"threads": 2},
        {"collection": {"codec": "sq8"}},
        {"columns": Columns(text="id")},
    ],
    ids=str,
)
def test_other_settings_are_refused(building: Any, lines: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    building()
    with pytest.raises(SettingsError, match=rf"began with other settings \({next(iter(other))}: .*another folder"):
        build(recipe_of(lines, **other), tmp_path / "work", Collection.open())


def test_rows_of_somebody_else_stay(lines: Path, tmp_path: Path, built: Any) -> None:
    with Collection.open() as target:
        target.add([[1.0, 2.0]], ids=["own"])
        with pytest.raises(SettingsError, match="has rows already"):
            build(recipe_of(lines), tmp_path / "work", target)
        assert not (tmp_path / "work").exists()
    build(recipe_of(lines), tmp_path / "work", Collection.open())
    with Collection.open() as target:
        target.add(VECTORS[:3], ids=["own", "rows", "here"])
        with pytest.raises(SettingsError, match="has other settings than the build"):
            build(recipe_of(lines), tmp_path / "work", target)
        assert [row.id for row in target] == ["own", "rows", "here"]
    with Collection.open() as target:
        build(recipe_of(lines), tmp_path / "work", target)
        target.add(VECTORS[:1], ids=["own"])
        with pytest.raises(SettingsError, match="'own'"):
            build(recipe_of(lines), tmp_path / "work", target)
        assert build(recipe_of(lines), tmp_path / "work", target, overwrite=True).deleted == 1
        assert rows_in(target) == built[1]


@pytest.mark.parametrize("overwrite", [False, True])
def test_targets_with_other_settings_are_refused_at_once(lines: Path, tmp_path: Path, overwrite: bool) -> None:
    with Collection.open(tokenizer="trigram") as target:
        with pytest.raises(SettingsError, match="tokenizer='trigram' instead of 'porter'"):
            build(recipe_of(lines), tmp_path / "work", target, overwrite=overwrite)
        report = build(recipe_of(lines, collection={"tokenizer": "trigram"}), tmp_path / "other", target, overwrite=overwrite)
        assert report.rows == ROWS
    with Collection.open(metric="inner_product") as target:
        target.add(VECTORS[:1], ids=["own"])
        message = "metric='inner_product' instead of 'cosine'" if overwrite else "has rows already"
        with pytest.raises(SettingsError, match=message):
            build(recipe_of(lines), tmp_path / "work", target, overwrite=overwrite)
    assert not (tmp_path / "work").exists()


def test_rows_that_are_copies_are_kept_as_they_are(tmp_path: Path) -> None:
    given = as_lines(tmp_path / "p.jsonl", [{"id": number, "text": "always the same"} for number in range(MINIMUM)])
    with Collection.open() as target:
        with pytest.warns(CodecWarning, match="1 of 200 rows differ"):
            report = build(recipe_of(given), tmp_path / "work", target)
        assert not report.trained
        assert target.vectors(["7"]).shape == (1, DIM)


def test_the_samples_are_those_of_a_collection(monkeypatch: pytest.MonkeyPatch, lines: Path, tmp_path: Path) -> None:
    """Where there are more rows than a code is learned from."""
    from rarebit.retrievers.building import fitting
    from rarebit.retrievers.collection import training

    for module in (fitting, training):
        monkeypatch.setattr(module, "SAMPLE_ROWS", 170)
    settings = {"training_minimum": ROWS}
    with added(**settings) as wanted, Collection.open() as target:
        build(recipe_of(lines, collection=settings), tmp_path, target)
        assert rows_in(target) == rows_in(wanted)


@pytest.mark.parametrize(
    "given",
    [
        {"encoder": None},
        {"columns": Columns(vector="v"), "encoder": Hashed()},
        {"collection": {"near_duplicates": 0.9}},
        {"collection": {"codec": "sq8", "memory_per_vector": 30}},
        {"collection": {"codec": "no such"}},
        {"shard_rows": 0},
        {"threads": 0},
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(RarebitError, match="got"):
        Recipe(**{"inputs": [tmp_path], "encoder": Hashed(), **given})


class Wrong(Hashed):
    """Gives vectors that cannot be."""

    def encode(self, texts: Any) -> Any:
        return {"few": np.ones((1, DIM)), "nan": np.full((len(texts), DIM), np.nan)}[str(self.name)]


@pytest.mark.unchecked
@pytest.mark.parametrize(("name", "message"), [("few", "1 vectors for 20 texts"), ("nan", "the texts from .*'0'.*NaN")])
def test_vectors_that_cannot_be(building: Any, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        building(Wrong(name=name))


def test_a_folder_that_cannot_be_written(lines: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be made"):
        Shards(recipe_of(lines), tmp_path / "file" / "work", InProcess()).make()
