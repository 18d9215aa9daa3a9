"""Text files as passages: what ``rarebit index`` reads, and how long texts are cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from rarebit.errors import InputError

SUFFIXES: Final = (".md", ".rst", ".text", ".txt")
LONGEST: Final = 1000
"""Characters of the longest passage: about 200 tokens, which a small encoder still reads to the end."""


@dataclass(frozen=True)
class Passage:
    """A piece of a file; the id is a hash of file and content, so the same piece always has the same id."""

    id: str
    text: str
    source: str
    start: int
    """Character of the file at which it begins."""


def passages_of(paths: Iterable[Path]) -> Iterator[Passage]:
    """Cut files, and all text files below folders, into passages.

    Raises:
        InputError: a path that does not exist, or a file that is no UTF-8 text or cannot be read.
    """
    for path in files_below(paths):
        seen: dict[str, int] = {}
        for start, text in cut(_read(path)):
            copy = seen[text] = seen.get(text, 0) + 1
            key = sha256("\0".join((str(path), text, str(copy))).encode()).hexdigest()[:32]
            yield Passage(key, text, str(path), start)


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Give the files themselves, and the text files below folders, sorted; hidden files and folders are passed over."""
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if _is_open_text(found, path) and found.is_file())
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path} does not exist, wanted a text file or a folder of text files ({', '.join(SUFFIXES)})")


def _is_open_text(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def cut(text: str, longest: int = LONGEST) -> Iterator[tuple[int, str]]:
    """Cut a text into pieces of at most ``longest`` characters: (start, piece).

    Paragraphs stay whole and short ones are joined; a paragraph that is too long is cut between sentences, then words.
    """
    start = end = 0
    for piece_start, piece_end in _pieces(text, longest):
        if end > start and piece_end - start > longest:
            yield start, text[start:end]
            start = piece_start
        elif end == start:
            start = piece_start
        end = piece_end
    if end > start:
        yield start, text[start:end]


def _pieces(text: str, longest: int) -> Iterator[tuple[int, int]]:
    for paragraph in re.finditer(r"\S(?:.*?\S)??(?=\s*\n\s*\n|\s*\Z)", text, flags=re.DOTALL):
        yield from _short_enough(text, paragraph.start(), paragraph.end(), longest)


def _short_enough(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """Cut one paragraph at the last sentence end, else the last space, that keeps a piece short enough."""
    while end - start > longest:
        window = text[start : start + longest]
        ends = [found.end() for found in re.finditer(r"[.!?](?=\s)", window)] or [
            found.start() for found in re.finditer(r"\s", window)
        ]
        stop = start + (ends[-1] if ends and ends[-1] > 0 else longest)
        yield start, start + len(text[start:stop].rstrip())
        start = stop
        while start < end and text[start].isspace():
            start += 1
    if end > start:
        yield start, end


def _read(path: Path) -> str:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"got a file whose name is no Unicode text ({str(path)!r}): leave it out or rename it") from error
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error}), wanted text files: leave it out or convert it") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}), wanted text files: check its permissions") from error
