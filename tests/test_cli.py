from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import rarebit
from rarebit import cli, cookbook, extras
from rarebit.errors import InputError
from rarebit.retrievers.collection import Collection

README = Path(__file__).parents[1] / "README.md"
KETTLE = "The kettle boils water for tea."
PARROT = "A parrot repeats what sailors say."
TRAIN = "Trains to the coast leave at noon."


class FakeEncoder:
    """Sums a direction for each word, so texts with the same words are near; remembers what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.loaded: list[str] = []

    def load(self, name: str) -> FakeEncoder:
        self.loaded.append(name)
        if "unknown" in name:
            raise InputError(f"no model {name}")
        return self

    def encode(self, given: str | list[str], *, show_progress_bar: bool) -> np.ndarray:
        assert not show_progress_bar
        texts = [given] if isinstance(given, str) else given
        self.texts += texts
        vectors = np.stack([self._direction(text) for text in texts])
        return vectors[0] if isinstance(given, str) else vectors

    @staticmethod
    def _direction(text: str) -> np.ndarray:
        words = re.findall(r"\w+", text.lower())
        return sum((np.random.default_rng(crc32(word.encode())).standard_normal(48) for word in words), np.zeros(48)).astype(
            np.float32
        )


Run = Callable[..., str]
RunJson = Callable[..., Any]


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    fake = FakeEncoder()
    monkeypatch.setattr(cli, "load_encoder", fake.load)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoder: FakeEncoder) -> Run:
    """Run one command in an empty folder; give what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert cli.main(arguments) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def run_json(run: Run) -> RunJson:
    return lambda *arguments: json.loads(run(*arguments, "--json"))


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that fails with one line; give the line."""

    def refused(*arguments: str) -> str:
        assert cli.main(arguments) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("rarebit: ")
        assert len(printed.err.splitlines()) == 1
        return printed.err

    return refused


def write(name: str, *paragraphs: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    return path


def stored() -> dict[str, str]:
    """Text -> name of its file, relative to the working folder."""
    with Collection.open("docs.rarebit", read_only=True) as collection:
        return {row.text: Path(row.metadata["source"]).relative_to(Path.cwd()).as_posix() for row in collection}


def test_index_counts_and_a_second_run_embeds_nothing(run: Run, run_json: RunJson, encoder: FakeEncoder) -> None:
    write("docs/a.md", KETTLE)
    write("docs/b.txt", PARROT)
    assert run("index", "docs") == "2 passages added, 0 deleted; docs.rarebit holds 2\n"
    assert sorted(encoder.texts) == sorted([KETTLE, PARROT])
    assert encoder.loaded == ["all-MiniLM-L6-v2"]
    assert run_json("index", "docs") == {"added": 0, "deleted": 0, "passages": 2}
    assert run_json("index", "./docs/../docs", "docs/a.md") == {"added": 0, "deleted": 0, "passages": 2}
    assert len(encoder.texts) == 2
    assert len(encoder.loaded) == 1


def test_index_embeds_block_by_block_and_keeps_each(
    run: Run, run_json: RunJson, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "TEXTS_AT_ONCE", 2)
    for number in range(5):
        write(f"docs/{number}.txt", f"Text number {number}.")
    encode, calls = encoder.encode, 0

    def interrupted(given: str | list[str], **settings: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return encode(given, **settings)

    monkeypatch.setattr(encoder, "encode", interrupted)
    assert cli.main(["index", "docs"]) == 130
    assert run_json("index", "docs") == {"added": 1, "deleted": 0, "passages": 5}
    assert sorted(encoder.texts) == sorted(stored())


def test_a_changed_file_is_updated(run: Run, run_json: RunJson, encoder: FakeEncoder) -> None:
    long = [f"{start} " + "and so on " * 98 for start in ("First", "Second", "Third")]
    write("docs/a.md", *long)
    write("docs/b.md", PARROT)
    assert run_json("index", "docs") == {"added": 4, "deleted": 0, "passages": 4}
    write("docs/a.md", long[0], KETTLE, long[2])
    encoder.texts.clear()
    assert run_json("index", "docs") == {"added": 1, "deleted": 1, "passages": 4}
    assert encoder.texts == [KETTLE]
    assert not any("Second" in text for text in stored())
    write("docs/a.md")
    assert run_json("index", "docs/a.md") == {"added": 0, "deleted": 4 - 1, "passages": 1}
    assert stored() == {PARROT: "docs/b.md"}


def test_near_duplicates_are_skipped_and_not_embedded(run: Run, run_json: RunJson, encoder: FakeEncoder) -> None:
    long = "It was a dark and stormy night, and the rain fell in torrents, but for occasional intervals. " * 5
    write("docs/a.md", long)
    write("docs/b.md", long.upper())
    shown = run("index", "docs", "--near-duplicates", "0.8")
    assert shown == "1 passages added, 1 skipped as near-duplicates, 0 deleted; docs.rarebit holds 1\n"
    assert run_json("index", "docs") == {"added": 0, "skipped": 1, "deleted": 0, "passages": 1}
    assert len(encoder.texts) == 1
    write("docs/a.md", long + "The end.")  # the old edition goes, and does not stand for the new one
    assert run_json("index", "docs") == {"added": 1, "skipped": 1, "deleted": 1, "passages": 1}
    assert [*stored()] == [long + "The end."]
    Path("docs/a.md").unlink()
    assert run_json("index", "docs") == {"added": 1, "skipped": 0, "deleted": 1, "passages": 1}
    assert [*stored().values()] == ["docs/b.md"]


def test_an_import_says_what_was_skipped(run: Run) -> None:
    np.save("v.npy", np.eye(3, dtype=np.float32))
    write("t.txt").write_text("a kettle on a stove\na cat in a garden\nA kettle  on a stove\n", encoding="utf-8")
    shown = run("import", "v.npy", "--texts", "t.txt", "--near-duplicates", "0.9", "--model", "mine")
    assert shown == "2 passages added, 0 there already, 1 skipped as near-duplicates; docs.rarebit holds 2\n"
    assert run("import", "v.npy", "--texts", "t.txt").startswith("0 passages added, 2 there already, 1 skipped")


def test_a_deleted_file_goes_when_its_folder_is_indexed_again(run: Run, run_json: RunJson) -> None:
    gone = write("docs/deep/a.md", KETTLE)
    write("docs/b.md", PARROT)
    write("other/c.md", TRAIN)
    run("index", "docs", "other")
    gone.unlink()
    assert run_json("index", "other") == {"added": 0, "deleted": 0, "passages": 3}
    assert run_json("index", "docs") == {"added": 0, "deleted": 1, "passages": 2}
    assert stored() == {PARROT: "docs/b.md", TRAIN: "other/c.md"}


@pytest.mark.parametrize(
    ("folder", "neighbour"), [("docs", "docs2"), ("d%", "docs"), ("d_cs", "docs"), ("d\\%", "d\\x"), ("docs", "Docs")]
)
def test_passages_of_neighbouring_folders_stay(run: Run, run_json: RunJson, folder: str, neighbour: str) -> None:
    write(f"{folder}/a.md", KETTLE).unlink()
    write(f"{folder}/b.md", TRAIN)
    kept = write(f"{neighbour}/a.md", PARROT)
    run("index", folder, neighbour)
    kept.unlink()  # so that it would go if its folder were meant
    assert run_json("index", folder) == {"added": 0, "deleted": 0, "passages": 2}
    Path(folder, "b.md").unlink()
    assert run_json("index", folder) == {"added": 0, "deleted": 1, "passages": 1}
    assert stored() == {PARROT: f"{neighbour}/a.md"}


def test_a_file_indexed_by_name_stays_when_its_folder_is_indexed(run: Run, run_json: RunJson) -> None:
    log = write("docs/notes.log", KETTLE)
    write("docs/a.md", PARROT)
    run("index", "docs/notes.log")
    assert run_json("index", "docs") == {"added": 1, "deleted": 0, "passages": 2}
    log.unlink()
    assert run_json("index", "docs") == {"added": 0, "deleted": 1, "passages": 1}


def test_the_working_folder_can_be_indexed_and_left(run: Run, run_json: RunJson, monkeypatch: pytest.MonkeyPatch) -> None:
    write("docs/a.md", KETTLE)
    run("index", ".")
    monkeypatch.chdir("docs")
    assert run_json("index", "..", "--collection", "../docs.rarebit") == {"added": 0, "deleted": 0, "passages": 1}
    assert run_json("search", "tea", "--source", "../docs/a.md", "--collection", "../docs.rarebit")[0]["text"] == KETTLE


def test_an_empty_folder_gives_an_empty_collection(run: Run, run_json: RunJson) -> None:
    Path("docs").mkdir()
    assert run_json("index", "docs") == {"added": 0, "deleted": 0, "passages": 0}
    assert run_json("stats")["count"] == 0
    for mode in ("vector", "lexical", "hybrid"):
        assert run("search", "tea", "--mode", mode) == "nothing found\n"
        assert run_json("search", "tea", "--mode", mode) == []


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
def test_search_finds_the_passage_in_each_mode(run: Run, run_json: RunJson, encoder: FakeEncoder, mode: str) -> None:
    for number, text in enumerate([KETTLE, PARROT, TRAIN]):
        write(f"docs/{number}.md", text)
    run("index", "docs")
    embedded = len(encoder.texts)
    hits = run_json("search", "kettle tea", "--mode", mode)
    assert hits[0]["text"] == KETTLE
    assert hits[0]["metadata"] == {"source": str(Path("docs/0.md").resolve()), "start": 0}
    assert set(hits[0]) == {"id", "score", "text", "metadata"}
    assert len(hits) == (1 if mode == "lexical" else 3)
    assert encoder.texts[embedded:] == ([] if mode == "lexical" else ["kettle tea"])
    shown = run("search", "kettle tea", "--mode", mode, "-k", "1").splitlines()
    assert shown[0].split() == [f"{hits[0]['score']:.3f}", f"{Path('docs/0.md').resolve()}:0"]
    assert shown[1].strip() == KETTLE
    assert len(shown) == 2


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
def test_search_within_one_file(run: Run, run_json: RunJson, mode: str) -> None:
    write("docs/a.md", KETTLE)
    write("docs/b.md", f"{PARROT} It drinks tea.")
    run("index", "docs")
    hits = run_json("search", "kettle tea", "--mode", mode, "--source", "docs/b.md")
    assert [Path(hit["metadata"]["source"]).name for hit in hits] == ["b.md"]
    assert run_json("search", "kettle tea", "--mode", mode, "--source", "docs/c.md") == []


def test_stats_counts_and_names_sizes(run: Run, run_json: RunJson) -> None:
    write("docs/a.md", KETTLE)
    run("index", "docs")
    found = run_json("stats")
    assert (found["count"], found["dim"], found["codec"]) == (1, 48, "trellis")
    lines = [line.split() for line in run("stats").splitlines()]
    assert ["count", "1"] in lines
    assert ["float32_per_vector", str(4 * 48)] in lines
    assert ["disk.file", str(found["disk"]["file"])] in lines


def test_the_code_is_chosen_for_a_budget_and_can_be_chosen_again(run: Run, run_json: RunJson, refused: Run) -> None:
    for number in range(300):
        write(f"docs/{number}.md", f"{KETTLE} {number} {'tea ' * (number % 7)}")
    run("index", "docs", "--memory-per-vector", "10")
    assert "recompress" in refused("index", "docs", "--memory-per-vector", "12")
    found = run_json("recompress", "--memory-per-vector", "12")
    assert found["trained"]
    assert found["choice"]["chosen"]["code_size"] <= 8
    shown = run("recompress", "--codec", "sq8").splitlines()
    assert len(shown) == 1
    assert "codec sq8, fine tier residual8" in shown[0]
    shown = run("recompress", "--target-recall", "0.9").splitlines()
    assert "recall@10" in shown[0]
    assert shown[1].startswith("chosen: the smallest code measured that reaches recall 0.9")
    assert run_json("search", "kettle", "-k", "1")
    assert "one or the other" in refused("recompress", "--codec", "sq8", "--target-recall", "0.9")
    assert "no file" in refused("recompress", "--collection", "none.rarebit")


def test_a_model_is_named_once_and_kept(run: Run, run_json: RunJson, refused: Run, encoder: FakeEncoder) -> None:
    write("docs/a.md", KETTLE)
    run("index", "docs", "--model", "owner/other-model")
    run("search", "tea")
    assert encoder.loaded == ["owner/other-model"] * 2
    assert "other-model" in refused("index", "docs")
    assert run_json("index", "docs", "--model", "other-model")["passages"] == 1


def test_errors_are_one_line_and_leave_nothing_behind(run: Run, refused: Run) -> None:
    write("docs/a.md", KETTLE)
    Path("latin.txt").write_bytes(b"K\xe4se")
    assert "missing does not exist" in refused("index", "missing")
    assert "no UTF-8" in refused("index", "latin.txt")
    assert "no model unknown" in refused("index", "docs", "--model", "unknown")
    for command in (("search", "tea"), ("stats",)):
        assert "no file at docs.rarebit" in refused(*command)
    assert not Path("docs.rarebit").exists()
    assert "wanted a Rarebit collection" in refused("stats", "--collection", "latin.txt")
    run("index", "docs")
    assert "-1" in refused("search", "tea", "-k", "-1")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only Unicode names")
def test_a_file_whose_name_is_no_unicode_is_an_error_of_one_line(run: Run, refused: Run) -> None:
    Path("docs").mkdir()
    Path(os.fsdecode(b"docs/caf\xe9.txt")).write_text(KETTLE, encoding="utf-8")
    assert "caf\\udce9.txt" in refused("index", "docs")


@pytest.mark.parametrize("arguments", [[], ["bake"], ["index"], ["search", "tea", "--mode", "magic"], ["stats", "--wrong"]])
def test_what_cannot_be_parsed_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: rarebit" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["x"], ["--questions", "2"], ["--help"], ["--json", "f", "--folder", "g"], []])
def test_demo_hands_everything_to_the_recipe(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    recipe = ModuleType("rarebit.cookbook.quickstart")
    monkeypatch.setattr(recipe, "main", given.append, raising=False)
    monkeypatch.setitem(sys.modules, recipe.__name__, recipe)
    monkeypatch.setattr(cookbook, "quickstart", recipe, raising=False)
    monkeypatch.setattr(cli, "require", lambda *_: None)
    assert cli.main(["demo", *arguments]) == 0
    assert given == [arguments]


def test_demo_names_the_extra_that_is_missing(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert "pip install 'rarebit[demo]'" in refused("demo")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"rarebit {rarebit.__version__}\n"


def test_damage_is_named_and_space_comes_back(run: Run, run_json: RunJson, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(30):
        write(f"docs/{number}.md", f"{KETTLE} {number} " + "tea " * 200)
    run("index", "docs")
    assert "docs.rarebit is sound" in run("check")
    assert run_json("check") == {"problems": []}
    with Collection.open("docs.rarebit") as collection:
        collection.delete_all()
    assert run_json("compact")["freed"] > 0
    assert "bytes came free" in run("compact")
    with sqlite3.connect("docs.rarebit") as raw:
        raw.execute("UPDATE state SET row_count = 5")
    assert cli.main(["check"]) == 1
    assert "state row is not what was stored" in capsys.readouterr().out


def write_arrays(count: int = 30) -> None:
    encoder = FakeEncoder()
    texts = [f"passage number {number}" for number in range(count)]
    np.save("v.npy", encoder.encode(texts, show_progress_bar=False))
    Path("t.jsonl").write_text("\n".join(json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)))


def test_import_counts_and_a_second_run_writes_nothing(run: Run, run_json: RunJson, encoder: FakeEncoder) -> None:
    write_arrays()
    shown = run("import", "v.npy", "--texts", "t.jsonl", "--model", "owner/mine")
    assert shown == "30 passages added, 0 there already; docs.rarebit holds 30\n"
    assert encoder.texts == []
    assert run_json("search", "passage number 7", "-k", "1")[0]["id"] == "7"
    assert encoder.loaded == ["owner/mine"]
    counts = {"read": 30, "added": 0, "replaced": 0, "unchanged": 30, "differing": 0, "skipped": 0}
    counts |= {"without_text": 0, "passages": 30}
    assert run_json("import", "v.npy", "--texts", "t.jsonl") == counts
    assert "30 replaced" in run("import", "v.npy", "--texts", "t.jsonl", "--overwrite")


def test_import_says_what_it_does_not_know_and_what_it_left_out(
    run: Run, run_json: RunJson, capsys: pytest.CaptureFixture[str]
) -> None:
    write_arrays(3)
    assert "--model NAME" in run("import", "v.npy", "--texts", "t.jsonl", "--metric", "inner_product")
    Path("t.txt").write_text("a\nb\nc\n")
    assert run_json("import", "v.npy", "--texts", "t.txt")["added"] == 3
    assert run_json("stats")["metric"] == "inner_product"
    Path("t.jsonl").write_text("\n".join(json.dumps({"id": str(n), "text": "other"}) for n in range(3)))
    capsys.readouterr()
    assert cli.main(["import", "v.npy", "--texts", "t.jsonl", "--model", "mine"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "0 passages added, 0 there already, 3 left out; docs.rarebit holds 6\n"
    (said,) = [line for line in printed.err.splitlines() if "rarebit: " in line]
    assert "3 of 3 rows have an id that another row has" in said
    assert "3/3" in printed.err


def test_import_from_a_folder_of_llama_index(run_json: RunJson) -> None:
    nodes = {"docstore/data": {"a": {"__data__": {"id_": "a", "text": KETTLE, "class_name": "TextNode"}}}}
    write("stored/docstore.json", json.dumps(nodes))
    write("stored/default__vector_store.json", json.dumps({"embedding_dict": {"a": [1.0, 2.0]}}))
    assert run_json("import", "stored", "--collection", "c.rarebit")["added"] == 1
    assert run_json("import", "stored", "--from", "llama-index", "--collection", "c.rarebit")["unchanged"] == 1
    assert run_json("search", "kettle", "--mode", "lexical", "--collection", "c.rarebit")[0]["text"] == KETTLE


def test_import_from_parquet(run_json: RunJson) -> None:
    columns = {"key": ["a", "b"], "emb": [[1.0, 2.0], [2.0, 1.0]], "body": [KETTLE, TRAIN], "page": [1, 2]}
    parquet.write_table(pa.table(columns), "rows.parquet")
    named = ("--vector-column", "emb", "--text-column", "body", "--id-column", "key")
    assert run_json("import", "rows.parquet", *named)["added"] == 2
    hit = run_json("search", "trains", "--mode", "lexical")[0]
    assert (hit["id"], hit["text"], hit["metadata"]) == ("b", TRAIN, {"page": 2})


def test_import_refuses_in_one_line_and_leaves_nothing_behind(run: Run, refused: Run) -> None:
    write_arrays(3)
    write("faiss/index.faiss")
    assert "none does not exist" in refused("import", "none")
    assert "pass texts (--texts)" in refused("import", "v.npy")
    assert "FAISS.load_local" in refused("import", "faiss")
    assert "takes ['texts', 'text_column', 'id_column']" in refused("import", "v.npy", "--texts", "t.jsonl", "--name", "x")
    assert not Path("docs.rarebit").exists()
    run("import", "v.npy", "--texts", "t.jsonl", "--model", "mine")
    assert "another embedding model" in refused("import", "v.npy", "--texts", "t.jsonl", "--model", "other")


def commands() -> list[str]:
    choices = [action.choices for action in cli._parser()._actions if action.choices]
    return list(choices[0])


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands() == ["index", "import", "build", "move", "search", "stats", "recompress", "check", "compact", "demo"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    described = capsys.readouterr().out
    for command in commands():
        assert re.search(rf"^ +{command}\s+\w+", described, flags=re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_the_readme_mentions_every_command(command: str) -> None:
    assert f"rarebit {command}" in README.read_text(encoding="utf-8")
