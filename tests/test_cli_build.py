"""``rarebit build`` into a file and into a server."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="builds need the extra parquet")

from support.building import RECORDS, SHARD_ROWS, as_lines, as_parquet, vector_of

from rarebit import Collection, cli_build
from rarebit.cli import main

COUNT = 50


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    vectors = [vector_of(each["text"]) for each in RECORDS[:COUNT]]
    path = as_parquet(tmp_path / "passages.parquet", RECORDS[:COUNT], vectors)
    return [
        "build",
        str(path),
        "--work",
        str(tmp_path / "work"),
        "--vector-column",
        "embedding",
        "--shard-rows",
        str(SHARD_ROWS),
    ]


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_into_a_file_and_again(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.rarebit"
    command = [*given, "--to", str(target), "--model", "a model", "--metric", "inner_product", "--codec", "sq8"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("50 passages in 3 shards, 0 embedded, 50 encoded and 50 loaded now; too few to learn sq8")
    assert "encoding" in captured.err
    assert main([*command, "--json"]) == 0
    again = told(capsys)
    assert (again["rows"], again["encoded"], again["copied"]) == (COUNT, 0, 0)
    with Collection.open(target, read_only=True) as collection:
        assert [row.id for row in collection] == [each["id"] for each in RECORDS[:COUNT]]
        assert collection.settings.fingerprint.name == "a model"
        assert (collection.settings.metric, collection.settings.codec) == ("inner_product", "sq8")


def test_into_a_server(given: list[str], postgres: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for copied in (COUNT, 0):
        assert main([*given, "--to", postgres, "--name", "built", "--json"]) == 0
        assert told(capsys)["copied"] == copied
    with Collection.connect(postgres, "built") as target:
        assert [row.id for row in target] == [each["id"] for each in RECORDS[:COUNT]]


def test_texts_are_embedded(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from support import tiny_encoders

    encoder = tiny_encoders.encoder(folders["bert"])
    encoder.save(str(tmp_path / "model"))
    lines = as_lines(
        tmp_path / "p.jsonl", ({"key": number, "body": word} for number, word in enumerate(tiny_encoders.WORDS[:5]))
    )
    command = ["build", str(lines), "--work", str(tmp_path / "work"), "--to", str(tmp_path / "out.rarebit"), "--device", "cpu"]
    command += ["--model", str(tmp_path / "model"), "--text-column", "body", "--id-column", "key", "--json"]
    assert main(command) == 0
    assert told(capsys)["embedded"] == 5
    with Collection.open(tmp_path / "out.rarebit", read_only=True) as collection:
        assert collection.search(encoder.encode(tiny_encoders.WORDS[3]), 1)[0].id == "3"
        assert list(collection)[3].text == tiny_encoders.WORDS[3]


def test_what_is_left_out_is_said(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [*RECORDS[:3], RECORDS[1], {**RECORDS[2], "text": "another"}]
    as_parquet(tmp_path / "passages.parquet", records, [vector_of(each["text"]) for each in records])
    assert main([*given, "--to", str(tmp_path / "out.rarebit")]) == 0
    captured = capsys.readouterr()
    assert "3 passages in 1 shards, 1 came twice, 1 left out" in captured.out
    assert "rarebit: 1 of 5 passages have an id that another before them has" in captured.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "2"], "--workers 2 without --ray"),
        (["--codec", "sq8", "--memory-per-vector", "30"], "one or the other"),
        (["--text-column", "none"], "no field 'none' for the text"),
        (["--vector-column", "none"], "no field 'none' for the vector"),
        (["--shard-rows", "0"], "shard_rows"),
    ],
)
def test_what_cannot_be_is_one_line(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([*given, "--to", str(tmp_path / "out.rarebit"), *more, "--json"]) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("rarebit: ")
    assert message in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "out.rarebit").exists()


def test_what_ray_prints_is_no_part_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="workers need the extra ray")
    with cli_build._runner(Namespace(ray=True, ray_address=None, workers=1)):
        sys.stdout.write("a worker died\n")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a worker died\n")


def test_a_target_with_other_rows_is_refused_at_once(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Collection.open(tmp_path / "out.rarebit") as collection:
        collection.add([[1.0, 2.0]], ids=["own"])
    assert main([*given, "--to", str(tmp_path / "out.rarebit"), "--json"]) == 1
    assert "has rows already" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.fixture
def unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that are no targets; whoever is root may write all, so that is said here."""
    (tmp_path / "notes.rarebit").write_text("some notes")
    (tmp_path / "unwritable.rarebit").touch()
    monkeypatch.setattr("os.access", lambda path, _: Path(path).stem != "unwritable")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("none/out.rarebit", "there is no folder"),
        ("notes.rarebit", "wanted a Rarebit collection"),
        ("postgresql://nobody@127.0.0.1:1/none", "127.0.0.1"),
        ("unwritable.rarebit", "cannot be written"),
    ],
)
def test_a_target_that_cannot_be_is_said_at_once(
    given: list[str], unusable: Path, capsys: pytest.CaptureFixture[str], target: str, message: str
) -> None:
    where = target if "://" in target else str(unusable / target)
    for more in ([], ["--overwrite"]):
        assert main([*given, "--to", where, *more, "--json"]) == 1
        assert message in capsys.readouterr().err
        assert not (unusable / "work").exists()


def test_an_unknown_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = as_lines(tmp_path / "p.jsonl", RECORDS[:3])
    command = ["build", str(lines), "--work", str(tmp_path / "work"), "--to", str(tmp_path / "out.rarebit"), "--json"]
    assert main([*command, "--device", "cpu", "--model", str(tmp_path / "none")]) == 1
    assert "rarebit: the embedding model" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "work").iterdir()] == ["lock"]
    assert not (tmp_path / "out.rarebit").exists()
