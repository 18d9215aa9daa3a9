from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarebit.errors import InputError
from rarebit.passages import LONGEST, cut, files_below, passages_of

WORDS = st.text(alphabet="abcäß漢.!?-", min_size=1, max_size=12)
SPACES = st.sampled_from([" ", "  ", "\t", "\n", "\n\n", "\n \n", "\n\n\n", "\u00a0", "\u2028", "\x1c"])
TEXTS = st.lists(st.one_of(WORDS, SPACES), max_size=60).map("".join) | st.text()
LENGTHS = st.integers(min_value=1, max_value=80)


def without_spaces(text: str) -> str:
    return "".join(text.split())


@given(TEXTS, LENGTHS)
def test_pieces_are_in_order_short_enough_and_miss_nothing(text: str, longest: int) -> None:
    end = 0
    covered = ""
    for start, piece in cut(text, longest):
        assert text[start : start + len(piece)] == piece
        assert start >= end
        assert 0 < len(piece) <= longest
        assert piece == piece.strip()
        assert not text[end:start].strip()
        end, covered = start + len(piece), covered + piece
    assert without_spaces(covered) == without_spaces(text)


@given(TEXTS, LENGTHS)
def test_a_paragraph_that_fits_stays_whole(text: str, longest: int) -> None:
    pieces = [piece for _, piece in cut(text, longest)]
    for paragraph in filter(None, map(str.strip, re.split(r"\n\s*\n", text))):
        assert len(paragraph) > longest or any(paragraph in piece for piece in pieces)


@given(TEXTS, LENGTHS)
def test_neighbours_that_fit_together_are_joined(text: str, longest: int) -> None:
    pieces = list(cut(text, longest))
    for (start, _), (later, piece) in pairwise(pieces):
        first_paragraph = re.split(r"\n\s*\n", piece)[0].rstrip()
        assert later + len(first_paragraph) - start > longest or not re.search(r"\n\s*\n", text[start:later])


def test_short_paragraphs_are_joined_up_to_the_limit() -> None:
    text = "one\n\ntwo\n\nthree\n\nfour"
    assert list(cut(text, 8)) == [(0, "one\n\ntwo"), (10, "three"), (17, "four")]
    assert list(cut(text)) == [(0, text)]


def test_a_paragraph_of_one_character_ends_where_it_ends() -> None:
    assert list(cut("?\n\n? long", 6)) == [(0, "?"), (3, "? long")]


@pytest.mark.parametrize(
    ("text", "longest", "pieces"),
    [
        pytest.param("One two. Three four. Five.", 20, ["One two.", "Three four. Five."], id="between sentences"),
        pytest.param("one two three four", 9, ["one two", "three", "four"], id="between words"),
        pytest.param("abcdefghij", 4, ["abcd", "efgh", "ij"], id="inside a word"),
        pytest.param("short\n\n" + "long " * 4, 10, ["short", "long long", "long long"], id="only the long paragraph"),
        pytest.param(" \n\n\t ", 4, [], id="only spaces"),
        pytest.param("", 4, [], id="nothing"),
    ],
)
def test_long_paragraphs_are_cut(text: str, longest: int, pieces: list[str]) -> None:
    assert [piece for _, piece in cut(text, longest)] == pieces


def test_cutting_long_runs_of_spaces_takes_no_time() -> None:
    text = ("word" + " " * 20_000 + "\n" + " " * 20_000) * 5 + "end"
    assert "".join("".join(piece.split()) for _, piece in cut(text)) == "word" * 5 + "end"


def test_ids_are_stable_and_unique_also_for_repeated_paragraphs(tmp_path: Path) -> None:
    file, twin = tmp_path / "a.txt", tmp_path / "b.txt"
    repeated = "the same again " * 40
    file.write_text("\n\n".join([repeated] * 3), encoding="utf-8")
    twin.write_text(repeated, encoding="utf-8")
    before = list(passages_of([tmp_path]))
    assert [passage.text for passage in before] == [repeated.strip()] * 4
    assert len({passage.id for passage in before}) == 4
    assert list(passages_of([tmp_path])) == before
    file.write_text("\n\n".join(["A new beginning. " * 30, *[repeated] * 3]), encoding="utf-8")
    after = list(passages_of([file]))
    assert [passage.id for passage in after[1:]] == [passage.id for passage in before[:3]]
    assert after[0].id not in {passage.id for passage in before}
    assert after[1].start > before[0].start


def test_a_passage_knows_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    content = "\n\nFörst.\r\n\r\n" + "Words and words. " * 200
    file.write_text(content, encoding="utf-8", newline="")
    read = file.read_text(encoding="utf-8")
    passages = list(passages_of([file]))
    assert len(passages) > 1
    for passage in passages:
        assert passage.source == str(file)
        assert len(passage.text) <= LONGEST
        assert read[passage.start :].startswith(passage.text)


def test_folders_give_their_text_files_sorted(tmp_path: Path) -> None:
    names = ["b.txt", "a.md", "UPPER.MD", "deep/er/c.rst", "deep/d.text", "no.py", "no", "folder.txt/inner.txt"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}", encoding="utf-8")
    found = [path.relative_to(tmp_path).as_posix() for path in files_below([tmp_path])]
    assert sorted(found) == sorted(name for name in names if not name.startswith("no"))
    assert found == [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path / name for name in found)]
    assert list(files_below([tmp_path / "no.py", tmp_path / "no"])) == [tmp_path / "no.py", tmp_path / "no"]


def test_what_is_empty_gives_no_passages(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "spaces.md").write_text(" \n\n ", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    assert list(passages_of([tmp_path])) == []
    assert list(passages_of([tmp_path / "folder"])) == []
    assert list(passages_of([])) == []


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing does not exist.*\.md, \.rst"):
        list(passages_of([tmp_path / "missing"]))


def test_a_file_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is no UTF-8 text .*leave it out"):
        list(passages_of([tmp_path]))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.txt").touch()
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"secret\.txt cannot be read \(Permission denied\)"):
        list(passages_of([tmp_path]))


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in (".git/config.txt", ".hidden.md", "seen.md", "a/.venv/readme.txt", "a/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [str(found.relative_to(tmp_path)) for found in files_below([tmp_path])] == ["a/b.txt", "seen.md"]
    assert [found.name for found in files_below([tmp_path / ".hidden.md"])] == [".hidden.md"]
