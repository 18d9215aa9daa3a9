"""Which source a path or an object is."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit.errors import InputError
from rarebit.retrievers.importing import NumpySource, source_of
from rarebit.retrievers.importing.opening import kind_at


@pytest.mark.parametrize(
    ("names", "path", "kind"),
    [
        (["x.parquet"], "x.parquet", "parquet"),
        (["x.PQ"], "x.PQ", "parquet"),
        (["a.parquet", "b.txt"], ".", "parquet"),
        (["x.npy"], "x.npy", "numpy"),
        (["x.npz"], "x.npz", "numpy"),
        (["chroma.sqlite3"], ".", "chroma"),
        (["default__vector_store.json", "docstore.json"], ".", "llama-index"),
        (["vector_store.json"], ".", "llama-index"),
        (["image__vector_store.json"], "image__vector_store.json", "llama-index"),
    ],
)
def test_kinds_are_guessed(tmp_path: Path, names: list[str], path: str, kind: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert kind_at(tmp_path / path) == kind


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("path", ["", "index.pkl", "index.faiss"])
def test_a_pickle_is_never_opened(tmp_path: Path, path: str) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(Trap(sprung)))
    (tmp_path / "index.faiss").touch()
    with pytest.raises(InputError, match=r"FAISS.load_local.*RarebitVectorStore.from_store"):
        source_of(tmp_path / path)
    assert not sprung.exists()


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.save(tmp_path / "v.npy", np.array([[Trap(sprung)]], dtype=object))
    (tmp_path / "t.txt").write_text("t")
    with pytest.raises(InputError, match="without unpickling"):
        source_of(tmp_path / "v.npy", texts=tmp_path / "t.txt")
    assert not sprung.exists()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none", {}, "none does not exist"),
        ("x.csv", {}, r"x.csv is of no kind .*wanted one of \['chroma', 'llama-index', 'numpy', 'parquet'\]"),
        ("empty", {}, "has neither chroma.sqlite3 nor"),
        ("chroma.sqlite3", {}, "wanted the folder"),
        ("x.npy", {}, "without texts"),
        ("x.npy", {"texts": "t.txt", "name": "a", "vector_column": "v"}, r"\['name', 'vector_column'\] .*'numpy', which takes"),
        ("x.parquet", {"texts": "t.txt"}, r"\['texts'\] for a source of kind 'parquet'"),
        ("x.parquet", {"kind": "lance"}, r"kind='lance', wanted one of \['chroma', 'llama-index', 'numpy', 'parquet'\]"),
    ],
)
def test_what_is_no_source(tmp_path: Path, name: str, options: dict[str, str], message: str) -> None:
    for file in ("x.csv", "x.npy", "x.parquet", "chroma.sqlite3"):
        (tmp_path / file).touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        source_of(tmp_path / name, **options)


def test_objects() -> None:
    source = NumpySource([[1.0]], ["t"])
    assert source_of(source) is source
    for given in (object(), None, [[1.0]]):
        with pytest.raises(InputError, match=f"got a {type(given).__name__}, wanted a path"):
            source_of(given)


def test_objects_are_what_they_are() -> None:
    source = NumpySource([[1.0]], ["t"])
    assert source_of(source, None, texts=None) is source
    for options in ({"kind": "numpy"}, {"texts": ["t"]}):
        with pytest.raises(InputError, match=rf"got \['{next(iter(options))}'\] for a NumpySource, .*a path"):
            source_of(source, **options)  # type: ignore[arg-type]


def test_nothing_heavy_is_loaded() -> None:
    heavy = ("pyarrow", "chromadb", "langchain_core", "llama_index.core", "torch")
    code = f"import sys, rarebit.retrievers.importing; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
