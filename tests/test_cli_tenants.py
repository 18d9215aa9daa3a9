"""``--tenant`` on the command line: one tenant's passages, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit import Collection, cli


class LengthEncoder:
    """Embeds a text by its length and its first letter."""

    def encode(self, given: str | list[str], *, show_progress_bar: bool) -> np.ndarray:
        texts = [given] if isinstance(given, str) else given
        vectors = np.array([[len(text), ord(text[0]), 1.0] for text in texts], np.float32)
        return vectors[0] if isinstance(given, str) else vectors


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load_encoder", lambda _: LengthEncoder())

    def run(*arguments: str) -> Any:
        assert cli.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_each_tenant_has_the_files_that_were_indexed_for_it(run: Any) -> None:
    for who in ("acme", "bolt"):
        Path(who).mkdir()
        Path(who, "a.txt").write_text(f"The kettle of {who}.", encoding="utf-8")
        assert run("index", who, "--tenant", who) == {"added": 1, "deleted": 0, "passages": 1}
    assert run("search", "kettle") == []
    for mode in ("vector", "lexical", "hybrid"):
        for who in ("acme", "bolt"):
            assert [hit["text"] for hit in run("search", "kettle", "--mode", mode, "--tenant", who)] == [
                f"The kettle of {who}."
            ]
    Path("acme", "a.txt").unlink()
    assert run("index", "acme", "bolt", "--tenant", "acme") == {"added": 1, "deleted": 1, "passages": 1}
    assert [hit["text"] for hit in run("search", "kettle", "--tenant", "bolt")] == ["The kettle of bolt."]
    assert run("search", "kettle", "--tenant", "nobody") == []
    assert run("stats")["count"] == 2


def test_what_is_imported_is_the_tenants(run: Any) -> None:
    np.save("vectors.npy", np.eye(3, dtype=np.float32))
    Path("texts.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    assert run("import", "vectors.npy", "--texts", "texts.txt", "--tenant", "acme")["passages"] == 3
    assert run("import", "vectors.npy", "--texts", "texts.txt", "--tenant", "bolt")["added"] == 3
    with Collection.open("docs.rarebit") as collection:
        assert collection.count() == 0
        assert collection.tenants() == ["acme", "bolt"]


def test_a_name_that_is_none_is_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.txt").write_text("The kettle.", encoding="utf-8")
    run("index", "a.txt")
    assert cli.main(["search", "kettle", "--tenant", ""]) == 1
    assert "name of a tenant" in capsys.readouterr().err
