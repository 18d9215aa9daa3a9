"""Source: a numpy array of vectors, in memory or in a file, with texts beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, cast
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from rarebit.arrays import Vectors, VectorsLike, as_vectors
from rarebit.errors import InputError, VectorError
from rarebit.retrievers.importing.passage_files import PassageFile
from rarebit.retrievers.importing.plain import plain_metadata
from rarebit.retrievers.importing.records import VECTORS, Passage, derived_id
from rarebit.retrievers.importing.source import Ranking, Rows

SUFFIXES = (".npy", ".npz")
FilePath: TypeAlias = str | os.PathLike[str]


class NumpySource:
    """Vectors as a matrix, and a text for each.

    Args:
        vectors: (n, dim) numbers of any kind; or the path of an ``.npy`` file, which is not read into memory, or of an
            ``.npz`` file with one array, or one called ``vectors``. Files with Python objects are refused.
        texts: n texts; or the path of a file with n lines of JSON (``.jsonl``), a JSON list (``.json``) or n plain lines
            (``.txt``). An object in JSON has a text, perhaps an id, and metadata.
        metadatas: n dictionaries, or None; not with a file of texts.
        ids: n strings, each once. Left out, an id is derived from a row's place and content, so that the same array can be
            imported again, or an import resumed, without doubles, and no row is lost where two have the same content.
        name: for messages.
        text_column: the field of the text, in JSON objects.
        id_column: the field of the id, in JSON objects.

    Raises:
        InputError: not one text a vector, or files that cannot be read.
    """

    ranked_by: Ranking | None = None

    def __init__(
        self,
        vectors: VectorsLike | FilePath,
        texts: Sequence[str | None] | FilePath,
        metadatas: Sequence[Mapping[str, Any] | None] | None = None,
        ids: Sequence[str] | None = None,
        *,
        name: str | None = None,
        text_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        """Look at what is given, and count."""
        if isinstance(vectors, (str, os.PathLike)):
            self.name = name or Path(vectors).name
            self._vectors = _loaded(Path(vectors))
        else:
            self.name = name or "array"
            self._vectors = _as_array(cast("VectorsLike", vectors))
        if self._vectors.ndim != 2:
            raise VectorError(f"{self.name} has the shape {self._vectors.shape}, wanted (n, dimension)")
        self.count = len(self._vectors)
        if isinstance(texts, (str, os.PathLike)):
            if metadatas is not None or ids is not None:
                raise InputError("got a file of texts together with metadatas or ids, wanted either: put them into its lines")
            file = PassageFile(Path(texts), text_column, id_column)
            self._passages: Iterable[Passage] = file
            self._check_count("texts", file.count)
        else:
            self._passages = self._listed(texts, metadatas, ids)

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows in the order of the array."""
        passages = iter(self._passages)
        for start in range(0, self.count, size):
            vectors = as_vectors(self._vectors[start : start + size])
            part = list(islice(passages, size))
            yield Rows(_ids(part, start, vectors), vectors, [each.text for each in part], [each.metadata for each in part])

    def _listed(
        self,
        texts: Sequence[str | None],
        metadatas: Sequence[Mapping[str, Any] | None] | None,
        ids: Sequence[str] | None,
    ) -> list[Passage]:
        for name, given in (("texts", texts), ("metadatas", metadatas), ("ids", ids)):
            if given is not None:
                self._check_count(name, len(given))
        keys = [None] * self.count if ids is None else list(ids)
        given = [None] * self.count if metadatas is None else list(metadatas)
        named = zip(keys, texts, given, strict=True)
        return [
            Passage(key, text, plain_metadata(metadata, f"number {place}" if key is None else key))
            for place, (key, text, metadata) in enumerate(named)
        ]

    def _check_count(self, name: str, count: int) -> None:
        if count != self.count:
            raise InputError(f"{self.name} has {self.count:,} vectors, and there are {count:,} {name}: wanted one a vector")


def _ids(passages: Sequence[Passage], start: int, vectors: Vectors) -> list[str]:
    pairs = zip(passages, vectors, strict=True)
    return [
        derived_id(start + place, passage, vector) if passage.id is None else passage.id
        for place, (passage, vector) in enumerate(pairs)
    ]


def _as_array(given: VectorsLike) -> npt.NDArray[Any]:
    return given if isinstance(given, np.ndarray) else as_vectors(given)


def _loaded(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"got {path}, wanted an array in a file that ends in one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix.lower() == ".npy":
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _matrix_in(arrays, path)
    except (OSError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}), wanted a file that numpy wrote") from error
    except (ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no array of numbers that can be read without unpickling ({error}): save it as float32"
        ) from error


def _matrix_in(file: Any, path: Path) -> npt.NDArray[Any]:
    found = [name for name in VECTORS if name in file] or list(file)
    if len(found) != 1:
        raise InputError(f"{path} holds the arrays {found}, wanted one, or one that is called 'vectors'")
    matrix: npt.NDArray[Any] = file[found[0]]
    return matrix
