"""References: what was signed is read, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rarebit.compressors.context import Reference, References
from rarebit.compressors.context.references import LONGEST_LABEL, digest_of
from rarebit.errors import InputError

SECRET = b"a secret of more than sixteen bytes"
OURS = References("file\0tenant", SECRET)

texts = st.text(max_size=60)
keys = st.text(max_size=40)


@given(key=keys, text=texts, label=texts, before=texts, after=texts)
@example(key="a]]b", text="t", label="one\ntwo ]] [[rarebit: |", before="[", after="]")
@example(key="", text="", label="\x85\u2028 \x1c", before="[[rarebit:", after="")
def test_what_is_written_is_read(key: str, text: str, label: str, before: str, after: str) -> None:
    written = OURS.write(key, text, label)
    reference = Reference(key, digest_of(text), written)
    assert OURS.read(written) == [reference]
    parts = OURS.read(f"{before}{written}{after}{written}")
    assert [part for part in parts if isinstance(part, Reference)] == [reference, reference]
    assert "".join(part if isinstance(part, str) else part.written for part in parts) == f"{before}{written}{after}{written}"
    assert "" not in parts


@given(label=texts)
def test_labels_are_one_short_line_without_brackets(label: str) -> None:
    written = OURS.write("key", "text", label)
    body = written.removeprefix("[[").removesuffix("]]")
    assert not {"[", "]", "\n"} & set(body)
    shown = body.partition("|")[2]
    assert len(shown) <= LONGEST_LABEL


def test_a_label_is_cut_where_it_is_too_long() -> None:
    written = OURS.write("key", "text", "word " * 40)
    assert written.endswith("word…]]")


@given(key=keys, text=texts, place=st.integers(0, 10_000), other=st.characters(codec="utf-8"))
def test_an_altered_character_makes_it_text(key: str, text: str, place: int, other: str) -> None:
    written = OURS.write(key, text)
    place %= len(written)
    altered = written[:place] + other + written[place + 1 :]
    if altered != written:
        assert OURS.read(altered) == [altered]


@given(key=keys, text=texts)
def test_every_flipped_bit_and_every_cut_makes_it_text(key: str, text: str) -> None:
    written = OURS.write(key, text)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place, letter in enumerate(written):
        if letter in alphabet:
            altered = written[:place] + alphabet[alphabet.index(letter) ^ 1] + written[place + 1 :]
            assert OURS.read(altered) == [altered]
        assert OURS.read(written[:place] + written[place + 1 :]) == [written[:place] + written[place + 1 :]]
        assert OURS.read(written[:place]) == [written[:place]]


def test_the_label_is_for_people_and_changes_nothing() -> None:
    written = OURS.write("key", "text", "label")
    (read,) = OURS.read(written.replace("|label", "|another"))
    assert isinstance(read, Reference)
    assert (read.id, read.digest) == ("key", digest_of("text"))
    broken = written.replace("|label", "|la\nbel")
    assert OURS.read(broken) == [broken]


@pytest.mark.parametrize(
    "others",
    [
        References("file\0another tenant", SECRET),
        References("another file\0tenant", SECRET),
        References("file\0tenant", SECRET + b"!"),
        References("file\0tenant"),
    ],
    ids=["tenant", "file", "secret", "process"],
)
def test_references_of_others_are_text(others: References) -> None:
    written = others.write("key", "text", "label")
    assert OURS.read(written) == [written]
    assert others.read(written) != [written]


def test_signatures_do_not_pass_from_one_passage_to_another() -> None:
    one, other = OURS.write("one", "text"), OURS.write("two", "changed")
    key, signed = one[len("[[rarebit:") : -2].split(".")
    other_key, other_signed = other[len("[[rarebit:") : -2].split(".")
    for forged in (f"{key}.{other_signed}", f"{other_key}.{signed}", f"{key}.{signed[:12]}{other_signed[12:]}"):
        assert OURS.read(f"[[rarebit:{forged}]]") == [f"[[rarebit:{forged}]]"]


@given(text=st.lists(st.sampled_from(["[[", "]]", "rarebit:", "[[rarebit:", ".", "|", "a", "é", "\n", "A" * 32])).map("".join))
@example(text="[[rarebit:_.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA]]")
@example(text="[[rarebit:_w.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA]]")
@example(text="")
def test_look_alikes_are_unchanged(text: str) -> None:
    assert OURS.read(text) == [text]


@pytest.mark.unchecked
@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 15, "a text of more than sixteen characters"])
def test_a_secret_that_is_none_is_refused(secret: bytes) -> None:
    with pytest.raises(InputError, match="at least 16 bytes"):
        References("", secret)


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(OURS)
    assert SECRET.decode() not in repr(vars(OURS))


def test_two_processes_with_the_same_secret_agree() -> None:
    script = (
        "from rarebit.compressors.context import References\n"
        f"print(References('belonging', {SECRET!r}).write('key', 'text'), References('belonging').write('key', 'text'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    shared, own = done.stdout.split()
    assert shared == References("belonging", SECRET).write("key", "text")
    assert own != References("belonging").write("key", "text")


def test_within_a_process_the_secret_stays() -> None:
    assert References("a").read(References("a").write("key", "text"))[0] == Reference(
        "key", digest_of("text"), References("a").write("key", "text")
    )
