"""Which source is this? Known from the path, or from the object."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rarebit.errors import InputError
from rarebit.retrievers.importing import numpy_arrays, parquet
from rarebit.retrievers.importing.chroma import DATABASE, ChromaSource
from rarebit.retrievers.importing.llama_index_json import DEFAULT_VECTOR_STORE, VECTOR_STORE, LlamaIndexSource
from rarebit.retrievers.importing.numpy_arrays import NumpySource
from rarebit.retrievers.importing.parquet import ParquetSource
from rarebit.retrievers.importing.source import Source

Kind: TypeAlias = Literal["chroma", "llama-index", "numpy", "parquet"]

OPTIONS: Mapping[Kind, tuple[str, ...]] = {
    "chroma": ("name",),
    "llama-index": ("docstore",),
    "numpy": ("texts", "text_column", "id_column"),
    "parquet": ("vector_column", "text_column", "id_column"),
}
OPENERS: Mapping[Kind, Callable[..., Source]] = {
    "chroma": ChromaSource.at,
    "llama-index": LlamaIndexSource,
    "numpy": NumpySource,
    "parquet": ParquetSource,
}
PICKLED = (".pkl", ".pickle", ".faiss")


def source_of(given: Any, kind: Kind | None = None, **options: Any) -> Source:
    """Make a source of a path, of a Chroma collection, or of what is one already.

    Args:
        given: a path; a collection of chromadb; or a source.
        kind: what is at the path; guessed if left out.
        options: of that kind's source: ``texts`` (numpy), ``name`` (Chroma: of the collection), ``docstore`` (LlamaIndex),
            ``vector_column`` (Parquet), ``text_column`` and ``id_column`` (numpy and Parquet).

    Raises:
        InputError: it is none of these, or takes no such option; only a path takes any.
        MissingExtraError: what reads it is not installed.
    """
    named = {name: value for name, value in options.items() if value is not None}
    if not isinstance(given, (str, os.PathLike)):
        source, told = _of_object(given), [*(["kind"] if kind else []), *named]
        if told:
            raise InputError(f"got {told} for a {type(given).__name__}, wanted them with a path only: leave them out")
        return source
    path = Path(given)
    kind = kind or kind_at(path)
    if kind not in OPTIONS:
        raise InputError(f"got kind={kind!r}, wanted one of {list(OPTIONS)}: name what is at {path}, or leave it out")
    unknown = sorted(named.keys() - set(OPTIONS[kind]))
    if unknown:
        raise InputError(f"got {unknown} for a source of kind {kind!r}, which takes {list(OPTIONS[kind])}: leave them out")
    if kind == "numpy" and "texts" not in named:
        raise InputError(f"got {path} without texts, wanted a file of texts beside it, one a vector: pass texts (--texts)")
    return OPENERS[kind](path, **named)


def kind_at(path: Path) -> Kind:
    """Guess what is at a path.

    Raises:
        InputError: nothing is, or nothing that can be imported.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist, wanted something to import")
    if path.suffix.lower() in PICKLED or (path.is_dir() and any(path.glob("*.faiss"))):
        raise InputError(
            f"{path} is a FAISS store, whose texts are in a pickle, and a pickle can run any code: it is not opened here. If "
            "you trust it, load it in your own code with FAISS.load_local, and pass the object to "
            "RarebitVectorStore.from_store (rarebit.integrations.langchain)"
        )
    suffix = path.suffix.lower()
    if path.is_dir():
        return _kind_of_folder(path)
    if suffix in parquet.SUFFIXES:
        return "parquet"
    if suffix in numpy_arrays.SUFFIXES:
        return "numpy"
    if path.name.endswith(VECTOR_STORE):
        return "llama-index"
    if path.name == DATABASE:
        raise InputError(f"{path} belongs to a folder of Chroma's, wanted the folder: {path.parent}")
    raise InputError(f"{path} is of no kind that is known by its name, wanted one of {list(OPENERS)}: say which (--from)")


def _kind_of_folder(path: Path) -> Kind:
    if (path / DATABASE).is_file():
        return "chroma"
    if any((path / name).is_file() for name in (DEFAULT_VECTOR_STORE, VECTOR_STORE)):
        return "llama-index"
    if any(found.suffix.lower() in parquet.SUFFIXES for found in path.iterdir()):
        return "parquet"
    raise InputError(
        f"the folder {path} has neither {DATABASE} nor {DEFAULT_VECTOR_STORE} nor Parquet files, wanted a store of Chroma's or "
        "LlamaIndex's, or Parquet"
    )


def _of_object(given: Any) -> Source:
    if isinstance(given, Source):
        return given
    if type(given).__module__.partition(".")[0] == "chromadb" and hasattr(given, "get"):
        return ChromaSource(given)
    raise InputError(
        f"got a {type(given).__name__}, wanted a path, a collection of chromadb, or a source of rarebit.retrievers.importing, "
        "such as NumpySource(vectors, texts); stores of LangChain and LlamaIndex are taken by from_store of their adapter"
    )
