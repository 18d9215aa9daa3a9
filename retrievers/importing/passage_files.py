"""Texts that lie beside an array of vectors: lines of JSON, a JSON list, or plain lines, one a vector."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rarebit.errors import InputError
from rarebit.retrievers.importing.records import IDS, TEXTS, Fields, Passage, field_for

LINES_OF_JSON = (".jsonl", ".ndjson")
SUFFIXES = (*LINES_OF_JSON, ".json", ".txt")
UTF8 = "utf-8-sig"
"""A byte order mark at the beginning is none of the text."""


class PassageFile:
    """A file of texts, read anew for each pass.

    In a JSON file each item is a text, or an object with a text, perhaps an id, and metadata: everything else in it.
    """

    def __init__(self, path: Path, text_field: str | None = None, id_field: str | None = None) -> None:
        """Look at the file, and count.

        Raises:
            InputError: it is no such file.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"got {path.name} for the texts, wanted a file that ends in one of {', '.join(SUFFIXES)}")
        self._path, self._named = path, (text_field, id_field)
        self.count = sum(1 for _ in self._items())

    def __iter__(self) -> Iterator[Passage]:
        """Give the passages in their order."""
        for number, item in enumerate(self._items(), start=1):
            yield self._passage(item, f"{self._path.name}, text {number}")

    def _passage(self, item: Any, place: str) -> Passage:
        if item is None or isinstance(item, str):
            return Passage(None, item, {})
        if not isinstance(item, Mapping):
            raise InputError(f"{place} is a {type(item).__name__}, wanted a text or an object with a text")
        there, (text_field, id_field) = list(item), self._named
        text = field_for("text", text_field, TEXTS, there, place)
        if text is None:
            raise InputError(f"{place} has the fields {there}, and none is called {', '.join(TEXTS)}: name it as text_column")
        return Fields(text, field_for("id", id_field, IDS, there, place)).passage(item, place)

    def _items(self) -> Iterator[Any]:
        suffix = self._path.suffix.lower()
        try:
            if suffix == ".json":
                yield from _listed(self._path)
                return
            with self._path.open(encoding=UTF8) as file:
                yield from _decoded(file, json.loads if suffix in LINES_OF_JSON else str)
        except OSError as error:
            raise InputError(f"{self._path} cannot be read ({error.strerror}), wanted a file of texts") from error
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self._path.name} is no UTF-8 file of this kind ({error}), wanted one item a vector") from error


def _decoded(lines: Iterable[str], decode: Callable[[str], Any]) -> Iterator[Any]:
    """Decode lines; those of JSON may have empty ones between them, in plain text an empty line is an empty text."""
    for line in lines:
        content = line.rstrip("\n")
        if content or decode is str:
            yield decode(content)


def _listed(path: Path) -> list[Any]:
    found = json.loads(path.read_text(encoding=UTF8))
    if not isinstance(found, list):
        raise InputError(f"{path.name} holds a {type(found).__name__}, wanted a list with one item a vector")
    return found
