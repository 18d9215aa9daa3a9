"""``rarebit move`` between a file and a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rarebit import Collection
from rarebit.cli import main


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.rarebit"
    with Collection.open(path) as collection:
        collection.add(np.eye(5), texts=list("abcde"), metadatas=[{"n": n} for n in range(5)], ids=list("vwxyz"))
    return path


def test_there_and_back(source: Path, postgres: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["move", str(source), postgres, "--name", "moved", "--json"]) == 0
    moved = json.loads(capsys.readouterr().out)
    assert (moved["rows"], moved["copied"], moved["deleted"]) == (5, 5, 0)
    assert main(["move", postgres, str(tmp_path / "back.rarebit"), "--name", "moved"]) == 0
    assert "5 passages on both sides" in capsys.readouterr().out
    with Collection.open(source) as one, Collection.open(tmp_path / "back.rarebit", create=False) as other:
        assert list(one) == list(other)


def test_again_there_is_nothing_to_do(source: Path, postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
    for copied in (5, 0):
        assert main(["move", str(source), postgres, "--name", "again", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["copied"] == copied


@pytest.mark.parametrize("place", ["nothing.rarebit", "mysql://host/database", "postgresql://nobody:secret@127.0.0.1:1/none"])
def test_what_is_not_there_is_one_line(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["move", place, str(tmp_path / "target.rarebit")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("rarebit: ")
    assert "secret" not in told
    assert not (tmp_path / "target.rarebit").exists()
